"""The gate: what passes it is memory that compiled code may read.

What comes from outside need not be what it says: autograd hands over lazy zeros as gradients, a
lazily negated view has the sign of other numbers, FSDP frees a weight's storage, a hook of saved
tensors returns what it likes. A wrong address is no error of Python's, but a crash or wrong
numbers: so whatever a compiled function reads passes here before its address is taken.
"""

import torch


def take(tensor, shape, dtype):
    """``tensor`` as ``whole`` gives it, if it is on CPU, of that shape and dtype. None stays None.

    What comes from outside passes here before its address is taken: what a user, autograd or a
    hook of saved tensors hands us need not be what we gave. Raises RuntimeError.
    """
    if tensor is None:
        return None
    if tensor.shape != shape or tensor.dtype is not dtype or not tensor.is_cpu:
        raise RuntimeError(
            f"fastrnn was given a {tensor.dtype} tensor of shape {tuple(tensor.shape)} on "
            f"{tensor.device} where the other tensors ask for {dtype} of shape {tuple(shape)} on "
            "cpu. Between forward and backward the data of inputs and parameters, and what a hook "
            "of saved tensors returns, must keep shape, dtype and device."
        )
    return whole(tensor)


def whole(tensor):
    """A strided CPU tensor (or None): contiguous, its numbers in memory as they are meant.

    Raises RuntimeError where the memory is not there.
    """
    if tensor is None:
        return None
    address = tensor.data_ptr()  # 0 for lazy zeros, and for tensors of a class of its own
    if address and tensor.is_contiguous() and not tensor.is_neg():
        storage = tensor.untyped_storage()
        if address + tensor.nbytes <= storage.data_ptr() + storage.nbytes():
            return tensor
    return _made_whole(tensor)


def _made_whole(tensor):
    if tensor._is_zerotensor():
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")
    if not tensor.numel():
        return tensor.contiguous()
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    end = (tensor.storage_offset() + last + 1) * tensor.itemsize
    storage = tensor.untyped_storage()
    if storage.nbytes() < end or not tensor.data_ptr():
        raise RuntimeError(
            f"a {tensor.dtype} tensor of shape {tuple(tensor.shape)} has no memory, or too little: "
            f"it needs {end} bytes, and its storage has {storage.nbytes()}. Its storage was freed "
            "or made smaller (as FSDP does with weights outside of forward), or it is of a class "
            f"whose numbers are elsewhere ({type(tensor).__name__})."
        )
    return tensor.resolve_neg().contiguous()
