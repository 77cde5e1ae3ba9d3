"""The PTX emulator's matrices: who holds what, as PTX ISA draws it, against matrix products."""

import numpy as np
import pytest
import torch

from tests.ptx.found import InFlight, Unfenced
from tests.ptx.snippets import compute, run
from tests.ptx.wgmma import places

LANE = np.arange(32)
G, T = LANE // 4, LANE % 4  # "groupID" and "threadID_in_group" of PTX ISA
KINDS = {"bf16": torch.bfloat16, "f16": torch.float16, "tf32": torch.float32}


def bits(tensor):
    """As unsigned integers."""
    size = tensor.element_size()
    return tensor.view({2: torch.int16, 4: torch.int32}[size]).numpy().view(f"u{size}")


def pairs(matrix, row, column):
    """The registers that hold (row, column) and the element after it."""
    return matrix[row, column].astype(np.uint32) | matrix[row, column + 1].astype(np.uint32) << 16


def drawn(kind, *shape):
    """Numbers that the arithmetic has, in float64, and their bits."""
    exact = torch.randint(-8, 9, shape) / 4
    return exact.double().numpy(), bits(exact.to(KINDS[kind]))


def registers_of(kind, a, b):
    """{%r}: of a (16, K) and of b (K, 8), as the figures of mma.m16n8k16 and .m16n8k8 have them."""
    if kind == "tf32":
        return [a[G, T], a[G + 8, T], a[G, T + 4], a[G + 8, T + 4], b[T, G], b[T + 4, G]]
    left = [pairs(a, G + r, 2 * T + c) for c in (0, 8) for r in (0, 8)]
    return left + [pairs(b.T, G, 2 * T + k) for k in (0, 8)]


@pytest.mark.parametrize("kind", KINDS)
def test_mma(kind):
    """d = a @ b + c; thread by thread each of the four numbers of d is looked at."""
    K = 8 if kind == "tf32" else 16
    (a, a_bits), (b, b_bits) = drawn(kind, 16, K), drawn(kind, K, 8)
    c = np.random.default_rng(1).integers(-5, 6, (16, 8))
    where = [(G, 2 * T), (G, 2 * T + 1), (G + 8, 2 * T), (G + 8, 2 * T + 1)]
    inputs = registers_of(kind, a_bits, b_bits) + [c[at].astype(np.float32) for at in where]
    line = (
        f"mma.sync.aligned.m16n8k{K}.row.col.f32.{kind}.{kind}.f32 {{%r20, %r21, %r22, %r23}}, "
        "{%r1, %r2, %r3, %r4}, {%r5, %r6}, {%r7, %r8, %r9, %r10};"
    )
    for n, at in enumerate(where):
        found = compute(f"{line} mov.b32 %r0, %r{20 + n};", *inputs)
        np.testing.assert_array_equal(found.view(np.float32), (a @ b + c)[at])


@pytest.mark.parametrize("trans", [False, True])
def test_ldmatrix_and_stmatrix(trans):
    """Rows of 16 bytes of shared memory: thread 8k + r says where row r of the k-th matrix is."""
    memory = torch.arange(32 * 8, dtype=torch.int16)
    out = torch.zeros(4, 32, dtype=torch.int32)
    suffix = "x4.trans" if trans else "x4"
    body = f"""
        shl.b32 %r1, %r99, 4;
        mul.wide.u32 %rd10, %r99, 16; add.s64 %rd10, %rd0, %rd10;
        ld.global.v4.b32 {{%r2, %r3, %r4, %r5}}, [%rd10];
        st.shared.v4.b32 [%r1], {{%r2, %r3, %r4, %r5}};
        bar.sync 0;
        ldmatrix.sync.aligned.m8n8.{suffix}.shared.b16 {{%r2, %r3, %r4, %r5}}, [%r1];
        add.s64 %rd11, %rd1, %rd99;
        st.global.b32 [%rd11], %r2; st.global.b32 [%rd11+128], %r3;
        st.global.b32 [%rd11+256], %r4; st.global.b32 [%rd11+384], %r5;
        bar.sync 0;
        stmatrix.sync.aligned.m8n8.{suffix}.shared.b16 [%r1+512], {{%r2, %r3, %r4, %r5}};
        bar.sync 0;
        ld.shared.v4.b32 {{%r2, %r3, %r4, %r5}}, [%r1+512];
        st.global.v4.b32 [%rd10], {{%r2, %r3, %r4, %r5}};
    """
    before = memory.clone()
    run(body, memory, out, shared=1024)
    matrices = bits(before).reshape(4, 8, 8)
    matrices = matrices.swapaxes(1, 2) if trans else matrices
    for matrix, found in zip(matrices, bits(out), strict=True):
        np.testing.assert_array_equal(found, pairs(matrix, G, 2 * T))
    assert torch.equal(memory, before)  # stmatrix has put them where ldmatrix found them


PRODUCT = """
    mul.wide.u32 %rd10, %r99, 16; add.s64 %rd10, %rd0, %rd10; shl.b32 %r1, %r99, 4;
    ld.global.v4.b32 {{%r2, %r3, %r4, %r5}}, [%rd10];
    st.shared.v4.b32 [%r1], {{%r2, %r3, %r4, %r5}};
    ld.global.v4.b32 {{%r2, %r3, %r4, %r5}}, [%rd10+2048];
    st.shared.v4.b32 [%r1+2048], {{%r2, %r3, %r4, %r5}};
    {fence}
    bar.sync 0;
    {late}
    mov.b32 %r10, 0; mov.b32 %r11, 0; mov.b32 %r12, 0; mov.b32 %r13, 0;
    mov.b64 %rd20, {a}; mov.b64 %rd21, {b};
    wgmma.fence.sync.aligned;
    {unit} {{%r10,%r11,%r12,%r13}}, %rd20, %rd21, 0, 1, 1, 0, 0;
    wgmma.commit_group.sync.aligned;
    {wait}
    add.s64 %rd11, %rd1, %rd99;
"""


def product(**changes):
    """a (64, 16) @ b (8, 16).T where neither is swizzled: eight rows of 16 bytes lie together.

    What lies 16 bytes on along K is 128 bytes away, the next eight rows are 256.
    """
    (a, a_bits), (b, b_bits) = drawn("bf16", 64, 16), drawn("bf16", 8, 16)
    memory = np.zeros(4096 // 2, np.uint16)
    rows, k = np.arange(64)[:, None], np.arange(16)[None, :]
    at = rows // 8 * 128 + k // 8 * 64 + rows % 8 * 8 + k % 8
    memory[at], memory[1024 + at[:8]] = a_bits, b_bits
    descriptor = (128 >> 4 << 16) | (256 >> 4 << 32)
    filled = {
        "a": descriptor,
        "b": descriptor | 2048 >> 4,
        "fence": "fence.proxy.async.shared::cta;",
        "late": "",
        "unit": "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16",
        "wait": "wgmma.wait_group.sync.aligned 0;",
    }
    body = PRODUCT.format(**filled | changes)
    out = torch.zeros(4, 128)
    stores = [f"st.global.b32 [%rd11+{512 * n}], %r{10 + n};" for n in range(4)]
    given = torch.from_numpy(memory.view(np.int16).copy())
    run(body + "\n".join(stores), given, out, threads=128, shared=4096)
    thread = np.arange(128)
    row, column = thread // 32 * 16 + thread % 32 // 4, 2 * (thread % 4)
    for n in range(4):
        expected = (a @ b.T)[row + 8 * (n // 2), column + n % 2]
        np.testing.assert_array_equal(out[n].numpy(), expected)


def test_wgmma():
    product()


def test_wgmma_without_a_fence():
    with pytest.raises(Unfenced, match="line"):
        product(fence="")


def test_wgmma_with_a_fence_that_comes_late():
    """After the barrier: whoever reads then may not know of it."""
    with pytest.raises(Unfenced, match="line"):
        product(fence="bar.sync 0;", late="fence.proxy.async.shared::cta;")


def test_wgmma_without_a_wait():
    with pytest.raises(InFlight, match=r"st\.global"):
        product(wait="")


@pytest.mark.parametrize(("swizzle", "width", "rows"), [(1, 128, 1), (2, 64, 2), (3, 32, 4)])
@pytest.mark.parametrize("transposed", [False, True])
def test_swizzles(swizzle, width, rows, transposed):
    """As PTX ISA's figures have it: of eight rows of ``width`` bytes, the 16 bytes that are c-th in
    row r are where the (c ^ r)-th would be; in narrower ones r counts 2 or 4 rows as one.
    """
    lead, stride = 16 * width, 64 * width
    descriptor = 1024 >> 4 | lead >> 4 << 16 | stride >> 4 << 32 | swizzle << 62
    r, k = np.arange(64)[:, None], np.arange(16)[None, :]
    if transposed:
        block, line, group, along = r // (width // 2) * lead, k % 8, k // 8, r % (width // 2)
    else:
        block, line, group, along = 0, r % 8, r // 8, k
    chunk = along // 8 ^ line // rows
    expected = 1024 + block + group * stride + line * width + chunk * 16 + along % 8 * 2
    np.testing.assert_array_equal(places(descriptor, 64, 16, 2, transposed), expected)
