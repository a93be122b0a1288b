"""A bounded folder of sampled frames, so that no clip is decoded twice for the same sampling.

One file per (bytes of the source, sampling, decoder version), named by the hash of the three. It holds the frame plan
as JSON and the raw pixels, no pickle, and is read back only if every hash in it holds: a damaged entry counts as
absent, is removed and decoded again. Files appear by rename, so several processes may share the folder. When it
outgrows ``max_bytes`` the entries that were used longest ago go first.

Example:
    >>> cache = FrameCache("runs/cache", max_bytes=20 * 2**30)
    >>> first, second = (sample_clip("clips/a.mp4", cache=cache) for _ in range(2))
    >>> cache.num_hits, cache.num_misses
    (1, 1)
"""

import contextlib
import hashlib
import os
import time
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from videosafety.core.errors import InputError
from videosafety.core.store import canonical_json, storage_errors, write_bytes
from videosafety.video.plan import Clip, FramePlan, Sampling, frame_hashes, pyav_version

MAGIC = b"videosafety frames 1\n"
HASH_BYTES = 32
LENGTH_BYTES = 8
STALE_S = 3600  # a temporary file this old was left by a process that died
DEFAULT_MAX_BYTES = 20 * 2**30  # about 1,700 clips of 12 MB


class FrameCache:
    """Sampled frames on disk.

    Args:
        folder: made when missing.
        max_bytes: what the folder may hold; an entry larger than this is not kept.

    Attributes:
        num_hits: clips that were found, by this object.
        num_misses: clips that were asked for and not found: each one is a decode.

    Raises:
        StorageError: the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        if max_bytes < 0:
            raise InputError(f"max_bytes is {max_bytes}", where="frame cache", fix="use 0 or more")
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.num_hits = 0
        self.num_misses = 0
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, source_sha256: str, *, sampling: Sampling) -> Clip | None:
        """The clip sampled so from these bytes by this decoder, or None. Removes a damaged entry."""
        path = self._path(source_sha256, sampling, pyav_version())
        try:
            raw = path.read_bytes()
        except OSError:
            raw = b""
        clip = _unpack(raw)
        if clip is None or clip.plan is None or self._path_of(clip.plan) != path:
            if raw:
                _remove(path)
            self.num_misses += 1
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        self.num_hits += 1
        return clip

    def put(self, clip: Clip) -> None:
        """Keep a decoded clip, then evict down to ``max_bytes``. Raises StorageError, InputError (it has no plan)."""
        if clip.plan is None:
            raise InputError("the clip has no frame plan", where="frame cache", fix="only decoded clips can be kept")
        raw = _pack(clip, clip.plan)
        if len(raw) > self.max_bytes:
            return
        write_bytes(self._path_of(clip.plan), raw)
        self._evict()

    def _path_of(self, plan: FramePlan) -> Path:
        return self._path(plan.source_sha256, plan.sampling, plan.decoder_version)

    def _path(self, source_sha256: str, sampling: Sampling, decoder_version: str) -> Path:
        key = canonical_json([source_sha256, sampling.model_dump(mode="json"), decoder_version])
        return self.folder / f"{hashlib.sha256(key).hexdigest()}.frames"

    def _evict(self) -> None:
        """Remove what was used longest ago until the folder fits; another process may be doing the same."""
        entries: list[tuple[int, str, int, Path]] = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                status = path.stat()
                if path.suffix == ".frames":
                    entries.append((status.st_mtime_ns, path.name, status.st_size, path))
                elif path.suffix == ".tmp" and time.time() - status.st_mtime > STALE_S:
                    _remove(path)
        total = sum(size for _, _, size, _ in entries)
        for _, _, size, path in sorted(entries):
            if total <= self.max_bytes:
                return
            _remove(path)
            total -= size


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _pack(clip: Clip, plan: FramePlan) -> bytes:
    """Magic, SHA-256 of the plan's JSON, its length, itself, then the pixels, whose hashes are in the plan."""
    header = canonical_json(plan)
    length = len(header).to_bytes(LENGTH_BYTES, "little")
    return b"".join([MAGIC, hashlib.sha256(header).digest(), length, header, np.ascontiguousarray(clip.frames).data])


def _unpack(raw: bytes) -> Clip | None:
    """The clip, or None for anything that is not exactly what was packed."""
    hash_end = len(MAGIC) + HASH_BYTES
    start = hash_end + LENGTH_BYTES
    if len(raw) < start or not raw.startswith(MAGIC):
        return None
    end = start + int.from_bytes(raw[hash_end:start], "little")
    header = raw[start:end]
    if hashlib.sha256(header).digest() != raw[len(MAGIC) : hash_end]:
        return None
    try:
        plan = FramePlan.model_validate_json(header)
    except ValidationError:
        return None
    shape = (len(plan.indices), plan.height_px, plan.width_px, 3)
    if len(raw) - end != np.prod(shape, dtype=np.int64):
        return None
    frames = np.frombuffer(raw, np.uint8, offset=end).reshape(shape).copy()
    return Clip(frames, plan.timestamps_s, plan) if frame_hashes(frames) == plan.frame_sha256 else None
