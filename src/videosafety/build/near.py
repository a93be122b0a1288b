"""near: which clips look nearly alike, found without comparing all with all.

A *space* says what the vectors of an embedder mean: codes of 64 bits, of each frame and of its mirror image, that are
close where frames look alike, and a distance between two frames in [0, 1]. The distance of two clips is the mean over
the frames of the one of the distance to the nearest frame of the other, the larger of both ways; the smaller of plain
and mirrored.

Which pairs are compared: those that share 16 bits in a row (a band) in the code of any frame. A band that very many
clips have in common (a black frame) would make time quadratic: in it, clips are compared with their neighbours by whole
code alone. So time and memory are linear in the clips.

Example:
    >>> [(i, j) for i, j, distance in near_pairs([one.vectors for one in clips], below=0.1)]   # doctest: +SKIP
    [(7, 50)]
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from videosafety.build.embed import NUM_BITS

BANDS, BAND_BITS = 4, 16
CROWD, NEIGHBOURS = 64, 8  # clips in a band above which, and how many to each side, only neighbours are compared
PAIRS_AT_ONCE = 8_192
PLANES_SEED = 20_261
Codes = NDArray[np.uint64]
Vectors = NDArray[Any]


class Space(Protocol):
    """What vectors mean."""

    def read(self, vectors: Sequence[str]) -> tuple[Vectors, Vectors]:
        """Frames and their mirror images, as rows, from an embedder's strings."""

    def codes(self, frames: Vectors) -> Codes:
        """64 bits for each frame."""

    def distances(self, first: Vectors, second: Vectors) -> NDArray[np.float64]:
        """In [0, 1], (P, A, B): in each of P pairs, of the A frames of one clip to the B frames of the other."""


class BitSpace:
    """``phash``: bits; the distance is the share that differ."""

    def read(self, vectors: Sequence[str]) -> tuple[Vectors, Vectors]:
        """As ``Space.read``."""
        pairs = np.array([(int(one[:16], 16), int(one[16:], 16)) for one in vectors], dtype=np.uint64)
        return pairs[:, 0], pairs[:, 1]

    def codes(self, frames: Vectors) -> Codes:
        """As ``Space.codes``: the bits themselves."""
        return frames

    def distances(self, first: Vectors, second: Vectors) -> NDArray[np.float64]:
        """As ``Space.distances``."""
        return np.bitwise_count(first[:, :, None] ^ second[:, None, :]) / NUM_BITS


class CosineSpace:
    """``dinov2``: unit vectors as half floats; the distance is half of one minus the cosine.

    A code is the side of 64 planes on which a vector lies (Charikar 2002): angles become shares of differing bits.
    """

    def read(self, vectors: Sequence[str]) -> tuple[Vectors, Vectors]:
        """As ``Space.read``."""
        rows = np.stack([np.frombuffer(bytes.fromhex(one), dtype="<f2") for one in vectors]).astype(np.float32)
        half = rows.shape[1] // 2
        return rows[:, :half], rows[:, half:]

    def codes(self, frames: Vectors) -> Codes:
        """As ``Space.codes``."""
        planes = np.random.default_rng(PLANES_SEED).standard_normal((frames.shape[1], BANDS * BAND_BITS))
        sides = (frames @ planes.astype(np.float32)) > 0
        powers = np.uint64(1) << np.arange(BANDS * BAND_BITS, dtype=np.uint64)
        return np.asarray((sides * powers).sum(axis=1), dtype=np.uint64)

    def distances(self, first: Vectors, second: Vectors) -> NDArray[np.float64]:
        """As ``Space.distances``."""
        return np.clip((1 - first.astype(np.float64) @ second.astype(np.float64).swapaxes(1, 2)) / 2, 0, 1)


SPACES: dict[str, Space] = {"phash": BitSpace(), "dinov2": CosineSpace()}


def near_pairs(
    clips: Sequence[Sequence[str]], *, below: float, space: Space = SPACES["phash"]
) -> Iterator[tuple[int, int, float]]:
    """Pairs (i < j, distance) of clips, by their vectors, that are closer than ``below``, if they share a band."""
    if len(clips) < 2:
        return
    sizes = np.array([len(set(vectors)) for vectors in clips])
    starts = np.r_[0, np.cumsum(sizes)]
    plain, mirrored = space.read([one for vectors in clips for one in dict.fromkeys(vectors)])
    owner = np.repeat(np.arange(len(clips)), sizes)
    for codes in _candidates(space.codes(plain), space.codes(mirrored), owner, len(clips)):
        firsts, seconds = np.divmod(codes, len(clips))
        shapes = np.stack([sizes[firsts], sizes[seconds]])
        for shape in np.unique(shapes, axis=1).T:  # pairs of as many frames are compared together
            alike = (shapes == shape[:, None]).all(axis=0)
            one, other = firsts[alike], seconds[alike]
            a = starts[one, None] + np.arange(shape[0])
            b = starts[other, None] + np.arange(shape[1])
            found = np.minimum(*(_both_ways(space.distances(plain[a], them[b])) for them in (plain, mirrored)))
            for at in np.flatnonzero(found < below):
                yield int(one[at]), int(other[at]), float(found[at])


def _both_ways(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distances of P pairs of clips, of (P, A, B): the larger of both ways of the mean to the nearest frame."""
    there: NDArray[np.float64] = distances.min(axis=2).mean(axis=1)
    back: NDArray[np.float64] = distances.min(axis=1).mean(axis=1)
    return np.asarray(np.maximum(there, back))


def _candidates(plain: Codes, mirrored: Codes, owner: NDArray[np.int64], num: int) -> Iterator[NDArray[np.int64]]:
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
