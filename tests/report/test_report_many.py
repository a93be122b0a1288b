"""The page with 10,000 items in a real browser, and the verdicts of a person: reveals, filters, judges, exports."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from videosafety.core.records import OUTCOMES_HARMFUL, OUTCOMES_SAFE
from videosafety.report import build

NUM = 10_000


@pytest.fixture(scope="module")
def many_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with ``NUM`` items, by the benchmark's own generator; frames of two clips in the page."""
    path = Path(__file__).parents[2] / "benchmarks" / "page.py"
    spec = importlib.util.spec_from_file_location("benchmark_page", path)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    benchmark.NUM_CLIPS = 2
    return build(benchmark.make_run(tmp_path_factory.mktemp("many"), num_items=NUM)).as_uri()


@pytest.fixture
def page(chromium: Any, many_url: str) -> Iterator[Any]:
    """The loaded page; afterwards: no message and no error."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page, noise = context.new_page(), []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.goto(many_url)
    yield page
    context.close()
    assert noise == []


def test_ten_thousand_items_are_there_and_one_page_of_them_is_drawn(page: Any) -> None:
    assert page.locator("#tally").inner_text().startswith("10,000 of 10,000 embedded items match. Shown: 1 to 24.")
    assert page.locator("article.card").count() == 24
    assert 1000 < page.evaluate("document.querySelectorAll('#samples *').length") < 1500  # 24 cards, not 10,000
    page.locator("[data-filter='outcome']").select_option("over_refused")
    page.locator("[data-filter='language']").select_option("es")
    wanted = page.evaluate(
        "samples.items.filter(e => e.language === 'es' && e.answers.some(a => a.verdicts.some("
        "v => samples.index.outcomes[v.outcome] === 'over_refused'))).length"
    )
    assert 0 < wanted < NUM
    assert page.locator("#tally").inner_text().startswith(f"{wanted:,} of 10,000")
    page.locator("#filter-text").fill("SS-9999")
    expect(page.locator("article.card")).to_have_count(0)
    page.locator("#filter-reset").click()
    page.locator("#filter-text").fill("number 2499?")
    expect(page.locator("article.card")).to_have_count(4)
    assert page.locator("article.card:visible .secret:visible").count() == 0
    page.locator("article.card button.reveal").first.click()
    assert "number 2499?" in page.locator("article.card").first.inner_text()


def open_dialog(page: Any) -> None:
    page.locator("#annotator").fill("a1")
    page.locator("#review-open").click()


def shown(page: Any) -> tuple[str, str]:
    """The item and the arm that the dialog asks about."""
    card = page.locator("#review-card article")
    return card.locator("h3").inner_text(), card.locator(".answer").get_attribute("data-arm")


def test_a_person_judges_blind_by_keys_undoes_comes_back_and_exports(page: Any) -> None:
    open_dialog(page)
    card = page.locator("#review-card article")
    assert card.locator(".answer").count() == 1
    assert card.locator(".chip.outcome").count() == 0
    assert not any(stage in page.locator("#review-card").inner_text() for stage in ("base", "alarm_init", "at_sft"))
    seen = []
    for _ in range(6):
        seen.append(shown(page))
        keys = page.locator("button[data-outcome]:visible").evaluate_all("all => all.map(e => e.dataset.key)")
        assert set(keys) in ({"d", "c", "i"}, {"h", "w", "o", "i"})
        page.keyboard.press(keys[1])
    assert len(set(seen)) == 6
    page.keyboard.press("n")  # nothing is said of the seventh
    page.keyboard.press("z")  # the sixth is asked again
    assert shown(page) == seen[5]
    assert page.locator("#review-card .secret:visible").count() == 0
    page.keyboard.press("r")
    assert page.locator("#review-card article.revealed").count() == 1
    page.keyboard.press("i")
    page.keyboard.press("Escape")
    page.reload()
    page.locator("#annotator").fill("a1")
    assert page.locator("#verdict-count").inner_text() == "6 by a1."
    with page.expect_download() as download:
        page.locator("#verdicts-export").click()
    file = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    verdicts = file.pop("verdicts")
    assert file == {"schema": "videosafety.verdicts/1", "run": "many", "annotator": "a1"}
    assert [(v["sample_id"], v["arm"]) for v in verdicts] == seen
    assert verdicts[5]["outcome"] == "incoherent"
    for verdict in verdicts:
        valid = OUTCOMES_HARMFUL if verdict["request"] == "harmful" else OUTCOMES_SAFE
        assert verdict["outcome"] in valid
        assert verdict["seconds"] >= 0
        assert set(verdict["judges"]) == {"one", "other"}
        assert set(verdict) == {"sample_id", "arm", "outcome", "seconds", "evaluation", "request", "language",
                                "cluster", "judges"}  # fmt: skip


def test_the_queue_is_the_selection_and_a_key_of_the_other_label_does_nothing(page: Any) -> None:
    page.locator("[data-filter='subset']").select_option("SS")
    page.locator("[data-filter='arm']").select_option("text")
    page.locator("#annotator").fill("a2")
    page.locator("#review-open").click()
    assert page.locator("#review-left").inner_text() == "2,500 of 2,500 left"
    before = shown(page)
    assert before[1] == "text"
    page.keyboard.press("d")  # defended: only of a harmful request
    assert shown(page) == before
    page.keyboard.press("h")
    assert shown(page) != before
    assert page.locator("#review-left").inner_text() == "2,499 of 2,500 left"
