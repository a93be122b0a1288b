"""Who is asked for what, what a page holds and what it does not, and how far reviewers agree."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from review_rows import CLIPS, asked_of, build_of, on_clip, on_row, picture, picture_clip
from thought_rows import thought

from videosafety.build.people import previews
from videosafety.build.people.agreement import agreement, agreement_table
from videosafety.build.people.people import ClipVerdict, People
from videosafety.build.people.queue import ReviewConfig, clip_queue, for_annotator, row_queue, unassigned
from videosafety.build.people.review import read_verdicts, write_review
from videosafety.build.records import Vote
from videosafety.core.errors import InputError
from videosafety.core.labels import Safety
from videosafety.core.recipe import with_overrides
from videosafety.core.taxonomy import load_taxonomy

NAMES = ("ann", "bo", "cy")


def clips_by(*by: str) -> list[Any]:
    return [picture_clip(f"{number:04d}", by=one) for number, one in enumerate(by)]


def test_the_most_urgent_come_first_and_of_the_rest_a_share() -> None:
    rows = clips_by("agreement", "adjudicator", "unsettled", "majority", "agreement", "unsettled")
    people = People(clips=(on_clip("ann", "safe", item=rows[4].id), on_clip("bo", "harmful", item=rows[4].id)))
    config = ReviewConfig(clip_share=0.0)
    queue = clip_queue(rows, people, config=config)
    assert [one.why for one in queue] == ["unsettled", "unsettled", "people", "majority", "adjudicator"]
    assert queue[2].item == rows[4].id
    assert (queue[2].missing, queue[2].judged) == (1, ("ann", "bo"))
    assert [rows[one.place].id for one in queue] == [one.item for one in queue]
    assert "audit" in {one.why for one in clip_queue(rows, people, config=ReviewConfig(clip_share=1.0))}


def test_what_is_drawn_depends_on_nothing_but_the_item_and_the_seed() -> None:
    rows = clips_by(*["agreement"] * 2000)
    config = ReviewConfig(clip_share=0.1, seed=3)
    drawn = {one.item for one in clip_queue(rows, People(), config=config)}
    assert 150 < len(drawn) < 250
    fewer = {one.item for one in clip_queue(rows[::2], People(), config=config)}
    assert fewer == drawn & {row.id for row in rows[::2]}
    assert drawn != {one.item for one in clip_queue(rows, People(), config=ReviewConfig(clip_share=0.1, seed=4))}


@pytest.mark.parametrize("per_item", [1, 2, 3])
def test_every_item_is_asked_of_as_many_people_as_wanted(per_item: int) -> None:
    rows = clips_by(*["unsettled"] * 300)
    config = ReviewConfig(annotators=NAMES, per_item=per_item)
    queue = clip_queue(rows, People(), config=config)
    asked = {name: {one.item for one in for_annotator(queue, name, config=config)} for name in NAMES}
    counts = Counter(item for items in asked.values() for item in items)
    assert set(counts.values()) == {per_item}
    assert len(counts) == 300
    assert all(len(items) == pytest.approx(100 * per_item, rel=0.25) for items in asked.values())
    more = ReviewConfig(annotators=(*NAMES, "dee"), per_item=per_item)
    for name in NAMES:
        assert {one.item for one in for_annotator(queue, name, config=more)} <= asked[name]


def test_an_item_leaves_the_queue_once_enough_people_agree_and_returns_to_a_third_where_two_do_not() -> None:
    (row,) = clips_by("unsettled")
    config = ReviewConfig(annotators=NAMES)
    one, two = on_clip("ann", "safe", item=row.id), on_clip("bo", "safe", item=row.id)
    first = clip_queue([row], People(clips=(one,)), config=config)
    assert (first[0].missing, first[0].why) == (1, "unsettled")
    assert for_annotator(first, "ann", config=config) == []
    assert clip_queue([row], People(clips=(one, two)), config=config) == []
    split = People(clips=(one, on_clip("bo", "harmful", item=row.id)))
    (again,) = clip_queue([row], split, config=config)
    assert [name for name in NAMES if for_annotator([again], name, config=config)] == ["cy"]
    assert unassigned([again], config=config) == []
    assert unassigned([again], config=ReviewConfig(annotators=("ann", "bo"))) == [again]


def test_a_verdict_on_other_words_leaves_a_response_in_the_queue() -> None:
    row, config = thought(), ReviewConfig(row_share=1.0, per_item=1)
    assert row_queue([row], People(rows=(on_row("ann", "accept"),)), config=config) == []
    (stale,) = row_queue([row], People(rows=(on_row("ann", "accept", seen="0" * 16),)), config=config)
    assert (stale.why, stale.judged) == ("audit", ())
    (tie,) = row_queue([row], People(rows=(on_row("ann", "accept"), on_row("bo", "reject"))), config=config)
    assert tie.why == "people"


@pytest.mark.parametrize("override", ["annotators=[ann, Ann]", "annotators=['a b']", "per_item=0", "clip_share=1.5"])
def test_a_config_that_cannot_be_meant_is_refused(override: str) -> None:
    with pytest.raises(InputError):
        with_overrides({}, [override], schema=ReviewConfig, where="test")


def test_a_page_holds_nothing_of_what_machines_said(tmp_path: Path) -> None:
    votes = (Vote(annotator="machine-one", caption="a telling caption", visual=Safety.SAFE),
             Vote(annotator="machine-two", caption="another one", visual=Safety.HARMFUL, category="fraud"))  # fmt: skip
    rows = [picture_clip(name, by="unsettled", votes=votes, caption="the caption") for name in CLIPS]
    (path,) = build_of(tmp_path, described=rows, thoughts=[])
    text = path.read_text(encoding="utf-8")
    assert rows[0].id in text
    for word in ("machine-one", "machine-two", "telling", "the caption", "another one"):
        assert word not in text


def test_a_quarantined_clip_is_on_no_page_and_an_old_page_goes(tmp_path: Path) -> None:
    rows = [picture_clip(name, by="unsettled") for name in CLIPS]
    thoughts = [asked_of(row) for row in rows]
    before = build_of(tmp_path, described=rows, thoughts=thoughts)
    assert all(rows[0].id in path.read_text(encoding="utf-8") for path in before)
    (tmp_path / "out" / "review" / "kept.html").write_text("not ours")
    people = People(clips=(on_clip("ann", "quarantine", item=rows[0].id),))
    after = build_of(tmp_path, described=rows, thoughts=thoughts, people=people)
    assert [path.name for path in after] == ["clips.html", "rows.html"]
    assert not any(rows[0].id in path.read_text(encoding="utf-8") for path in after)
    assert all(rows[1].id in path.read_text(encoding="utf-8") for path in after)
    all_of_it = People(clips=tuple(on_clip("ann", "quarantine", item=row.id) for row in rows))
    assert build_of(tmp_path, described=rows, thoughts=thoughts, people=all_of_it) == []
    assert {path.name for path in (tmp_path / "out" / "review").iterdir()} == {"kept.html", "previews"}
    assert list((tmp_path / "out" / "review" / "previews").iterdir()) == []


def test_named_reviewers_get_a_page_each_and_long_queues_wait(tmp_path: Path) -> None:
    rows = [picture_clip(name, by="unsettled") for name in CLIPS]
    config = ReviewConfig(annotators=("ann", "bo"), max_items=2, row_share=0.0)
    paths = build_of(tmp_path, described=rows, thoughts=[], config=config)
    assert [path.name for path in paths] == ["clips-ann.html", "clips-bo.html"]
    text = paths[0].read_text(encoding="utf-8")
    assert sum(row.id in text for row in rows) == 2
    assert f"2 to judge, {len(rows) - 2} more wait" in text


def test_where_nobody_is_left_a_page_asks_for_a_further_person(tmp_path: Path) -> None:
    rows = [picture_clip(name, by="unsettled") for name in CLIPS]
    split = People(clips=(on_clip("ann", "safe", item=rows[0].id), on_clip("bo", "harmful", item=rows[0].id)))
    config = ReviewConfig(annotators=("ann", "bo"), row_share=0.0)
    paths = {path.name: path.read_text(encoding="utf-8")
             for path in build_of(tmp_path, described=rows, thoughts=[], people=split, config=config)}  # fmt: skip
    pages = {name for name in paths if name.startswith("clips")}
    assert pages == {"clips-ann.html", "clips-bo.html", "clips.html"}
    assert [name for name in sorted(pages) if rows[0].id in paths[name]] == ["clips.html"]
    assert f'["{rows[0].id}","{rows[0].id}","",["ann","bo"]]' in paths["clips.html"]


def test_a_clip_that_cannot_be_read_or_has_changed_has_a_note_and_no_frames(tmp_path: Path) -> None:
    rows = [picture_clip(name, by="unsettled") for name in CLIPS]
    (tmp_path / "clips").mkdir()
    for name, data in zip(CLIPS, (b"<html>not a picture", b"", picture("other"), picture("b")), strict=True):
        (tmp_path / "clips" / f"{name}.png").write_bytes(data)
    paths = write_review(tmp_path / "out", described=rows, thoughts=[], people=People(), config=ReviewConfig(),
                         clips=tmp_path / "clips", name="test", taxonomy=load_taxonomy("vse"))  # fmt: skip
    text = paths[0].read_text(encoding="utf-8")
    assert text.count("No preview: ") == len(rows)
    assert "data:image/png" not in text


def test_frames_are_made_once_and_a_damaged_preview_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [picture_clip(name, by="unsettled") for name in CLIPS]
    first = build_of(tmp_path, described=rows, thoughts=[])[0].read_bytes()
    kept = sorted((tmp_path / "out" / "review" / "previews").iterdir())
    assert len(kept) == len(CLIPS)
    kept[0].write_text('{"frames": [{"uri": "javascript:1", "width_px": 1, "height_px": 1, "pixelated": true}]}')
    made: list[str] = []
    run = previews.run_isolated

    def counted(work: Any, clips: Any, **more: Any) -> Any:
        made.extend(clips)
        return run(work, clips, **more)

    monkeypatch.setattr(previews, "run_isolated", counted)
    assert build_of(tmp_path, described=rows, thoughts=[])[0].read_bytes() == first
    assert len(made) == 1
    build_of(tmp_path, described=rows, thoughts=[], config=ReviewConfig(max_side_px=32, row_share=0))
    assert len(made) == 1 + len(CLIPS)


def test_the_verdicts_are_read_from_the_build_s_folder_unless_another_is_named(tmp_path: Path) -> None:
    assert read_verdicts(ReviewConfig(), tmp_path) == People()
    folder = tmp_path / "review" / "verdicts"
    folder.mkdir(parents=True)
    (folder / "clips-ann.jsonl").write_text(f"{on_clip('ann', 'safe').model_dump_json()}\n", encoding="utf-8")
    assert read_verdicts(ReviewConfig(), tmp_path).clips == (on_clip("ann", "safe"),)
    with pytest.raises(InputError, match="no such folder"):
        read_verdicts(ReviewConfig(verdicts=str(tmp_path / "other")), tmp_path)


def test_agreement_of_a_table_that_was_worked_out_by_hand() -> None:
    """20 both harmful, 5 and 10 split, 15 both safe: agreed 0.7, by chance 0.5, so kappa is 0.4."""
    says = [("harmful", "harmful")] * 20 + [("harmful", "safe")] * 5 + [("safe", "harmful")] * 10
    says += [("safe", "safe")] * 15
    rows = [picture_clip(f"{number:03d}", by="agreement") for number in range(len(says))]
    given = [on_clip(who, said, item=row.id) for row, pair in zip(rows, says, strict=True)
             for who, said in zip(("ann", "bo"), pair, strict=True)]  # fmt: skip
    found = {(one.about, one.first, one.second): one for one in agreement(People(clips=tuple(given)), rows)}
    visual = found["visual", "ann", "bo"]
    assert (visual.n, visual.agreed) == (50, pytest.approx(0.7))
    assert visual.coefficient == pytest.approx(0.4)
    assert visual.low is not None
    assert visual.high is not None
    assert visual.low < 0.4 < visual.high
    assert found["category", "ann", "bo"].n == 20
    assert found["category", "ann", "bo"].coefficient is None  # both name one category only
    machine = found["visual", "ann", "model: one"]  # it calls all of them safe
    assert (machine.n, machine.agreed) == (50, pytest.approx(0.5))


def test_who_excluded_or_never_saw_an_item_does_not_count_and_three_get_an_alpha() -> None:
    rows = [picture_clip(f"{number:03d}", by="agreement") for number in range(30)]
    given: list[ClipVerdict] = []
    for number, row in enumerate(rows):
        given.append(on_clip("ann", "harmful" if number % 2 else "safe", item=row.id))
        given.append(on_clip("bo", "exclude" if number < 10 else ("harmful" if number % 2 else "safe"), item=row.id))
        if number < 5:
            given.append(on_clip("cy", "safe", item=row.id))
    people = People(clips=tuple(given), rows=(on_row("ann", "accept"), on_row("bo", "accept")))
    found = {(one.about, one.first, one.second): one for one in agreement(people, rows)}
    assert found["visual", "ann", "bo"].n == 20
    assert found["visual", "ann", "bo"].coefficient == pytest.approx(1.0)
    assert ("visual", "bo", "cy") not in found
    assert found["visual", "all people", "(alpha)"].n == 25
    assert found["row", "ann", "bo"].agreed == 1.0


def test_agreement_is_written_beside_the_pages_and_escaped(tmp_path: Path) -> None:
    votes = (Vote(annotator="<script>x</script>", caption="c", visual=Safety.SAFE),)
    rows = [picture_clip(name, by="agreement", votes=votes) for name in CLIPS]
    people = People(clips=tuple(on_clip(who, "safe", item=rows[0].id) for who in ("ann", "bo")))
    names = [path.name for path in build_of(tmp_path, described=rows, thoughts=[], people=people,
                                            config=ReviewConfig(clip_share=0.0))]  # fmt: skip
    assert names == ["agreement.html", "agreement.json"]
    text = (tmp_path / "out" / "review" / "agreement.html").read_text(encoding="utf-8")
    assert "<script>x" not in text
    assert "&lt;script&gt;x" in text
    data = json.loads((tmp_path / "out" / "review" / "agreement.json").read_text())
    assert [one["second"] for one in data] == ["bo", "model: <script>x</script>", "model: <script>x</script>"]
    assert agreement_table(agreement(people, rows)).rows[0][5].detail == "all ratings are alike"


def test_the_same_rows_give_the_same_page(tmp_path: Path) -> None:
    rows = [picture_clip(name, by="unsettled") for name in CLIPS]
    first = [p.read_bytes() for p in build_of(tmp_path, described=rows, thoughts=[])]
    assert first == [p.read_bytes() for p in build_of(tmp_path, described=rows, thoughts=[], workers=2)]
    assert np.mean([len(one) for one in first]) > 10_000
