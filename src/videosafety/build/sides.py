"""Which rows must not be divided between training and evaluation, and on which side each one lies.

Two rows belong together by their clip (same file, same near-duplicate cluster) or by their words: same template in any
language, twins of each other, equal or nearly equal query. Nearly equal: Jaccard similarity of the character shingles
(5 characters; 2 in Chinese and Japanese), found by MinHash and LSH, decided exactly. Clips and words make two
independent partitions; a row whose clip lies on one side and whose words on the other belongs nowhere.

``ask`` draws words by the side of the clip, so that hardly any row is lost; rows without a side are divided here.

Example:
    >>> [side for side, _ in sides(asked, eval_share=0.2, seed=0)]                           # doctest: +SKIP
    ['train', 'train', None, 'eval']
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from videosafety.build.diversity import folded
from videosafety.build.groups import Groups
from videosafety.build.records import Asked
from videosafety.core.errors import DependencyError

Side = Literal["train", "eval"]
NUM_HASHES = 128
NEAR = 0.8  # Jaccard similarity from which two queries are one
_TEMPLATE = re.compile(r"^[a-z]{2}\.\d+\.(.+)$")  # language, version, what all languages share
_DENSE = re.compile("[\u3040-\u30ff\u3400-\u9fff]")


def family(template: str) -> str:
    """What the templates of all languages share of their name: ``en.1.e3.fraud.0`` → ``e3.fraud.0``."""
    found = _TEMPLATE.match(template)
    return found.group(1) if found else template


class Traits(NamedTuple):
    """What decides on which side a row lies, and nothing else of it: a hundred rows of a build fit where one was."""

    id: str
    twin: str | None
    kind: str
    template: str  # its family
    query: str  # plain
    cluster: str
    files: tuple[str, ...]
    split: str | None
    visual: str


def traits_of(row: Asked | Traits) -> Traits:
    """The traits of a row."""
    if isinstance(row, Traits):
        return row
    sample, described = row.sample, row.described
    own = sample.media.sha256 if sample.media is not None else None
    files = {described.clip.sha256, *([own] if own else [])}
    return Traits(row.id, row.twin, row.kind, family(row.template), folded(sample.query), described.cluster,
                  tuple(sorted(files)), sample.split, described.visual.value)  # fmt: skip


def clip_keys(row: Asked | Traits) -> list[str]:
    """By what a row's clip is known: its file and its near-duplicate cluster."""
    one = traits_of(row)
    return [f"cluster:{one.cluster}", *(f"file:{file}" for file in one.files)]


def word_keys(row: Asked | Traits) -> list[str]:
    """By what a row's words are known: template and query."""
    one = traits_of(row)
    return [f"template:{one.template}", f"query:{one.query}"]


def clip_groups(rows: Sequence[Asked | Traits]) -> list[str]:
    """For every row its group of clips: same file, same cluster."""
    groups = Groups[str]()
    firsts: list[str] = []
    for row in rows:
        first, *others = clip_keys(row)
        firsts.append(first)
        for key in others:
            groups.join(first, key)
    return [groups.of(first) for first in firsts]


def word_groups(rows: Sequence[Asked | Traits], *, near: float = NEAR) -> list[str]:
    """For every row its group of words: same template, twins, queries equal or nearly."""
    groups = Groups[str]()
    some = [traits_of(row) for row in rows]
    template_of = {row.id: row.template for row in some}
    for row in some:
        template, query = word_keys(row)
        groups.join(template, query)
        if row.twin in template_of:
            groups.join(template, f"template:{template_of[row.twin]}")
    for first, second in near_queries({row.query for row in some}, near=near):
        groups.join(f"query:{first}", f"query:{second}")
    return [groups.of(f"template:{row.template}") for row in some]


def shingles(query: str) -> frozenset[str]:
    """The pieces of a plain query: 2 characters in Chinese and Japanese, else 5; a shorter query is one piece."""
    size = 2 if _DENSE.search(query) else 5
    return frozenset(query[at : at + size] for at in range(max(1, len(query) - size + 1)))


def near_queries(
    queries: Iterable[str], *, among: Iterable[str] | None = None, near: float = NEAR
) -> list[tuple[str, str]]:
    """Pairs of plain queries whose shingles are nearly the same.

    Args:
        queries: what is looked up.
        among: where it is looked up; None: among the queries themselves, each pair once.
        near: Jaccard similarity from which a pair counts; pairs well above it are found, some just above are missed.

    Raises:
        DependencyError: datasketch is not installed.
    """
    try:
        from datasketch import MinHash, MinHashLSH  # type: ignore[import-untyped]
    except ImportError as error:
        raise DependencyError("finding nearly equal queries needs datasketch", fix="pip install datasketch") from error
    looked_up = sorted(set(queries))
    held = looked_up if among is None else sorted(set(among))
    pieces = {query: shingles(query) for query in {*looked_up, *held}}
    index = MinHashLSH(threshold=near * 0.9, num_perm=NUM_HASHES)
    hashed = {}
    for query, some in pieces.items():
        hashed[query] = MinHash(num_perm=NUM_HASHES, seed=1)
        hashed[query].update_batch([one.encode() for one in sorted(some)])
    for query in held:
        index.insert(query, hashed[query])
    pairs = ((query, other) for query in looked_up for other in sorted(index.query(hashed[query])))
    return [
        (query, other) for query, other in pairs
        if (other > query if among is None else True) and _jaccard(pieces[query], pieces[other]) >= near
    ]  # fmt: skip


def _jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / len(first | second)


def sides(
    rows: Sequence[Asked | Traits], *, eval_share: float, seed: int, near: float = NEAR
) -> list[tuple[Side | None, Literal["", "clip", "words"]]]:
    """For every row its side, or None and by what it would leak.

    A group lies where ``sample.split`` puts most of its rows; without that, where a hash of its name puts it, so that
    evaluation gets about ``eval_share`` of the rows that are left.
    """
    some = [traits_of(row) for row in rows]
    of_clips, of_words = clip_groups(some), word_groups(some, near=near)
    given = [row.split if row.split in ("eval", "train") else None for row in some]
    ratio = (eval_share / (1 - eval_share)) ** 0.5 if eval_share < 1 else float("inf")
    share = ratio / (1 + ratio) if ratio != float("inf") else 1.0  # of clips and of words: both must agree
    clip_side = _placed(of_clips, given, [row.visual for row in some], share=share, seed=seed)
    word_side = _placed(of_words, given, [row.kind for row in some], share=share, seed=seed)
    found: list[tuple[Side | None, Literal["", "clip", "words"]]] = []
    for clip, words, own in zip(of_clips, of_words, given, strict=True):
        side = own or clip_side[clip]
        if clip_side[clip] != side:
            found.append((None, "clip"))
        else:
            found.append((clip_side[clip], "") if word_side[words] == side else (None, "words"))
    return found


def _placed(
    groups: Sequence[str], given: Sequence[str | None], strata: Sequence[str], *, share: float, seed: int
) -> dict[str, Side]:
    """The side of every group; of the rows of a stratum about ``share`` are put into evaluation."""
    said: dict[str, Counter[str | None]] = defaultdict(Counter)
    kinds: dict[str, set[str]] = defaultdict(set)
    for group, side, stratum in zip(groups, given, strata, strict=True):
        said[group][side] += 1
        kinds[group].add(stratum)
    placed: dict[str, Side] = {}
    taken: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for group in sorted(said, key=lambda name: drawn_place(seed, name)):
        votes, stratum, size = said[group], "+".join(sorted(kinds[group])), said[group].total()
        if votes["eval"] or votes["train"]:
            placed[group] = "eval" if votes["eval"] > votes["train"] else "train"
            continue
        total[stratum] += size
        wants = share * total[stratum] - taken[stratum] >= size / 2
        placed[group] = "eval" if wants else "train"
        taken[stratum] += size if wants else 0
    return placed


def drawn_place(seed: int, name: str) -> str:
    """Where a name stands in the order of a seed."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
