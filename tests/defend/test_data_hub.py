import builtins
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
from data_fixtures import picture, record, row, said, tagged, talk, write_rows

from videosafety.core.errors import DependencyError, RecordError
from videosafety.core.labels import Safety
from videosafety.defend.data.mix import mix
from videosafety.defend.data.source import Source

LABELS = {"visual_label": 1, "textual_label": 0}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def hub(path: Path | str, **change: Any) -> Source:
    return Source(**{"name": "h", "path": str(path), "kind": "hub"} | change)


def folder(tmp_path: Path, *rows: Mapping[str, object]) -> Path:
    (tmp_path / "data").mkdir()
    return write_rows(tmp_path / "data" / "train.jsonl", *rows).parent


def refusal(source: Source) -> str:
    with pytest.raises(RecordError) as caught:
        mix([source], seed=0)
    return said(caught.value)


def test_chat_messages_with_what_arrow_fills_in(tmp_path: Path) -> None:
    parts = [{"type": "video", "video": "a.mp4"}, {"type": "text", "text": "What?"}]
    path = folder(
        tmp_path,
        {"id": "a", "messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "A sign."}],
         "extra": 1, **LABELS},
        {"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": tagged(0, 0)}],
         "safety_labels": {"visual": 0}, "textual_label": 0},
    )  # fmt: skip
    first, second = sorted(mix([hub(path)], seed=0).examples, key=lambda one: one.id)
    assert (first.id, first.visual, first.textual, first.answer) == ("h:a", Safety.HARMFUL, Safety.SAFE, "A sign.")
    assert [one.path for one in first.media] == [str(path / "a.mp4")]
    assert (second.id, second.visual, second.textual, second.think) == ("h:row-2", Safety.SAFE, Safety.SAFE, "A sign.")


def test_the_released_layout_and_our_records(tmp_path: Path) -> None:
    released = write_rows(tmp_path / "a.jsonl", row(), row(id="b", video=None, conversations=talk("?")) | {
        "safety_labels": {"visual": 0, "textual": 1}})  # fmt: skip
    ours = write_rows(tmp_path / "b.jsonl", record(), record("b", think="x", language="zh"))
    found = mix([hub(released, name="x"), hub(ours, name="y")], seed=0).examples
    by_id = {one.id: one for one in found}
    assert set(by_id) == {"x:a", "x:b", "y:a", "y:b"}
    assert by_id["x:b"].textual is Safety.HARMFUL
    assert (by_id["y:a"].think, by_id["y:b"].think, by_id["y:b"].language) == (None, "x", "zh")
    assert by_id["x:a"].media[0].path == by_id["y:a"].media[0].path == str(tmp_path / "a.mp4")


def test_a_missing_label_is_an_error_and_not_arrows_null(tmp_path: Path) -> None:
    full = {"conversations": talk("?"), "visual_label": 0, "textual_label": 0}
    path = folder(tmp_path, {"id": "a", **full}, {"id": "b", **full, "textual_label": None})
    assert f"{path}:2: record 'b': no textual label" in refusal(hub(path))
    assert len(mix([hub(path, labels="safe")], seed=0).examples) == 2


def test_class_labels_are_read_by_name_and_media_stay_references(tmp_path: Path) -> None:
    picture(tmp_path / "b.png")
    features = datasets.Features({
        "image": datasets.Image(), "visual_label": datasets.ClassLabel(names=["harmful", "safe"]),
        "textual_label": datasets.ClassLabel(names=["safe", "harmful"]),
        "conversations": [{"from": datasets.Value("string"), "value": datasets.Value("string")}],
    })  # fmt: skip
    data = {"image": [str(tmp_path / "b.png")], "visual_label": [0], "textual_label": [0],
            "conversations": [talk("<image>?")]}  # fmt: skip
    datasets.Dataset.from_dict(data, features=features).save_to_disk(tmp_path / "embedded")
    assert "image holds the media itself" in refusal(hub(tmp_path / "embedded"))
    paths = datasets.Features(features | {"image": datasets.Value("string")})
    datasets.Dataset.from_dict(data, features=paths).save_to_disk(tmp_path / "saved")
    [example] = mix([hub(tmp_path / "saved")], seed=0).examples
    assert (example.visual, example.textual) == (Safety.HARMFUL, Safety.SAFE)
    assert example.media[0].path == str(tmp_path / "b.png")


def test_a_saved_dictionary_has_splits(tmp_path: Path) -> None:
    rows = [{"conversations": talk("?"), **LABELS, "visual_label": 0}]
    datasets.DatasetDict({"eval": datasets.Dataset.from_list(rows)}).save_to_disk(tmp_path / "saved")
    assert len(mix([hub(tmp_path / "saved", split="eval")], seed=0).examples) == 1
    assert "no such split 'train'" in refusal(hub(tmp_path / "saved"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "cannot be loaded"),
        (lambda path: path.mkdir(), "cannot be loaded"),
        (lambda path: write_rows(path, {"a": 1}), "is no data file that is known"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(tmp_path: Path, make: Any, words: str) -> None:
    make(tmp_path / "data.xyz")
    message = refusal(hub(tmp_path / "data.xyz"))
    assert words in message
    assert "\n" not in message


def test_a_split_that_does_not_exist(tmp_path: Path) -> None:
    assert "cannot be loaded" in refusal(hub(folder(tmp_path, row()), split="nope"))


def test_all_bad_rows_are_named_and_nothing_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder(tmp_path, *[row(id=f"r{n}", video=[]) for n in range(30)])
    message = refusal(hub(path))
    assert message.startswith("30 faults")
    assert message.endswith("and 10 more")
    assert capsys.readouterr().out == ""


def test_without_the_package_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DependencyError, match="pip install datasets"):
        mix([hub(tmp_path)], seed=0)


def test_files_of_other_kinds_need_no_such_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", lambda name, *rest: pytest.fail("imported") if name == "datasets"
                        else real(name, *rest))  # fmt: skip
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row()))
    assert len(mix([Source(name="x", path=str(path), kind="conversations")], seed=0).examples) == 1
