"""The account of all rows: for every step, what went in is what came to an end, and what went on is what goes into the
next. A build whose account does not balance is a fault of ours, and says so.

Example:
    >>> print(table(read_account(out / "ledger.sqlite")))                                    # doctest: +SKIP
    step      rows in  went on  ended  waiting  rows out
    collect       513      494     19        0       494
    probe         494      452     42        0       452
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from videosafety.build.ledger import Count
from videosafety.build.state import State

FOR_PEOPLE = ("votes:disagree", "people:")  # reasons of rows that wait for people, and for nothing else
CAP = "cost:cap"


class Line(NamedTuple):
    """One step of the account, in rows. ``ended`` counts by state and reason; ``made`` is what goes on."""

    step: str
    rows: int
    ok: int
    waiting: int
    made: int
    ended: Mapping[tuple[State, str], int]

    @property
    def failed(self) -> dict[str, int]:
        """Rows that the next run tries again, by reason; not those that wait for people."""
        return {reason: rows for (state, reason), rows in self.ended.items()
                if state is State.FAILED and not reason.startswith(FOR_PEOPLE)}  # fmt: skip


def lines_of(counts: Iterable[Count]) -> list[Line]:
    """The account by steps, in their order. Reasons that name a clip are counted together."""
    lines = []
    for step, group in groupby(counts, key=lambda count: count.step):
        own = list(group)
        ended: dict[tuple[State, str], int] = {}
        for count in own:
            if count.state not in (None, State.OK):
                key = count.state, _kind(count.reason)
                ended[key] = ended.get(key, 0) + count.rows
        ok = sum(count.rows for count in own if count.state is State.OK)
        waiting = sum(count.rows for count in own if count.state is None)
        lines.append(Line(step, sum(one.rows for one in own), ok, waiting, sum(one.made for one in own), ended))
    return lines


def _kind(reason: str) -> str:
    """``duplicate:near:clip-4f…`` is one of ``duplicate:near``."""
    return reason.split(":clip-")[0]


def faults_of(lines: Sequence[Line]) -> list[str]:
    """Where the account does not balance: rows in and their ends, and each step's rows against what was made for it."""
    faults = [
        f"{line.step}: {line.rows} rows, and {line.ok + line.waiting + sum(line.ended.values())} ends"
        for line in lines
        if line.rows != line.ok + line.waiting + sum(line.ended.values())
    ]
    for before, line in pairwise(lines):
        if line.rows != before.made:
            faults.append(f"{line.step}: {line.rows} rows, and {before.step} made {before.made}")
    return faults


def held(lines: Sequence[Line], *, max_failed_share: float) -> str | None:
    """Why a build must stop before it mixes: too many rows of a step failed, or the cap was reached; None: go on."""
    for line in lines:
        capped = line.failed.get(CAP, 0)
        if capped:
            return f"the cost cap is reached: {capped} rows of {line.step} wait; raise limits.cost_cap_usd"
        if sum(line.failed.values()) > max_failed_share * line.rows:
            worst = max(line.failed, key=lambda reason: line.failed[reason])
            return (f"{sum(line.failed.values())} of {line.rows} rows of {line.step} failed, most with {worst}; mend"
                    " the cause, or raise limits.max_failed_share")  # fmt: skip
    return None


def table(counts: Iterable[Count]) -> str:
    """A line a step, then its ends by state and reason."""
    said = [f"{'step':<12}{'rows in':>9}{'went on':>9}{'ended':>9}{'waiting':>9}{'rows out':>10}"]
    for line in lines_of(counts):
        ended = sum(line.ended.values())
        said.append(f"{line.step:<12}{line.rows:>9}{line.ok:>9}{ended:>9}{line.waiting:>9}{line.made:>10}")
        for (state, reason), rows in sorted(line.ended.items(), key=lambda one: -one[1]):
            said.append(f"    {f'{state.value} {reason}':<35}{rows:>9}")
    return "\n".join(said)
