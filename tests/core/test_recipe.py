import math
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from videosafety.core import recipe
from videosafety.core.errors import RecipeError
from videosafety.core.recipe import REQUIRED, Config, KnobRow, describe, fingerprint, knob, load_recipe


class Size(StrEnum):
    SMALL = "small"
    FULL = "full"


class Train(Config):
    learning_rate: float = knob(1e-6, unit="per step", paper=1e-6, help="of the language model", gt=0)
    steps: int = knob(help="optimiser steps", unit="steps", ge=1)
    scale_rewards: Literal["group", "batch"] = knob("group", paper="group", help="how rewards are scaled")


class Decode(Config):
    greedy: bool = knob(True, help="no sampling")
    tags: tuple[str, ...] = knob((), help="free words")


class Toy(Config):
    size: Size = knob(Size.SMALL, help="of the world")
    train: Train
    decode: Decode = Decode(greedy=False)
    extra: Decode | None = None
    arms: dict[str, Decode] = Field(default_factory=dict)


GOOD = "train:\n  steps: 10\n"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def _write(text: str) -> Path:
        path = tmp_path / "toy.yaml"
        path.write_text(text)
        return path

    return _write


def test_a_recipe_loads_with_its_defaults(write: Any) -> None:
    loaded = load_recipe(write(GOOD), Toy)
    assert loaded == Toy(train=Train(steps=10))
    assert loaded.train.learning_rate == 1e-6


def test_yaml_means_what_it_says(write: Any) -> None:
    text = "train: {steps: 7, learning_rate: 1e-3}\nsize: full\nextra:\n"
    text += "decode: {tags: [no, on, 12:30:00, 2024-01-01]}\n"
    loaded = load_recipe(write(text), Toy)
    assert loaded.train.learning_rate == 1e-3
    assert loaded.size is Size.FULL
    assert loaded.extra is None
    assert loaded.decode.tags == ("no", "on", "12:30:00", "2024-01-01")


def test_overrides_reach_any_depth_and_the_last_wins(write: Any) -> None:
    overrides = ["train.steps=3", "train.steps=4", "extra.greedy=false", "decode.tags=[a, b]"]
    overrides += ["train.learning_rate=2e-5"]
    loaded = load_recipe(write(GOOD + "extra:\n"), Toy, overrides=overrides)
    assert (loaded.train.steps, loaded.train.learning_rate, loaded.decode.tags) == (4, 2e-5, ("a", "b"))
    assert loaded.extra == Decode(greedy=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("size: fulll\n" + GOOD, "size is 'fulll'; did you mean 'full'? known: full, small"),
        ("trian:\n  steps: 1\n" + GOOD, "unknown field 'trian'; did you mean 'train'?"),
        (GOOD + "  lerning_rate: 1\n", "unknown field 'train.lerning_rate'; did you mean 'learning_rate'?"),
        (GOOD + "arms:\n  video:\n    gredy: true\n", "unknown field 'arms.video.gredy'; did you mean 'greedy'?"),
        (GOOD + "extra: {gredy: true}\n", "'extra.gredy'; did you mean 'greedy'?"),
        ("train: {}\n", "the field 'train.steps' is missing"),
        ("", "the field 'train' is missing"),
        ("train: {steps: 0}\n", "train.steps should be greater than or equal to 1 (is 0)"),
        ("train: {steps: '3'}\n", "train.steps should be a valid integer"),
        ("train: {steps: 1.5}\n", "train.steps should be a valid integer"),
        ("train: {steps: true}\n", "train.steps should be a valid integer"),
        ("train: {steps: 010}\n", "train.steps should be a valid integer"),
        (GOOD + "decode: {greedy: yes}\n", "decode.greedy should be a valid boolean"),
        (GOOD + "  learning_rate: .nan\n", "train.learning_rate should be a valid number"),
        (GOOD + "  learning_rate: 1e999\n", "train.learning_rate should be a finite number"),
        (GOOD + "  scale_rewards: grop\n", "train.scale_rewards is 'grop'; did you mean 'group'?"),
    ],
)
def test_a_fault_names_the_file_the_key_and_what_was_meant(write: Any, text: str, said: str) -> None:
    path = write(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, Toy)
    assert said in str(caught.value)
    assert caught.value.where == str(path)


def test_all_faults_are_reported_at_once(write: Any) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write("size: x\ntrain: {steps: 0}\nnew: 1\n"), Toy)
    assert "3 faults" in str(caught.value)
    assert all(word in str(caught.value) for word in ("size", "train.steps", "new"))


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (GOOD + "size: [full\n", 4, "not valid YAML"),
        (GOOD + "size: a: b\n", 3, "not valid YAML"),
        (GOOD + "train: {steps: 2}\n", 3, "the key 'train' stands twice"),
        (GOOD + "  steps: 2\n", 3, "the key 'steps' stands twice"),
        ("train: &a {steps: 2}\nsize: full\nextra: *a\n", 1, "anchors, aliases and tags are not allowed"),
        (GOOD + "size: !!python/object/apply:os.getcwd []\n", 3, "anchors, aliases and tags are not allowed"),
        (GOOD + "size: !!binary aGk=\n", 3, "anchors, aliases and tags are not allowed"),
        (GOOD + "1: x\n", 3, "a key is not text"),
        (GOOD + "[1, 2]: x\n", 3, "a key is not text"),
    ],
)
def test_bad_yaml_names_its_line(write: Any, text: str, line: int, said: str) -> None:
    path = write(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, Toy)
    assert said in str(caught.value)
    assert caught.value.where == f"{path}:{line}"


@pytest.mark.parametrize("text", ["- a\n", "just text", "3", "[" * 5000, "a: \x00", "a: 1\n---\nb: 2\n"])
def test_what_is_not_a_mapping_is_refused(write: Any, text: str) -> None:
    with pytest.raises(RecipeError):
        load_recipe(write(text), Toy)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"size: \xff\n")
    (tmp_path / "folder.yaml").mkdir()
    faults = {"latin.yaml": "not UTF-8 (byte 7)", "folder.yaml": "cannot be read", "no.yaml": "no such file"}
    for name, said in faults.items():
        with pytest.raises(RecipeError) as caught:
            load_recipe(tmp_path / name, Toy)
        assert said in str(caught.value)
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.steps", "is not key=value"),
        ("=3", "is not key=value"),
        ("train..steps=3", "is not key=value"),
        ("train.steps.deep=3", "goes into 'train.steps', which is a value"),
        ("train.step=3", "unknown field 'train.step'; did you mean 'steps'?"),
        ("train.steps=[", "override 'train.steps=['"),
    ],
)
def test_a_bad_override_is_named(write: Any, override: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(GOOD), Toy, overrides=[override])
    assert said in str(caught.value)
    assert override in str(caught.value)


def test_a_recipe_is_found_by_name(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(GOOD)
    monkeypatch.setattr(recipe, "FOLDERS", (tmp_path / "absent", tmp_path))
    assert load_recipe("toy", Toy).train.steps == 10
    with pytest.raises(RecipeError, match="no such recipe 'toyy'; did you mean 'toy'"):
        load_recipe("toyy", Toy)


def test_describe_spells_out_every_knob() -> None:
    rows = {row.key: row for row in describe(Toy)}
    assert list(rows) == [
        "size", "train.learning_rate", "train.steps", "train.scale_rewards", "decode.greedy", "decode.tags",
        "extra.greedy", "extra.tags", "arms",
    ]  # fmt: skip
    assert rows["train.learning_rate"] == KnobRow(
        "train.learning_rate", "float", 1e-6, "per step", 1e-6, "of the language model"
    )
    assert rows["train.steps"].default == REQUIRED
    assert rows["train.scale_rewards"].type == "group | batch"
    assert rows["size"].type == "small | full"
    assert rows["decode.greedy"].default is False  # the parent's default, not the class's
    assert rows["decode.tags"].type == "tuple[str, ...]"
    assert rows["arms"].type == "dict[str, Decode]"


@given(st.integers(1, 10**6), st.floats(1e-9, 1e9), st.sampled_from(Size))
def test_fingerprints_tell_configs_apart_and_equal_ones_not(steps: int, rate: float, size: Size) -> None:
    one = Toy(size=size, train=Train(steps=steps, learning_rate=rate))
    same = Toy(train=Train(learning_rate=rate, steps=steps), size=size)
    other = Toy(size=size, train=Train(steps=steps + 1, learning_rate=rate))
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
    assert len(fingerprint(one)) == 16
    assert int(fingerprint(one), 16) >= 0


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    assert fingerprint(Toy(train=Train(steps=10))) == "bd27e8a643bf6da8"


def test_a_config_refuses_nan_strangers_and_change() -> None:
    for bad in ({"steps": 1, "learning_rate": math.nan}, {"steps": 1, "new": 1}):
        with pytest.raises(ValueError, match=r"learning_rate|new"):
            Train(**bad)
    with pytest.raises(ValueError, match="frozen"):
        Train(steps=1).steps = 2  # type: ignore[misc]
