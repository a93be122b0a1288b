"""An accelerator for tests: the GPU, or where there is none a pretend one, whose tensors live on the CPU.

What goes wrong first on a GPU is a mask, an index or a weight made on the CPU that meets a tensor of the device. Here
such a meeting raises as it does under CUDA: tensors of both devices in one operation, unless the CPU's has no axis or
is an index into a tensor of the device. Reading memory (``numpy``) of the device raises too; ``cpu``, ``item`` and
``tolist`` copy. PyTorch's autograd takes the device for a real one. What it cannot show: kernels, rounding, memory,
streams, and whatever asks for the name "cuda".

Example:
    >>> with accelerator() as device:
    ...     torch.ones(3, device=device) + torch.ones(3)
    Traceback (most recent call last):
    ...
    RuntimeError: aten.add.Tensor: expected all tensors to be on one device, but found pretend:0 and cpu
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from videosafety.models.checkpoint import Checkpoint, load, save_model
from videosafety.models.wrapped import AlarmModel

NAME = "pretend"
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")
COPYING = ("copy_", "_to_copy", "copy", "_copy_from")
MAKING = (
    "arange", "arange.start", "arange.start_step", "empty.memory_format", "empty_strided", "eye", "eye.m", "full",
    "linspace", "ones", "rand", "rand.generator", "randint", "randint.generator", "randint.low",
    "randint.low_generator", "randn", "randn.generator", "randperm", "randperm.generator", "scalar_tensor",
    "tril_indices", "triu_indices", "zeros",
)  # fmt: skip
AUTOCAST = "AutocastPrivateUse1"
LOWER = ("addmm", "baddbmm", "bmm", "conv1d", "conv2d", "conv3d", "linear", "matmul", "mm", "mv",
         "scaled_dot_product_attention")  # fmt: skip
UPPER = ("binary_cross_entropy_with_logits", "cross_entropy_loss", "cumsum", "exp", "layer_norm", "log",
         "log_softmax.int", "nll_loss", "norm.Scalar", "pow.Tensor_Scalar", "rsqrt", "softmax.int", "sum",
         "sum.dim_IntList")  # fmt: skip


class _Presence:
    on = False


class _Module:
    """What PyTorch asks of a device; it is there only inside ``accelerator``."""

    def is_available(self) -> bool:
        return _Presence.on

    def is_initialized(self) -> bool:
        return _Presence.on

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return int(_Presence.on)

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class _Hook(torch._C._acc.PrivateUse1Hooks):
    def is_available(self) -> bool:
        return _Presence.on

    def has_primary_context(self, device: int) -> bool:
        return _Presence.on

    def is_built(self) -> bool:
        return True


class OnDevice(Tensor):
    """A tensor of the pretend device; ``raw`` is where its numbers are."""

    raw: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: Tensor) -> "OnDevice":
        assert not isinstance(raw, OnDevice)
        made = Tensor._make_wrapper_subclass(
            cls, raw.size(), strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )  # fmt: skip
        made.raw = raw
        return made

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.raw!r})"

    @property
    def data(self) -> Tensor:
        return Tensor.data.__get__(self)

    @data.setter
    def data(self, value: "OnDevice") -> None:
        Tensor.data.__set__(self, value)
        self.raw = value.raw

    def tolist(self) -> Any:
        return self.raw.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first")
        return self.detach().cpu().numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnDevice":
        copied = OnDevice(self.raw.detach().clone())
        made = torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied
        return memo.setdefault(id(self), made)

    def __reduce_ex__(self, protocol: Any) -> Any:  # a file holds it as a plain tensor, which whoever loads it moves
        return self.raw.detach().__reduce_ex__(protocol)

    def untyped_storage(self) -> Any:
        return self.raw.untyped_storage()

    def data_ptr(self) -> int:
        return self.raw.data_ptr()

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One operation with a tensor or a result on the device."""
    if func._can_decompose():  # in inference mode, what is made of other operations comes here whole
        return func.decompose(*args, **kwargs)
    _check(func, args, kwargs)
    target = kwargs.get("device")
    given, named = pytree.tree_map_only(OnDevice, lambda t: t.raw, (args, kwargs))
    if target is not None:
        named["device"] = torch.device("cpu")
    named.pop("pin_memory", None)
    out = func(*given, **named)
    written = [a for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if written and func._schema.returns:
        return _same(func, args, kwargs)
    if target is not None and torch.device(target).type == "cpu":
        return out.clone() if any(out is t for t in given) else out
    if func.is_view and not args[0].is_inference():  # a view of a tensor with a version has one, in any mode
        with torch.inference_mode(False):
            return pytree.tree_map_only(Tensor, OnDevice, out)
    return pytree.tree_map_only(Tensor, OnDevice, out)


def _same(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operation in place returns: the tensors that it wrote to."""
    names = [a.name for a in func._schema.arguments]
    bound = {**dict(zip(names, args, strict=False)), **kwargs}
    found = [bound[a.name] for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    for one in pytree.tree_leaves(found):
        if isinstance(one, OnDevice) and one.shape != one.raw.shape:
            raise NotImplementedError(f"{func}: an operation that changes a tensor's shape in place")
    return found[0] if len(found) == 1 else tuple(found)


def _check(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise where CUDA would: both devices in one operation."""
    name = func._schema.name.removeprefix("aten::")
    for one in pytree.tree_leaves((args, kwargs)):
        if isinstance(one, torch.Generator) and one.device.type != NAME:
            raise RuntimeError(f"{func}: expected a {NAME!r} device type for generator but found {one.device.type!r}")
    if name in COPYING:
        return
    free = _indices(name, args, kwargs)
    tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    for one in tensors:
        if not isinstance(one, OnDevice) and not (one.dim() == 0 and name not in ("index_select", "gather")):
            if any(one is index for index in free):
                continue
            raise RuntimeError(f"{func}: expected all tensors to be on one device, but found {NAME}:0 and {one.device}")


def _indices(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Indices that may stay on the CPU: those into a tensor of the device."""
    if name not in INDEXING or not isinstance(args[0], OnDevice):
        return []
    return pytree.tree_leaves(kwargs.get("indices", args[1] if len(args) > 1 else []))


def _make(operation: Any, *args: Any, **kwargs: Any) -> Any:
    return _run(operation, args, {**kwargs, "device": torch.device(NAME, 0)})


def _operation(name: str) -> Any:
    base, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, base), overload or "default")


@lru_cache
def _library() -> torch.library.Library:
    """Register the device, once in a process: PyTorch knows no way back."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module(), hook=_Hook())
    library = torch.library.Library("aten", "IMPL")
    for name in MAKING:
        library.impl(name, partial(_make, _operation(name)), "PrivateUse1")
    library.impl("_copy_from", _copied, "PrivateUse1")
    library.impl("_local_scalar_dense", _item, "PrivateUse1")
    _Kept.rest = torch.library.Library("_", "IMPL")
    _Kept.rest.fallback(torch.library.fallthrough_kernel, AUTOCAST)
    for name in LOWER:
        library.impl(name, partial(_autocast, _operation(name), None), AUTOCAST)
    for name in UPPER:
        library.impl(name, partial(_autocast, _operation(name), torch.float32), AUTOCAST)
    return library


class _Kept:
    rest: torch.library.Library


def _item(one: OnDevice) -> Any:
    return one.raw.item()


def _copied(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """What ``torch.tensor(..., device=...)`` ends in, past the tensor's own class."""
    ends = [one.raw if isinstance(one, OnDevice) else one for one in (source, target)]
    ends[1].copy_(ends[0])
    return target


def _autocast(operation: Any, dtype: torch.dtype | None, /, *args: Any, **kwargs: Any) -> Any:
    """CUDA's rule: what multiplies runs in the lower dtype, what sums up or exponentiates in fp32."""
    to = dtype or torch.get_autocast_dtype(NAME)

    def cast(one: Tensor) -> Tensor:
        return one.to(to) if one.is_floating_point() and one.dtype != torch.float64 else one

    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)):
        args, kwargs = pytree.tree_map_only(Tensor, cast, (args, kwargs))
        return operation(*args, **kwargs)


@contextmanager
def accelerator() -> Iterator[torch.device]:
    """The device; outside the ``with`` PyTorch says that there is none. Where there is a GPU, it is the GPU."""
    if torch.cuda.is_available():
        with torch.backends.cudnn.flags(allow_tf32=False):
            yield torch.device("cuda", 0)
        return
    before = _Presence.on, torch.__future__.get_swap_module_params_on_conversion()
    _Presence.on = True
    torch.__future__.set_swap_module_params_on_conversion(True)  # so that tied weights stay tied, as on a real device
    try:
        yield torch.device(NAME, 0)
    finally:
        _Presence.on = before[0]
        torch.__future__.set_swap_module_params_on_conversion(before[1])


def twin(checkpoint: Checkpoint, wrapped: AlarmModel, device: torch.device) -> tuple[Checkpoint, AlarmModel]:
    """The same weights on the device: loaded as a stage loads them, and wrapped there."""
    with TemporaryDirectory() as folder:
        save_model(wrapped.model, checkpoint.processor, Path(folder) / "same")
        loaded = load(str(Path(folder) / "same"), device=str(device), dtype=wrapped.model.dtype)
    moved = AlarmModel(loaded.model, checkpoint.alarm).eval()
    with torch.no_grad():
        for to, of in zip(moved.parameters(), wrapped.parameters(), strict=True):
            to.copy_(of)
    return replace(loaded, alarm=checkpoint.alarm), moved


if not torch.cuda.is_available():  # now, since autograd counts devices once: at the first backward pass of the process
    _library()
