"""Splits as files: training reads them, and nothing that goes wrong costs those of before."""

import resource

import pytest
from thought_rows import KINDS, thought

from videosafety.build.mix import example_of
from videosafety.build.records import Mixed
from videosafety.build.splits import Splits
from videosafety.core.errors import InputError, StorageError
from videosafety.core.jsonl import read_records
from videosafety.core.labels import Safety
from videosafety.core.records import Sample
from videosafety.core.response import ParseStatus, parse
from videosafety.defend.data.raw import Problems
from videosafety.defend.data.source import Source, read_source


def rows(num):
    """So many rows of every split, of all kinds."""
    return [_mixed(split, tuple(KINDS)[at % len(KINDS)], 4 * at + place)
            for at in range(num) for place, split in enumerate(("eval", "sft", "cot", "rl"))]  # fmt: skip


def _mixed(split, kind, number):
    one = thought(kind, clip=f"c{number}", number=number)
    seen = one.asked.described
    clip = seen.clip.model_copy(update={"path": f"media/{seen.clip.path}"})
    asked = one.asked.model_copy(update={"described": seen.model_copy(update={"clip": clip})})
    one = one.model_copy(update={"asked": asked})
    example = None if split == "eval" else example_of(one)
    return Mixed(id=f"{one.asked.id}.{split}", parent=one.id, split=split, asked=one.asked, example=example)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_splits(folder, rows, **places):
    with Splits(folder, **places) as splits:
        for row in rows:
            splits.add(row)
        splits.put()
    return splits.counts


@pytest.mark.parametrize("split", ["sft", "cot", "rl"])
def test_training_reads_the_splits(tmp_path, split):
    found = write_splits(tmp_path / "splits", rows(5), media=tmp_path, link=False)
    assert set(files(tmp_path / "splits")) == {"cot.jsonl", "eval.jsonl", "rl.jsonl", "sft.jsonl"}
    assert len(read_records(tmp_path / "splits" / "eval.jsonl", Sample)) == found["eval"]
    problems = Problems()
    source = Source(name=split, path=str(tmp_path / "splits" / f"{split}.jsonl"), kind="records")
    examples = [one.example for one in read_source(source, problems=problems)]
    problems.refuse()
    assert examples
    for example in examples:
        said = parse(example.target(structured=True))
        assert said.status is ParseStatus.COMPLETE
        assert (said.visual, said.textual) == (example.visual, example.textual)
        assert example.sample().labels.request in (Safety.SAFE, Safety.HARMFUL)
        assert example.media[0].path.startswith(str(tmp_path))


def test_media_outside_of_the_splits_are_named_in_full(tmp_path):
    clips = (tmp_path / "clips").resolve()
    write_splits(tmp_path / "splits", rows(2), media=clips, link=False)
    samples = read_records(tmp_path / "splits" / "eval.jsonl", Sample)
    assert all(sample.media.path.startswith(f"{clips}/") for sample in samples)


@pytest.fixture
def clips(tmp_path):
    """A folder with a file for every row."""
    folder = tmp_path / "clips"
    (folder / "media").mkdir(parents=True)
    for row in rows(20):
        (folder / row.asked.described.clip.path).write_bytes(row.id.encode())
    return folder


def with_small_files(num_bytes, work):
    """Do this where no file can be larger, as on a disk that is full."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, old[1]))
    try:
        with pytest.raises(StorageError, match=r"ulimit"):
            work()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_disk_that_fills_leaves_the_splits_of_before(tmp_path, clips):
    out = tmp_path / "out" / "splits"
    write_splits(out, rows(1), media=clips, link=True)
    before = files(out)
    assert len(before) == 8
    with_small_files(4000, lambda: write_splits(out, rows(20), media=clips, link=True))
    assert files(out) == before
    assert [path.name for path in out.parent.iterdir()] == ["splits"]
    write_splits(out, rows(20), media=clips, link=True)
    assert len(files(out)) == 84


def test_a_clip_that_is_gone_leaves_the_splits_of_before(tmp_path, clips):
    write_splits(tmp_path / "splits", rows(1), media=clips, link=True)
    before = files(tmp_path / "splits")
    (clips / rows(2)[-1].asked.described.clip.path).unlink()
    with pytest.raises(InputError, match="1 clips of the build are gone"):
        write_splits(tmp_path / "splits", rows(2), media=clips, link=True)
    assert files(tmp_path / "splits") == before


def test_fewer_rows_take_the_files_and_the_clips_of_more_away(tmp_path, clips):
    out = tmp_path / "splits"
    write_splits(out, rows(2), media=clips, link=True)
    (out / "notes.txt").write_text("mine")
    left = [row for row in rows(2) if row.split in ("eval", "rl")]
    assert write_splits(out, left, media=clips, link=True)["eval"] == 2
    named = {row.asked.described.clip.path for row in left}
    assert set(files(out)) == {"eval.jsonl", "rl.jsonl", "notes.txt"} | named


def test_nothing_is_seen_of_splits_that_are_not_put(tmp_path, clips):
    with Splits(tmp_path / "out" / "splits", media=clips, link=True) as splits:
        splits.add(rows(1)[0])
    assert list((tmp_path / "out").iterdir()) == []
