"""A build whose whole process tree is killed at random moments ends with the same bytes and pays for no call twice.

``BUILD_KILLS=20`` kills it as often as docs/log.md says that it was, ``BUILD_KILL_ENGINE=ray`` on Ray; the suite does
it a few times, on the pool.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from annotator_server import AnnotatorServer
from test_build import RECIPE, files

from videosafety.build.account import faults_of, lines_of
from videosafety.build.ledger import read_account, read_calls
from videosafety.toyworld.footage import write_footage

KILLS = int(os.environ.get("BUILD_KILLS", "3"))
ON_RAY = os.environ.get("BUILD_KILL_ENGINE") == "ray"
RAY = ("engine.kind=ray", "engine.rows_per_shard=20")
RAY_STARTS_S = 20.0
TROUBLE = ("slow", "busy", "refuse", "invalid")
CONNECTIONS = 4
ANNOTATORS = ("one", "two", "three")


@pytest.fixture(scope="module")
def footage(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("killed") / "toy"
    write_footage(folder, num_clips=60, seed=5)
    return folder / "clips"


class Bench:
    """A build over an annotator, in a process of its own; ``answered`` is what the annotator gave and charged."""

    def __init__(self, folder: Path, footage: Path, *overrides: str) -> None:
        self.server = AnnotatorServer(folder / "asked.jsonl", *TROUBLE)
        self.out = folder / "out"
        asked = ", ".join(
            f"{{model: '{self.server.model('m-' + name)}', name: {name}, usd_per_million_input: 2,"
            f" usd_per_million_output: 10, connections: {CONNECTIONS}, num_frames: 2, backoff_s: 0.05}}"
            for name in ANNOTATORS
        )
        recipe = RECIPE.read_text().replace("labels: footage/labels.jsonl\n", "")
        recipe += f"describe: {{annotators: [{asked}], min_votes: 1}}\nlimits: {{max_failed_share: 0.3}}\n"
        (folder / "recipe.yaml").write_text(recipe)
        self.command = [sys.executable, "-m", "videosafety.cli", "build", "--recipe", str(folder / "recipe.yaml"),
                        "--clips", str(footage), "--out", str(self.out), "--workers", "2"]  # fmt: skip
        self.command += [f"--set={one}" for one in overrides]

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                start_new_session=True, env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"})  # fmt: skip

    def finish(self) -> float:
        began = time.monotonic()
        child = self.start()
        said, _ = child.communicate(timeout=600)
        assert child.returncode == 0, said
        return time.monotonic() - began

    @property
    def answered(self) -> int:
        return len(self.server.lines("answered"))

    @property
    def kept(self) -> int:
        """Answers that are safe in a ledger: the build's, and those of shards that it has not taken in."""
        ledgers = [self.out / "ledger.sqlite", *sorted((self.out / "shards").glob("*.sqlite"))]
        keys: set[str] = set()
        for path in ledgers:
            if path.is_file() and path.name != "paid.sqlite":
                database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
                if database.execute("SELECT 1 FROM sqlite_master WHERE name='calls'").fetchone():
                    keys |= {key for (key,) in database.execute("SELECT key FROM calls") if ":" not in key}
                database.close()
        return len(keys)

    @property
    def spent(self) -> float:
        """USD on the account, as ``build status`` says."""
        return sum(usd for *_, usd in read_calls(self.out / "ledger.sqlite"))


def kill_tree(pid: int) -> None:
    parent = psutil.Process(pid)
    for process in [parent, *parent.children(recursive=True)]:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue


@pytest.fixture(scope="module")
def whole(footage, tmp_path_factory):
    """A build that nobody disturbs."""
    bench = Bench(tmp_path_factory.mktemp("whole"), footage)
    bench.took_s = bench.finish()
    yield bench
    bench.server.kill()


def test_killed_at_random_moments_no_finished_call_is_repeated_and_the_bytes_are_the_same(whole, footage, tmp_path):
    bench, rng = Bench(tmp_path, footage, *(RAY if ON_RAY else ())), random.Random(KILLS)
    most_s = whole.took_s + (RAY_STARTS_S if ON_RAY else 0.0)
    lost: list[int] = []
    for _ in range(KILLS):
        answered, kept = bench.answered, bench.kept
        child = bench.start()
        time.sleep(rng.uniform(0.1, 0.9) * most_s)
        kill_tree(child.pid)
        child.communicate()
        time.sleep(0.3)  # what the annotator was saying reaches nobody
        lost.append((bench.answered - answered) - (bench.kept - kept))
    answered, kept = bench.answered, bench.kept
    bench.finish()
    assert bench.answered - answered == bench.kept - kept
    assert all(0 <= one <= CONNECTIONS * len(ANNOTATORS) for one in lost)  # under way when it was killed
    assert bench.answered == whole.answered + sum(lost)
    assert bench.kept == whole.kept
    assert bench.spent >= bench.server.charged() - 1e-9  # what was under way counts at its highest cost
    assert files(bench.out) == files(whole.out)
    assert faults_of(lines_of(read_account(bench.out / "ledger.sqlite"))) == []
    bench.server.kill()


def test_a_ray_worker_that_is_killed_costs_no_finished_call(whole, footage, tmp_path):
    pytest.importorskip("ray", reason="the engine 'ray' needs Ray")
    bench = Bench(tmp_path, footage, *RAY)
    child = bench.start()
    until, killed = time.monotonic() + 240, 0
    while child.poll() is None and not killed and time.monotonic() < until:
        time.sleep(0.05)
        if bench.answered >= 12:
            workers = [process for process in psutil.Process(child.pid).children(recursive=True)
                       if "work_shard" in " ".join(process.cmdline())]  # fmt: skip
            for process in workers[:1]:
                process.send_signal(signal.SIGKILL)
                killed += 1
    said, _ = child.communicate(timeout=400)
    assert child.returncode == 0, said
    assert killed == 1
    assert 0 <= bench.answered - whole.answered <= CONNECTIONS * len(ANNOTATORS)
    assert bench.kept == whole.kept
    assert files(bench.out) == files(whole.out)
    bench.server.kill()
