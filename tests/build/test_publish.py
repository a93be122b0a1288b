"""A release: whole, repeatable, readable by everybody's tools, and nothing harmful outside of its restricted folder."""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from release_rows import CONTENT, HARMFUL, mixture

from videosafety.build.release import publish as verb
from videosafety.build.release.card import restricted_card
from videosafety.build.release.check import release_faults
from videosafety.build.release.config import PublishConfig
from videosafety.build.release.folder import Tally
from videosafety.build.release.publish import Contents, publish
from videosafety.build.release.rows import Words, open_row, row_of
from videosafety.core.errors import InputError
from videosafety.core.example import Example
from videosafety.core.labels import Safety
from videosafety.core.records import Sample
from videosafety.core.store import read_records, sha256_file
from videosafety.defend.data.raw import Problems
from videosafety.defend.data.source import Source, read_source

ACCOUNT = [
    ["screen", "quarantined", "hash_list:sha256", 2],
    ["collect", "ok", "", 9],
    ["filter", "filtered", "still", 3],
]
SECRET = {*HARMFUL.values(), "orchard contraption", "I'm sorry, but I can't help with that", "copper bridge"}


def published(folder, *, rows=None, name="out", account=ACCOUNT, **config):
    clips = folder / "clips"
    clips.mkdir(exist_ok=True)
    made = mixture(clips)
    out = folder / name
    publish(made if rows is None else rows(made), out, config=PublishConfig(**config), clips=clips,
            provenance={"account": account})  # fmt: skip
    return out / "release", made


def words_of(rows):
    words = Words()
    for row in rows:
        words.add(row)
    return words


def faults_of(rows, release):
    contents = Contents.of(rows, gone=())
    return list(release_faults(release, words=contents.words, clips=contents.harmful))


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def texts(folder):
    """All that can be read in a folder, by file, with tables and archives opened."""
    for name, content in tree(folder).items():
        if name.endswith(".parquet"):
            yield name, json.dumps(pq.read_table(io.BytesIO(content)).to_pylist(), ensure_ascii=False)
        elif name.endswith(".tar"):
            with tarfile.open(fileobj=io.BytesIO(content)) as shard:
                yield name, " ".join(shard.extractfile(one).read().decode() for one in shard)
        else:
            yield name, content.decode()


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return published(tmp_path_factory.mktemp("plain"), hash_list="known.txt")[0]


def test_equal_rows_in_any_order_give_equal_bytes_and_a_new_release_takes_the_place_of_the_old(tmp_path, release):
    (release / "stale.md").write_text("of an older one")
    again, _ = published(tmp_path, rows=lambda rows: rows[::-1], hash_list="known.txt")
    assert "stale.md" in tree(release)
    before = tree(release)
    del before["stale.md"]
    (release / "stale.md").unlink()
    assert tree(again) == before
    (again / "stale.md").write_text("of an older one")
    published(tmp_path, hash_list="known.txt")
    assert tree(again) == before
    assert [path.name for path in again.parent.iterdir()] == ["release"]


def test_nothing_harmful_stands_outside_of_the_restricted_folder(release):
    found = {name for name, text in texts(release) if any(secret in text for secret in SECRET)}
    assert {name.split("/")[0] for name in found} == {"restricted"}
    assert {"restricted/data/eval.parquet", "restricted/sft.jsonl", "restricted/conversations_sft.jsonl",
            "restricted/grpo_rl.jsonl", "restricted/shards/cot-000000.tar"} <= found  # fmt: skip
    assert not [name for name in tree(release) if name.endswith(".mp4")]


def test_the_last_look_passes_a_release_and_finds_what_is_planted(tmp_path):
    release, rows = published(tmp_path, media=True)
    assert faults_of(rows, release) == []
    words = HARMFUL["sft"]
    answer = next(row.example.answer for row in rows if row.asked.kind == "SH")
    pq.write_table(pa.table({"a": [json.dumps({"b": [words.upper()]})]}), release / "more.parquet")
    (release / "more.jsonl").write_text(json.dumps({"answer": answer}) + "\n")
    with tarfile.open(release / "shards" / "more.tar", "w") as shard:
        for name, content in (("0.json", json.dumps([words]).encode()), ("0.mp4", CONTENT["eval", "harmful"])):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    (release / "media" / "more.strange").write_bytes(CONTENT["eval", "harmful"])
    (release / "more.bin").write_bytes(b"?")
    (release / "restricted" / "more.jsonl").write_text(json.dumps({"answer": words}) + "\n")
    assert faults_of(rows, release) == [
        "media/more.strange is a harmful clip", "more.bin is of no kind that can be looked into",
        "more.jsonl holds harmful words", "more.parquet holds harmful words", "shards/more.tar holds harmful words",
    ]  # fmt: skip


def test_a_harmful_clip_in_a_shard_is_found(tmp_path):
    release, rows = published(tmp_path)
    with tarfile.open(release / "shards" / "more.tar", "w") as shard:
        member = tarfile.TarInfo("0.mp4")
        member.size = len(CONTENT["eval", "harmful"])
        shard.addfile(member, io.BytesIO(CONTENT["eval", "harmful"]))
    assert faults_of(rows, release) == ["shards/more.tar holds a harmful clip"]


@pytest.mark.parametrize("name", ["more.jsonl", "more.json", "more.md", "more.csv", "more.txt"])
def test_harmful_words_are_found_in_text_of_every_kind(tmp_path, name):
    release, rows = published(tmp_path)
    words = HARMFUL["eval"]
    text = {"more.jsonl": json.dumps({"rows": [{"query": words}]}), "more.json": json.dumps([words], indent=1),
            "more.md": f"# Notes\n{words}\n", "more.csv": f'id,query\n1,"{words}"\n',
            "more.txt": f"{{broken\n{words}"}[name]  # fmt: skip
    (release / "restricted" / name).write_text(text)
    assert faults_of(rows, release) == []
    (release / name).write_text(text)
    assert faults_of(rows, release) == [f"{name} holds harmful words"]


def test_a_harmful_clip_is_found_wherever_it_lies(tmp_path):
    release, rows = published(tmp_path)
    (release / "more.mp4").write_bytes(b"other")
    assert faults_of(rows, release) == []
    (release / "more.mp4").write_bytes(CONTENT["eval", "harmful"])
    assert faults_of(rows, release) == ["more.mp4 is a harmful clip"]


def test_a_release_that_would_show_what_it_must_not_is_not_put_in_place(tmp_path, monkeypatch):
    release, _ = published(tmp_path)
    before = tree(release)
    monkeypatch.setattr(verb, "open_row", lambda row, words: row)
    with pytest.raises(InputError, match=r"is not published: .*holds harmful words") as caught:
        published(tmp_path)
    assert not any(secret in str(caught.value) for secret in SECRET)
    assert tree(release) == before
    assert [path.name for path in release.parent.iterdir()] == ["release"]


def test_a_harmless_row_with_the_words_of_a_harmful_one_is_withheld(tmp_path):
    tmp_path.joinpath("clips").mkdir()
    rows = [row_of(one) for one in mixture(tmp_path / "clips")]
    (row,) = [one for one in rows if (one.split, one.kind) == ("eval", "SafeQ")]
    assert open_row(row, words_of(rows)) == row
    same = open_row(row.model_copy(update={"query": HARMFUL["rl"].upper()}), words_of(rows))
    assert (same.query, same.withheld) == (None, True)
    signs = row.model_copy(update={"query": "?!", "textual": Safety.HARMFUL, "request": Safety.HARMFUL})
    assert open_row(signs, words_of([signs])).query is None


def test_parquet_has_every_row_sorted_with_its_labels_and_null_for_what_is_withheld(release):
    for split, kinds in (("eval", {"HH", "SafeQ", "borderline"}), ("cot", {"composed", "borderline"})):
        rows = pq.read_table(release / "data" / f"{split}.parquet").to_pylist()
        assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
        assert {row["kind"] for row in rows} == kinds
        assert {row["kind"] for row in rows if row["query"] is None} == kinds & {"HH", "composed"}
        whole = pq.read_table(release / "restricted" / "data" / f"{split}.parquet").to_pylist()
        kept = [name for name in whole[0] if name not in ("query", "think", "answer", "facts", "withheld")]
        assert [[row[name] for name in kept] for row in rows] == [[row[name] for name in kept] for row in whole]
        assert not any(row["withheld"] for row in whole)
        assert all(row["query"] for row in whole)
    clips = pq.read_table(release / "data" / "clips.parquet").to_pylist()
    assert {clip["visual"]: clip["caption"] is None for clip in clips} == {"safe": False, "harmful": True}
    assert clips[0]["votes"][0]["annotator"] == "one"
    assert pq.read_schema(release / "data" / "clips.parquet").metadata == {b"videosafety_schema": b"1"}


def test_the_manifest_counts_the_rows_and_names_every_file_by_its_hash(release):
    manifest = json.loads((release / "manifest.json").read_bytes())
    hashes = {name: sha256_file(release / name) for name in tree(release) if name != "manifest.json"}
    assert manifest["files"] == hashes
    numbers = manifest["numbers"]
    assert {name: numbers[name] for name in ("rows", "clips", "eval", "rl", "eval HH", "language fr", "withheld")} == {
        "rows": 9, "clips": 5, "eval": 3, "rl": 2, "eval HH": 1, "language fr": 2, "withheld": 5}  # fmt: skip
    assert manifest["provenance"]["account"] == ACCOUNT


def test_hugging_face_datasets_load_both_parts_from_the_folder(release, tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    cache = {"cache_dir": str(tmp_path)}
    every = datasets.load_dataset(str(release), **cache)
    assert {split: len(rows) for split, rows in every.items()} == {"eval": 3, "sft": 2, "cot": 2, "rl": 2}
    clips = datasets.load_dataset(str(release), "clips", split="clips", **cache)
    assert len(clips) == 5
    assert set(clips["visual"]) == {"safe", "harmful"}
    whole = datasets.load_dataset(str(release / "restricted"), split="sft", **cache)
    assert HARMFUL["sft"] in whole["query"]
    assert HARMFUL["sft"] not in every["sft"]["query"]


def test_webdataset_loads_the_shards(tmp_path, monkeypatch):
    webdataset = pytest.importorskip("webdataset")
    monkeypatch.setattr("videosafety.build.release.folder.MB", 1)
    release, _ = published(tmp_path, media=True)
    folder = release / "restricted" / "shards"
    assert sorted(path.name for path in folder.iterdir()) == [
        "cot-000000.tar", "eval-000000.tar", "eval-000001.tar", "rl-000000.tar", "sft-000000.tar"]  # fmt: skip
    samples = list(webdataset.WebDataset([str(path) for path in sorted(folder.glob("eval-*"))], shardshuffle=False))
    assert sorted(sample["mp4"] for sample in samples) == sorted(CONTENT["eval", one] for one in ("safe", "harmful"))
    said = [json.loads(sample["json"]) for sample in samples]
    assert sorted(row["kind"] for one in said for row in one["rows"]) == ["HH", "SafeQ", "borderline"]
    assert [one["clip"]["sha256"] for one in said] == [sample["__key__"] for sample in samples]
    shown = list(webdataset.WebDataset([str(path) for path in sorted((release / "shards").glob("eval-*"))],
                                       shardshuffle=False))  # fmt: skip
    assert [sample.get("mp4") for sample in shown if "mp4" in sample] == [CONTENT["eval", "safe"]]
    assert [row["kind"] for sample in shown for row in json.loads(sample["json"])["rows"] if not row["query"]] == []


def test_conversations_come_back_as_the_examples_they_were(tmp_path):
    release, rows = published(tmp_path, media=True)
    for split, thinks in (("sft", False), ("cot", True)):
        problems = Problems()
        source = Source(name="ours", path=str(release / "restricted" / f"conversations_{split}.jsonl"),
                        kind="conversations")  # fmt: skip
        read = {one.example.id: one.example for one in read_source(source, problems=problems)}
        assert problems.num == 0
        for row in (one for one in rows if one.split == split):
            found, meant = read[f"ours:{row.id}"], row.example
            for name in ("answer", "visual", "textual", "request", "language"):
                assert getattr(found, name) == getattr(meant, name), name
            assert found.think == (meant.think if thinks else None)
            assert [turn.text for turn in found.turns] == [turn.text for turn in meant.turns]
            assert sha256_file(found.media[0].path) == meant.media[0].sha256


def test_grpo_problems_have_the_fields_of_the_released_code(tmp_path):
    release, rows = published(tmp_path)
    problems = [json.loads(line) for line in (release / "restricted" / "grpo_rl.jsonl").read_text().splitlines()]
    wanted = sorted((row for row in rows if row.split == "rl"), key=lambda row: row.id)
    for problem, row in zip(problems, wanted, strict=True):
        assert list(problem) == sorted(["problem_id", "data_type", "path", "problem", "problem_type", "solution"])
        assert problem["solution"] == row.example.target(structured=True)
        assert (problem["problem"], problem["data_type"]) == (row.asked.sample.query, "video")
        assert problem["problem_type"] == "free-form-and-choice"
    asked = [json.loads(line)["problem"] for line in (release / "grpo_rl.jsonl").read_text().splitlines()]
    assert asked == [row.asked.sample.query for row in wanted if row.asked.kind == "SafeQ"]


def test_our_own_records_are_read_back_with_media_by_hash(release, tmp_path):
    samples = read_records(release / "restricted" / "eval.jsonl", Sample)
    assert len(samples) == 3
    assert all(sample.media.path == f"media/{sample.media.sha256[:2]}/{sample.media.sha256}.mp4" for sample in samples)
    assert {sample.labels.visual for sample in read_records(release / "eval.jsonl", Sample)} == {*Safety}
    (example,) = read_records(release / "rl.jsonl", Example)
    assert example.request is Safety.SAFE


def test_rows_with_words_that_conversations_reserve_are_named_and_left_out_of_these_alone(tmp_path):
    def spoilt(rows):
        (row,) = [one for one in rows if (one.split, one.asked.kind) == ("sft", "SafeQ")]
        sample = row.asked.sample.model_copy(update={"query": "What does <video> mean on this sign?"})
        spoiled.append(row.id)
        asked = row.asked.model_copy(update={"sample": sample})
        return [one if one is not row else row.model_copy(update={"asked": asked}) for one in rows]

    spoiled = []
    release, _ = published(tmp_path, rows=spoilt)
    assert json.loads((release / "manifest.json").read_bytes())["not_in_conversations"] == spoiled
    assert len((release / "restricted" / "conversations_sft.jsonl").read_text().splitlines()) == 1
    assert len((release / "restricted" / "sft.jsonl").read_text().splitlines()) == 2
    assert "1 rows hold words" in (release / "README.md").read_text()


def test_media_go_out_only_when_asked_for_and_harmful_ones_into_the_restricted_folder(tmp_path):
    release, _ = published(tmp_path, media=True)
    shown = [path.read_bytes() for path in sorted((release / "media").rglob("*.mp4"))]
    assert sorted(shown) == sorted(CONTENT[split, "safe"] for split in ("eval", "sft", "rl"))
    whole = {path.name: path for path in (release / "restricted" / "media").rglob("*.mp4")}
    assert sorted(path.read_bytes() for path in whole.values()) == sorted(
        [*shown, CONTENT["eval", "harmful"], CONTENT["cot", "harmful"]]
    )
    assert all(sha256_file(path) == path.stem for path in whole.values())


@pytest.mark.parametrize(("spoil", "said"), [("write", "has changed"), ("unlink", "no such clip")])
def test_a_clip_that_is_not_what_it_was_stops_the_release(tmp_path, spoil, said):
    clips = tmp_path / "clips"
    clips.mkdir()
    rows = mixture(clips)
    victim = clips / rows[0].asked.described.clip.path
    victim.unlink()
    if spoil == "write":
        victim.write_bytes(b"other")
    with pytest.raises(InputError, match=said):
        publish(rows, tmp_path / "out", config=PublishConfig(media=True), clips=clips, provenance={})
    assert not (tmp_path / "out" / "release").exists()


def test_the_card_says_what_is_in_it_and_foreign_names_stay_text(release):
    card = (release / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["language"] == ["en", "fr"]
    assert head["configs"][0]["data_files"][0] == {"split": "eval", "path": "data/eval.parquet"}
    lines = ["| eval | 3 |", "| a \\| b &lt;i&gt; | unknown | 4 |", "| fraud | 2 | 4 |", "2 matched,",
             "| filter | filtered | still |", "For 4 of the clips", "| fr | 0 | 0 | 0 | 2 | 0 | 2 |"]  # fmt: skip
    for line in lines:
        assert line in card
    assert "<i>" not in card


@pytest.mark.parametrize(
    ("licence", "said"),
    [(None, {}), ("CC-BY-4.0", {"license": "cc-by-4.0"}), ("ours: a", {"license": "other", "license_name": "ours: a"})],
)
def test_a_licence_is_named_as_hugging_face_names_it(licence, said):
    head = yaml.safe_load(restricted_card(PublishConfig(licence=licence), Tally()).split("---")[1])
    assert {key: value for key, value in head.items() if key.startswith("license")} == said


def test_croissant_is_valid_and_loads_rows(release):
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(jsonld=str(release / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    assert dataset.metadata.data_collection
    assert dataset.metadata.personal_sensitive_information
    rows = list(dataset.records("eval"))
    assert sorted(row["eval/kind"] for row in rows) == [b"HH", b"SafeQ", b"borderline"]


def test_a_release_without_rows_is_refused(tmp_path):
    with pytest.raises(InputError, match="nothing to publish"):
        published(tmp_path, rows=lambda rows: [])


@pytest.mark.parametrize(
    "fields",
    [{"name": "../x"}, {"version": "1"}, {"date": "today"}, {"formats": ("grpo", "grpo")}, {"shard_mb": 0}],
)
def test_a_config_that_cannot_be_is_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        PublishConfig(**fields)
