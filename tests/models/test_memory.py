"""What says that memory is full, whoever asked for it."""

import pytest
import torch

from videosafety.models.memory import is_out_of_memory

FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 68719476736 bytes."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other call"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    torch.AcceleratorError("CUDA error: out of memory"),
]


@pytest.mark.parametrize("error", FULL, ids=lambda error: str(error)[:30] or "machine")
def test_memory_that_is_full(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: device-side assert triggered"), KeyError("out of memory"),
                                   RuntimeError("shapes do not fit")], ids=["assert", "key", "shapes"])  # fmt: skip
def test_other_errors(error: Exception) -> None:
    assert not is_out_of_memory(error)
