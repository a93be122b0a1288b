"""The review page in a real browser: keys only, nothing seen before it is asked for, no verdict lost."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect
from review_rows import CLIPS, asked_of, build_of, on_clip, picture_clip

from videosafety.build.people.people import People, digest_of, read_people
from videosafety.build.people.queue import ReviewConfig
from videosafety.build.people.settle import Heed, Settle
from videosafety.build.records import Facts
from videosafety.core.store import sha256_file
from videosafety.video.write import write_mp4

HOSTILE = "<script>window.pwned=1</script><img src=x onerror='window.pwned=2'>\u202ehidden"
NAME = "ann"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of four pictures and of four responses, one of them harmless; and a page of a clip's file, and of words."""
    root = tmp_path_factory.mktemp("review")
    described = [picture_clip(name, by="unsettled") for name in CLIPS]
    thoughts = [asked_of(one, answer=f"secret-words {HOSTILE}") for one in described[1:]]
    thoughts.append(asked_of(described[0], "SafeQ"))
    config = ReviewConfig(row_share=1.0, break_after_clips=3)
    build_of(root, described=described, thoughts=thoughts, config=config)
    dice = np.random.default_rng(0)
    write_mp4(root / "file" / "clips" / "m.mp4", dice.integers(0, 255, (8, 32, 32, 3), dtype=np.uint8), fps=4.0)
    bare = asked_of(described[0])
    words = bare.asked.model_copy(update={"sample": bare.asked.sample.model_copy(update={"media": None})})
    build_of(root / "words", described=[], thoughts=[bare.model_copy(update={"asked": words})], config=config)
    split = tuple(on_clip(who, says, item=described[0].id) for who, says in (("ann", "safe"), ("bo", "harmful")))
    two = ReviewConfig(annotators=("ann", "bo"))
    build_of(root / "split", described=described[:1], thoughts=[], people=People(clips=split), config=two)
    facts = Facts(kind="video", codec="h264", width_px=32, height_px=32, num_frames=8, duration_s=2, has_audio=False)
    sha256 = sha256_file(root / "file" / "clips" / "m.mp4")
    moving = picture_clip("m", by="unsettled", facts=facts)
    moving = moving.model_copy(update={"clip": moving.clip.model_copy(update={"path": "m.mp4", "sha256": sha256})})
    build_of(root / "file", described=[moving], thoughts=[], config=ReviewConfig(media="files"))
    return root


@pytest.fixture
def context(chromium: Any) -> Iterator[Any]:
    """A browser that knows nothing yet; afterwards: no message, no error, no request but the files themselves."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    noise: list[str] = []
    context.on("page", lambda page: _listen(page, noise))
    yield context
    assert [page.evaluate("window.pwned") for page in context.pages] == [None] * len(context.pages)
    context.close()
    assert noise == []


def _listen(page: Any, noise: list[str]) -> None:
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda one: noise.append(one.url) if not one.url.startswith(("file:", "data:", "blob:")) else 0)


def opened(context: Any, folder: Path, name: str, *, annotator: str = NAME) -> Any:
    page = context.new_page()
    page.goto((folder / "out" / "review" / name).as_uri())
    if annotator:
        page.keyboard.type(annotator)
        page.keyboard.press("Enter")
    return page


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def shown(page: Any) -> str:
    return str(page.locator("#review-card h3").inner_text())


def filters(page: Any) -> list[str]:
    found: list[str] = page.locator(".strip :is(img, video)").evaluate_all(
        "a => a.map(e => getComputedStyle(e).filter)"
    )
    return found


def is_covered(page: Any) -> bool:
    found = filters(page)
    return bool(found) and all("blur(" in one and "grayscale(1)" in one for one in found)


def stored(page: Any, kind: str = "clip") -> list[dict[str, Any]]:
    read = "key => JSON.parse(localStorage.getItem(key) || '[]')"
    found: list[dict[str, Any]] = page.evaluate(read, f"videosafety:people:{kind}:test:{NAME}")
    return found


def exported(page: Any, folder: Path) -> Path:
    with page.expect_download() as download:
        page.keyboard.press("e")
    path = folder / str(download.value.suggested_filename)
    download.value.save_as(path)
    return path


def test_everything_is_covered_at_first_and_again_after_every_verdict(context: Any, folder: Path) -> None:
    page = opened(context, folder, "clips.html")
    assert is_covered(page)
    press(page, "r")
    assert filters(page) == ["grayscale(1)"]
    press(page, "g")
    assert filters(page) == ["none"]
    first = shown(page)
    press(page, "g", "s")
    assert shown(page) != first
    assert is_covered(page)
    press(page, "r", "Escape")
    assert is_covered(page)
    expect(page.locator("#left")).to_have_text("1 of 4 done")
    expect(page.locator("#exposure")).to_contain_text("2 revealed")


def test_a_page_that_goes_out_of_view_covers_itself(context: Any, folder: Path) -> None:
    page = opened(context, folder, "clips.html")
    press(page, "r")
    assert not is_covered(page)
    page.evaluate("Object.defineProperty(document, 'visibilityState', {value: 'hidden'})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert is_covered(page)


def test_what_was_not_looked_at_cannot_be_labelled_but_can_be_put_away(context: Any, folder: Path) -> None:
    page = opened(context, folder, "clips.html")
    first = shown(page)
    press(page, "s", "h")
    assert (shown(page), stored(page)) == (first, [])
    expect(page.locator("#told")).to_contain_text("Reveal it first")
    expect(page.locator("#choose")).to_be_hidden()
    press(page, "x")
    assert [(v["item"], v["action"]) for v in stored(page)] == [(first, "exclude")]


def test_without_a_code_nothing_is_judged(context: Any, folder: Path) -> None:
    page = opened(context, folder, "clips.html", annotator="")
    page.keyboard.type("a b")
    press(page, "Enter", "r", "s", "x", "q")
    expect(page.locator("#told")).to_contain_text("Write your code first")
    expect(page.locator("#left")).to_have_text("0 of 4 done")


def test_a_key_that_is_held_down_judges_once(context: Any, folder: Path) -> None:
    page = opened(context, folder, "clips.html")
    for _ in range(5):
        page.keyboard.down("x")
    assert len(stored(page)) == 1


def test_verdicts_by_keys_alone_reach_the_build(context: Any, folder: Path, tmp_path: Path) -> None:
    page, judged = opened(context, folder, "clips.html"), []
    for keys in (("r", "s"), ("r", "h", "h"), ("m", *"odd", "Enter", "x"), ("q",)):
        judged.append(shown(page))
        press(page, *keys)
        if page.locator("#break[open]").count():
            press(page, "Escape")
    expect(page.locator("#left")).to_have_text("4 of 4 done")
    expect(page.locator("#review-card")).to_contain_text("Nothing is left")
    path = exported(page, tmp_path)
    assert path.name == "clips-ann.jsonl"
    people = read_people([path], categories=["fraud"])
    said = {v.item: (v.action, v.visual, v.category, v.note) for v in people.clips}
    assert [said[item] for item in judged] == [
        ("label", "safe", None, ""), ("label", "harmful", "fraud", ""), ("exclude", None, None, "odd"),
        ("quarantine", None, None, "")]  # fmt: skip
    rows = {one.id: one for one in (picture_clip(name, by="unsettled") for name in CLIPS)}
    ends = [Settle(people)(rows[item]) for item in judged]
    assert [getattr(end, "reason", None) or end[0].visual.value for end in ends] == [
        "safe", "harmful", "person:excluded", "person:quarantined"]  # fmt: skip


def test_choosing_a_harm_can_be_left_and_a_verdict_taken_back(context: Any, folder: Path) -> None:
    page = opened(context, folder, "clips.html")
    first = shown(page)
    press(page, "r", "h")
    expect(page.locator("#choose")).to_be_visible()
    expect(page.locator("#controls")).to_be_hidden()
    press(page, "Escape")
    expect(page.locator("#choose")).to_be_hidden()
    press(page, "h", "a")
    assert [v["category"] for v in stored(page)] == ["physical_violence"]
    press(page, "z")
    assert (shown(page), stored(page)) == (first, [])
    assert is_covered(page)
    press(page, "n", "ArrowLeft")
    assert shown(page) == first


def test_verdicts_survive_a_reload_and_come_in_from_a_file(
    context: Any, folder: Path, tmp_path: Path, chromium: Any
) -> None:
    page = opened(context, folder, "clips.html")
    first = shown(page)
    press(page, "r", "s")
    page.reload()
    page.locator("#annotator").fill(NAME)
    press(page, "Enter")
    expect(page.locator("#left")).to_have_text("1 of 4 done")
    assert shown(page) != first
    path = exported(page, tmp_path)
    mine = path.read_text(encoding="utf-8")
    others = json.dumps(json.loads(mine) | {"annotator": "bo", "item": "clip-y"})
    torn = json.dumps(json.loads(mine) | {"visual": "harmful", "item": "clip-x"})
    path.write_text(f"{mine}{others}\n{torn}\n{{\n", encoding="utf-8")
    other = chromium.new_context()
    fresh = opened(other, folder, "clips.html", annotator="")
    fresh.locator("#import").set_input_files(path)
    expect(fresh.locator("#told")).to_have_text("1 verdicts taken in, 3 left out.")
    expect(fresh.locator("#annotator")).to_have_value(NAME)
    expect(fresh.locator("#left")).to_have_text("1 of 4 done")
    assert [v["item"] for v in stored(fresh)] == [first]
    other.close()


def test_storage_that_holds_nonsense_is_not_believed(context: Any, folder: Path) -> None:
    page = opened(context, folder, "clips.html", annotator="")
    page.evaluate("localStorage.setItem('videosafety:people:clip:test:ann', '[1, {\"item\": \"<b>\"}, null]')")
    page.keyboard.type(NAME)
    press(page, "Enter")
    expect(page.locator("#left")).to_have_text("0 of 4 done")
    assert page.locator("#export").is_disabled()


def test_what_is_quarantined_is_not_shown_again(context: Any, folder: Path) -> None:
    page = opened(context, folder, "clips.html")
    first = shown(page)
    press(page, "q", "ArrowLeft")
    expect(page.locator("#review-card")).to_contain_text("Quarantined by you")
    assert page.locator("#review-card img").count() == 0
    press(page, "r", "s")
    assert [(v["item"], v["action"]) for v in stored(page)] == [(first, "quarantine")]
    press(page, "z")
    assert shown(page) == first
    assert is_covered(page)


def test_who_judged_an_item_is_not_asked_again_and_another_person_is(context: Any, folder: Path) -> None:
    page = opened(context, folder / "split", "clips.html")
    expect(page.locator("#left")).to_have_text("1 of 1 done")
    press(page, "ArrowLeft", "r", "s")
    expect(page.locator("#review-card")).to_contain_text("another person is needed")
    assert stored(page) == []
    page.locator("#annotator").fill("cy")
    press(page, "Enter", "r", "s")
    expect(page.locator("#told")).to_contain_text("safe")


def test_the_page_asks_for_a_break_and_counts_anew_after_it(context: Any, folder: Path) -> None:
    page = opened(context, folder, "clips.html")
    press(page, "r", "s", "r", "s")
    expect(page.locator("#break")).to_be_hidden()
    press(page, "r", "s")
    expect(page.locator("#break")).to_be_visible()
    assert is_covered(page)
    press(page, "x")
    assert len(stored(page)) == 3
    press(page, "Escape")
    expect(page.locator("#break")).to_be_hidden()
    press(page, "r", "s")
    expect(page.locator("#left")).to_have_text("4 of 4 done")
    expect(page.locator("#break")).to_be_hidden()


def test_a_response_is_judged_with_its_words_and_their_hostile_parts_stay_text(
    context: Any, folder: Path, tmp_path: Path
) -> None:
    page = opened(context, folder, "rows.html")
    while page.locator(".masked").count() == 0:
        press(page, "n")
    first = shown(page)
    assert "secret-words" not in page.locator("body").inner_text()
    press(page, "t")
    assert is_covered(page)
    assert "<script>window.pwned=1</script>" in page.locator("#review-card").inner_text()
    assert "⟦U+202E⟧hidden" in page.locator("#review-card").inner_text()
    press(page, "a")
    assert shown(page) == first
    press(page, "r", "x", "Enter")
    expect(page.locator("#told")).to_contain_text("at least one reason")
    press(page, "4", "1", "2", "2", "Enter")
    (verdict,) = stored(page, "row")
    assert (verdict["item"], verdict["action"], verdict["reasons"]) == (first, "reject", ["label", "answer"])
    people = read_people([exported(page, tmp_path)])
    described = {one.id: one for one in (picture_clip(name, by="unsettled") for name in CLIPS)}
    row = asked_of(described[people.rows[0].clip], answer=f"secret-words {HOSTILE}")
    assert people.rows[0].seen == digest_of(row)
    assert getattr(Heed(people)(row), "reason", None) == "person:rejected"


def test_words_alone_are_read_before_they_are_judged(context: Any, folder: Path) -> None:
    page = opened(context, folder / "words", "rows.html")
    assert page.locator(".strip").count() == 0
    press(page, "a")
    expect(page.locator("#told")).to_contain_text("Read the words first")
    press(page, "t", "a")
    expect(page.locator("#left")).to_have_text("1 of 1 done")


def test_a_clip_quarantined_on_one_row_is_barred_on_the_page(context: Any, folder: Path) -> None:
    page = opened(context, folder, "rows.html")
    press(page, "q", "ArrowLeft")
    expect(page.locator("#review-card")).to_contain_text("Quarantined by you")
    assert [(v["action"], v["clip"] in v["item"]) for v in stored(page, "row")] == [("quarantine", True)]


def test_a_clip_s_file_is_blurred_silent_and_played_by_a_key(context: Any, folder: Path) -> None:
    page = opened(context, folder / "file", "clips.html")
    video = page.locator("video")
    video.evaluate("e => new Promise(ok => e.videoWidth ? ok() : e.addEventListener('loadedmetadata', () => ok()))")
    read = "e => [e.muted, e.controls, e.paused]"
    assert is_covered(page)
    assert video.evaluate(read) == [True, False, True]
    press(page, "p")
    assert video.evaluate(read) == [True, False, True]
    press(page, "r", "p")
    assert video.evaluate(read) == [True, True, False]
    press(page, "r")
    assert video.evaluate(read) == [True, False, True]
    assert is_covered(page)


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_the_page_fits_and_says_what_it_is(chromium: Any, folder: Path, width: int, scheme: str) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    for name, keys in (("clips.html", ("r", "h")), ("rows.html", ("r", "x"))):
        page = opened(context, folder, name)
        press(page, *keys)
        expect(page.locator("#choose")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("main, header.top, footer").count() == 3
        assert page.locator("img:not([alt]), button:not([type])").count() == 0
        assert page.locator("script:not([type='application/json'])").count() == 1
    context.close()


def test_without_scripts_nothing_is_shown(chromium: Any, folder: Path) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((folder / "out" / "review" / "rows.html").as_uri())
    assert page.locator("img").count() == 0
    assert "secret-words" not in page.locator("body").inner_text()
    assert "Scripts are off" in page.locator("body").inner_text()
    context.close()
