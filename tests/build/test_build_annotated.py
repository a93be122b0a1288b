"""A whole build over an annotator that is slow, busy, refuses, talks nonsense and dies, and under a cap on its cost."""

import pytest
from test_build import files
from test_build_killed import TROUBLE, Bench, footage, whole  # noqa: F401 - fixtures

from videosafety.build.account import faults_of, lines_of
from videosafety.build.ledger import read_account, read_calls
from videosafety.build.state import State


def spent(bench: Bench) -> float:
    return sum(usd for *_, usd in read_calls(bench.out / "ledger.sqlite"))


def test_it_ends_when_the_annotator_dies_once_and_the_account_balances(whole, footage, tmp_path):  # noqa: F811
    bench = Bench(tmp_path, footage)
    bench.server.kill()
    bench.server.start(*TROUBLE, "die=70")
    bench.server.start_again_when_dead(*TROUBLE)
    bench.finish()
    answered = [line["answered"] for line in bench.server.lines("answered")]
    assert len(answered) == len(set(answered)) == whole.answered
    assert files(bench.out) == files(whole.out)
    lines = lines_of(read_account(bench.out / "ledger.sqlite"))
    assert faults_of(lines) == []
    assert sum(line.waiting for line in lines) == 0
    described = next(line for line in lines if line.step == "describe")
    assert described.rows == described.ok + sum(described.ended.values())
    assert spent(bench) >= bench.server.charged() - 1e-9
    bench.server.kill()


def test_the_cap_holds_and_a_higher_one_goes_on_without_paying_twice(whole, footage, tmp_path):  # noqa: F811
    cap = whole.server.charged() / 2
    bench = Bench(tmp_path, footage, f"limits.cost_cap_usd={cap}")
    child = bench.start()
    said, _ = child.communicate(timeout=300)
    assert child.returncode == 3, said
    assert "the cost cap is reached" in said
    assert 0 < bench.server.charged() <= spent(bench) + 1e-9
    assert spent(bench) <= cap
    assert not (bench.out / "release").exists()
    lines = lines_of(read_account(bench.out / "ledger.sqlite"))
    assert next(line for line in lines if line.step == "describe").ended[(State.FAILED, "cost:cap")] > 0
    bench.command[-1] = f"--set=limits.cost_cap_usd={100 * cap}"
    bench.finish()
    answered = [line["answered"] for line in bench.server.lines("answered")]
    assert len(answered) == len(set(answered)) == whole.answered
    assert files(bench.out) == files(whole.out)
    bench.server.kill()


@pytest.mark.parametrize("kind", ["refuse_always", "invalid_always"])
def test_an_annotator_that_is_of_no_use_holds_the_build_or_leaves_the_clips_out(footage, tmp_path, kind):  # noqa: F811
    bench = Bench(tmp_path, footage)
    bench.server.kill()
    bench.server.start(kind)
    child = bench.start()
    said, _ = child.communicate(timeout=300)
    assert child.returncode in (2, 3), said
    assert "Traceback" not in said
    ends = next(line for line in lines_of(read_account(bench.out / "ledger.sqlite")) if line.step == "describe").ended
    wanted = {"refuse_always": (State.REFUSED, "annotators"), "invalid_always": (State.FAILED, "votes:too_few")}[kind]
    assert ends == {wanted: 60}
    bench.server.kill()
