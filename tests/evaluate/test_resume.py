"""``kill -9`` at any moment, then the same call again: nothing is repeated, and the bytes are the same."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from evalkit import mixed, tables

from videosafety.core.jsonl import canonical_json
from videosafety.core.store import Journal
from videosafety.evaluate import folder, keep, provider_local
from videosafety.evaluate.keep import Answer
from videosafety.evaluate.manifest import Benchmark
from videosafety.evaluate.run import Named, evaluate
from videosafety.evaluate.tasks import Decoding
from videosafety.models.generate import Generated, generate

NUM_ANSWERS = 8  # items times the arms that apply to them


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_after(calls: int, function: Callable[..., object]) -> Callable[..., object]:
    """The function, but its process dies on the call after ``calls``."""
    left = [calls]

    def wrapped(*args: object, **kw: object) -> object:
        if left[0] == 0:
            die()
        left[0] -= 1
        return function(*args, **kw)

    return wrapped


def torn_put(self: keep.Keep, answer: Answer) -> None:
    """Dies in the middle of writing an answer, when one is there already."""
    fd = self._journal.open().fileno()
    line = canonical_json(answer) + b"\n"
    torn = len(self) > 0
    os.write(fd, line[: len(line) // 2] if torn else line)
    if torn:
        die()
    self._answers[answer.key] = answer


def run(checkpoint: Path, items: Benchmark, out: Path) -> None:
    evaluate(str(checkpoint), items, out=out, judges=["oracle", "rules"], decoding=Decoding(max_new_tokens=4),
             named=Named("tiny"), model_args={"batch_size": 2})  # fmt: skip


MOMENTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "before the first answer": lambda m: m.setattr(provider_local, "generate", die_after(0, generate)),
    "in the second batch": lambda m: m.setattr(provider_local, "generate", die_after(1, generate)),
    "between two answers of a batch": lambda m: m.setattr(keep.Keep, "put", die_after(3, keep.Keep.put)),
    "while writing an answer": lambda m: m.setattr(keep.Keep, "put", torn_put),
    "between two tables": lambda m: m.setattr(folder, "write_records", die_after(3, folder.write_records)),
    "before the last file": lambda m: m.setattr(folder, "write_json", lambda *a: die()),
}


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    return mixed(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(alarmed: Path, items: Benchmark, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("runs") / "run" / "evaluations" / "base"
    run(alarmed, items, out)
    found = tables(out)
    assert found["alarms.jsonl"].count(b"\n") == NUM_ANSWERS
    return found


@pytest.mark.parametrize("moment", MOMENTS)
def test_kill_and_run_again(
    moment: str,
    alarmed: Path,
    items: Benchmark,
    undisturbed: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    out = tmp_path_factory.mktemp("runs") / "run" / "evaluations" / "base"
    child = os.fork()
    if child == 0:
        try:
            with pytest.MonkeyPatch.context() as patch:
                MOMENTS[moment](patch)
                run(alarmed, items, out)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    kept = len(Journal(out / "work" / "answers.jsonl").read(Answer))
    asked: list[int] = []

    def counted(*args: object, **kw: object) -> list[Generated]:
        asked.append(len(args[1]))  # type: ignore[arg-type]
        return generate(*args, **kw)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provider_local, "generate", counted)
        run(alarmed, items, out)
    assert sum(asked) == NUM_ANSWERS - kept
    assert tables(out) == undisturbed
    if moment == "before the first answer":
        assert kept == 0
    else:
        assert kept > 0


def test_interrupting_with_the_keyboard_leaves_no_tables_and_loses_nothing(
    alarmed: Path, items: Benchmark, undisturbed: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("runs") / "run" / "evaluations" / "base"

    def interrupting(*args: object, **kw: object) -> list[Generated]:
        os.kill(os.getpid(), signal.SIGINT)
        return generate(*args, **kw)  # type: ignore[arg-type]

    child = os.fork()
    if child == 0:
        code = 1
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(provider_local, "generate", interrupting)
                run(alarmed, items, out)
        except KeyboardInterrupt:
            code = 130
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    assert tables(out) == {}
    run(alarmed, items, out)
    assert tables(out) == undisturbed


def test_a_finished_evaluation_asks_nothing_again(
    alarmed: Path, items: Benchmark, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run" / "evaluations" / "base"
    run(alarmed, items, out)
    monkeypatch.setattr(provider_local, "generate", lambda *a, **kw: pytest.fail("asked again"))
    run(alarmed, items, out)
    assert {k: v for k, v in tables(out).items() if k != "evaluation.json"} == {
        k: v for k, v in undisturbed.items() if k != "evaluation.json"
    }
