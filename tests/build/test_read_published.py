"""Published sets are read whatever their columns, counted, and no fault of a label or a count goes by."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from release_rows import mixture

from videosafety.build.gates import Amount
from videosafety.build.release.config import PublishConfig
from videosafety.build.release.publish import publish
from videosafety.build.release.published_rows import row_of, split_of
from videosafety.build.release.read_published import inspect_published, read_published
from videosafety.core.errors import InputError, RecordError
from videosafety.core.labels import Safety

S, H = Safety.SAFE, Safety.HARMFUL
WORDS = "tell me about the orchard"
SAID = "<think>t</think><answer>a</answer><vidType>1</vidType><textType>0</textType>"


def conversation(said="A sign.", **fields):
    talk = [{"from": "human", "value": f"<video>\n{WORDS}"}, {"from": "gpt", "value": said}]
    return {"video": ["a.mp4"], "conversations": talk, **fields}


def problem(**fields):
    return {"problem_id": 1, "data_type": "video", "path": "a.mp4", "problem": WORDS, "problem_type": "free-form",
            "solution": SAID, **fields}  # fmt: skip


def labels(row):
    read = row_of(row)
    return read.visual, read.textual, read.request


@pytest.mark.parametrize(
    ("row", "read"),
    [
        (conversation(safety_labels={"visual": 1, "textual": 0}), (H, S, None)),
        (conversation(safety_labels={"visual": 1, "textual": 0, "request": "harmful"}, novel=[1]), (H, S, H)),
        (conversation(visual_safety_label="0", textual_safety_label="1", split="rl"), (S, H, None)),
        (conversation(SAID), (H, S, None)),
        (conversation(SAID, labels={"visual": "harmful", "textual": None}), (H, S, None)),
        (problem(), (H, S, None)),
        (problem(solution=SAID.replace("<think>t</think>", "")), (H, S, None)),
        ({"query": WORDS, "visual": "safe", "textual": "harmful", "request": "harmful", "media": "a.mp4"}, (S, H, H)),
        ({"question": WORDS, "textual_label": 0}, (None, S, None)),
        ({"messages": [{"role": "user", "content": WORDS}], "image": {"path": "a.png"}, "visual_label": 0,
          "textual_label": 0}, (S, S, None)),
    ],
)  # fmt: skip
def test_labels_are_read_from_wherever_a_layout_has_them(row, read):
    assert labels(row) == read


@pytest.mark.parametrize(
    "row",
    [
        conversation(),
        conversation(safety_labels={"visual": 1}),
        conversation(safety_labels={"textual": 1}),
        conversation(safety_labels={"visual": 2, "textual": 0}),
        conversation(safety_labels={"visual": True, "textual": 0}),
        conversation(safety_labels={"visual": 1.0, "textual": 0}),
        conversation(safety_labels={"visual": "Harmful", "textual": 0}),
        conversation(SAID, safety_labels={"visual": 0, "textual": 0}),
        conversation(safety_labels={"visual": 0, "textual": 1, "request": 0}),
        conversation(safety_labels={"visual": 0, "textual": 0, "request": 1}),
        {"query": WORDS, "visual": 1, "textual": 0},
        {"query": WORDS, "media": "a.mp4", "textual": 0},
    ],
)
def test_a_label_that_is_missing_wrong_or_contradicted_is_a_fault(tmp_path, row):
    path = tmp_path / "sft.jsonl"
    path.write_text(json.dumps(row) + "\n")
    read = read_published(path)
    assert (read.rows, read.row_faults, len(read.label_faults)) == ([], [], 1)
    assert read.label_faults[0].startswith("sft.jsonl:1: ")
    assert WORDS not in read.label_faults[0]


@pytest.mark.parametrize(
    "line",
    [
        "{", "[1]", "7", json.dumps({"a": WORDS}), json.dumps({"conversations": [WORDS]}),
        json.dumps(problem(solution=SAID.replace("<answer>a</answer>", ""))),
        json.dumps(problem(solution=SAID.replace("1", "2"))), '{"query": "a", "query": "b", "textual": 0}',
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_a_fault_of_its_line_and_the_next_is_read(tmp_path, line):
    path = tmp_path / "cot.jsonl"
    path.write_text(json.dumps(problem()) + f"\n\n{line}\n" + json.dumps(problem(path="b.mp4")) + "\n")
    read = read_published(path)
    assert (len(read.rows), len(read.row_faults), read.label_faults) == (2, 1, [])
    assert read.row_faults[0].startswith("cot.jsonl:3: ")
    assert WORDS not in read.row_faults[0]


def test_the_other_polarity_is_read_when_it_is_said(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(conversation(SAID, safety_labels={"visual": 1, "textual": 0})) + "\n")
    (row,) = read_published(path, harmful_is=0).rows
    assert (row.visual, row.textual) == (S, H)


@pytest.mark.parametrize(
    ("name", "split"),
    [("vst_sft_10k", "sft"), ("VST-CoT-15k", "cot"), ("vst_rl_25k", "rl"), ("VSB-Eval-HH", "eval"), ("vse", "eval"),
     ("grpo_rl", "rl"), ("all", None), ("world", None), ("train", None)],
)  # fmt: skip
def test_a_split_is_what_a_file_is_called(name, split):
    assert split_of(name) == split


def test_a_folder_of_several_kinds_of_files_is_counted(tmp_path):
    (tmp_path / "rl").mkdir()
    rows = [conversation(video=f"{n}.mp4", safety_labels={"visual": 0, "textual": 0}, language=one, category="a")
            for n, one in enumerate(("en", "fr"))]  # fmt: skip
    (tmp_path / "vst_sft.json").write_text(json.dumps(rows))
    (tmp_path / "vst_cot.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist([problem(path="7.mp4", category="b")]), tmp_path / "rl" / "part-0.parquet")
    (tmp_path / "other.jsonl").write_text(json.dumps({"query": WORDS, "textual": 0, "split": "test"}) + "\n")
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / ".cache.jsonl").write_text("?")
    read = read_published(tmp_path)
    assert read.files == {"other.jsonl": 1, "rl/part-0.parquet": 1, "vst_cot.jsonl": 2, "vst_sft.json": 2}
    assert read.numbers == {"pairs": 3, "eval": 1, "sft": 2, "cot": 2, "rl": 1, "train": 5, "categories": 2,
                            "languages": 2}  # fmt: skip
    declared = {"sft": Amount(value=2), "train": Amount(value=5), "pairs": Amount(value=3)}
    assert inspect_published(tmp_path, declared=declared).exit_code == 0
    found = inspect_published(tmp_path, declared=declared | {"rl": Amount(value=2)})
    assert str(found.findings[-1]) == "counts: rl: 1 and not 2"
    assert (found.passed, found.exit_code) == (False, 2)


def test_the_paper_is_what_a_foreign_set_is_held_to(tmp_path):
    path = tmp_path / "vse.jsonl"
    path.write_text("".join(json.dumps(problem(path=f"{n}.mp4")) + "\n" for n in range(11_380)))
    found = inspect_published(path)
    assert found.numbers == {"pairs": 11_380, "eval": 11_380}
    said = str(found)
    assert "pairs: 11380 and not 77646" in said
    assert not any(fault.startswith("eval") for fault in found.findings[-1].faults)
    assert "languages: not counted and not 10" in found.findings[-1].faults


@pytest.fixture
def release(tmp_path):
    (tmp_path / "clips").mkdir()
    publish(
        mixture(tmp_path / "clips"),
        tmp_path,
        config=PublishConfig(formats=("records",)),
        clips=tmp_path / "clips",
        provenance={},
    )
    return tmp_path / "release"


@pytest.mark.parametrize("part", ["whole", "open", "restricted"])
def test_our_own_release_is_read_from_its_parquet_and_held_to_its_manifest(release, part):
    if part == "open":
        (release / "restricted").rename(release.parent / "apart")
    found = inspect_published(release / "restricted" if part == "restricted" else release,
                              declared={"eval": Amount(value=3)} if part == "restricted" else None)  # fmt: skip
    assert found.passed, str(found)
    assert found.numbers == {"pairs": 9, "eval": 3, "sft": 2, "cot": 2, "rl": 2, "train": 6, "categories": 1,
                             "languages": 2}  # fmt: skip


def test_a_release_that_was_changed_is_found_out(release):
    (release / "data" / "eval.parquet").write_bytes((release / "data" / "sft.parquet").read_bytes())
    (release / "eval.jsonl").unlink()
    (release / "restricted" / "data" / "eval.parquet").unlink()
    found = {finding.gate: finding.faults for finding in inspect_published(release).findings}
    assert found["files"] == ("data/eval.parquet is not the file that was published", "eval.jsonl is missing",
                              "restricted/data/eval.parquet is missing")  # fmt: skip
    assert found["counts"] == ("eval: not counted and not 3",)


@pytest.mark.parametrize(("name", "content"), [("a.parquet", b"PAR1"), ("a.json", b'[{"a": 1}')])
def test_a_file_that_cannot_be_read_at_all_is_an_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordError, match=name):
        read_published(tmp_path)


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no rows"):
        read_published(tmp_path)
    with pytest.raises(RecordError, match="no such file"):
        read_published(tmp_path / "none.jsonl")
