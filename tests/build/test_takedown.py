"""A clip that was taken down goes out no more, nor any row made of it; nobody is named; copies can be deleted."""

import json

import pytest
from release_rows import mixture

from videosafety.build.release.config import PublishConfig
from videosafety.build.release.publish import publish
from videosafety.build.release.takedown import Availability, Takedown, take_down, withdrawn
from videosafety.core.errors import InputError
from videosafety.core.store import Journal, read_records


@pytest.fixture
def build(tmp_path):
    """The folder of a build with its release, its rows, and how to publish again."""
    (tmp_path / "clips").mkdir()
    rows = mixture(tmp_path / "clips")

    def again(left=None):
        config = PublishConfig(formats=("records",))
        publish(rows if left is None else left, tmp_path, config=config, clips=tmp_path / "clips", provenance={})
        listed = read_records(tmp_path / "release" / "availability.jsonl", Availability, unique="sha256")
        return {one.sha256: one for one in listed}

    again()
    return tmp_path, rows, again


def everything(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("name", ["row", "clip", "sha256"])
def test_the_next_release_leaves_out_the_clip_and_all_rows_made_of_it(build, name):
    out, rows, again = build
    clip = rows[0].asked.described.clip
    named = {"row": rows[0].id, "clip": clip.id, "sha256": clip.sha256}[name]
    assert [one.sha256 for one in take_down(out, [named, clip.id], reason="privacy", who="A. Person")] == [clip.sha256]
    assert clip.id.encode() in everything(out / "release" / "restricted")
    listed = again()
    assert listed[clip.sha256] == Availability(sha256=clip.sha256, clip=clip.id, state="withdrawn", reason="privacy")
    assert {one.state for sha256, one in listed.items() if sha256 != clip.sha256} == {"available"}
    left = everything(out / "release" / "restricted") + everything(out / "release" / "data")
    assert clip.id.encode() not in left
    assert rows[0].asked.sample.query.encode() not in everything(out / "release")
    manifest = json.loads((out / "release" / "manifest.json").read_bytes())
    gone = sum(row.asked.described.clip == clip for row in rows)
    assert gone == 2
    assert (manifest["withdrawn_clips"], manifest["withdrawn_rows"], manifest["numbers"]["rows"]) == (1, gone, 9 - gone)
    assert "those that were withdrawn: 1 so far, with\n2 rows" in (out / "release" / "README.md").read_text()


def test_who_asked_and_in_which_words_is_not_published(build):
    out, rows, again = build
    take_down(out, [rows[0].id], reason="rights", who="A. Person", note="that is my house", date="2026-02-03")
    again()
    for secret in (b"A. Person", b"my house"):
        assert secret not in everything(out / "release")
        assert secret in (out / "takedown.jsonl").read_bytes()


def test_what_was_withdrawn_stays_listed_when_the_build_no_longer_has_it(build):
    out, rows, again = build
    clip = rows[0].asked.described.clip
    take_down(out, [clip.id], reason="harm", who="A. Person")
    listed = again([row for row in rows if row.asked.described.clip != clip])
    assert listed[clip.sha256].state == "withdrawn"


def test_the_ledger_only_grows_and_a_clip_is_withdrawn_once(build):
    out, rows, _ = build
    first = take_down(out, [rows[0].id], reason="harm", who="A. Person")
    assert take_down(out, [rows[0].id], reason="rights", who="B. Person") == []
    second = take_down(out, [rows[-1].id], reason="error", who="B. Person")
    assert Journal(out / "takedown.jsonl").read(Takedown) == [*first, *second]
    assert withdrawn(out)[rows[0].asked.described.clip.sha256].reason == "harm"


@pytest.mark.parametrize("name", ["clip-0000000000000000", "f" * 64, ""])
def test_an_unknown_clip_withdraws_nothing(build, name):
    out, rows, _ = build
    with pytest.raises(InputError, match="has no clip"):
        take_down(out, [rows[0].id, name], reason="harm", who="A. Person")
    assert withdrawn(out) == {}


def test_before_the_first_release_nothing_can_be_withdrawn(tmp_path):
    with pytest.raises(InputError, match="no release"):
        take_down(tmp_path, ["clip-a"], reason="harm", who="A. Person")


def test_when_all_is_withdrawn_there_is_no_release_and_the_last_one_stays(build):
    out, rows, again = build
    take_down(out, [row.id for row in rows], reason="harm", who="A. Person")
    with pytest.raises(InputError, match="nothing to publish"):
        again()
    assert (out / "release" / "README.md").is_file()


def test_words_of_a_withdrawn_harmful_row_stay_withheld_elsewhere(build):
    out, rows, again = build
    (harmful,) = [row for row in rows if row.asked.kind == "HH"]
    (other,) = [row for row in rows if (row.split, row.asked.kind) == ("rl", "SafeQ")]
    sample = other.asked.sample.model_copy(update={"query": harmful.asked.sample.query})
    same = other.model_copy(update={"asked": other.asked.model_copy(update={"sample": sample})})
    take_down(out, [harmful.id], reason="harm", who="A. Person")
    again([same if row is other else row for row in rows])
    assert harmful.asked.sample.query.encode() in everything(out / "release" / "restricted")
    assert not list((out / "release").glob("rl.jsonl"))
