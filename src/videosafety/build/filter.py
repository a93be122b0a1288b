"""filter: leave out clips in which nothing moves and copies of other clips, and say which of the rest are related.

A near duplicate (re-encoded, scaled, trimmed, mirrored) of an earlier clip ends here; what is looser than that but too
close for two sides of a split becomes one cluster, by union-find. The distance of two clips is the mean over the frames
of the one of the share of bits by which its nearest frame of the other differs, the larger of both ways; the smaller of
plain and mirrored.

Which pairs are compared: those that share 16 bits in a row (a band) in any frame. A band that very many clips have in
common (a black frame) would make time quadratic: in it, clips are compared with their neighbours by whole hash alone.
So time and memory are linear in the clips.

Example:
    >>> Filter(static_below=0.02, duplicate_below=0.16, related_below=0.25).over(embedded)   # doctest: +SKIP
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from videosafety.build.embed import NUM_BITS
from videosafety.build.records import Embedded, Kept
from videosafety.build.state import State, Terminal

BANDS, BAND_BITS = 4, 16
CROWD, NEIGHBOURS = 64, 8  # clips in a band above which, and how many to each side, only neighbours are compared
PAIRS_AT_ONCE = 65_536
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Filter:
    """The step; its thresholds belong to the embedder ``phash``."""

    static_below: float = 0.02
    duplicate_below: float = 0.16
    related_below: float = 0.25
    name: ClassVar[str] = "filter"
    version: ClassVar[int] = 1
    makes: ClassVar[type[Kept]] = Kept

    def over(self, clips: Sequence[Embedded]) -> Iterator[Sequence[Kept] | Terminal]:
        """For every clip the clip with its cluster, or why it is left out. The first of several copies stays."""
        names: list[str] = []
        vectors: list[tuple[str, ...]] = []
        moving: list[int] = []
        for index, clip in enumerate(clips):
            if clip.embedder != "phash":
                raise ValueError(f"these thresholds are of phash, and {clip.id} was embedded by {clip.embedder}")
            names.append(clip.id)
            if clip.static_score >= self.static_below:
                moving.append(index)
                vectors.append(clip.vectors)
        copies, related = _Sets(len(clips)), _Sets(len(clips))
        for first, second, distance in near_pairs(vectors, below=self.related_below):
            related.join(moving[first], moving[second])
            if distance < self.duplicate_below:
                copies.join(moving[first], moving[second])
        is_moving = frozenset(moving)
        for index, clip in enumerate(clips):
            if index not in is_moving:
                yield Terminal(state=State.FILTERED, reason="static")
            elif (copied := copies.of(index)) != index:
                yield Terminal(state=State.FILTERED, reason=f"duplicate:near:{names[copied]}"[:200])
            else:
                yield [Kept(id=clip.id, clip=clip.clip, facts=clip.facts, cluster=f"near-{names[related.of(index)]}")]


class _Sets:
    """Union-find; the representative of a set is its smallest member."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def of(self, member: int) -> int:
        while self._parent[member] != member:
            self._parent[member] = member = self._parent[self._parent[member]]
        return member

    def join(self, first: int, second: int) -> None:
        low, high = sorted((self.of(first), self.of(second)))
        self._parent[high] = low


def near_pairs(clips: Sequence[Sequence[str]], *, below: float) -> Iterator[tuple[int, int, float]]:
    """Pairs (i < j, distance) of clips, by their vectors, that are closer than ``below``, if they share a band."""
    if len(clips) < 2:
        return
    plain, mirrored, owner = _hashes(clips)
    starts = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1], True])
    for codes in _candidates(plain, mirrored, owner, len(clips)):
        for code in codes.tolist():
            first, second = divmod(code, len(clips))
            a, b = slice(*starts[first : first + 2]), slice(*starts[second : second + 2])
            distance = min(_distance(plain[a], plain[b]), _distance(plain[a], mirrored[b]))
            if distance < below:
                yield first, second, distance


def _hashes(clips: Sequence[Sequence[str]]) -> tuple[Hashes, Hashes, NDArray[np.int64]]:
    """All frames' hashes, those of their mirror images, and the clip of each."""
    rows = [(int(vector[:16], 16), int(vector[16:], 16), index)
            for index, clip in enumerate(clips) for vector in dict.fromkeys(clip)]  # fmt: skip
    plain, mirrored, owner = zip(*rows, strict=True)
    return np.array(plain, dtype=np.uint64), np.array(mirrored, dtype=np.uint64), np.array(owner, dtype=np.int64)


def _candidates(plain: Hashes, mirrored: Hashes, owner: NDArray[np.int64], num: int) -> Iterator[NDArray[np.int64]]:
    """Codes i · num + j, i < j, each once, of clips that share a band: plain with plain, or with mirrored."""
    whole = np.r_[plain, mirrored]
    owners = np.r_[owner, owner]
    found: list[NDArray[np.int64]] = []
    for band in range(BANDS):
        bits = (whole >> np.uint64(band * BAND_BITS)) & np.uint64(2**BAND_BITS - 1)
        order = np.lexsort((owners, whole, bits))
        sorted_bits, sorted_owner = bits[order], owners[order]
        edges = np.flatnonzero(np.r_[True, sorted_bits[1:] != sorted_bits[:-1], True])
        sizes = np.repeat(np.diff(edges), np.diff(edges))
        for step in range(1, CROWD):
            same = sorted_bits[step:] == sorted_bits[:-step]
            if step > NEIGHBOURS:
                same &= sizes[step:] <= CROWD
            if not same.any():
                break
            low = np.minimum(sorted_owner[step:], sorted_owner[:-step])[same]
            high = np.maximum(sorted_owner[step:], sorted_owner[:-step])[same]
            found.append(np.unique((low * num + high)[low != high]))
    codes = np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)
    for start in range(0, len(codes), PAIRS_AT_ONCE):
        yield codes[start : start + PAIRS_AT_ONCE]


def _distance(first: Hashes, second: Hashes) -> float:
    """The larger of both ways of the mean share of differing bits to the nearest frame."""
    bits = np.bitwise_count(first[:, None] ^ second[None, :]) / NUM_BITS
    return float(max(bits.min(axis=1).mean(), bits.min(axis=0).mean()))
