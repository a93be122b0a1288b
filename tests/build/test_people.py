"""Verdicts of people: read strictly, settled by majority, and no row goes on while people are of two minds."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from thought_rows import asked, thought

from videosafety.build.ledger import Ledger
from videosafety.build.people.people import ClipVerdict, People, RowVerdict, digest_of, read_people
from videosafety.build.people.settle import Heed, Settle
from videosafety.build.records import Described, Evidence, Vote
from videosafety.build.run import run_step
from videosafety.build.state import State, Terminal
from videosafety.build.step import step_hash
from videosafety.core.errors import InputError, RecordError
from videosafety.core.labels import Safety
from videosafety.core.records import Span

HARMFUL = {"action": "label", "visual": "harmful", "category": "fraud"}
OTHER = {"action": "label", "visual": "harmful", "category": "weapons"}
SAFE = {"action": "label", "visual": "safe"}
EXCLUDE, QUARANTINE = {"action": "exclude"}, {"action": "quarantine"}
Says = dict[str, Any]


def described(*, by: str = "agreement", clip: str = "a", votes: tuple[Vote, ...] = ()) -> Described:
    one = asked("SH", clip=clip).described
    return one.model_copy(update={"by": by} | ({"votes": votes} if votes else {}))


def on_clip(annotator: str, says: Says, *, item: str = "clip-a") -> ClipVerdict:
    return ClipVerdict.model_validate({"item": item, "annotator": annotator, "seconds": 1.0} | says)


def on_row(annotator: str, action: str, *, row: Any = None, seen: str | None = None) -> RowVerdict:
    row = row or thought()
    return RowVerdict(item=row.id, clip=row.asked.described.id, annotator=annotator, seconds=1.0,
                      seen=seen or digest_of(row), action=action,
                      reasons=("answer",) if action == "reject" else ())  # fmt: skip


def lines(path: Path, *verdicts: Any) -> Path:
    rows = (v if isinstance(v, dict) else v.model_dump(mode="json") for v in verdicts)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(("says", "by", "end"), [
    ([], "agreement", ("agreement", "safe", None)),
    ([], "majority", ("majority", "safe", None)),
    ([], "unsettled", (State.FAILED, "votes:disagree")),
    ([SAFE], "unsettled", ("person", "safe", None)),
    ([HARMFUL], "agreement", ("person", "harmful", "fraud")),
    ([HARMFUL, SAFE], "agreement", (State.FAILED, "people:disagree")),
    ([HARMFUL, OTHER], "agreement", (State.FAILED, "people:disagree")),
    ([HARMFUL, SAFE, HARMFUL], "unsettled", ("person", "harmful", "fraud")),
    ([HARMFUL, OTHER, SAFE], "agreement", (State.FAILED, "people:disagree")),
    ([EXCLUDE], "agreement", (State.FILTERED, "person:excluded")),
    ([EXCLUDE, SAFE], "agreement", (State.FAILED, "people:disagree")),
    ([SAFE, SAFE, SAFE, QUARANTINE], "agreement", (State.QUARANTINED, "person:quarantined")),
])  # fmt: skip
def test_what_people_said_takes_the_place_of_what_machines_said(says: list[Says], by: str, end: Any) -> None:
    people = People(clips=tuple(on_clip(f"p{n}", one) for n, one in enumerate(says)))
    result = Settle(people)(described(by=by))
    if isinstance(result, Terminal):
        assert (result.state, result.reason) == end
    else:
        assert [(one.by, one.visual.value, one.category) for one in result] == [end]


def test_a_verdict_on_another_clip_changes_nothing() -> None:
    row = described()
    assert Settle(People(clips=(on_clip("ann", HARMFUL, item="clip-b"),)))(row) == [row]


def test_the_words_of_a_label_that_people_gave_are_of_a_vote_that_gave_it_too() -> None:
    mine = Evidence(span=Span(start_s=1, end_s=2), what="what the second saw")
    votes = (Vote(annotator="one", caption="first", visual=Safety.SAFE),
             Vote(annotator="two", caption="second", visual=Safety.HARMFUL, category="weapons"),
             Vote(annotator="three", caption="third", visual=Safety.HARMFUL, category="fraud",
                  evidence=(mine,)))  # fmt: skip
    (one,) = Settle(People(clips=(on_clip("ann", HARMFUL),)))(described(votes=votes))
    assert (one.caption, one.evidence, one.votes) == ("third", (mine,), votes)
    (alone,) = Settle(People(clips=(on_clip("ann", HARMFUL),)))(described(votes=votes[:1]))
    assert (alone.caption, alone.evidence) == (described().caption, ())
    (confirmed,) = Settle(People(clips=(on_clip("ann", SAFE),)))(described(votes=votes))
    assert (confirmed.caption, confirmed.evidence) == (described().caption, described().evidence)


@pytest.mark.parametrize(("actions", "end"), [
    ([], None), (["accept"], None), (["reject", "accept", "accept"], None),
    (["reject"], (State.FILTERED, "person:rejected")),
    (["reject", "accept"], (State.FAILED, "people:disagree")),
    (["accept", "accept", "quarantine"], (State.QUARANTINED, "person:quarantined")),
])  # fmt: skip
def test_a_response_is_heeded_by_majority(actions: list[str], end: Any) -> None:
    row = thought()
    result = Heed(People(rows=tuple(on_row(f"p{n}", action) for n, action in enumerate(actions))))(row)
    assert (result == [row]) if end is None else (result == Terminal(state=end[0], reason=end[1]))


def test_a_verdict_on_other_words_does_not_count() -> None:
    row = thought(answer="Three coloured boxes stand on a table, and nothing else does.", kind="SafeQ")
    old = thought(answer="One box stands there alone on a table of wood.", kind="SafeQ")
    assert old.id == row.id
    assert Heed(People(rows=(on_row("ann", "reject", row=old),)))(row) == [row]
    assert Heed(People(rows=(on_row("ann", "reject", row=row),)))(row) != [row]


def test_a_quarantine_on_a_row_stops_its_clip_and_all_rows_of_it() -> None:
    people = People(rows=(on_row("ann", "quarantine"),))
    assert people.quarantined == {"clip-a"}
    assert Settle(people)(described()) == Terminal(state=State.QUARANTINED, reason="person:quarantined")
    assert Heed(people)(thought("SafeQ")) == Terminal(state=State.QUARANTINED, reason="person:quarantined")


def test_a_step_s_key_follows_what_people_said_and_nothing_else() -> None:
    first, again = on_clip("ann", SAFE), on_clip("ann", SAFE).model_copy(update={"seconds": 9.0, "note": "hm"})
    same = {step_hash(Settle(People(clips=(v,)))) for v in (first, again)}
    assert len(same) == 1
    assert step_hash(Settle(People(clips=(on_clip("ann", EXCLUDE),)))) not in same
    assert step_hash(Settle(People(clips=(first,), rows=(on_row("ann", "accept"),)))) in same
    assert step_hash(Settle(People(clips=(first,), rows=(on_row("ann", "quarantine"),)))) not in same
    step = pickle.loads(pickle.dumps(Settle(People(clips=(first,)))))
    assert step(described(by="unsettled"))[0].by == "person"


def test_rows_that_wait_go_on_once_people_have_decided(tmp_path: Path) -> None:
    rows = [described(by="unsettled"), described(clip="b")]
    split = (on_clip("ann", SAFE), on_clip("bo", HARMFUL))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert [one.id for one in run_step(Settle(), rows, ledger)] == ["clip-b"]
        assert [one.id for one in run_step(Settle(People(clips=split)), rows, ledger)] == ["clip-b"]
        settled = list(run_step(Settle(People(clips=(*split, on_clip("cy", HARMFUL)))), rows, ledger))
    assert [(one.id, one.visual.value) for one in settled] == [("clip-a", "harmful"), ("clip-b", "safe")]


@pytest.mark.parametrize("says", [
    {"action": "label"}, {"action": "exclude", "visual": "safe"}, {"action": "label", "visual": "harmful"},
    SAFE | {"category": "fraud"}, {"action": "accept"}, SAFE | {"annotator": "a b"}, SAFE | {"more": 1},
    SAFE | {"seconds": -1.0}, SAFE | {"note": "n" * 1001},
])  # fmt: skip
def test_a_verdict_is_whole_or_refused(says: Says) -> None:
    with pytest.raises(ValidationError):
        ClipVerdict.model_validate({"item": "clip-a", "annotator": "ann", "seconds": 1.0} | says)


def test_files_of_a_folder_are_read_and_equal_verdicts_are_one(tmp_path: Path) -> None:
    mine, more = on_clip("ann", SAFE), on_clip("ann", HARMFUL, item="clip-b")
    lines(tmp_path / "clips-ann.jsonl", mine)
    lines(tmp_path / "clips-ann-2.jsonl", more, mine.model_copy(update={"seconds": 3.0}))
    lines(tmp_path / "rows-ann.jsonl", on_row("ann", "reject"), on_row("ann", "accept", seen="0" * 16))
    people = read_people(tmp_path, categories=["fraud"])
    assert [v.item for v in people.clips] == ["clip-a", "clip-b"]
    assert [v.action for v in people.rows] == ["accept", "reject"]
    assert people.annotators == ("ann",)
    assert read_people([tmp_path / "clips-ann.jsonl"]).clips == (mine,)


def test_an_empty_folder_is_no_fault_and_a_missing_one_is(tmp_path: Path) -> None:
    assert read_people(tmp_path) == People()
    with pytest.raises(InputError, match="no such folder"):
        read_people(tmp_path / "none")


def test_one_person_cannot_say_two_things_of_one_item(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", on_clip("ann", SAFE))
    lines(tmp_path / "b.jsonl", on_clip("ann", HARMFUL))
    with pytest.raises(InputError, match=r"b\.jsonl: 'ann' says another thing of 'clip-a' than in a\.jsonl"):
        read_people(tmp_path)


@pytest.mark.parametrize(("bad", "said"), [
    ("{", r"ann\.jsonl:2: not valid JSON"),
    ("", r"ann\.jsonl:2: nothing but white space"),
    ('{"kind": "clip", "kind": "clip"}', r"ann\.jsonl:2: the field 'kind' stands twice"),
    (json.dumps(on_clip("ann", SAFE).model_dump(mode="json")), r"ann\.jsonl:2: .*is already on line 1"),
    (json.dumps(on_row("ann", "accept").model_dump(mode="json")), r"ann\.jsonl:2: .*kind is 'row'"),
    (json.dumps(on_clip("bo", SAFE).model_dump(mode="json") | {"visual": "saf"}), r"ann\.jsonl:2: .*mean 'safe'"),
    (json.dumps(on_clip("bo", OTHER).model_dump(mode="json")), r"ann\.jsonl:2: line 2: no category 'weapons'"),
])  # fmt: skip
def test_a_bad_line_is_named_by_file_and_line(tmp_path: Path, bad: str, said: str) -> None:
    path = lines(tmp_path / "ann.jsonl", on_clip("ann", SAFE))
    path.write_text(path.read_text() + bad + "\n", encoding="utf-8")
    with pytest.raises(RecordError, match=said):
        read_people(tmp_path, categories=["fraud"])


def test_a_file_that_no_person_can_have_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videosafety.build.people.people.MAX_FILE_BYTES", 100)
    lines(tmp_path / "ann.jsonl", on_clip("ann", SAFE))
    with pytest.raises(RecordError, match="larger than"):
        read_people(tmp_path)
