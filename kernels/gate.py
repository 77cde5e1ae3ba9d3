"""The gate: what passes it is memory that compiled code may read.

What comes from outside need not be what it says: autograd hands over lazy zeros as gradients, a
lazily negated view has the sign of other numbers, FSDP frees a weight's storage, a hook of saved
tensors returns what it likes. A wrong address is no error of Python's, but a crash or wrong
numbers: so whatever a compiled function reads passes here before its address is taken.
"""

import torch

PLAIN = {torch.Tensor, torch.nn.Parameter}  # the types of tensors that have no behaviour of theirs
_STRIDED = torch.strided


def passed(tensors, expected):
    """(the tensors, as ``whole`` gives them; their addresses, 0 for None), if all are plain, and as
    expected: (shape, dtype, bytes) of each. None if not: then ``take`` says what is wrong.

    Of a short call this takes the most time, so no question is asked twice.
    """
    given, found = tensors, []
    for i, (tensor, (shape, dtype, size)) in enumerate(zip(tensors, expected, strict=True)):
        if tensor is None:
            found.append(0)
            continue
        if not (
            type(tensor) in PLAIN
            and tensor.dtype is dtype
            and tensor.is_cpu
            and tensor.layout is _STRIDED
            and not tensor.is_nested
            and tensor.shape == shape
        ):
            return None
        address = tensor.data_ptr()
        if address and tensor.is_contiguous() and not tensor.is_neg():
            storage = tensor.untyped_storage()
            if address + size <= storage.data_ptr() + storage.nbytes():
                found.append(address)
                continue
        if given is tensors:
            given = list(tensors)
        given[i] = _made_whole(tensor)
        found.append(given[i].data_ptr())
    return given, found


def take(tensors, shapes, dtypes):
    """CPU tensors, as ``whole`` gives them, if they are of these shapes and dtypes.

    For what autograd, a user's hook of saved tensors or a program hands over, which need not be
    what forward saw. Raises RuntimeError.
    """
    for tensor, shape, dtype in zip(tensors, shapes, dtypes, strict=True):
        if tensor is not None and (
            tensor.shape != shape or tensor.dtype is not dtype or not tensor.is_cpu
        ):
            raise misfit(tensor, shape, dtype, "cpu")
    return whole(tensors)


def misfit(tensor, shape, dtype, device):
    """The error to raise for a tensor that should be of that shape, dtype and device."""
    return RuntimeError(
        f"fastrnn was given a {tensor.dtype} tensor of shape {tuple(tensor.shape)} on "
        f"{tensor.device} where the other tensors ask for {dtype} of shape {tuple(shape)} on "
        f"{device}. Between forward and backward the data of inputs and parameters, and what a "
        "hook of saved tensors returns, must keep shape, dtype and device."
    )


def whole(tensors):
    """Strided CPU tensors (or None): contiguous, their numbers in memory as they are meant.

    That is ``tensors`` itself where all of them are so already. Raises RuntimeError where the
    memory of one is not there.
    """
    found = tensors
    for i, tensor in enumerate(tensors):
        if tensor is None:
            continue
        address = tensor.data_ptr()  # 0 for lazy zeros, and for tensors of a class of its own
        if address and tensor.is_contiguous() and not tensor.is_neg():
            storage = tensor.untyped_storage()
            if address + tensor.nbytes <= storage.data_ptr() + storage.nbytes():
                continue
        if found is tensors:
            found = list(tensors)
        found[i] = _made_whole(tensor)
    return found


def _made_whole(tensor):
    address = tensor.data_ptr()
    if not address and tensor._is_zerotensor():
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")
    if not tensor.numel():
        return tensor.contiguous()
    last = sum([(n - 1) * by for n, by in zip(tensor.shape, tensor.stride(), strict=True)])
    end = (tensor.storage_offset() + last + 1) * tensor.itemsize
    size = tensor.untyped_storage().nbytes()
    if size < end or not address:
        raise RuntimeError(
            f"a {tensor.dtype} tensor of shape {tuple(tensor.shape)} has no memory, or too little: "
            f"it needs {end} bytes, and its storage has {size}. Its storage was freed "
            "or made smaller (as FSDP does with weights outside of forward), or it is of a class "
            f"whose numbers are elsewhere ({type(tensor).__name__})."
        )
    return (tensor.resolve_neg() if tensor.is_neg() else tensor).contiguous()
