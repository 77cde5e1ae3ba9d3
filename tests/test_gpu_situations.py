"""Where nothing may be tried: without a GPU."""

import pytest
import torch
from conftest import run_python
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from fastrnn.gpu import when


def test_nothing_is_in_the_way_of_a_plain_call():
    assert when.hindrance() is None
    with torch.no_grad():
        assert when.hindrance() is None


def in_backward(look):
    x = torch.ones(1, requires_grad=True)
    y = x * 2
    y.register_hook(lambda grad: look())
    y.sum().backward()


def in_checkpointing(look):
    """Whose forward is run again in backward."""

    def run(x):
        if torch._C._current_graph_task_id() != -1:
            look()
        return x.exp()

    x = torch.ones(1, requires_grad=True)
    torch.utils.checkpoint.checkpoint(run, x, use_reentrant=False).sum().backward()


def in_vmap(look):
    torch.vmap(lambda x: look() or x)(torch.zeros(2))


def in_grad(look):
    torch.func.grad(lambda x: look() or x.sum())(torch.zeros(2))


def in_forward_ad(look):
    with forward_ad.dual_level():
        look()


def in_jit_trace(look):
    torch.jit.trace(lambda x: look() or x + 1, torch.zeros(2), check_trace=False)


def in_a_mode(look):
    with TorchDispatchMode():
        look()


def in_capture(look):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("is_initialized", "is_current_stream_capturing"):
            patch.setattr(torch.cuda, name, lambda: True)
        look()


def under_torchrun(look):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        look()


SITUATIONS = [
    in_backward, in_checkpointing, in_vmap, in_grad, in_forward_ad, in_jit_trace, in_a_mode,
    in_capture, under_torchrun,
]  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
def test_what_is_in_the_way(situation):
    seen = []
    situation(lambda: seen.append(when.hindrance()))
    assert seen
    assert all(seen)
    assert when.hindrance() is None


RANKS = """
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from fastrnn.gpu import when
for count in (1, 2):
    dist.init_process_group("fake", rank=0, world_size=count, store=FakeStore())
    print(when.hindrance())
    dist.destroy_process_group()
"""


def test_ranks():
    """A process group of one is a process like any other."""
    assert run_python(RANKS)[0].splitlines() == ["None", "there are other ranks"]


FORK = """
import os
from fastrnn.gpu import when
if (child := os.fork()) == 0:
    print(when.hindrance(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(when.hindrance())
"""


def test_a_forked_child():
    assert run_python(FORK)[0].splitlines() == ["this is a forked process", "None"]
