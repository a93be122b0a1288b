"""Mix sources into one list of examples, deterministically, with an account of what was left out.

Which rows a limit or a share keeps depends on the seed and on the rows' ids alone: rows are ranked by a hash of both
and the first are taken. So neither the order of a file nor other sources change the choice, a larger limit keeps what
a smaller one kept, and every process chooses alike. The mixture itself stands in that order too.

Shares are exact: the mixture is the largest for which every source has enough rows, N = min floor(rows / share); each
source gives the whole part of share x N, and what is missing to N goes to the largest remainders, earlier sources
first. A limit holds before the shares. Sources without shares give all that their limit allows.

Example:
    >>> mixture = mix([Source(name="vst", path="vst.jsonl", limit=6000)], seed=0)
    >>> mixture.report.sources[0].num_used
    6000
"""

import hashlib
import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from pydantic import Field

from videosafety.core.errors import RecipeError
from videosafety.core.example import Example
from videosafety.core.records import Record
from videosafety.defend.data.raw import Place, Problems
from videosafety.defend.data.source import Account, Source, Sourced, read_source


class SourceReport(Record):
    """What a source gave. ``num_rows`` = ``num_used`` + ``num_left_out``; ``share`` is its part of the mixture."""

    name: str
    path: str
    num_rows: int = Field(ge=0)
    num_used: int = Field(ge=0)
    num_left_out: int = Field(ge=0)
    share: float = Field(ge=0, le=1)
    num_labels_dropped: int = Field(ge=0)  # rows whose labels ``labels: none`` masked, left-out rows included
    ignored_keys: tuple[str, ...] = ()  # keys of foreign rows that nothing reads


class MixReport(Record):
    """What the mixture consists of."""

    seed: int
    num_examples: int = Field(ge=0)
    sources: tuple[SourceReport, ...]


@dataclass(frozen=True)
class Mixture:
    """Examples in their order, the place of each one's row, and the account."""

    examples: list[Example]
    places: list[Place]
    report: MixReport


def mix(sources: Sequence[Source], *, seed: int) -> Mixture:
    """Read, check and mix.

    Args:
        sources: at least one, with different names; either all or none have a ``share``, and shares sum to 1.
        seed: decides which rows are kept and in which order they stand.

    Raises:
        RecordError: a file cannot be read, or rows are bad: one error names the first 20 of all sources and counts all.
        RecipeError: the names or shares do not fit together.
        DependencyError: a hub source without the package ``datasets``.
    """
    problems = Problems()
    mixture = gather(sources, seed=seed, problems=problems)
    problems.refuse()
    return mixture


def gather(sources: Sequence[Source], *, seed: int, problems: Problems) -> Mixture:
    """As ``mix``, but bad rows are left to the caller, who must refuse them: the mixture lacks them."""
    _check(sources)
    accounts = [Account() for _ in sources]
    ranked = [
        _ranked(source, seed=seed, problems=problems, account=account)
        for source, account in zip(sources, accounts, strict=True)
    ]
    counts = [len(rows) for rows in ranked]
    if not problems.num:
        counts = _counts(sources, counts)
    chosen = [row for rows, count in zip(ranked, counts, strict=True) for row in rows[:count]]
    chosen.sort(key=lambda row: _rank(row, seed))
    reports = tuple(
        SourceReport(
            name=source.name, path=source.path, num_rows=account.num_rows, num_used=count,
            num_left_out=account.num_rows - count, share=count / max(1, len(chosen)),
            num_labels_dropped=account.num_labels_dropped, ignored_keys=tuple(sorted(account.ignored_keys)),
        )
        for source, account, count in zip(sources, accounts, counts, strict=True)
    )  # fmt: skip
    report = MixReport(seed=seed, num_examples=len(chosen), sources=reports)
    return Mixture([row.example for row in chosen], [row.place for row in chosen], report)


def _check(sources: Sequence[Source]) -> None:
    if not sources:
        raise RecipeError("there is no source of training data", where="data.sources", fix="name at least one")
    names = [source.name for source in sources]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"two sources are called {twice[0]!r}", where="data.sources", fix="give each its own name")
    shares = [source.share for source in sources if source.share is not None]
    if shares and len(shares) < len(sources):
        raise RecipeError("some sources have a share and some have none", where="data.sources",
                          fix="give every source a share, or none")  # fmt: skip
    if shares and not math.isclose(total := math.fsum(shares), 1.0, abs_tol=1e-9):
        raise RecipeError(f"the shares sum to {total:g}", where="data.sources", fix="make them sum to 1")


def _ranked(source: Source, *, seed: int, problems: Problems, account: Account) -> list[Sourced]:
    """The source's rows in the order of their rank; with a limit no more are ever held."""
    rows = read_source(source, problems=problems, account=account)
    if source.limit is None:
        return sorted(rows, key=lambda row: _rank(row, seed))
    return heapq.nsmallest(source.limit, rows, key=lambda row: _rank(row, seed))


def _rank(row: Sourced, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{row.example.id}".encode()).digest()


def _counts(sources: Sequence[Source], available: list[int]) -> list[int]:
    """How many rows each source gives; the module's docstring has the rule."""
    shares = [Fraction(str(source.share)) for source in sources if source.share is not None]
    if not shares:
        return available
    total = min(math.floor(num / share) for num, share in zip(available, shares, strict=True))
    exact = [share * total for share in shares]
    counts = [math.floor(part) for part in exact]
    by_remainder = sorted(range(len(shares)), key=lambda place: counts[place] - exact[place])
    for place in by_remainder[: total - sum(counts)]:
        counts[place] += 1
    for source, count in zip(sources, counts, strict=True):
        if not count:
            raise RecipeError(f"source {source.name!r} with share {source.share:g} gives no row of {total}",
                              where="data.sources", fix="raise its share, or leave it out")  # fmt: skip
    return counts
