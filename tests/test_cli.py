"""The command line: one clear sentence with the fix, exit codes, no traceback; help that teaches."""

import json
import shutil

import pytest

from videosafety.chain import BASES


def rows(path, *changes):
    base = {"id": "a", "query": "What is shown?", "language": "en", "media": {"kind": "video", "path": "a.mp4"},
            "labels": {"visual": "safe", "textual": "safe", "request": "safe"}}  # fmt: skip
    path.write_text("".join(json.dumps(base | change) + "\n" for change in changes))
    return path


def test_toy_build_then_evaluate_then_report(command, tmp_path):
    code, out, _ = command("toy", "build", "--out", tmp_path / "toy", "--clips-per-name", 1)
    assert code == 0
    manifest = tmp_path / "toy" / "manifest.jsonl"
    assert out.strip() == str(manifest)
    code, out, _ = command("evaluate", "--model", BASES / "small", "--data", manifest, "--taxonomy", "toy", "--judges",
                           "oracle,rules", "--out", tmp_path / "run", "--limit", 20, "--max-new-tokens", 4)  # fmt: skip
    assert code == 0
    assert f"report: {tmp_path / 'run' / 'report.html'}" in out
    table = (tmp_path / "run" / "tables" / "headline.csv").read_bytes()
    shutil.rmtree(tmp_path / "run" / "tables")
    (tmp_path / "run" / "report.html").unlink()
    assert command("report", tmp_path / "run")[0] == 0
    assert (tmp_path / "run" / "tables" / "headline.csv").read_bytes() == table
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"language": "eng"}, ["'eng'", "did you mean 'en'"]),
        ({"labels": {"visual": "harmfull", "textual": "safe", "request": "safe"}}, ["did you mean 'harmful'"]),
        ({"category": "no_such_thing"}, ["no_such_thing", "known"]),
        ({"querry": "x"}, ["querry", "did you mean 'query'"]),
        ({"query": "  "}, ["blank"]),
        ({"media": {"kind": "video", "path": "https://example.org/a.mp4"}}, ["URL", "download"]),
    ],
)
def test_a_bad_row_is_named_with_its_line_and_nothing_runs(command, tmp_path, change, words):
    manifest = rows(tmp_path / "m.jsonl", {}, {"id": "b"} | change)
    code, _, err = command("evaluate", "--model", BASES / "small", "--data", manifest, "--out", tmp_path / "run")
    assert code == 2
    assert ":2" in err or "line 2" in err
    assert all(word in err for word in words), err
    assert not (tmp_path / "run" / "evaluations").exists()


def test_duplicate_ids_are_named(command, tmp_path):
    manifest = rows(tmp_path / "m.jsonl", {}, {})
    code, _, err = command("evaluate", "--model", BASES / "small", "--data", manifest, "--out", tmp_path / "run")
    assert code == 2
    assert "'a'" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evaluate", "--model", "/nonexistent/model", "--data", "{m}"), ["/nonexistent/model", "check the path"]),
        (("evaluate", "--model", "{base}", "--data", "/nonexistent/m.jsonl"), ["/nonexistent/m.jsonl"]),
        (("evaluate", "--model", "{base}", "--data", "{m}", "--judges", "orakel"), ["orakel", "did you mean 'oracle'"]),
        (("evaluate", "--model", "{base}", "--data", "{m}", "--arms", "vidoe"), ["vidoe", "did you mean 'video'"]),
        (("evaluate", "--model", "{base}", "--data", "{m}", "--taxonomy", "tou"), ["tou"]),
        (("run", "toyy"), ["toyy"]),
        (("run", "toy", "--set", "benchmark.wrld=small"), ["wrld", "did you mean", "world"]),
        (("run", "toy", "--set", "benchmark.world=tiny", "--out", "{tmp}/x"), ["tiny"]),
        (("run", "toy", "--set", "seeds=[]"), ["seeds", "at least one"]),
        (("run", "toy", "--set", "seeds=[0, 0]"), ["seeds", "each once"]),
        (("run", "toy", "--set", "seeds=[-1]"), ["seeds", "from 0"]),
        (("run", "toy", "--set", "evaluate.judges=[]"), ["judges", "at least one"]),
        (("report", "/nonexistent/run"), ["/nonexistent/run"]),
        (("toy", "build", "--size", "smal", "--out", "{tmp}/y"), ["smal", "did you mean 'small'"]),
        (("toy", "build", "--out", "{tmp}"), ["something else"]),
        (("video", "probe", "/nonexistent/a.mp4"), ["/nonexistent/a.mp4"]),
    ],
)
def test_every_mistake_is_a_sentence_and_exit_code_2(command, tmp_path, arguments, words):
    manifest = rows(tmp_path / "m.jsonl", {"media": None})
    filled = [a.format(m=manifest, base=BASES / "small", tmp=tmp_path) for a in arguments]
    code, _, err = command(*filled, *(("--out", tmp_path / "out") if arguments[0] == "evaluate" else ()))
    assert code == 2
    assert all(word in err for word in words), err
    assert len(err.strip().splitlines()) == 1, err


def test_a_damaged_clip_is_recorded_counted_and_not_scored(command, tmp_path):
    command("toy", "build", "--out", tmp_path / "toy", "--clips-per-name", 1)
    manifest = tmp_path / "toy" / "manifest.jsonl"
    first = json.loads(manifest.read_text().splitlines()[0])
    (tmp_path / "toy" / first["media"]["path"]).write_text("<html>not a video</html>")
    code, out, err = command("evaluate", "--model", BASES / "small", "--data", manifest, "--taxonomy", "toy",
                             "--out", tmp_path / "run", "--limit", 12, "--max-new-tokens", 4,
                             "--judges", "oracle")  # fmt: skip
    assert code == 2
    assert first["id"] in err
    assert first["media"]["path"] in err
    folder = tmp_path / "run" / "evaluations" / "base-seed-0"
    verdicts = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    mine = [v for v in verdicts if v["sample_id"] == first["id"]]
    assert {v["outcome"] for v in mine} == {"unscored"}
    assert all(v["reason"].startswith("media:") for v in mine)
    assert any(v["outcome"] != "unscored" for v in verdicts)
    assert "report.html" in out


def test_a_damaged_checkpoint_is_a_sentence(command, tmp_path):
    broken = shutil.copytree(BASES / "small", tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\xff" * 100)
    manifest = rows(tmp_path / "m.jsonl", {"media": None})
    code, _, err = command("evaluate", "--model", broken, "--data", manifest, "--out", tmp_path / "out")
    assert code == 2
    assert str(broken) in err


VERBS = ("", "evaluate", "run", "demo", "toy", "toy build", "video probe", "recipe show", "report", "reproduce")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(command, verb):
    code, out, _ = command(*verb.split(), "--help")
    assert code == 0
    assert "Usage" in out


def test_recipes_can_be_read_back(command):
    code, out, _ = command("recipe", "show", "toy", "--set", "benchmark.clips_per_name=3")
    assert code == 0
    assert "clips_per_name: 3" in out
    assert "benchmark.world" in command("recipe", "knobs")[1]
    assert "limits.cost_cap_usd" in command("recipe", "knobs", "--build")[1]
    assert "duplicate_below: 0.04" in command("recipe", "show", "build_toy", "--build")[1]
    assert command("--version")[1].strip()
