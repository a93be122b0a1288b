"""filter: leave out clips in which nothing moves and copies of other clips, and say which of the rest are related.

A near duplicate (re-encoded, scaled, trimmed, mirrored) of an earlier clip ends here; what is looser than that but too
close for two sides of a split becomes one cluster, by union-find. What near means is in ``near.py``. A copy of a clip
that was withdrawn ends here, too, when that clip itself is not there any more.

Thresholds belong to an embedder. Those of ``phash`` were found on generated clips and hold for the real ones of our
tests; for ``dinov2`` none are known to be right, so a recipe gives its own.

Example:
    >>> Filter(static_below=0.02, duplicate_below=0.16, related_below=0.25).over(embedded)   # doctest: +SKIP
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from videosafety.build.gone import Look
from videosafety.build.groups import Groups
from videosafety.build.near import SPACES, near_pairs
from videosafety.build.records import Embedded, Kept
from videosafety.build.state import State, Terminal
from videosafety.build.step import LATER


@dataclass(frozen=True)
class Filter:
    """The step; its thresholds belong to the embedder. ``gone``: clips of which no copy may come back."""

    static_below: float = 0.02
    duplicate_below: float = 0.16
    related_below: float = 0.25
    embedder: str = "phash"
    gone: tuple[Look, ...] = field(default=(), metadata=LATER)
    name: ClassVar[str] = "filter"
    version: ClassVar[int] = 2
    makes: ClassVar[type[Kept]] = Kept

    def over(self, clips: Sequence[Embedded]) -> Iterator[Sequence[Kept] | Terminal]:
        """For every clip the clip with its cluster, or why it is left out. The first of several copies stays."""
        names: list[str] = []
        vectors: list[tuple[str, ...]] = []
        moving: list[int] = []
        for index, clip in enumerate(clips):
            if clip.embedder != self.embedder:
                raise ValueError(
                    f"these thresholds are of {self.embedder}, and {clip.id} is embedded by {clip.embedder}"
                )
            names.append(clip.id)
            if clip.static_score >= self.static_below:
                moving.append(index)
                vectors.append(clip.vectors)
        is_moving, present = frozenset(moving), frozenset(names)
        absent = [look for name, look in self.gone if name not in present]
        places = [*moving, *range(len(clips), len(clips) + len(absent))]  # absent clips stand behind all others
        copies, related = Groups[int](), Groups[int]()
        space = SPACES[self.embedder]
        for first, second, distance in near_pairs([*vectors, *absent], below=self.related_below, space=space):
            if distance < self.duplicate_below:
                copies.join(places[first], places[second])
            if max(places[first], places[second]) < len(clips):
                related.join(places[first], places[second])
        withdrawn = {copies.of(place) for place in places[len(moving) :]}
        for index, clip in enumerate(clips):
            if index not in is_moving:
                yield Terminal(state=State.FILTERED, reason="static")
            elif (copied := copies.of(index)) in withdrawn:
                yield Terminal(state=State.QUARANTINED, reason="duplicate:withdrawn")
            elif copied != index:
                yield Terminal(state=State.FILTERED, reason=f"duplicate:near:{names[copied]}"[:200])
            else:
                yield [Kept(id=clip.id, clip=clip.clip, facts=clip.facts, cluster=f"near-{names[related.of(index)]}")]
