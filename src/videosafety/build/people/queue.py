"""queue: which clips and responses people see, in which order, and which person sees which.

Clips on which machines could not settle come first, then those on which people are of two minds, then those that a
majority or an adjudicator settled, then a random share of the rest; of responses, those on which people are of two
minds, then a random share. An item is asked for until ``per_item`` people judged it and more than half agree. Whether
an item is drawn, and for whom, follows from its id and the seed alone: more clips or more people move no other item.

Example:
    >>> queue = clip_queue(described, people, config=ReviewConfig())                         # doctest: +SKIP
    >>> [queued.why for queued in for_annotator(queue, "ann", config=ReviewConfig())]        # doctest: +SKIP
    ['unsettled', 'majority', 'audit']
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import model_validator

from videosafety.build.people.people import Annotator, ClipVerdict, People, RowVerdict, by_item, digest_of
from videosafety.build.people.settle import clip_majority, row_majority
from videosafety.build.records import Described, Thought
from videosafety.core.recipe import Config, knob

Why = Literal["unsettled", "people", "majority", "adjudicator", "audit"]
ORDER: tuple[Why, ...] = ("unsettled", "people", "majority", "adjudicator", "audit")


class ReviewConfig(Config):
    """What people are asked for. Without ``annotators`` one page holds all, and whoever opens it gives a code."""

    verdicts: str | None = knob(None, help="folder of the files that reviewers exported; none: OUT/review/verdicts")
    annotators: tuple[Annotator, ...] = knob((), help="codes of the reviewers, a page for each; none: one page for all")
    per_item: int = knob(2, unit="people", help="who judge each item", ge=1)
    clip_share: float = knob(0.05, unit="share", help="of clips that machines agree on, at random", ge=0, le=1)
    row_share: float = knob(0.02, unit="share", help="of responses, at random", ge=0, le=1)
    max_items: int = knob(2000, unit="items", help="on one page; more wait for the next build", ge=1, le=20_000)
    media: Literal["frames", "files"] = knob("frames", help="small frames in the page, or links to the clips' files")
    num_frames: int = knob(8, unit="frames", help="of a clip in the page", ge=1, le=64)
    max_side_px: int = knob(192, unit="px", help="longer side of a frame in the page", ge=32, le=1024)
    break_after_clips: int = knob(40, unit="items", help="revealed, after which the page asks for a break", ge=1)
    break_after_min: float = knob(15.0, unit="min", help="in view, after which the page asks for a break", gt=0)
    seed: int = knob(0, help="of what is drawn, and for whom")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if len({one.casefold() for one in self.annotators}) < len(self.annotators):
            raise ValueError("annotators: a code stands twice (capitals do not count)")
        return self


@dataclass(frozen=True)
class Queued:
    """An item that people are asked for: its ``place`` among the rows, why, how many are missing, who judged it."""

    item: str
    clip: str
    place: int
    why: Why
    missing: int
    judged: tuple[str, ...] = ()


def clip_queue(described: Iterable[Described], people: People, *, config: ReviewConfig) -> list[Queued]:
    """The clips that people are asked for, the most urgent first; never one that somebody quarantined."""
    given, hidden = by_item(people.clips), people.quarantined
    found: list[Queued] = []
    for place, row in enumerate(described):
        if row.id in hidden:
            continue
        verdicts = given.get(row.id, [])
        why: Why | None = "unsettled" if row.by == "unsettled" else None
        if row.by == "majority" or row.by == "adjudicator":
            why = row.by
        if why is None and drawn(row.id, "clip", seed=config.seed) < config.clip_share:
            why = "audit"
        found += _queued(row.id, row.id, place, why, verdicts, clip_majority(verdicts), config)
    return _sorted(found, seed=config.seed)


def row_queue(thoughts: Iterable[Thought], people: People, *, config: ReviewConfig) -> list[Queued]:
    """The responses that people are asked for, as ``clip_queue``. Verdicts on other words do not count."""
    given, hidden = by_item(people.rows), people.quarantined
    found: list[Queued] = []
    for place, row in enumerate(thoughts):
        clip = row.asked.described.id
        if clip in hidden:
            continue
        verdicts = given.get(row.id, [])
        verdicts = [v for v in verdicts if v.seen == digest_of(row)] if verdicts else []
        why: Why | None = "audit" if drawn(row.id, "row", seed=config.seed) < config.row_share else None
        found += _queued(row.id, clip, place, why, verdicts, row_majority(verdicts), config)
    return _sorted(found, seed=config.seed)


def for_annotator(queue: Sequence[Queued], annotator: str, *, config: ReviewConfig) -> list[Queued]:
    """What one person is asked for: of each item the people that come first in its own order, but who judged it."""
    return [one for one in queue if annotator in _asked(one, config)]


def unassigned(queue: Sequence[Queued], *, config: ReviewConfig) -> list[Queued]:
    """Items that wait for more people than there are."""
    return [one for one in queue if config.annotators and len(_asked(one, config)) < one.missing]


def drawn(item: str, what: str, *, seed: int) -> float:
    """A number in [0, 1) that follows from an item and the seed."""
    digest = hashlib.sha256(f"{seed}:{what}:{item}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _asked(one: Queued, config: ReviewConfig) -> list[str]:
    left = [name for name in config.annotators if name not in one.judged]
    return sorted(left, key=lambda name: drawn(one.item, f"for:{name}", seed=config.seed))[: one.missing]


def _queued(
    item: str,
    clip: str,
    place: int,
    why: Why | None,
    verdicts: Sequence[ClipVerdict] | Sequence[RowVerdict],
    majority: object | None,
    config: ReviewConfig,
) -> list[Queued]:
    """The item, where it has a reason and people are missing."""
    if verdicts and majority is None:
        why = "people"
    missing = config.per_item - len(verdicts)
    if why == "people":
        missing = max(1, missing)
    if why is None or missing < 1:
        return []
    return [Queued(item, clip, place, why, missing, tuple(v.annotator for v in verdicts))]


def _sorted(queue: Iterable[Queued], *, seed: int) -> list[Queued]:
    return sorted(queue, key=lambda one: (ORDER.index(one.why), drawn(one.item, "order", seed=seed), one.item))
