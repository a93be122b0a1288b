"""Examples as training rows: frames decoded (or from the cache), tokens, and the two alarm targets, in one batch.

A clip that cannot be used once training runs (it vanished, it was damaged since the check) is recorded as a fault and
its row keeps its place without an answer and without labels, so it adds nothing to any loss. It is never replaced by
another row, which the released code does.

Axes: B rows, T tokens, A alarms (visual, textual).

Example:
    >>> rows = Rows(examples, root=folder, checkpoint=checkpoint, structured=False)          # doctest: +SKIP
    >>> batch = rows.collate([rows[0], rows[1]])                                # doctest: +SKIP
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from videosafety.core.errors import MediaError
from videosafety.core.example import Example
from videosafety.core.labels import Safety
from videosafety.core.records import Image, Video
from videosafety.models.checkpoint import Checkpoint
from videosafety.models.family import Conversation, Encoded, Message, collate
from videosafety.models.features import MEDIA_KEYS, Keys, joined, media_keys
from videosafety.video.cache import FrameCache
from videosafety.video.plan import Sampling
from videosafety.video.sample import Clip, Picture, load_picture, sample_clip

ALARM_TARGETS = "alarm_targets"
FAULTS = "faults"
LOST = "(media lost)"
TARGET = {Safety.SAFE: 0.0, Safety.HARMFUL: 1.0}


@dataclass(frozen=True)
class Row:
    """One example as tensors. ``targets`` are 0 safe, 1 harmful, nan masked; ``fault`` says why the media is lost.

    ``keys`` name what its media show, for the cache of vision features.
    """

    encoded: Encoded
    targets: tuple[float, float]
    id: str
    fault: str | None = None
    keys: Keys = field(default_factory=dict)


class Rows(Dataset[Row]):
    """The examples of a stage, in their order."""

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        checkpoint: Checkpoint,
        structured: bool,
        root: Path = Path(),
        sampling: Sampling | None = None,
        cache: FrameCache | None = None,
    ) -> None:
        self.examples, self.root, self.checkpoint = list(examples), root, checkpoint
        self.structured, self.sampling, self.cache = structured, sampling or Sampling(), cache

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Row:
        example = self.examples[index]
        family, processor = self.checkpoint.family, self.checkpoint.processor
        target = example.target(structured=self.structured)
        try:
            conversation = self.conversation(example)
            encoded = family.encode(processor, conversation, target=target)
            return Row(encoded, targets_of(example), example.id, keys=media_keys(conversation))
        except MediaError as error:
            return self.blank(example.id, f"{error.fault}: {error.what}")

    def conversation(self, example: Example) -> Conversation:
        """The turns of an example with their media decoded. Raises MediaError."""
        return tuple(Message(t.role, (*map(self._load, t.media), t.text)) for t in example.turns)

    def blank(self, id_: str = "", fault: str | None = None) -> Row:
        """A row that adds nothing to any loss: it keeps the place of a lost one, or fills up the last batch."""
        nothing: Conversation = (Message("user", (LOST,)),)
        encoded = self.checkpoint.family.encode(self.checkpoint.processor, nothing)
        return Row(encoded, (math.nan, math.nan), id_, fault)

    def _load(self, media: Video | Image) -> Clip | Picture:
        path = self.root / media.path
        if isinstance(media, Image):
            return load_picture(path, max_side_px=self.sampling.max_side_px, sha256=media.sha256)
        return sample_clip(path, sampling=self.sampling, cache=self.cache, sha256=media.sha256)

    def collate(self, rows: Sequence[Row]) -> dict[str, Any]:
        """A right-padded batch: the family's tensors, ``labels``, ``alarm_targets`` (B, A).

        Beside the tensors: faults as (id, what), and the names of the media.
        """
        pad = self.checkpoint.tokenizer.pad_token_id
        batch: dict[str, Any] = {**collate([row.encoded for row in rows], pad_token_id=pad, side="right")}
        batch[ALARM_TARGETS] = torch.tensor([row.targets for row in rows])
        batch[FAULTS] = [(row.id, row.fault) for row in rows if row.fault is not None]
        batch[MEDIA_KEYS] = joined([row.keys for row in rows])
        return batch


def targets_of(example: Example) -> tuple[float, float]:
    """(visual, textual): nan where unlabelled, and for the visual one where nothing is shown."""
    visual = TARGET[example.visual] if example.visual is not None and example.media else math.nan
    textual = TARGET[example.textual] if example.textual is not None else math.nan
    return visual, textual
