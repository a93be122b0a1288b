"""embed: what a clip looks like, by a named embedder; ``phash`` needs no weights, ``dinov2`` a local checkpoint.

``phash`` takes eight frames evenly over the clip, each as 32×32 grey, and keeps the signs of its 63 lowest cosine
coefficients beside the mean, of the frame and of its mirror image. Two embedders are never mixed and one never stands
in for the other: thresholds belong to an embedder.

Example:
    >>> PhashEmbed(root="clips")(probed)[0].static_score                                      # doctest: +SKIP
    0.31
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from videosafety.build.records import Embedded, Probed
from videosafety.build.state import State, Terminal
from videosafety.core.errors import MediaError, MediaFault
from videosafety.video.plan import Frames, Sampling
from videosafety.video.sample import load_picture, sample_clip

PASSING = frozenset({MediaFault.MISSING, MediaFault.UNREADABLE, MediaFault.TIMEOUT})  # tried again by the next run
NUM_FRAMES = 8
SIDE, KEPT = 32, 8  # of the grey frame, of the block of coefficients
NUM_BITS = KEPT * KEPT - 1
EVERY_FRAME = Sampling(fps=1000, max_frames=NUM_FRAMES)
FLAT = 0.5  # grey levels: a coefficient below it says nothing, and its bit is 0


@dataclass(frozen=True)
class PhashEmbed:
    """The step. ``root`` is the folder of clips, and no part of what a row is."""

    root: str = field(compare=False)
    name: ClassVar[str] = "embed"
    version: ClassVar[int] = 1
    makes: ClassVar[type[Embedded]] = Embedded
    embedder: str = "phash"

    def __call__(self, probed: Probed) -> Sequence[Embedded] | Terminal:
        """The clip with its hashes; a picture has one and is never static."""
        try:
            frames = frames_of(Path(self.root) / probed.clip.path, kind=probed.facts.kind)
        except MediaError as error:
            return ended(error)
        pairs = [hashes(frame) for frame in frames]
        score = 1.0 if probed.facts.kind == "image" else static_score([plain for plain, _ in pairs])
        return [Embedded(id=probed.id, clip=probed.clip, facts=probed.facts, embedder=self.embedder,
                         static_score=score, vectors=tuple(f"{a:016x}{b:016x}" for a, b in pairs))]  # fmt: skip


def ended(error: MediaError) -> Terminal:
    """The end of a clip that cannot be read now, or ever."""
    return Terminal(state=State.FAILED if error.fault in PASSING else State.QUARANTINED, reason=f"media:{error.fault}")


def frames_of(path: Path, *, kind: str) -> Frames:
    """Eight frames evenly over a clip, or the picture, (frames, H, W, 3). Raises MediaError."""
    return load_picture(path).pixels[None] if kind == "image" else sample_clip(path, sampling=EVERY_FRAME).frames


def hashes(frame: Frames) -> tuple[int, int]:
    """The 63-bit hashes of a frame (H, W, 3) and of its mirror image."""
    grey = np.asarray(Image.fromarray(frame).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    block: NDArray[np.float64] = dctn(grey, norm="ortho")[:KEPT, :KEPT]
    mirrored = block * np.where(np.arange(KEPT) % 2, -1.0, 1.0)  # mirroring turns the odd horizontal waves over
    return _bits(block), _bits(mirrored)


def _bits(block: NDArray[np.float64]) -> int:
    flags = (block.ravel()[1:] > FLAT).tolist()
    return sum(1 << place for place, flag in enumerate(flags) if flag)


def static_score(plain: Sequence[int]) -> float:
    """The mean share of bits that change from one frame to the next, in [0, 1]; 0 for a clip in which nothing moves."""
    if len(plain) < 2:
        return 0.0
    changed = [(a ^ b).bit_count() / NUM_BITS for a, b in pairwise(plain)]
    return float(np.mean(changed))
