"""The page of a build: hostile names stay names, no clip or query is on it, and it says why a build stopped."""

import json
import re
import shutil
from pathlib import Path

import pytest
from figure_rows import HOSTILE, SECRET, hostile_figures
from test_build import RECIPE
from thought_rows import CAPTION, QUERIES

from videosafety.build.build import Held, build
from videosafety.build.figures import Figures
from videosafety.build.ledger import Call, Ledger
from videosafety.build.page import FIGURES, LOOKS, PAGE, _flow, page, read_figures, write_page
from videosafety.build.page_tables import coverage, terminal
from videosafety.build.recipe import BuildRecipe
from videosafety.build.showing import _paid
from videosafety.core.errors import InputError
from videosafety.core.recipe import load_recipe
from videosafety.toyworld.footage import write_footage

MARKED = HOSTILE.replace("\u202e", "⟦U+202E⟧")


@pytest.fixture(scope="module")
def figures() -> Figures:
    return hostile_figures(stopped=f"the cost cap is reached {HOSTILE}")


@pytest.fixture(scope="module")
def out(figures, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "out"
    (folder / "review").mkdir(parents=True)
    for name in ("clips.html", "rows-ann.html", "agreement.html", "<b>.html", "clips-\u202e.html"):
        (folder / "review" / name).touch()
    write_page(folder, figures)
    return folder


def test_equal_figures_give_equal_bytes(figures, out):
    before = (out / PAGE).read_bytes(), (out / FIGURES).read_bytes()
    write_page(out, Figures.model_validate_json(figures.model_dump_json()))
    assert ((out / PAGE).read_bytes(), (out / FIGURES).read_bytes()) == before
    assert read_figures(out) == figures


def test_nothing_of_a_clip_or_a_query_is_on_the_page(out):
    said = (out / PAGE).read_text() + (out / FIGURES).read_text()
    assert SECRET not in said
    assert CAPTION not in said
    assert not [query for query in QUERIES.values() if query in said]
    assert not re.search(
        r"<(img|video|iframe|object|embed)\b", said.replace("<img src=x onerror='window.pwned=2'>", "")
    )


def test_a_step_is_as_wide_as_its_rows_and_every_end_is_told(figures):
    flow = _flow(figures.steps[1])
    assert sum(part.share for part in flow.parts) == pytest.approx(1)
    assert sum(part.rows for part in flow.parts) == flow.step.rows
    by_word = {part.look.word: part.rows for part in flow.parts}
    assert by_word == {"went on": 495, "filtered": 95, "failed": 70, "refused": 60, "waits for people": 40,
                       "quarantined": 30, "partial": 10, "not come to yet": 200}  # fmt: skip
    assert _flow(figures.steps[3]).parts == ()


def test_every_end_has_a_word_and_a_sign_of_its_own_and_readable_ink():
    assert len({look.word for look in LOOKS.values()}) == len({look.sign for look in LOOKS.values()}) == len(LOOKS)
    for look in LOOKS.values():
        light, dark = sorted((_luminance(look.fill), _luminance(look.ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, look.word


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_empty_cells_are_marked_as_words(figures):
    table = coverage(figures)
    names = [column.label for column in table.columns]
    (fraud,) = [row for row in table.rows if row[0].text == "fraud"]
    japanese, arabic, english = (fraud[names.index(language)] for language in ("ja", "ar", "en"))
    assert (japanese.text, japanese.muted, japanese.detail) == ("none", True, "not asked")
    assert arabic.muted
    assert english.shade > 0
    assert ("ja", "fraud") in figures.empty
    assert "empty cells, of 76: " in terminal(figures)
    assert "\u202e" not in terminal(figures)


def test_without_any_row_there_is_still_a_page():
    html = page(Figures(name="new", stopped="no clip could be read"), review_pages=[])
    assert "Stopped: no clip could be read" in html
    assert "The build did not come to its gates" in html
    assert terminal(Figures(name="new")).startswith("rows out of queries made")


@pytest.mark.parametrize("scripts", [True, False])
def test_in_a_browser_all_is_there_without_scripts_and_nothing_runs(chromium, out, scripts):
    context = chromium.new_context(java_script_enabled=scripts)
    noise: list[str] = []
    opened = context.new_page()
    opened.on("console", lambda message: noise.append(message.text))
    opened.on("pageerror", lambda error: noise.append(str(error)))
    opened.on("request", lambda one: noise.append(one.url) if not one.url.startswith(("file:", "data:")) else 0)
    opened.goto((out / PAGE).as_uri())
    text = opened.locator("body").inner_text()
    for part in (f"Stopped: the cost cap is reached {MARKED}", f"{MARKED}.mp4", "waits for people", "not come to yet",
                 "40 of describe: votes:disagree", "▲ failed", "● passed", "3.7500 USD", "3 lost"):  # fmt: skip
        assert part in text, part
    heads = opened.locator("#table-coverage th[scope=row]").all_inner_texts()
    assert MARKED in heads
    assert opened.locator("img, video, iframe, a[href^='http']").count() == 0
    links = opened.locator("#people a").evaluate_all("a => a.map(e => e.getAttribute('href'))")
    assert links == ["./review/agreement.html", "./review/clips.html", "./review/rows-ann.html"]
    row = opened.locator("#table-splits tbody tr").nth(3)
    assert row.locator("th").inner_text() == "rl"
    assert row.locator("td").all_inner_texts() == ["none"] * 6
    widths = opened.locator(".flow > li:nth-child(2) .part").evaluate_all(
        "a => a.map(e => e.getBoundingClientRect().width / e.parentElement.getBoundingClientRect().width)"
    )
    assert widths[0] == pytest.approx(0.495, abs=0.01)
    assert sum(widths) == pytest.approx(1, abs=0.02)
    assert not scripts or opened.evaluate("window.pwned") is None
    context.close()
    assert noise == []


def test_the_page_does_not_scroll_sideways_on_a_phone(chromium, out):
    context = chromium.new_context(viewport={"width": 390, "height": 800})
    opened = context.new_page()
    opened.goto((out / PAGE).as_uri())
    assert opened.evaluate("document.documentElement.scrollWidth") == 390
    context.close()


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shown") / "toy"
    write_footage(folder, num_clips=24, seed=3)
    (folder / "clips" / "a<b>&.mp4").write_text("<html>not a clip</html>")
    return folder


def test_a_build_shows_itself_when_it_is_held_when_a_gate_fails_and_when_it_is_done(toy, tmp_path, command):
    out, labels = tmp_path / "out", tmp_path / "labels.jsonl"
    shutil.copyfile(toy / "labels.jsonl", labels)
    labels.write_text("\n".join(labels.read_text().splitlines()[:12]) + "\n")

    def run(*overrides: str) -> None:
        given = [f"labels={labels}", "engine.workers=1", *overrides]
        build(load_recipe(RECIPE, BuildRecipe, overrides=given), clips=toy / "clips", out=out)

    with pytest.raises(Held):
        run()
    held = read_figures(out)
    assert "12 of 24 rows of describe failed" in held.stopped
    assert str(tmp_path) not in (out / PAGE).read_text()
    assert (held.gates, held.rows_out) == ((), 0)
    assert sum(one.asked for one in held.coverage) > 0
    assert [(one.step, one.file) for one in held.broken] == [("probe", "a<b>&.mp4")]
    labels.write_text((toy / "labels.jsonl").read_text())
    with pytest.raises(InputError, match="quotas"):
        run("mix.quotas.sft=5000")
    failed = read_figures(out)
    assert [one.gate for one in failed.gates if one.num_faults] == ["quotas"]
    assert "fails 1 of its gates" in failed.stopped
    assert {one.about for one in failed.texts} == {"query", "thinking"}
    run()
    done = read_figures(out)
    manifest = json.loads((out / "release" / "manifest.json").read_text())
    assert (done.stopped, done.rows_out) == (None, manifest["numbers"]["rows"])
    assert manifest["provenance"]["agreement"] == done.for_card
    assert "Stopped" not in (out / PAGE).read_text()
    before = (out / PAGE).read_bytes(), (out / FIGURES).read_bytes()
    run("engine.workers=2")
    assert ((out / PAGE).read_bytes(), (out / FIGURES).read_bytes()) == before
    code, said, _ = command("build", "status", out, "--figures")
    assert code == 0
    assert "rows out of queries made" in said
    assert "thinking" in said


def test_what_was_paid_is_told_by_step_and_model_with_what_is_lost(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for key, step, cost in (("a", "describe", 0.5), ("b:lost:0f", "describe", 0.25), ("c", "think", 1.0)):
            ledger.keep_call(Call(key, step, "m", "{}", cost, 0.1))
    assert _paid(tmp_path / "ledger.sqlite") == [("describe", "m", 2, 0.75, 1), ("think", "m", 1, 1.0, 0)]


def test_without_figures_the_command_says_so(tmp_path):
    with pytest.raises(InputError, match="there are no figures"):
        read_figures(tmp_path)
    (tmp_path / FIGURES).write_text('{"name": 3}')
    with pytest.raises(InputError, match="name"):
        read_figures(tmp_path)
