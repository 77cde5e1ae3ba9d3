"""Functions that torch.compile must leave alone: those that take the addresses of tensors.

Dynamo enters whatever Python runs while it is active, autograd's backward in the first place. A
function that it has taken apart may free memory before the call that was given its address.
"""

import torch


def untraced(function):
    """``function``, which Dynamo neither enters nor inlines, and nothing that it calls.

    As by torch.compiler.disable, but that loads Dynamo, which takes seconds, and costs a
    microsecond a call. This marks the code itself, through a private interface of torch's; where
    that is missing, torch.compiler.disable it is.
    """
    try:
        from torch._C._dynamo.eval_frame import (
            _FrameAction,
            _FrameExecStrategy,
            set_code_exec_strategy,
        )
    except ImportError:
        return torch.compiler.disable(function)
    skip = _FrameAction.SKIP
    set_code_exec_strategy(function.__code__, _FrameExecStrategy(skip, skip))
    function._torchdynamo_disable = True  # for a call of it in code that is traced
    return function
