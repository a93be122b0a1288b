"""What a hostile user or disk brings to a build ends in a state or in one sentence."""

import json
import sqlite3
from dataclasses import replace

import pytest
from test_build import RECIPE, build, recipe, sides_of

from videosafety.build.account import lines_of
from videosafety.build.collect import collect
from videosafety.build.embed import PhashEmbed, hashes
from videosafety.build.ledger import Ledger, read_account
from videosafety.build.people.people import People, read_people
from videosafety.build.people.review import read_verdicts  # noqa: F401 - as the build reads them
from videosafety.build.probe import Probe
from videosafety.build.records import Clip
from videosafety.build.release.takedown import take_down
from videosafety.build.state import State, Terminal
from videosafety.core.errors import InputError, RecipeError
from videosafety.core.store import sha256_file
from videosafety.toyworld.footage import write_footage
from videosafety.video.plan import Sampling
from videosafety.video.sample import sample_clip
from videosafety.video.write import write_mp4

assert RECIPE.is_file()


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "toy"
    write_footage(folder, num_clips=24, seed=9)
    return folder


@pytest.fixture(scope="module")
def out(footage, tmp_path_factory):
    out = tmp_path_factory.mktemp("hostile_out") / "out"
    build(recipe(footage, "ask.eval_share=0.4"), clips=footage / "clips", out=out)
    return out


def test_labels_with_control_characters_are_made_plain(footage, tmp_path):
    rows = [json.loads(line) for line in (footage / "labels.jsonl").read_text().splitlines()]
    for row in rows:
        row["caption"] = f"\x1b[31m{row['caption']}\u202e\x07"
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = recipe(footage, f"labels={tmp_path / 'labels.jsonl'}", "ask.eval_share=0.4")
    build(asked, clips=footage / "clips", out=tmp_path / "out")
    written = list((tmp_path / "out").rglob("*.jsonl"))
    assert len(written) > 4
    for path in written:
        text = path.read_text(encoding="utf-8")
        assert not {"\x1b", "\u202e", "\x07"} & set(text)
        assert "\\u001b" not in text


def test_a_manifest_with_a_nul_and_a_clip_for_a_manifest(footage, tmp_path):
    (tmp_path / "clips.jsonl").write_text('{"path": "a\\u0000b"}\n')
    assert [(one.state, one.reason) for one in collect(tmp_path / "clips.jsonl")] == [
        (State.FAILED, "media:unreadable")]  # fmt: skip
    with pytest.raises(InputError, match="is a clip; give the folder"):
        list(collect(footage / "clips" / "000" / "000000.mp4"))


@pytest.mark.parametrize("date", ["99", "2026-13-45", "2026-1-1"])
def test_a_day_that_is_none_takes_nothing_down(out, date):
    clip = next(iter(sides_of(out)))
    with pytest.raises(InputError, match="not a day"):
        take_down(out, [clip], reason="rights", who="someone", date=date)
    assert not (out / "takedown.jsonl").exists()


def test_a_clip_that_was_taken_down_is_on_no_page(footage, tmp_path):
    asked = recipe(footage, "ask.eval_share=0.4", "review.clip_share=1", "review.row_share=1")
    build(asked, clips=footage / "clips", out=tmp_path / "out")
    clip = next(iter(sides_of(tmp_path / "out")))
    page = tmp_path / "out" / "review" / "clips.html"
    assert f"clip-{clip[:16]}" in page.read_text()
    (taken,) = take_down(tmp_path / "out", [clip.upper()], reason="privacy", who="someone", date="2026-01-31")
    assert taken.sha256 == clip
    build(asked, clips=footage / "clips", out=tmp_path / "out")
    pages = [path.read_text() for path in (tmp_path / "out" / "review").rglob("*.html")]
    assert not any(f"clip-{clip[:16]}" in text for text in pages)
    assert not list((tmp_path / "out" / "review").rglob(f"{clip}*"))


def test_hidden_clips_count_as_quarantined_on_pages_alone():
    assert replace(People(), hidden=frozenset({"clip-a"})).quarantined == {"clip-a"}


def test_a_clip_that_is_gone_from_the_store_is_said(footage, tmp_path):
    asked = recipe(footage, "ask.eval_share=0.4")
    build(asked, clips=footage / "clips", out=tmp_path / "out")
    clip = next(iter(sides_of(tmp_path / "out")))
    for path in (tmp_path / "out").rglob(f"{clip}.mp4"):
        path.unlink()
    with pytest.raises(InputError, match="1 clips of the build are gone"):
        build(asked, clips=footage / "clips", out=tmp_path / "out")


def test_verdict_files_by_another_name_are_said_and_capitals_make_no_other_person(tmp_path):
    line = {"kind": "clip", "item": "clip-a", "annotator": "Ann", "seconds": 1, "action": "exclude"}
    (tmp_path / "A.JSONL").write_text(json.dumps(line) + "\n")
    (tmp_path / "b (1).jsonl").write_text(json.dumps(line | {"annotator": "ann"}) + "\n")
    assert read_people(tmp_path).annotators == ("ann",)
    (tmp_path / "verdicts.txt").write_text(json.dumps(line))
    with pytest.raises(InputError, match=r"verdicts.txt: is no file of verdicts"):
        read_people(tmp_path)


def test_a_ledger_with_rotten_bits_or_in_a_folder_s_place_is_one_sentence(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.begin("a", ["00"])
    database = sqlite3.connect(path)
    database.execute("INSERT INTO outcomes VALUES ('a', '00', 'r', NULL, 'ok', '', 1, ?, 1)", (b"rotten",))
    database.commit()
    database.close()
    assert read_account(path)[0].rows == 1
    with Ledger(path) as ledger, pytest.raises(InputError, match="or a damaged one"):
        ledger.made("a", "00")
    (tmp_path / "folder").mkdir()
    with pytest.raises(Exception, match="ledger") as error:
        Ledger(tmp_path / "folder")
    assert error.type.__name__ in ("StorageError", "InputError")


@pytest.mark.parametrize(("overrides", "said"), [
    (["check.min_think=500", "check.max_think=10"], "min_think is more than max_think"),
    (["embed.duplicate_below=0.3", "embed.related_below=0.1"], "duplicate_below is more than related_below"),
    (["name=../../x"], "name"),
    (["limits.cost_cap_usd=1", "think.model={model: a/b}"], "has no prices"),
    (["describe={annotators: [{model: a/b}]}"], "name describe.annotators, or a file of labels"),
    (["mix.declared={clips: {value: 3}}"], "'clips' is no number that is counted"),
])  # fmt: skip
def test_a_recipe_that_contradicts_itself_is_refused(footage, overrides, said):
    with pytest.raises(RecipeError, match=said):
        recipe(footage, *overrides)


def with_a_copy(folder):
    """Toy footage in which the last file is the first one again, compressed harder; the first and the copy."""
    write_footage(folder, num_clips=24, seed=9)
    first = folder / "clips" / "000" / "000000.mp4"
    frames = sample_clip(first, sampling=Sampling(fps=1)).frames
    copy = folder / "clips" / "000" / "zcopy.mp4"
    write_mp4(copy, frames, fps=1, crf=30)
    labels = (folder / "labels.jsonl").read_text().splitlines()
    row = json.loads(labels[0]) | {"path": "000/zcopy.mp4"}
    (folder / "labels.jsonl").write_text("\n".join([*labels, json.dumps(row)]) + "\n")
    return first, copy


COPIES = ("ask.eval_share=0.4", "embed.duplicate_below=0.1", "embed.related_below=0.1")


def test_a_copy_of_a_clip_that_was_taken_down_does_not_take_its_place(tmp_path):
    folder, out = tmp_path / "toy", tmp_path / "out"
    first, copy = with_a_copy(folder)
    asked = recipe(folder, *COPIES)
    build(asked, clips=folder / "clips", out=out)
    assert sha256_file(first) in sides_of(out)
    assert sha256_file(copy) not in sides_of(out)
    taken = take_down(out, [sha256_file(first)], reason="rights", who="someone")
    assert {one.sha256 for one in taken} == {sha256_file(first), sha256_file(copy)}
    first.unlink()
    build(asked, clips=folder / "clips", out=out)
    assert sha256_file(copy) not in sides_of(out)
    assert sides_of(out)


def quarantine(out, sha256):
    verdict = {"kind": "clip", "item": f"clip-{sha256[:16]}", "annotator": "ann", "seconds": 1, "action": "quarantine"}
    (out / "review" / "verdicts").mkdir(exist_ok=True)
    (out / "review" / "verdicts" / "ann.jsonl").write_text(json.dumps(verdict) + "\n")


@pytest.mark.parametrize("by", ["takedown", "person"])
def test_a_copy_that_comes_when_the_withdrawn_clip_is_gone_is_quarantined(tmp_path, by):
    folder, out = tmp_path / "toy", tmp_path / "out"
    first, copy = with_a_copy(folder)
    copy.rename(tmp_path / "copy.mp4")
    asked = recipe(folder, *COPIES)
    build(asked, clips=folder / "clips", out=out)
    if by == "takedown":
        take_down(out, [sha256_file(first)], reason="rights", who="someone")
    else:
        quarantine(out, sha256_file(first))
    first.unlink()
    (tmp_path / "copy.mp4").rename(copy)
    for _ in range(2):
        build(asked, clips=folder / "clips", out=out)
        (line,) = [one for one in lines_of(read_account(out / "ledger.sqlite")) if one.step == "filter"]
        assert line.ended[State.QUARANTINED, "duplicate:withdrawn"] == 1
        assert sha256_file(copy) not in sides_of(out)
    assert sides_of(out)


def test_a_clip_that_cannot_be_read_for_a_while_is_tried_again(tmp_path):
    folder, out = tmp_path / "toy", tmp_path / "out"
    write_footage(folder, num_clips=12, seed=9)
    asked = recipe(folder, "ask.eval_share=0.5", "collect.keep=in_place", "limits.max_failed_share=0.5")
    with Ledger(out / "ledger.sqlite") as ledger:
        found = [Clip.model_validate_json(one.made[0]) for one in collect(folder / "clips", ledger)]
    (probed,) = Probe(str(folder / "clips"))(found[0])
    assert PhashEmbed(str(tmp_path))(probed) == Terminal(state=State.FAILED, reason="media:missing")
    assert PhashEmbed(str(folder / "clips"))(probed)[0].id == probed.id
    assert build(asked, clips=folder / "clips", out=out).counts["eval"] > 0


def test_a_listed_file_and_a_listed_look_are_quarantined_and_seen_nowhere(footage, tmp_path):
    first, second = (footage / "clips" / "000" / f"{number:06}.mp4" for number in (0, 1))
    frame = sample_clip(second, sampling=Sampling(fps=1)).frames[0]
    (tmp_path / "list.txt").write_text(f"{sha256_file(first)}\nphash:{hashes(frame)[0]:016x}\n")
    asked = recipe(footage, "ask.eval_share=0.4", f"publish.hash_list={tmp_path / 'list.txt'}", "review.clip_share=1")
    build(asked, clips=footage / "clips", out=tmp_path / "out")
    ends = {line.step: line.ended for line in lines_of(read_account(tmp_path / "out" / "ledger.sqlite"))}
    assert ends["screen"] == {(State.QUARANTINED, "hash_list:sha256"): 1}
    assert ends["screen_looks"][(State.QUARANTINED, "hash_list:looks")] >= 1
    hidden = {sha256_file(first), sha256_file(second)}
    assert not hidden & set(sides_of(tmp_path / "out"))
    shown = [path.read_text(errors="replace") for path in (tmp_path / "out" / "review").rglob("*.*") if path.is_file()]
    assert not any(f"clip-{one[:16]}" in text for one in hidden for text in shown)


def test_nor_does_a_copy_of_one_that_a_person_quarantined_however_often_it_is_built(tmp_path):
    folder, out = tmp_path / "toy", tmp_path / "out"
    first, copy = with_a_copy(folder)
    asked = recipe(folder, *COPIES, "review.clip_share=1")
    build(asked, clips=folder / "clips", out=out)
    quarantine(out, sha256_file(first))
    first.unlink()
    for _ in range(2):
        build(asked, clips=folder / "clips", out=out)
        assert sha256_file(copy) not in sides_of(out)
        pages = [path.read_text() for path in (out / "review").glob("*.html")]
        assert not any(f"clip-{sha256_file(copy)[:16]}" in text for text in pages)
