"""The ledger and the runner: nothing disappears, nothing is done twice, a crash costs its own row."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from videosafety.build import run
from videosafety.build.ledger import Call, Ledger, Outcome, read_account
from videosafety.build.pool import Crash, run_isolated
from videosafety.build.shards import absorb_shards
from videosafety.build.state import State, Terminal
from videosafety.core.errors import InputError, StorageError
from videosafety.core.records import Record


class Row(Record):
    id: str
    number: int


def run_step(*given, **settings) -> list:
    return list(run.run_step(*given, **settings))


@dataclass(frozen=True)
class Halve:
    """Even numbers become two rows, odd ones end; 13 kills its process, 17 fails until the file is there."""

    log: str
    mended: str
    folder: str = field(default="", compare=False)
    name: ClassVar[str] = "halve"
    version: ClassVar[int] = 1
    makes: ClassVar[type[Record]] = Row

    def __call__(self, row: Row) -> list[Row] | Terminal:
        with open(self.log, "a") as file:
            file.write(f"{row.id}\n")
        if row.number == 13:
            os.kill(os.getpid(), signal.SIGSEGV)
        if row.number == 17 and not Path(self.mended).exists():
            return Terminal(state=State.FAILED, reason="server:down")
        if row.number % 2:
            return Terminal(state=State.FILTERED, reason="odd")
        return [Row(id=f"{row.id}.{part}", number=row.number // 2) for part in "ab"]


class Slow(Halve):
    def __call__(self, row: Row) -> list[Row] | Terminal:
        time.sleep(0.05)
        return super().__call__(row)


@dataclass(frozen=True)
class Ask:
    """An async step; counts what is under way at once."""

    name: ClassVar[str] = "ask"
    version: ClassVar[int] = 1
    makes: ClassVar[type[Record]] = Row
    seen: ClassVar[list[int]] = []
    under_way: ClassVar[list[int]] = [0, 0]

    async def run(self, row: Row) -> list[Row] | Terminal:
        import asyncio

        self.under_way[0] += 1
        self.under_way[1] = max(self.under_way)
        await asyncio.sleep(0.001 * (row.number % 3))
        self.under_way[0] -= 1
        self.seen.append(row.number)
        return [row]


@dataclass(frozen=True)
class Largest:
    """A global step: all but the largest go."""

    name: ClassVar[str] = "largest"
    version: ClassVar[int] = 1
    makes: ClassVar[type[Record]] = Row

    def over(self, rows: list[Row]) -> list[list[Row] | Terminal]:
        top = max(row.number for row in rows)
        return [[row] if row.number == top else Terminal(state=State.FILTERED, reason="smaller") for row in rows]


def rows(*numbers: int) -> list[Row]:
    return [Row(id=f"r{number}", number=number) for number in numbers]


@pytest.fixture
def halve(tmp_path):
    return Halve(str(tmp_path / "log"), str(tmp_path / "mended"))


def done(step) -> list[str]:
    log = Path(step.log)
    return sorted(log.read_text().split()) if log.exists() else []


def test_every_row_ends_in_one_state_and_a_crash_costs_its_own_row(tmp_path, halve):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        made = run_step(halve, rows(2, 3, 13, 17, 4), ledger, workers=2)
        account = {(count.state, count.reason): (count.rows, count.made) for count in ledger.account()}
    assert [row.id for row in made] == ["r2.a", "r2.b", "r4.a", "r4.b"]
    assert account == {
        (State.OK, ""): (2, 4),
        (State.FILTERED, "odd"): (1, 0),
        (State.QUARANTINED, "crash:killed by SIGSEGV"): (1, 0),
        (State.FAILED, "server:down"): (1, 0),
    }


def test_nothing_finished_is_done_again_and_what_failed_is(tmp_path, halve):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        run_step(halve, rows(2, 3, 17), ledger)
        Path(halve.log).unlink()
        Path(halve.mended).touch()
        again = run_step(halve, rows(2, 3, 17, 6), ledger)
        attempts = {o.row: o.attempts for o in ledger.outcomes("halve", _all_keys(ledger)).values()}
    assert done(halve) == ["r17", "r6"]
    assert [row.id for row in again] == ["r2.a", "r2.b", "r6.a", "r6.b"]
    assert attempts == {"r2": 1, "r3": 1, "r17": 2, "r6": 1}


def _all_keys(ledger):
    return [key for (key,) in ledger._database.execute("SELECT key FROM outcomes")]


@pytest.mark.parametrize("change", ["version", "field", "content"])
def test_another_version_setting_or_content_is_another_row(tmp_path, halve, change):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        run_step(halve, rows(2), ledger)
        step, records = halve, rows(2)
        if change == "version":
            step = _Newer(halve.log, halve.mended)
        elif change == "field":
            step = Halve(halve.log, halve.mended + "x")
        else:
            records = [Row(id="r2", number=8)]
        run_step(step, records, ledger)
    assert len(done(halve)) == 2


def test_where_a_folder_lies_is_no_part_of_a_row(tmp_path, halve):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        run_step(halve, rows(2), ledger)
        run_step(Halve(halve.log, halve.mended, folder="elsewhere"), rows(2), ledger)
    assert done(halve) == ["r2"]


class _Newer(Halve):
    version = 2


def test_async_rows_keep_their_order_and_their_limit(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        made = run_step(Ask(), rows(*range(20)), ledger, concurrency=4)
        asked = len(Ask.seen)
        run_step(Ask(), rows(*range(20)), ledger, concurrency=4)
    assert [row.number for row in made] == list(range(20))
    assert asked == len(Ask.seen) == 20
    assert 2 <= Ask.under_way[1] <= 4


def test_a_global_step_looks_again_when_one_row_is_new_or_gone(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert [row.number for row in run_step(Largest(), rows(1, 5, 3), ledger)] == [5]
        assert [row.number for row in run_step(Largest(), rows(1, 5, 3, 9), ledger)] == [9]
        assert [row.number for row in run_step(Largest(), rows(1, 3), ledger)] == [3]


def test_calls_are_kept_once_and_paid_once(tmp_path):
    call = Call(key="k", step="describe", model="m", answer='{"a": 1}', cost=0.25, latency_s=1.0)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.keep_call(call)
        ledger.keep_call(call)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.call("k") == call
        assert ledger.call("other") is None
        assert ledger.spent() == 0.25


def test_one_writes_others_read(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.begin("a", ["k"])
        ledger.finish([Outcome("a", "k", "r", None, State.OK, made=("{}", "{}"))])
        assert [(count.rows, count.made) for count in read_account(path)] == [(1, 2)]
        with pytest.raises(StorageError, match="another process is writing"):
            Ledger(path)


def test_no_ledger_and_something_else_are_said(tmp_path):
    with pytest.raises(InputError, match="no ledger"):
        read_account(tmp_path / "none.sqlite")
    other = tmp_path / "other.sqlite"
    other.write_text("not a database, and long enough to be looked at as one" * 40)
    with pytest.raises(InputError, match="is no ledger"):
        Ledger(other)


def sleepy(row):
    if row == 2:
        time.sleep(60)
    if row == 3:
        raise ValueError("three")
    return row


def test_a_row_that_hangs_is_ended():
    found = dict(run_isolated(sleepy, [1, 2, 4], workers=2, timeout_s=3.0))
    assert found == {0: 1, 1: Crash("took more than 3 s"), 2: 4}


def test_a_fault_of_ours_comes_out():
    with pytest.raises(ValueError, match="three"):
        dict(run_isolated(sleepy, [1, 3], workers=1))


CHILD = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_ledger_run import Slow, rows, run_step
from videosafety.build.ledger import Ledger
if __name__ == "__main__":
    with Ledger(Path({folder!r}) / "ledger.sqlite") as ledger:
        made = run_step(Slow({folder!r} + "/log", "x"), rows(*range(0, 200, 2)), ledger, workers=2)
    Path({folder!r}, "done").write_text(" ".join(row.id for row in made))
"""


def test_killed_with_all_its_workers_and_run_again_it_ends_the_same(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(CHILD.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    for seconds in (2.0, 2.5):
        child = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
        time.sleep(seconds)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    subprocess.run([sys.executable, str(script)], check=True, timeout=60)
    expected = [f"r{number}.{part}" for number in range(0, 200, 2) for part in "ab"]
    assert (tmp_path / "done").read_text().split() == expected
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert [(count.rows, count.made) for count in ledger.account()] == [(100, 200)]


def test_the_account_is_of_this_build_and_says_what_waits(tmp_path, halve):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.start(["halve", "later"])
        run_step(halve, rows(2, 3, 4), ledger)
        ledger.start(["halve", "later"])
        ledger.begin("later", ["unknown"])
        run_step(halve, rows(2, 4), ledger)
        assert [tuple(count) for count in ledger.account()] == [
            ("halve", State.OK, "", 2, 4), ("later", None, "", 1, 0)]  # fmt: skip


def test_a_row_that_goes_on_as_it_came_is_not_written_again(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert run_step(Largest(), rows(1, 5), ledger) == rows(5)
        (kept,) = (o for o in ledger.step("largest") if o.state is State.OK)
    assert kept.made == ("=",)


def test_a_shard_s_outcomes_and_calls_are_taken_in(tmp_path, halve):
    call = Call(key="k", step="describe", model="m", answer="{}", cost=0.5, latency_s=1.0)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        run_step(halve, rows(17), ledger)
        ledger.keep_call(call)
        ledger.export_calls(tmp_path / "paid.sqlite")
        with Ledger(tmp_path / "shard.sqlite", paid=tmp_path / "paid.sqlite") as shard:
            assert shard.call("k") == call
            assert shard.spent() == 0
            run_step(halve, rows(2, 17), shard)
            shard.keep_call(Call(key="l", step="ask", model="m", answer="{}", cost=0.25, latency_s=1.0))
        for _ in range(2):
            ledger.absorb(tmp_path / "shard.sqlite")
        assert run_step(halve, rows(2), ledger)[0].id == "r2.a"
        assert ledger.spent() == 0.75
        assert ledger.outcomes("halve", _all_keys(ledger)).keys() == set(_all_keys(ledger))


def test_attempts_of_a_shard_are_added_to_those_of_before(tmp_path):
    def failed(key, attempts):
        return Outcome("a", key, key, None, State.FAILED, "server:down", attempts=attempts)

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.finish([failed("old", 2), failed("other", 5)])
        with Ledger(tmp_path / "shard.sqlite") as shard:
            shard.finish([failed("old", 1), failed("new", 3)])
        ledger.absorb(tmp_path / "shard.sqlite")
        found = ledger.outcomes("a", ["old", "other", "new"])
    assert {key: one.attempts for key, one in found.items()} == {"old": 3, "other": 5, "new": 3}


def test_clips_are_numbered_as_they_came_however_often_a_set_grows(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for clips in (["b", "c"], ["a", "b", "c"], ["0", "a", "c"], ["-", "0", "b"]):
            ledger.keep_seen(clips)
        seen = ledger.seen()
    assert sorted(seen, key=seen.__getitem__) == ["b", "c", "a", "0", "-"]
    assert len(set(seen.values())) == 5


def test_shards_that_a_killed_build_left_are_taken_in_without_ray(tmp_path, halve):
    (tmp_path / "shards").mkdir()
    with Ledger(tmp_path / "shards" / "ab.sqlite") as shard:
        run_step(halve, rows(2), shard)
        shard.keep_call(Call(key="k", step="describe", model="m", answer="{}", cost=0.5, latency_s=1.0))
        shard.export_calls(tmp_path / "shards" / "paid.sqlite")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        absorb_shards(tmp_path, ledger)
        assert ledger.spent() == 0.5
        Path(halve.log).unlink()
        assert [row.id for row in run_step(halve, rows(2), ledger)] == ["r2.a", "r2.b"]
    assert done(halve) == []
    assert list((tmp_path / "shards").iterdir()) == []


def dies_after_its_result(row):
    if row == 2:
        subprocess.Popen(["sh", "-c", f"sleep 0.05; kill -9 {os.getpid()}"])
    time.sleep(0.0 if row < 10 else 0.2)
    return row


def test_a_worker_that_dies_between_rows_costs_no_row_but_its_own():
    found = dict(run_isolated(dies_after_its_result, [1, 2, 11, 12, 3], workers=1))
    assert set(found) == set(range(5))
    assert sum(isinstance(one, Crash) for one in found.values()) <= 1
