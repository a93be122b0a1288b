"""A hostile user at the command line: wrong flags, poisoned names, other folders; a sentence, no traceback."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from videosafety.chain import BASES


@pytest.fixture
def manifest(tmp_path):
    row = {"id": "a", "query": "What is shown?", "language": "en", "labels": {"visual": "safe", "textual": "safe",
                                                                             "request": "safe"}}  # fmt: skip
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return path


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("evalute",), "evaluate"),
        (("evaluate",), "--model"),
        (("demo", "--out"), "--out"),
        (("evaluate", "--model", "m", "--data", "d", "--fps", "x"), "--fps"),
        (("evaluate", "--model", "m", "--data", "a\0b"), "null byte"),
        (("run", "toy", "--workers", "-1"), "--workers"),
    ],
)
def test_a_mistyped_command_line_is_explained(command, arguments, word):
    code, _, err = command(*arguments)
    assert code == 2
    assert word in err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--fps", "0"), "fps should be greater than 0"),
        (("--fps", "nan"), "fps should be a finite number"),
        (("--max-frames", "99999999"), "max_frames should be less than or equal to 1024"),
        (("--max-new-tokens", "0"), "max_new_tokens should be"),
        (("--stage", "../../x"), "unknown stage '../../x'; known: alarm_init"),
        (("--name", "a/b"), "name is 'a/b'"),
        (("--name", "\x1b[31m<b>"), r"'\x1b[31m<b>'"),
        (("--device", "meta"), "the device 'meta' cannot be used here; use one of: cpu"),
        (("--device", "gpu"), "the device 'gpu' cannot be used here"),
        (("--model", "a" * 5000), "file name too long"),
    ],
)
def test_a_wrong_setting_is_one_sentence(command, manifest, tmp_path, flags, words):
    given = ("evaluate", "--model", BASES / "small", "--data", manifest, "--out", tmp_path / "out")
    code, _, err = command(*given, *flags)
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_the_same_command_again_goes_on_and_another_is_refused(command, manifest, tmp_path):
    out = tmp_path / "out"
    same = ("evaluate", "--model", BASES / "small", "--data", manifest, "--out", out, "--max-new-tokens", 4)
    assert command(*same, "--judges", "orakel")[0] == 2  # a mistake, mended below, does not poison the folder
    assert command(*same)[0] == 0
    before = (tmp_path / "out" / "summary.json").read_bytes()
    code, _, err = command(*same)
    assert (code, err) == (0, "")
    assert (tmp_path / "out" / "summary.json").read_bytes() == before
    code, _, err = command(*same, "--limit", 1)
    assert code == 2
    assert "holds another run" in err
    assert "other limit" in err


@pytest.mark.parametrize("text", ["[]", "{}", '{"stages": [5]}', '{"stages": [{}]}'])
def test_a_run_json_that_is_none_is_named(command, manifest, tmp_path, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text(text)
    code, _, err = command("evaluate", "--model", "m", "--data", manifest, "--out", tmp_path / "out")
    assert code == 2
    assert "run.json: is not the run.json of a run" in err


def test_names_cannot_write_to_the_terminal(command, tmp_path):
    file = tmp_path / "a\x1b[31m\u202e\nb.mp4"
    file.write_text("<html>")
    code, _, err = command("video", "probe", file)
    assert code == 2
    assert r"a\x1b[31m\u202e\nb.mp4" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("template", [None, "{% for x in %}", "{{ raise_exception('no') }}"])
def test_a_checkpoint_with_a_broken_template_does_not_load(command, manifest, tmp_path, template):
    broken = shutil.copytree(BASES / "small", tmp_path / "broken")
    (broken / "chat_template.jinja").unlink()
    if template is not None:
        (broken / "chat_template.jinja").write_text(template)
    code, _, err = command("evaluate", "--model", broken, "--data", manifest, "--out", tmp_path / "out")
    assert code == 2
    said = "the checkpoint has no chat template" if template is None else "the checkpoint cannot be read"
    assert f"{broken}: {said}" in err
    assert len(err.strip().splitlines()) == 1


def test_weights_of_another_shape_are_one_sentence(tmp_path, manifest):
    broken = shutil.copytree(BASES / "small", tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text())
    config["text_config"]["hidden_size"] *= 2
    (broken / "config.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "videosafety.cli", "evaluate", "--model", broken, "--data", manifest, "--out",
         tmp_path / "out"], capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_an_out_of_files_and_loops_is_one_sentence(command, manifest, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    for out in ("file", "loop", "file/x", "a" * 300):
        code, _, err = command("evaluate", "--model", "m", "--data", manifest, "--out", tmp_path / out)
        assert code == 2
        assert len(err.strip().splitlines()) == 1, err
    assert command("toy", "build", "--out", tmp_path / "file")[0] == 2


def test_a_pipe_is_no_recipe(command, tmp_path):
    os.mkfifo(tmp_path / "fifo.yaml")
    code, _, err = command("recipe", "show", tmp_path / "fifo.yaml")
    assert code == 2
    assert "is not an ordinary file" in err


def test_an_interruption_says_how_to_go_on(command, monkeypatch):
    monkeypatch.setattr("videosafety.core.recipe.describe", lambda schema: signal.raise_signal(signal.SIGINT))
    code, _, err = command("recipe", "knobs")
    assert code == 130
    assert err.strip() == "interrupted; run the same command again to go on"
