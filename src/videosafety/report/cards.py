"""Sample cards: an item's frames, its query, and every arm's answer with its verdicts.

Frames are the ones that the video package samples; a clip that cannot be read becomes a sentence on the card, never a
missing card and never another clip.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from videosafety.core.errors import MediaError, VideoSafetyError
from videosafety.core.labels import Safety
from videosafety.core.records import Image, Response, Sample, StopReason, Verdict
from videosafety.html.media import MAX_SIDE_PX, Picture, strip
from videosafety.report.select import Item
from videosafety.video.plan import Sampling
from videosafety.video.sample import sample_clip

SAMPLING = Sampling(fps=1.0, max_frames=8, max_side_px=MAX_SIDE_PX)
_MAX_IMAGE_PX = 64_000_000


@dataclass(frozen=True)
class Answer:
    """What the model said under one arm, and what the judges made of it."""

    arm: str
    text: str
    fault: str | None
    truncated: bool
    verdicts: tuple[Verdict, ...]

    @property
    def outcomes(self) -> str:
        """Outcome names for the page's filter, separated by blanks."""
        return " ".join(sorted({v.outcome.value for v in self.verdicts}))


@dataclass(frozen=True)
class Card:
    """An item as the page shows it. ``masked``: its words and answers stay hidden until revealed."""

    id: str
    group: str
    subset: str
    language: str
    tags: tuple[str, ...]
    pictures: tuple[Picture, ...]
    media_note: str
    query: str
    masked: bool
    answers: tuple[Answer, ...]


class PictureCache:
    """Frames of each file once: several queries, arms and evaluations share a clip."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, str], tuple[tuple[Picture, ...], str]] = {}

    def pictures(self, sample: Sample, *, root: Path) -> tuple[tuple[Picture, ...], str]:
        """(pictures, note): the note says why there are none."""
        if sample.media is None:
            return (), "This item has no media."
        key = (root / sample.media.path, sample.media.kind)
        if key not in self._known:
            self._known[key] = _read(key[0], image=isinstance(sample.media, Image))
        return self._known[key]


def card(item: Item, *, cache: PictureCache) -> Card:
    """The card of an item."""
    info, sample = item.evaluation.info, item.sample
    pictures, note = cache.pictures(sample, root=item.evaluation.media_root)
    if item.damage is not None:
        note = ": ".join(p for p in (f"Media {item.damage.state}", item.damage.fault, item.damage.detail) if p)
    group = " · ".join(p for p in (info.stage, "" if info.seed is None else f"seed {info.seed}") if p)
    labels = sample.labels
    return Card(
        id=sample.id,
        group=group,
        subset=sample.subset.value,
        language=sample.language,
        tags=tuple(p for p in (group, sample.subset.value, sample.language, sample.category) if p),
        pictures=pictures,
        media_note=note,
        query=sample.query,
        masked=Safety.HARMFUL in (labels.visual, labels.textual, labels.request),
        answers=_answers(item),
    )


def _answers(item: Item) -> tuple[Answer, ...]:
    said = {r.arm: r for r in item.responses}
    arms = sorted({*said, *(v.arm for v in item.verdicts)}, key=lambda arm: (arm != "video", arm))
    return tuple(_answer(arm, said.get(arm), tuple(v for v in item.verdicts if v.arm == arm)) for arm in arms)


def _answer(arm: str, response: Response | None, verdicts: tuple[Verdict, ...]) -> Answer:
    if response is None:
        return Answer(arm, "", "there is no response for this arm", truncated=False, verdicts=verdicts)
    truncated = response.stop_reason is StopReason.LENGTH
    return Answer(arm, response.text, response.fault, truncated=truncated, verdicts=verdicts)


def _read(path: Path, *, image: bool) -> tuple[tuple[Picture, ...], str]:
    try:
        if image:
            return strip(_image(path)), ""
        return strip(sample_clip(path, sampling=SAMPLING).frames), ""
    except MediaError as error:
        return (), f"No frames: {error.fault.value}"
    except VideoSafetyError as error:
        return (), f"No frames: {error.what}"
    except (OSError, ValueError, PILImage.DecompressionBombError) as error:
        return (), f"No frames: {type(error).__name__}"


def _image(path: Path) -> np.typing.NDArray[np.uint8]:
    with PILImage.open(path) as picture:
        if picture.width * picture.height > _MAX_IMAGE_PX:
            raise ValueError("the image is too large")
        return np.asarray(picture.convert("RGB"), dtype=np.uint8)[None]
