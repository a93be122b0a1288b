"""The verbs of the defence: train, data check; what goes wrong is one sentence with its fix."""

import json
import resource
import shutil

import pytest
import yaml

from videosafety.chain import BASES

SHORT = ("training.num_rows=24", "defend.alarm_init.max_steps=1", "defend.at_sft.max_steps=1", "defend.cot.max_steps=1")


def sets(*overrides):
    return [word for override in overrides for word in ("--set", override)]


def row(number, **changes):
    talk = [{"from": "human", "value": "How do I make a dax?"}, {"from": "gpt", "value": "Take clay and sand."}]
    labels = {"visual": "safe", "textual": "safe"}
    return {"id": f"row-{number}", "conversations": talk, "safety_labels": labels} | changes


@pytest.fixture
def recipe(tmp_path):
    """A recipe on the committed base and rows of one's own; returns a writer of both."""

    def write(rows, **changes):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
        source = {"name": "mine", "path": str(tmp_path / "rows.jsonl"), "kind": "conversations"}
        stage = {"max_steps": 1, "batch_size": 2, "micro_batch_size": 2, "precision": "fp32"}
        content = {
            "name": "mine", "base": {"source": "checkpoint", "checkpoint": str(BASES / "small")},
            "data": {"sources": [source]}, "defend": {"stages": ["at_sft"], "at_sft": stage},
        } | changes  # fmt: skip
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump(content))
        return str(file)

    return write


def test_train_leaves_an_ordinary_checkpoint_and_says_where(command, recipe, tmp_path):
    code, out, _ = command("train", recipe([row(n) for n in range(4)]), "--out", tmp_path / "run")
    assert code == 0
    folder = out.strip().splitlines()[-1]
    assert (tmp_path / "run" / "checkpoints").is_dir()
    for name in ("model.safetensors", "alarm_heads.safetensors", "config.json", "training.json", "curve.jsonl"):
        assert (tmp_path / folder / name).is_file(), name
    again = command("train", recipe([row(n) for n in range(4)]), "--out", tmp_path / "run")
    assert (again[0], again[1]) == (0, out)


def test_train_on_the_toy_world_under_a_launcher_is_refused(command, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = command("train", "smoke", "--out", tmp_path, *sets(*SHORT))
    assert code == 2
    assert "videosafety run" in err


def test_data_check_names_every_bad_row_by_line(command, recipe):
    good, bad = row(0), row(1, safety_labels={"visual": "safe", "textual": "dangerous"})
    unlabelled = {key: value for key, value in row(2).items() if key != "safety_labels"}
    broken = row(3, conversations=[{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "<think>so"}])
    code, _, err = command("data", "check", recipe([good, bad, unlabelled, broken]))
    assert code == 2
    for line in (2, 3, 4):
        assert f"rows.jsonl:{line}" in err
    assert "rows.jsonl:1:" not in err
    assert "dangerous" in err
    assert "Hello?" not in err  # words of the data do not go to a terminal


def test_data_check_counts_what_is_good(command, recipe):
    code, out, _ = command("data", "check", recipe([row(n) for n in range(3)]))
    assert code == 0
    assert "'num_examples': 3" in out


def said(question, answer):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


@pytest.mark.parametrize("verb", [("data", "check"), ("train",)])
def test_special_tokens_in_words_are_found_before_training(command, recipe, tmp_path, verb):
    rows = [row(0), row(1, conversations=said("How <|im_end|>?", "So.")),
            row(2, conversations=said("How?", "So <|visual_alarm|> it is."))]  # fmt: skip
    out = ("--out", tmp_path / "run") if verb == ("train",) else ()
    code, _, err = command(*verb, recipe(rows), *out)
    assert code == 2
    assert "2 faults" in err
    assert "rows.jsonl:2: record 'mine:row-1': turn 1 holds <|im_end|>" in err
    assert "rows.jsonl:3: record 'mine:row-2': its answer holds <|visual_alarm|>" in err
    assert not list(tmp_path.glob("run/checkpoints/*/*"))  # nothing was begun


def test_data_check_without_the_base_looks_at_the_rows_alone(command, recipe):
    base = {"source": "checkpoint", "checkpoint": "no/such/folder/here"}
    name = recipe([row(0)], base=base)
    code, _, err = command("data", "check", name)
    assert code == 2
    assert "no such checkpoint" in err
    assert command("data", "check", name, "--no-base")[0] == 0


def test_rows_need_what_the_knobs_ask_for_whatever_the_stage_is_called(command, recipe, tmp_path):
    bare = [row(n) for n in range(2)]
    for one in bare:
        del one["safety_labels"]
    source = {"name": "mine", "path": str(tmp_path / "rows.jsonl"), "kind": "conversations", "labels": "none"}
    stage = {"max_steps": 1, "batch_size": 2, "micro_batch_size": 2, "precision": "fp32"}
    plain = {"data": {"sources": [source]}, "defend": {"stages": ["at_sft"], "at_sft": stage | {"modalities": []}}}
    assert command("data", "check", recipe(bare, **plain))[0] == 0
    plain["defend"]["at_sft"] |= {"trains": ["llm"], "lambda_visual": 0, "lambda_textual": 0}
    code, _, err = command("train", recipe(bare, **plain), "--out", tmp_path / "run")
    assert (code, err) == (0, err)
    with_alarms = plain | {"defend": {"stages": ["at_sft"], "at_sft": stage}}
    for verb in (("data", "check"), ("train", "--out", tmp_path / "other")):
        code, _, err = command(*verb, recipe(bare, **with_alarms))
        assert code == 2
        assert "no example has a label" in err
    reasoned = plain | {"defend": {"stages": ["at_sft"], "at_sft": plain["defend"]["at_sft"] | {"structured": True}}}
    for verb in (("data", "check"), ("train", "--out", tmp_path / "third")):
        code, _, err = command(*verb, recipe(bare, **reasoned))
        assert code == 2
        assert "a structured response needs visual and textual and think" in err


@pytest.mark.parametrize(("num_mib", "reason"), [(2, "File too large"), (4, "a file was cut off")])
def test_a_disk_that_takes_no_more_is_one_sentence_and_the_same_command_goes_on(
    command, recipe, tmp_path, num_mib, reason
):
    asked = ("train", recipe([row(n) for n in range(4)]), "--out", tmp_path / "run",
             *sets("defend.at_sft.save_steps=1", "defend.at_sft.max_steps=2"))  # fmt: skip
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_mib * 2**20, old[1]))
    try:
        code, _, err = command(*asked)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert code == 2
    assert f"cannot be written: {reason}" in err
    assert command(*asked)[0] == 0


def test_data_check_of_the_toy_world_says_that_there_is_nothing_to_check(command):
    code, _, err = command("data", "check", "smoke")
    assert code == 2
    assert "no training data of its own" in err


@pytest.mark.parametrize(("changes", "said"), [
    ({"defend": {"stages": ["at_sft"], "at_sft": {"learning_rat": 1e-6}}}, "learning_rate"),
    ({"defend": {"stages": ["at_sft"], "at_sft": {"batch_size": 5, "micro_batch_size": 2}}}, "multiple"),
    ({"data": {"sources": []}}, "data.sources"),
    ({"base": {"source": "checkpoint", "checkpoint": "no/such/folder/here"}}, "no such checkpoint"),
])  # fmt: skip
def test_a_mistake_in_the_recipe_is_one_sentence(command, recipe, tmp_path, changes, said):
    code, _, err = command("train", recipe([row(0), row(1)], **changes), "--out", tmp_path / "run")
    assert code == 2
    assert said in err


def test_an_unknown_family_is_named_with_the_nearest_known_one(command, recipe, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(BASES / "small", other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    base = {"source": "checkpoint", "checkpoint": str(other)}
    code, _, err = command("train", recipe([row(0), row(1)], base=base), "--out", tmp_path / "run")
    assert code == 2
    assert "no family for model_type 'bert'" in err


def test_alarm_tokens_that_are_taken_already_are_refused(command, recipe, tmp_path):
    first = (
        command("train", recipe([row(n) for n in range(2)]), "--out", tmp_path / "first")[1].strip().splitlines()[-1]
    )
    (tmp_path / first / "alarm_heads.safetensors").unlink()
    base = {"source": "checkpoint", "checkpoint": str(tmp_path / first)}
    code, _, err = command("train", recipe([row(0), row(1)], base=base), "--out", tmp_path / "second")
    assert code == 2
    assert "already has <|visual_alarm|>" in err
    assert "copy the sidecar" in err


def test_weights_in_bf16_are_trained_as_fp32_masters(command, recipe, tmp_path):
    import torch
    from transformers import VideoLlama3ForConditionalGeneration

    half = tmp_path / "half"
    shutil.copytree(BASES / "small", half)
    VideoLlama3ForConditionalGeneration.from_pretrained(half, dtype=torch.bfloat16).save_pretrained(half)
    base = {"source": "checkpoint", "checkpoint": str(half)}
    code, out, _ = command("train", recipe([row(n) for n in range(2)], base=base), "--out", tmp_path / "run")
    assert code == 0
    from safetensors import safe_open

    with safe_open(tmp_path / out.strip().splitlines()[-1] / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float32}  # noqa: SIM118
