"""Arms: the same items shown in different ways, so that every comparison is paired (paper section 4, our arms).

An arm takes an item and says what is put before the model: the item with the labels of (item, arm), with its media or
without, and how its frames are sampled. None means that the arm does not apply to the item; the pair is then missing
and is never made up. The labels in the evaluation's ``samples.jsonl`` stay those of the item itself.

``video`` shows the item's own media: a clip as a video, a picture as a picture (never as a one-frame video).
``text`` shows the words alone, and applies where they mean the same without the clip: not to deictic queries.

Example:
    >>> shown = get("text").show(sample, Sampling())
    >>> shown.sample.media, shown.sample.labels.visual
    (None, <Safety.SAFE: 'safe'>)
"""

from collections.abc import Callable
from dataclasses import dataclass

from videosafety.core.errors import InputError, did_you_mean
from videosafety.core.labels import Subset
from videosafety.core.records import QueryKind, Sample
from videosafety.video.plan import Sampling


@dataclass(frozen=True, slots=True)
class Shown:
    """What one arm puts before the model: the item as shown (labels of (item, arm)) and how its frames are sampled."""

    sample: Sample
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Arm:
    """A named, pure way to show an item; ``show`` returns None where the arm does not apply.

    ``words_alone``: nothing else is shown, so that items with the same words are one question asked again.
    """

    name: str
    says: str
    show: Callable[[Sample, Sampling], Shown | None]
    words_alone: bool = False


def _video(sample: Sample, sampling: Sampling) -> Shown | None:
    return None if sample.media is None else Shown(sample, sampling)


def _text(sample: Sample, sampling: Sampling) -> Shown | None:
    if sample.query_kind is QueryKind.DEICTIC or sample.subset is Subset.COMPOSED:
        return None
    changed = {"media": None, "labels": sample.labels.without_vision(), "harm_spans": ()}
    return Shown(sample.model_copy(update=changed), sampling)


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("video", "the item's own clip or picture, and the words", _video),
        Arm("text", "the words alone", _text, words_alone=True),
    )
}


def get(name: str) -> Arm:
    """The arm of this name.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    if name not in ARMS:
        raise InputError(f"unknown arm {name!r}", fix=did_you_mean(name, ARMS))
    return ARMS[name]
