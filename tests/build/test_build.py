"""The whole build on toy footage and on broken files: every row accounted for, the same on a pool, on Ray and again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from videosafety.build import engine
from videosafety.build.account import faults_of, lines_of
from videosafety.build.build import Held, build
from videosafety.build.ledger import read_account
from videosafety.build.recipe import BuildRecipe
from videosafety.build.records import Clip
from videosafety.build.release.takedown import take_down
from videosafety.build.state import State
from videosafety.core.errors import InputError, ServerError
from videosafety.core.recipe import load_recipe
from videosafety.core.records import Sample
from videosafety.core.store import read_records, sha256_file
from videosafety.toyworld.footage import write_footage
from videosafety.video.plan import Sampling
from videosafety.video.sample import sample_clip
from videosafety.video.write import write_mp4

RECIPE = Path(__file__).parents[2] / "recipes" / "build_toy.yaml"
WORKING = ("ledger.sqlite", "shards", "lock", "build.html", "figures.json")  # and what tells of calls and their cost


@pytest.fixture(scope="module")
def footage(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    write_footage(folder / "toy", num_clips=40, seed=3)
    clips = folder / "toy" / "clips"
    (clips / "empty.mp4").touch()
    (clips / "page.mp4").write_text("<html>not a clip</html>")
    shutil.copyfile(clips / "000" / "000000.mp4", clips / "again.mp4")
    return folder / "toy"


def recipe(footage: Path, *overrides: str) -> BuildRecipe:
    return load_recipe(RECIPE, BuildRecipe, overrides=[f"labels={footage / 'labels.jsonl'}", *overrides])


def files(out: Path) -> dict[str, bytes]:
    """All that a build leaves but its ledger and the account's place for it."""
    paths = (path for path in out.rglob("*") if path.is_file())
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths
            if not path.relative_to(out).as_posix().startswith(WORKING)}  # fmt: skip


@pytest.fixture(scope="module")
def built(footage, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built") / "out"
    build(recipe(footage, "engine.workers=2"), clips=footage / "clips", out=out)
    return out


def test_every_file_and_row_has_an_end_and_the_account_balances(built):
    lines = lines_of(read_account(built / "ledger.sqlite"))
    assert faults_of(lines) == []
    ends = {line.step: {f"{state}:{why}": n for (state, why), n in line.ended.items()} for line in lines}
    assert ends["collect"] == {"quarantined:media:empty": 1, "filtered:duplicate:exact": 1}
    assert ends["probe"] == {"quarantined:media:corrupt": 1}
    by_step = {line.step: line for line in lines}
    assert by_step["collect"].rows == 43
    assert by_step["ask"].made == by_step["mix"].rows > 40
    assert sum(line.waiting for line in lines) == 0


def test_splits_are_whole_and_can_be_moved(built, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(built / "splits", moved)
    samples = read_records(moved / "eval.jsonl", Sample)
    assert {sample.subset.value for sample in samples} >= {"HH", "SH", "composed"}
    assert all((moved / sample.media.path).is_file() for sample in samples)
    assert {path.name for path in moved.glob("*.jsonl")} == {"eval.jsonl", "sft.jsonl", "cot.jsonl", "rl.jsonl"}


def test_the_same_again_works_nothing_out_and_leaves_the_same_bytes(built, footage):
    before, seen = files(built), []
    build(recipe(footage, "engine.workers=1"), clips=footage / "clips", out=built,
          on_row=lambda step, done, total: seen.append((step, done, total)))  # fmt: skip
    assert files(built) == before
    first = {}
    for step, done, total in seen:
        first.setdefault(step, (done, total))
    anew = {"collect", "review", "gates", "release"}
    assert all(done == total for step, (done, total) in first.items() if step not in anew)
    assert {step for step, done, total in seen if done == total} >= set(first) - anew


def test_ray_gives_the_same_bytes(built, footage, tmp_path):
    pytest.importorskip("ray", reason="the engine 'ray' needs Ray")
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_build import build, recipe
if __name__ == "__main__":
    footage, out = Path({str(footage)!r}), Path({str(tmp_path / "out")!r})
    asked = recipe(footage, "engine.kind=ray", "engine.workers=2", "engine.rows_per_shard=64")
    build(asked, clips=footage / "clips", out=out)
"""
    (tmp_path / "ray_build.py").write_text(script)
    subprocess.run([sys.executable, str(tmp_path / "ray_build.py")], check=True, timeout=300,
                   env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"})  # fmt: skip
    assert files(tmp_path / "out") == files(built)
    assert list((tmp_path / "out" / "shards").iterdir()) == []


@pytest.mark.parametrize("fails", [2, 3])
def test_a_ray_that_is_slow_to_start_is_asked_again_and_then_named(monkeypatch, fails):
    ray = pytest.importorskip("ray", reason="the engine 'ray' needs Ray")
    asked = []

    def init(**given):
        asked.append(given)
        if len(asked) <= fails:
            raise Exception("The current node timed out during startup.\nLook at the logs.")  # as Ray says it

    monkeypatch.setattr(ray, "init", init)
    if fails == 3:
        with pytest.raises(ServerError, match=r"Ray does not start on this machine: The current node timed out.*pool"):
            engine._start_here(ray, num_workers=2)
    else:
        engine._start_here(ray, num_workers=2)
    assert asked == [asked[0]] * 3


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_said_at_once(footage, tmp_path, address):
    pytest.importorskip("ray", reason="the engine 'ray' needs Ray")
    asked = recipe(footage, "engine.kind=ray", f"engine.address={address}")
    with pytest.raises(ServerError, match="no Ray cluster answers"):
        build(asked, clips=footage / "clips", out=tmp_path / "out")


def test_clips_without_a_label_hold_the_build_and_a_label_lets_it_go_on(footage, tmp_path):
    rows = (footage / "labels.jsonl").read_text().splitlines()
    (tmp_path / "labels.jsonl").write_text("\n".join(rows[:30]) + "\n")
    short = recipe(footage, f"labels={tmp_path / 'labels.jsonl'}")
    with pytest.raises(Held, match="10 of 40 rows of describe failed, most with labels:missing"):
        build(short, clips=footage / "clips", out=tmp_path / "out")
    assert not (tmp_path / "out" / "splits" / "eval.jsonl").exists()
    (tmp_path / "labels.jsonl").write_text("\n".join(rows) + "\n")
    assert build(short, clips=footage / "clips", out=tmp_path / "out").counts["eval"] > 0
    allowed = recipe(footage, f"labels={tmp_path / 'short.jsonl'}", "limits.max_failed_share=0.5")
    (tmp_path / "short.jsonl").write_text("\n".join(rows[:30]) + "\n")
    assert build(allowed, clips=footage / "clips", out=tmp_path / "out2").counts["eval"] > 0


def test_a_quota_that_is_not_met_fails_the_build_and_publishes_nothing(footage, tmp_path):
    with pytest.raises(InputError, match=r"fails 1 of its gates: quotas: sft: \d+ of 5000 rows"):
        build(recipe(footage, "mix.quotas.sft=5000"), clips=footage / "clips", out=tmp_path / "out")
    assert not (tmp_path / "out" / "release").exists()


def test_another_threshold_counts_the_new_rows_alone(footage, tmp_path):
    build(recipe(footage), clips=footage / "clips", out=tmp_path / "out")
    strict = recipe(footage, "embed.static_below=0.2")
    build(strict, clips=footage / "clips", out=tmp_path / "out")
    by_step = {line.step: line for line in lines_of(read_account(tmp_path / "out" / "ledger.sqlite"))}
    assert by_step["filter"].rows == 40
    assert by_step["filter"].ended[(State.FILTERED, "static")] > 0


def test_clips_left_in_place_are_named_in_full(footage, tmp_path):
    build(recipe(footage, "collect.keep=in_place"), clips=footage / "clips", out=tmp_path / "out")
    samples = read_records(tmp_path / "out" / "splits" / "eval.jsonl", Sample)
    assert all(Path(sample.media.path).is_file() and Path(sample.media.path).is_absolute() for sample in samples)
    assert not (tmp_path / "out" / "store").exists()


def test_a_clip_that_changed_while_it_was_built_is_not_taken_for_the_old_one(footage, tmp_path):
    folder = tmp_path / "toy"
    shutil.copytree(footage, folder)
    changed = folder / "clips" / "000" / "000001.mp4"
    build(recipe(folder), clips=folder / "clips", out=tmp_path / "out")
    shutil.copyfile(folder / "clips" / "000" / "000002.mp4", changed)
    build(recipe(folder), clips=folder / "clips", out=tmp_path / "out")
    by_step = {line.step: line for line in lines_of(read_account(tmp_path / "out" / "ledger.sqlite"))}
    assert by_step["collect"].ended[(State.FILTERED, "duplicate:exact")] == 2
    manifest = json.loads((tmp_path / "out" / "account.json").read_text())
    assert {count["step"] for count in manifest} == set(by_step)


def test_a_record_of_a_clip_says_where_it_was_found(built):
    from videosafety.build.ledger import Ledger

    with Ledger(built / "ledger.sqlite") as ledger:
        kept = [Clip.model_validate_json(one.made[0]) for one in ledger.step("keep") if one.made]
    assert kept[0].path.startswith("media/")
    assert {one.found_as.split("/")[0] for one in kept} <= {"000", "again.mp4"} or "page.mp4" in {
        one.found_as for one in kept
    }


def test_a_clip_that_is_taken_down_leaves_the_splits_too(footage, tmp_path):
    before = build(recipe(footage), clips=footage / "clips", out=tmp_path / "out").counts
    clip = read_records(tmp_path / "out" / "splits" / "eval.jsonl", Sample)[0].media
    take_down(tmp_path / "out", [clip.sha256], reason="rights", who="someone")
    after = build(recipe(footage), clips=footage / "clips", out=tmp_path / "out").counts
    assert after["eval"] < before["eval"]
    for path in (tmp_path / "out" / "splits").glob("*.jsonl"):
        assert clip.sha256 not in path.read_text()
    assert not list((tmp_path / "out" / "splits").rglob(f"{clip.sha256}*"))


def test_splits_hold_the_clips_of_their_rows_and_no_others(built):
    named = set(sides_of(built))
    assert {path.stem for path in (built / "splits" / "media").rglob("*.mp4")} == named
    assert {path.stem for path in (built / "store").rglob("*.mp4")} > named


def test_a_folder_that_holds_something_else_is_left_alone(footage, tmp_path):
    (tmp_path / "own" / "release").mkdir(parents=True)
    (tmp_path / "own" / "release" / "thesis.txt").write_text("mine")
    (tmp_path / "own" / ".draft.tmp").write_text("mine")
    with pytest.raises(InputError, match="something else than a build"):
        build(recipe(footage), clips=footage / "clips", out=tmp_path / "own")
    assert (tmp_path / "own" / "release" / "thesis.txt").read_text() == "mine"
    for out in (footage / "clips" / "out", footage / "clips", footage):
        with pytest.raises(InputError, match=r"lie inside of each other|something else"):
            build(recipe(footage), clips=footage / "clips", out=out)
    assert not (footage / "clips" / "out").exists()


def test_what_a_killed_build_was_writing_is_swept_and_nothing_else(footage, tmp_path):
    out = tmp_path / "out"
    build(recipe(footage), clips=footage / "clips", out=out)
    for name in (".release.ab12", ".splits.ab12", "splits/.0123456789abcdef.tmp"):
        (out / name).mkdir() if "ab12" in name else (out / name).write_text("half")
    for name in ("notes.tmp", ".notes.tmp", "review/verdicts"):
        (out / name).mkdir(parents=True) if "verdicts" in name else (out / name).write_text("mine")
    (out / "review" / "verdicts" / ".0123456789abcdef.tmp").write_text("mine")
    build(recipe(footage), clips=footage / "clips", out=out)
    left = {path.relative_to(out).as_posix() for path in out.rglob("*.tmp")} | {one.name for one in out.glob(".*.ab12")}
    assert left == {"notes.tmp", ".notes.tmp", "review/verdicts/.0123456789abcdef.tmp"}


def sides_of(out: Path) -> dict[str, str]:
    """eval or train, by the hash of the clip."""
    found = {}
    for path in (out / "splits").glob("*.jsonl"):
        for row in map(json.loads, path.read_text().splitlines()):
            media = [row["media"]] if path.stem == "eval" else row["turns"][0]["media"]
            found[media[0]["sha256"]] = path.stem
    return found


def test_a_set_that_grows_moves_no_clip_out_of_its_split(footage, tmp_path):
    """Not by new clips, and not by copies of old ones under names that come first."""
    folder, out = tmp_path / "toy", tmp_path / "out"
    write_footage(folder, num_clips=80, seed=3)
    labels = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    late, late_labels = folder / "late", labels[60:]
    late.mkdir()
    for row in late_labels:
        shutil.move(folder / "clips" / row["path"], late / Path(row["path"]).name)
    asked = recipe(folder, "ask.eval_share=0.3", "embed.duplicate_below=0.1", "embed.related_below=0.1")
    build(asked, clips=folder / "clips", out=out)
    before = sides_of(out)
    evaluated = [row for row in labels[:60] if before.get(sha256_file(folder / "clips" / row["path"])) == "eval"]
    (folder / "clips" / "!first").mkdir()
    for number, row in enumerate(evaluated):
        frames = sample_clip(folder / "clips" / row["path"], sampling=Sampling(fps=1)).frames
        write_mp4(folder / "clips" / "!first" / f"{number}.mp4", frames, fps=1, crf=30)
        labels.append(row | {"path": f"!first/{number}.mp4"})
    for row in late_labels:
        shutil.move(late / Path(row["path"]).name, folder / "clips" / row["path"])
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    build(asked, clips=folder / "clips", out=out)
    after = sides_of(out)
    assert len(evaluated) > 3
    assert len(after) > len(before)
    assert {clip: after.get(clip) for clip in before} == before


def test_a_benchmark_without_a_row_is_no_benchmark(footage, tmp_path):
    with pytest.raises(InputError, match="no clip was drawn for evaluation"):
        build(recipe(footage, "ask.eval_share=0.0001"), clips=footage / "clips", out=tmp_path / "out")
