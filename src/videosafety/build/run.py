"""Run a step over a ledger: what is known is read, what is not is worked out and written at once.

The same records and steps give the same rows in the same order, whether run at once, killed and run again, in this
process or in many. Rows that FAILED are tried again by every run; all other states stand.

Rows travel as the JSON that the ledger holds: this process hashes and writes, worker processes parse and work. They
take several rows at a time; if one dies of them, each of these rows is tried again alone, and the one that kills is
quarantined.

Example:
    >>> with Ledger(out / "ledger.sqlite") as ledger:
    ...     clips = run_step(Probe(root), found, ledger, workers=2)                          # doctest: +SKIP
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from videosafety.build.ledger import SAME, Known, Ledger, Outcome
from videosafety.build.pool import KILLED, Crash, run_isolated
from videosafety.build.rows import Rows, Source, source_of
from videosafety.build.state import State, Terminal
from videosafety.build.step import AsyncStep, GlobalStep, Named, RowStep, row_key, step_hash
from videosafety.core.jsonl import canonical_json
from videosafety.core.records import Record

In = TypeVar("In", bound=Record)
Out = TypeVar("Out", bound=Record)
OnRow = Callable[[int, int], None]
ROWS_AT_ONCE = 32  # that a worker takes at most: a kill costs at most these, and they are worked out again
TURNS = 8  # that each worker has at least, so that none waits long for the last
ROW_TIMEOUT_S = 600.0
FEW = 2000  # rows of a step that opens no media, below which processes take longer to start than to help


def run_step(
    step: RowStep[In, Out] | AsyncStep[In, Out] | GlobalStep[In, Out],
    records: Sequence[In],
    ledger: Ledger,
    *,
    workers: int = 1,
    concurrency: int = 8,
    on_row: OnRow = lambda done, total: None,
) -> Rows[Out]:
    """The rows that a step makes of all records, in the order of the records.

    Args:
        step: what to do.
        records: with an ``id`` each, unique.
        ledger: what is known; every new outcome is written to it.
        workers: processes of a row step; its rows are isolated from each other even with one.
        concurrency: rows of an async step under way at a time.
        on_row: told of progress, (done, total).
    """
    source = source_of(records)
    keys, todo = begin(step, source, ledger)
    done = len(source) - len(todo)
    on_row(done, len(source))
    if isinstance(step, GlobalStep) and todo:
        todo, done = [Known(place, None) for place in range(len(source))], 0
    attempts = {known.place: known.attempts for known in todo if known.attempts}
    results = (
        _global(step, records, source, keys) if isinstance(step, GlobalStep) and todo
        else _results(step, source, keys, [known.place for known in todo], workers=workers, concurrency=concurrency)
    )  # fmt: skip
    for outcomes in results:
        ledger.finish(replace(one, attempts=attempts.get(place, 0) + 1) for place, one in outcomes)
        done += len(outcomes)
        on_row(done, len(source))
    return rows_of(step, source, keys, ledger)


def begin(step: Named, source: Source, ledger: Ledger) -> tuple[list[str], list[Known]]:
    """Tell the ledger which rows a step has; the rows' keys, and the places of those that are to be worked out."""
    sha256 = step_hash(step)
    keys = [row_key(sha256, source.json(place)) for place in range(len(source))]
    if isinstance(step, GlobalStep):  # what becomes of a row depends on all
        whole = hashlib.sha256("".join(sorted(keys)).encode()).hexdigest()
        keys = [row_key(whole, key.encode()) for key in keys]
    ledger.begin(step.name, keys)
    return keys, [known for known in ledger.known(step.name) if known.state in (None, State.FAILED)]


def rows_of(step: Any, source: Source, keys: Sequence[str], ledger: Ledger) -> Rows[Any]:
    """The rows that a step made, read from the ledger when they are looked at."""
    return Rows(ledger, step.name, step.makes, keys=keys, known=ledger.known(step.name), source=source)


def _results(
    step: Any, source: Source, keys: Sequence[str], places: Sequence[int], *, workers: int, concurrency: int
) -> Iterator[list[tuple[int, Outcome]]]:
    """Outcomes with their places, as many at a time as are to be written together."""
    if isinstance(step, AsyncStep):
        for place, outcome in _awaited(step, source, keys, places, concurrency):
            yield [(place, outcome)]
        return
    most = max(1, min(ROWS_AT_ONCE, len(places) // (workers * TURNS)))
    if getattr(step, "opens_media", True) or len(places) >= FEW:
        yield from _isolated(step, source, keys, places, workers=workers, at_once=most)
    else:
        yield from map(_Work(step, source.kind), _Turns(source, keys, places, most))


def _global(
    step: Any, records: Sequence[Any], source: Source, keys: Sequence[str]
) -> Iterator[list[tuple[int, Outcome]]]:
    waiting: list[tuple[int, Outcome]] = []
    for place, result in enumerate(step.over(records)):
        raw = source.json(place)
        waiting.append((place, outcome_of(step.name, keys[place], records[place], raw, result)))
        if len(waiting) >= ROWS_AT_ONCE * TURNS:
            yield waiting
            waiting = []
    yield waiting


@dataclass(frozen=True)
class _Work:
    """What a worker process does with some rows."""

    step: Any
    kind: type[Record]

    def __call__(self, rows: Sequence[tuple[int, str, bytes]]) -> list[tuple[int, Outcome]]:
        """Outcomes of (place, key, JSON)."""
        done = []
        for place, key, raw in rows:
            record = self.kind.model_validate_json(raw)
            done.append((place, outcome_of(self.step.name, key, record, raw, self.step(record))))
        return done


class _Turns(Sequence[list[tuple[int, str, bytes]]]):
    """Rows in groups, read when a worker is ready for them."""

    def __init__(self, source: Source, keys: Sequence[str], places: Sequence[int], at_once: int) -> None:
        self._source, self._keys, self._places, self._at_once = source, keys, places, at_once

    def __len__(self) -> int:
        return -(-len(self._places) // self._at_once)

    def __getitem__(self, turn: Any) -> Any:
        if not 0 <= turn < len(self):
            raise IndexError(turn)
        own = self._places[turn * self._at_once : (turn + 1) * self._at_once]
        return [(place, self._keys[place], self._source.json(place)) for place in own]


def _isolated(
    step: Any, source: Source, keys: Sequence[str], places: Sequence[int], *, workers: int, at_once: int
) -> Iterator[list[tuple[int, Outcome]]]:
    turns, alone = _Turns(source, keys, places, at_once), list[int]()
    work = _Work(step, source.kind)
    for turn, result in run_isolated(work, turns, workers=workers, timeout_s=ROW_TIMEOUT_S):
        if not isinstance(result, Crash):
            yield result
        elif at_once > 1:
            alone += [place for place, *_ in turns[turn]]
        else:
            ((place, key, raw),) = turns[turn]
            killed = result.how in KILLED
            end = Terminal(state=State.FAILED if killed else State.QUARANTINED, reason=f"crash:{result.how}"[:200])
            yield [(place, outcome_of(step.name, key, source.kind.model_validate_json(raw), raw, end))]
    if alone:
        yield from _isolated(step, source, keys, alone, workers=workers, at_once=1)


def _awaited(
    step: Any, source: Source, keys: Sequence[str], places: Sequence[int], concurrency: int
) -> Iterator[tuple[int, Outcome]]:
    """Outcomes of an async step as they come, ``concurrency`` rows at a time."""
    left = iter(places)

    async def one(place: int) -> tuple[int, Outcome]:
        raw = source.json(place)
        record = source.kind.model_validate_json(raw)
        return place, outcome_of(step.name, keys[place], record, raw, await step.run(record))

    with asyncio.Runner() as runner:
        loop, under_way = runner.get_loop(), set[asyncio.Task[tuple[int, Outcome]]]()
        try:
            while True:
                while len(under_way) < concurrency and (place := next(left, None)) is not None:
                    under_way.add(loop.create_task(one(place)))
                if not under_way:
                    return
                finished, under_way = runner.run(_first_of(under_way))
                for task in sorted(finished, key=lambda task: task.result()[0]):
                    yield task.result()
        finally:
            for task in under_way:
                task.cancel()


async def _first_of(tasks: set[Any]) -> tuple[set[Any], set[Any]]:
    return await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


def outcome_of(name: str, key: str, record: Any, raw: bytes, result: Any) -> Outcome:
    """The ledger's row of a result. A row that goes on as it came is written as such."""
    parent = getattr(record, "parent", None)
    if isinstance(result, Terminal):
        return Outcome(name, key, record.id, parent, result.state, result.reason)
    made = tuple(canonical_json(one.model_dump(mode="json")).decode() for one in result)
    if not made:
        raise ValueError(f"step {name!r} made no row of {record.id!r} and did not say why")
    if len(made) == 1 and type(result[0]) is type(record) and made[0].encode() == raw:
        made = (SAME,)
    return Outcome(name, key, record.id, parent, State.OK, made=made)
