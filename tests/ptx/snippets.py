"""A few lines of PTX as a kernel, to try an instruction on."""

import numpy as np
import torch

from .machine import Code, Machine

KERNEL = """
.visible .entry snippet(
{parameters}
)
.reqntid {threads}
{{
{body}
	ret;
}}
"""


def kernel(body, count, threads):
    """The text of a kernel that is given ``count`` tensors; %rd0 to ... point to them, %r99 is the
    thread, %rd99 four times that.
    """
    names = [f"snippet_param_{i}" for i in range(count)]
    parameters = ",\n".join(f"\t.param .u64 .ptr .global .align 1 {name}" for name in names)
    loads = [f"ld.param.b64 %rd{i}, [{name}];" for i, name in enumerate(names)]
    begin = [*loads, "mov.u32 %r99, %tid.x;", "mul.wide.u32 %rd99, %r99, 4;"]
    return KERNEL.format(parameters=parameters, threads=threads, body="\n".join([*begin, body]))


def run(body, *tensors, threads=32, grid=(1, 1, 1), shared=0, **options):
    """Run the lines; what they store is in the tensors then."""
    code = Code(kernel(body, len(tensors), threads), shared)
    Machine(code, grid, list(tensors), **options).run()


def compute(body, *inputs):
    """What the lines leave in %r0 (uint32), a thread for each element.

    inputs: arrays of 32 bits, as long as each other; %r1, %r2, ... are an element of each.
    """
    tensors = [torch.from_numpy(_as_int32(each)) for each in (np.zeros_like(inputs[0]), *inputs)]
    lines = []
    for k in range(1, len(tensors)):
        lines += [f"add.s64 %rd{50 + k}, %rd{k}, %rd99;", f"ld.global.b32 %r{k}, [%rd{50 + k}];"]
    lines += [body, "add.s64 %rd50, %rd0, %rd99;", "st.global.b32 [%rd50], %r0;"]
    run("\n".join(lines), *tensors, threads=len(inputs[0]))
    return tensors[0].numpy().view(np.uint32)


def _as_int32(values):
    return np.ascontiguousarray(values).view(np.int32).copy()
