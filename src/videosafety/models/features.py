"""A bounded folder of frozen vision features, so that no clip passes the vision tower twice.

The tower and its projector are frozen through stages 1 to 3, so what they make of a clip is the same in every epoch and
every stage. One safetensors file per (medium as sampled, vision weights, processor, precision), named by the hash of
the four. It is used only if the hash in it holds and its grid is the one asked for: a damaged entry counts as absent,
is removed and computed again. Files appear by rename, so several processes may share the folder; when it outgrows
``max_bytes`` the entries that were used longest ago go first.

The family's own forward pass runs unchanged: while ``cached_vision`` is open, ``get_image_features`` and
``get_video_features`` of the model answer from the folder and run the tower only on what is missing.

Example:
    >>> cache = FeatureCache(Path("runs/a/features"), max_bytes=2**30)          # doctest: +SKIP
    >>> with cached_vision(checkpoint, cache), cache.showing(batch[MEDIA_KEYS]):  # doctest: +SKIP
    ...     model(**inputs)
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import safetensors
import safetensors.torch
import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor

from videosafety.core.errors import InputError
from videosafety.core.store import canonical_json, storage_errors, write_bytes
from videosafety.models.checkpoint import Checkpoint
from videosafety.models.family import Conversation, media_of
from videosafety.video.plan import Clip, Picture, frame_hashes

MEDIA_KEYS = "media_keys"
SUPPORTED = ("videollama3", "qwen2_5_vl", "qwen3_vl")  # towers that take the patches of all media in one list, by grids
SUFFIX = ".safetensors"
STALE_S = 3600  # a temporary file this old was left by a process that died

Kind = Literal["image", "video"]
_KINDS: tuple[Kind, ...] = ("image", "video")
Keys: TypeAlias = Mapping[Kind, Sequence[str]]
Features: TypeAlias = dict[str, Tensor]
"""``pooled`` (L, H), and for Qwen3-VL ``deepstack`` (D, L, H): L visual tokens, H channels, D layers."""


class FeatureCache:
    """Vision features on disk.

    Args:
        folder: made when missing.
        max_bytes: what the folder may hold; an entry larger than this is not kept.

    Attributes:
        num_hits: media that were found, by this object.
        num_misses: media that were asked for and not found: each one passed the tower.

    Raises:
        InputError: ``max_bytes`` is negative.
        StorageError: the folder cannot be made.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        if max_bytes < 0:
            raise InputError(f"max_bytes is {max_bytes}", where="feature cache", fix="use 0 or more")
        self.folder, self.max_bytes = folder, max_bytes
        self.num_hits = self.num_misses = 0
        self.shown: Keys | None = None
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def showing(self, keys: Keys) -> Iterator[None]:
        """While open, the media that the model is shown have these keys, in the order of their tensors."""
        self.shown = keys
        try:
            yield
        finally:
            self.shown = None

    def get(self, key: str, *, grid: Sequence[int]) -> Features | None:
        """The features under ``key``, or None. Removes a damaged entry."""
        path = self._path(key)
        found = _read(path, key=key, grid=grid)
        if found is None:
            self.num_misses += 1
            _remove(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        self.num_hits += 1
        return found

    def put(self, key: str, features: Features, *, grid: Sequence[int]) -> None:
        """Keep features in their precision, then evict down to ``max_bytes``. Raises StorageError."""
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in features.items()}
        raw = safetensors.torch.save(held, {"key": key, "grid": str(list(grid)), "sha256": _hash(held)})
        if len(raw) > self.max_bytes:
            return
        write_bytes(self._path(key), raw)
        self._evict()

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}{SUFFIX}"

    def _evict(self) -> None:
        """Remove what was used longest ago until the folder fits; another process may be doing the same."""
        entries: list[tuple[int, str, int, Path]] = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                status = path.stat()
                if path.suffix == SUFFIX:
                    entries.append((status.st_mtime_ns, path.name, status.st_size, path))
                elif path.suffix == ".tmp" and time.time() - status.st_mtime > STALE_S:
                    _remove(path)
        total = sum(size for _, _, size, _ in entries)
        for _, _, size, path in sorted(entries):
            if total <= self.max_bytes:
                return
            _remove(path)
            total -= size


def media_keys(conversation: Conversation) -> dict[Kind, list[str]]:
    """A name for the pixels of each clip and of each picture, in the order in which a family stacks them."""
    clips, pictures = media_of(conversation)
    return {"image": list(map(_name, pictures)), "video": list(map(_name, clips))}


def joined(keys: Sequence[Keys]) -> dict[Kind, list[str]]:
    """The keys of a batch from those of its rows."""
    return {kind: [key for row in keys for key in row.get(kind, ())] for kind in _KINDS}


def vision_fingerprint(checkpoint: Checkpoint) -> str:
    """16 hex digits over the weights of the tower and the projector, the processor's settings and transformers.

    The language model is not in it, so the next stage finds what this one kept.
    """
    engine = cast(Any, checkpoint.processor)
    settings = [checkpoint.family.name, transformers.__version__]
    settings += [getattr(engine, name).to_json_string() for name in ("image_processor", "video_processor")]
    total = hashlib.sha256(canonical_json(settings))
    for module in checkpoint.family.vision_modules(checkpoint.model):
        for name, tensor in sorted(module.state_dict().items()):
            total.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            total.update(_bytes(tensor))
    return total.hexdigest()[:16]


@contextmanager
def cached_vision(checkpoint: Checkpoint, cache: FeatureCache) -> Iterator[None]:
    """While open, the checkpoint's model takes vision features from ``cache`` where a batch's keys are shown.

    Raises:
        InputError: the family is none of ``SUPPORTED``, or its vision is to be trained.
    """
    family, model = checkpoint.family, checkpoint.model
    if family.name not in SUPPORTED:
        raise InputError(f"vision features of {family.name} cannot be kept", where="feature_cache_gib",
                         fix=f"set it to 0; families that can: {', '.join(SUPPORTED)}")  # fmt: skip
    modules = family.vision_modules(model)
    if any(parameter.requires_grad for module in modules for parameter in module.parameters()):
        raise InputError("the vision tower is not frozen, so its features change", where="feature_cache_gib",
                         fix="freeze it, or set feature_cache_gib to 0")  # fmt: skip
    base, about = cast(Any, model.base_model), vision_fingerprint(checkpoint)
    stock = {kind: getattr(base, f"get_{kind}_features") for kind in _KINDS}
    for kind in _KINDS:
        setattr(base, f"get_{kind}_features", _Reader(stock[kind], kind, cache, about))
    try:
        yield
    finally:
        for kind in _KINDS:
            delattr(base, f"get_{kind}_features")


class _Reader:
    """Stands for ``get_image_features`` or ``get_video_features``: patches, grids and what goes along with them."""

    def __init__(self, stock: Any, kind: Kind, cache: FeatureCache, about: str) -> None:
        self.stock, self.kind, self.cache, self.about = stock, kind, cache, about

    def __call__(self, *inputs: Tensor, **kwargs: Any) -> Any:
        """``inputs`` are pixels (patches of all media), grids (media, 3), and others (media, …)."""
        shown = self.cache.shown
        if shown is None:
            return self.stock(*inputs, **kwargs)
        pixels, grids, *others = inputs
        names = shown[self.kind]
        if len(names) != len(grids):
            raise InputError(f"a batch shows {len(grids)} media of kind {self.kind} and names {len(names)}",
                             where="feature cache", fix="collate keys and pixels from the same rows")  # fmt: skip
        keys = [canonical_json([name, self.kind, self.about, _precision(pixels)]).decode() for name in names]
        marks = torch.cat([grids, *(other.reshape(len(grids), -1) for other in others)], dim=1).tolist()
        found = [self.cache.get(key, grid=mark) for key, mark in zip(keys, marks, strict=True)]
        missing = [i for i, features in enumerate(found) if features is None]
        if missing:
            patches = pixels.split(grids.prod(dim=1).tolist())
            some = torch.tensor(missing, device=grids.device)
            new = self._run(torch.cat([patches[i] for i in missing]), grids[some], *(o[some] for o in others), **kwargs)
            for i, features in zip(missing, new, strict=True):
                self.cache.put(keys[i], features, grid=marks[i])
                found[i] = features
        return _Output([{name: t.to(pixels.device) for name, t in one.items()} for one in found if one is not None])

    def _run(self, *inputs: Tensor, **kwargs: Any) -> list[Features]:
        """The tower on what is missing. A family's video method may call its image method: that one stands aside."""
        shown, self.cache.shown = self.cache.shown, None
        try:
            with torch.no_grad():
                made = self.stock(*inputs, **kwargs)
        finally:
            self.cache.shown = shown
        layers = getattr(made, "deepstack_features", None)
        each = [{"pooled": pooled} for pooled in made.pooler_output]
        if layers is not None:
            each = [one | {"deepstack": torch.stack([layer[i] for layer in layers])} for i, one in enumerate(each)]
        return each


class _Output:
    """What a family's forward pass reads of its vision output: a tuple of features, one a medium."""

    def __init__(self, each: Sequence[Features]) -> None:
        self.pooler_output = tuple(one["pooled"] for one in each)
        self.deepstack_features: list[tuple[Tensor, ...]] | None = None
        if each and "deepstack" in each[0]:
            self.deepstack_features = list(zip(*(one["deepstack"].unbind() for one in each), strict=True))


def _precision(pixels: Tensor) -> str:
    """What the tower computes in: autocast's type where it is on, else that of its input."""
    device = pixels.device.type
    return str(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else pixels.dtype)


def _name(medium: Clip | Picture) -> str:
    """The digest of the frame plan; for what was drawn and not decoded, of the pixels and their times."""
    if medium.plan is not None:
        return medium.plan.digest
    frames = medium.frames if isinstance(medium, Clip) else medium.pixels[None]
    times = medium.timestamps_s if isinstance(medium, Clip) else ()
    return hashlib.sha256(canonical_json([frames.shape, frame_hashes(frames), times])).hexdigest()


def _read(path: Path, *, key: str, grid: Sequence[int]) -> Features | None:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            held = file.get_tensors()
    except (OSError, SafetensorError):
        return None
    whole = about.get("key") == key and about.get("grid") == str(list(grid)) and about.get("sha256") == _hash(held)
    return held if whole and "pooled" in held else None


def _hash(held: Features) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(held.items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        total.update(_bytes(tensor))
    return total.hexdigest()


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
