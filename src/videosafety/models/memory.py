"""Does an error say that memory is full? Of the machine or of a device, whoever asked for it.

PyTorch's own allocator raises ``OutOfMemoryError``. The libraries beside it take device memory by themselves and say so
in words alone, as does the CPU's allocator.

Example:
    >>> is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    True
"""

import torch

SAID = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less at once would help."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SAID)
