"""embed with DINOv2: what a clip looks like to a vision model, from a local checkpoint of the class ``Dinov2Model``.

The paper drops static clips by DINOv2 features (section 3). Eight frames evenly over the clip, as ``phash`` takes them,
each with its mirror image: the pooled vector, at unit length, kept as half floats. It sees what ``phash`` does not (the
same scene from another angle), at the price of weights and of some GFLOPs a frame. Never a stand-in for ``phash``.

Torch is used here and nowhere else in the build.

Example:
    >>> Dinov2Embed.of(Path("dinov2-small"), root="clips")(probed)[0].static_score            # doctest: +SKIP
    0.04
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch.nn.functional import interpolate, normalize

from videosafety.build.embed import ended, frames_of
from videosafety.build.records import Embedded, Probed
from videosafety.build.state import Terminal
from videosafety.core.errors import CheckpointError, MediaError
from videosafety.core.store import sha256_file
from videosafety.video.plan import Frames

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the images that DINOv2 learned from


@dataclass(frozen=True)
class Dinov2Embed:
    """The step. ``weights`` is the hash of the checkpoint: other weights give other vectors."""

    weights: str
    checkpoint: str = field(compare=False)
    root: str = field(compare=False)
    device: str = field(default="cpu", compare=False)
    name: ClassVar[str] = "embed"
    version: ClassVar[int] = 1
    makes: ClassVar[type[Embedded]] = Embedded
    embedder: str = "dinov2"

    @classmethod
    def of(cls, checkpoint: Path, *, root: str, device: str | None = None) -> Self:
        """The step for a folder with ``config.json`` and safetensors. Raises CheckpointError: there is none."""
        files = [checkpoint / "config.json", *sorted(checkpoint.glob("*.safetensors"))]
        if len(files) < 2 or not files[0].is_file():
            raise CheckpointError("holds no Dinov2Model (config.json and safetensors)", where=str(checkpoint),
                                  fix="name a folder that save_pretrained made")  # fmt: skip
        digest = hashlib.sha256("".join(sha256_file(file) for file in files).encode()).hexdigest()
        found = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(digest, str(checkpoint), root, found)

    def __call__(self, probed: Probed) -> Sequence[Embedded] | Terminal:
        """The clip with its vectors; a picture has one and is never static."""
        try:
            frames = frames_of(Path(self.root) / probed.clip.path, kind=probed.facts.kind)
        except MediaError as error:
            return ended(error)
        plain, mirrored = self._vectors(frames)
        still = 1.0 if probed.facts.kind == "image" else static_score(plain)
        rows = np.concatenate([plain, mirrored], axis=1).astype("<f2")
        return [Embedded(id=probed.id, clip=probed.clip, facts=probed.facts, embedder=self.embedder,
                         static_score=still, vectors=tuple(row.tobytes().hex() for row in rows))]  # fmt: skip

    @torch.inference_mode()
    def _vectors(self, frames: Frames) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Unit vectors (frames, hidden) of frames (frames, H, W, 3), and of their mirror images."""
        model = _model(self.checkpoint, self.device)
        side = int(model.config.image_size)
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).permute(0, 3, 1, 2).float() / 255
        pixels = interpolate(pixels, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(one, device=self.device).view(1, 3, 1, 1) for one in (MEAN, STD))
        both = torch.cat([pixels, pixels.flip(-1)])
        pooled = model(pixel_values=(both - mean) / std).pooler_output
        plain, mirrored = normalize(pooled.float(), dim=-1).cpu().numpy().reshape(2, len(frames), -1)
        return plain, mirrored


def static_score(vectors: np.ndarray[Any, Any]) -> float:
    """The mean distance of a frame to the next, in [0, 1]; 0 for a clip in which nothing moves."""
    if len(vectors) < 2:
        return 0.0
    return float(np.clip((1 - (vectors[1:] * vectors[:-1]).sum(axis=1)) / 2, 0, 1).mean())


@lru_cache(maxsize=1)
def _model(checkpoint: str, device: str) -> Any:
    """The model, read once in each process. Raises CheckpointError: it does not load."""
    from transformers import Dinov2Model
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        model = Dinov2Model.from_pretrained(checkpoint, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"does not load as Dinov2Model ({type(error).__name__})", where=checkpoint,
                              fix="name a folder that save_pretrained made") from error  # fmt: skip
    return model.eval().to(device)
