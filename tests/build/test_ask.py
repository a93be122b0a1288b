"""Queries: every language × category × kind is there, in its language, with the right labels, twins and words."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import lingua
import pytest
import yaml

from videosafety.build.ask import KINDS, Ask, Plan, Quota, labels_of
from videosafety.build.check import LINGUA
from videosafety.build.ledger import Ledger
from videosafety.build.phrases import PhraseBook, load_phrases
from videosafety.build.records import Asked, Clip, Described, Evidence, Facts, Vote
from videosafety.build.run import run_step
from videosafety.build.state import State, Terminal
from videosafety.build.step import RowStep, step_hash
from videosafety.core.errors import InputError, RecipeError
from videosafety.core.labels import Safety, Subset
from videosafety.core.records import LANGUAGES, QueryKind, Span
from videosafety.core.taxonomy import load_taxonomy

BOOK = load_phrases()
CATEGORIES = tuple(one.id for one in load_taxonomy("vse").subcategories)
TEMPLATES = Path(__file__).parents[2] / "src/videosafety/build/templates"
EVERYWHERE = Plan(languages_per_clip=10, eval_share=None)


def described(name="a", *, category=None, language=None, kind="video", cluster=None):
    """A clip that is harmful where a category is given."""
    visual = Safety.HARMFUL if category else Safety.SAFE
    evidence = (Evidence(span=Span(start_s=1, end_s=2), what="something"),)
    return Described(
        id=f"clip-{name}",
        clip=Clip(
            id=f"clip-{name}", path=f"{name}.mp4", sha256="0" * 64, num_bytes=1, source="ours", licence="CC0-1.0",
            language=language,
        ),
        facts=Facts(kind=kind, codec="h264", width_px=8, height_px=8, num_frames=9, duration_s=9, has_audio=False),
        cluster=cluster or f"near-{name}", caption="A caption.", visual=visual, category=category, evidence=evidence,
        votes=(Vote(annotator="one", caption="A caption.", visual=visual, category=category),), by="agreement",
    )  # fmt: skip


def rows(step: Ask, *clips: Described) -> list[Asked]:
    made = [step(clip) for clip in clips]
    assert not any(isinstance(one, Terminal) for one in made)
    return [row for some in made for row in some]


def everything(language: str) -> list[tuple[str, str]]:
    """All texts of a language, each with its kind."""
    return sorted({
        *(("safe", one.text) for media in ("video", "image") for one in BOOK.safe(language, media=media)),
        *((kind, pair[at].text) for category in BOOK.categories for at, kind in ((0, "explicit"), (1, "borderline"))
          for pair in BOOK.explicit(language, category)),
        *((kind, pair[at].text) for category in BOOK.categories for at, kind in ((0, "composed"), (1, "borderline"))
          for media in ("video", "image") for pair in BOOK.composed(language, category, media=media)),
    })  # fmt: skip


def test_the_words_are_of_the_taxonomy_and_of_all_ten_languages() -> None:
    assert BOOK.categories == CATEGORIES
    assert set(BOOK.languages) == set(LANGUAGES)


def coverage_of(asked):
    """Queries of each (language, category, kind); SafeQ of a harmless clip has the category ``-``."""
    return Counter((row.sample.language, row.sample.category or "-", row.kind) for row in asked)


def test_every_language_category_and_kind_is_asked() -> None:
    clips = [described(name, category=name) for name in CATEGORIES]
    harmless = described("b")
    step = Ask(BOOK, Plan(languages_per_clip=10, eval_share=None, quota=Quota(SH=19)))
    found = coverage_of(rows(step, *clips, harmless))
    for language in LANGUAGES:
        for category in CATEGORIES:
            for kind in KINDS:
                assert found[language, category, kind] >= 1, (language, category, kind)
        assert found[language, "-", "SafeQ"] == 1


@pytest.fixture(scope="module")
def language_of() -> Callable[[str], str | None]:
    """The language among the ten that a text is likeliest in."""
    names = {getattr(lingua.Language, name): code for code, name in LINGUA.items()}
    detector = lingua.LanguageDetectorBuilder.from_languages(*names).build()
    return lambda text: names.get(detector.detect_language_of(text))


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_asked_is_in_the_declared_language(language: str, language_of) -> None:
    texts = everything(language)
    assert len(texts) > 700
    found = [(language_of(text), text) for _, text in texts[::5]]
    assert [(code, text) for code, text in found if code != language] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_point_to_the_clip_exactly_where_they_need_it(language: str) -> None:
    phrases = BOOK.languages[language]
    for kind, text in everything(language):
        assert phrases.points(text) == (kind in ("composed", "safe")), (kind, text)
        assert "{" not in text
        assert "  " not in text
    assert len(phrases.explicit) >= 4
    assert len(phrases.composed) >= 4
    assert len(phrases.borderline) >= 4
    assert len(phrases.SafeQ) >= 6


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_words_come_twice_and_a_template_is_its_words(language: str) -> None:
    for category in CATEGORIES:
        explicit, composed = BOOK.explicit(language, category), BOOK.composed(language, category)
        twins = {twin.text for _, twin in [*explicit, *composed]}
        texts = ({query.text for query, _ in explicit}, {query.text for query, _ in composed}, twins)
        assert [len(some) for some in (*texts, {one.text for one in BOOK.safe(language)})] == [16, 12, 28, 80]
    pairs = [pair for category in CATEGORIES for pair in BOOK.explicit(language, category)]
    made = {*(one for pair in pairs for one in pair), *BOOK.safe(language)}
    assert len({one.text for one in made}) == len({one.template for one in made}) == len(made)


def test_labels_kind_and_words_are_those_of_the_table_of_subsets() -> None:
    step = Ask(BOOK, EVERYWHERE)
    subsets = {"HH": Subset.HH, "SH": Subset.SH, "composed": Subset.COMPOSED}
    kinds = {"HH": QueryKind.EXPLICIT, "SH": QueryKind.EXPLICIT, "borderline": QueryKind.BORDERLINE}
    for clip in (described("h", category="fraud"), described("s")):
        for row in rows(step, clip):
            safe = Subset.HS if clip.category else Subset.SS
            assert row.sample.subset is subsets.get(row.kind, safe)
            assert row.sample.labels.visual is clip.visual
            assert row.sample.query_kind is kinds.get(row.kind, QueryKind.DEICTIC)
            assert row.sample.id == row.id
            assert row.parent == clip.id
            assert row.sample.cluster == clip.cluster
            assert row.sample.template == row.template
            assert row.sample.provenance is not None
            assert (row.sample.provenance.source, row.sample.provenance.licence) == ("ours", "CC0-1.0")
            assert bool(row.sample.harm_spans) == bool(clip.category)
            if clip.category:
                assert row.sample.category == "fraud"
            elif row.kind == "SafeQ":
                assert row.sample.category is None
            else:
                assert row.sample.category in CATEGORIES


def test_a_kind_goes_with_its_clips_only() -> None:
    asked = {clip.visual: Counter(row.kind for row in rows(Ask(BOOK, EVERYWHERE), clip))
             for clip in (described("h", category="fraud"), described("s"))}  # fmt: skip
    assert asked[Safety.HARMFUL] == {"HH": 10, "composed": 10, "SafeQ": 10, "borderline": 20}
    assert asked[Safety.SAFE] == {"SH": 10, "SafeQ": 10, "borderline": 10}
    for kind, visual in (("HH", Safety.SAFE), ("composed", Safety.SAFE), ("SH", Safety.HARMFUL)):
        with pytest.raises(ValueError, match="there is no"):
            labels_of(kind, visual)


def test_every_harmful_query_has_a_twin_that_speaks_of_the_same_and_asks_nothing_forbidden() -> None:
    quota = Quota(HH=3, SH=3, composed=2, SafeQ=2)
    step = Ask(BOOK, Plan(languages_per_clip=10, quota=quota))
    for clip in (described("h", category="weapons"), described("s")):
        by_id = {row.id: row for row in rows(step, clip)}
        harmful = [row for row in by_id.values() if row.kind in ("HH", "SH", "composed")]
        assert len(harmful) == (50 if clip.category else 30)
        for row in harmful:
            twin = by_id[row.twin]
            assert (twin.kind, twin.twin) == ("borderline", row.id)
            assert (twin.sample.language, twin.sample.category) == (row.sample.language, row.sample.category)
            assert twin.sample.labels.request is Safety.SAFE
            deeds = BOOK.languages[row.sample.language].deeds[row.sample.category]
            shared = [deed for deed in deeds if deed.lower() in twin.sample.query.lower()]
            assert shared
            if row.kind != "composed":
                assert shared[0].lower() in row.sample.query.lower()
        assert sum(row.kind == "borderline" for row in by_id.values()) == len(harmful)
    without = Ask(BOOK, Plan(quota=Quota(twins=False)))
    assert {row.kind for row in rows(without, described("h", category="weapons"))} == {"HH", "composed", "SafeQ"}
    assert all(row.twin is None for row in rows(without, described("h", category="weapons")))


def test_nothing_is_asked_twice_about_a_clip() -> None:
    quota = Quota(HH=6, SH=40, composed=2, SafeQ=20)
    step = Ask(BOOK, Plan(languages_per_clip=10, quota=quota))
    for clip in (described("h", category="privacy"), described("s"), described("p", category="weapons", kind="image")):
        texts = [row.sample.query for row in rows(step, clip)]
        assert len(set(texts)) == len(texts)
        assert len({row.id for row in rows(step, clip)}) == len(texts)


def test_a_harmless_clip_is_asked_of_every_category_before_one_comes_back() -> None:
    step = Ask(BOOK, Plan(languages_per_clip=1, quota=Quota(SH=38)))
    times = Counter(row.sample.category for row in rows(step, described("s")) if row.kind == "SH")
    assert times == dict.fromkeys(CATEGORIES, 2)


def test_the_same_clip_and_seed_give_the_same_and_others_give_others() -> None:
    clip, plan = described("h", category="fraud"), EVERYWHERE
    first = [row.model_dump_json() for row in rows(Ask(BOOK, plan, seed=3), clip)]
    assert first == [row.model_dump_json() for row in rows(Ask(load_phrases(), plan, seed=3), clip)]
    texts = [
        {row.sample.query for row in rows(Ask(BOOK, plan, seed=seed), described(name, category="fraud"))}
        for seed, name in ((3, "h"), (4, "h"), (3, "i"))
    ]
    assert texts[0] != texts[1]
    assert texts[0] != texts[2]


def test_the_languages_community_comes_first_and_the_rest_are_all_drawn() -> None:
    step = Ask(BOOK, Plan(languages_per_clip=2))
    assert {step.languages_of(described(f"c{at}", language="hi"))[0] for at in range(20)} == {"hi"}
    assert len(set(step.languages_of(described("a", language="hi")))) == 2
    drawn = Counter(step.languages_of(described(f"c{at}"))[0] for at in range(400))
    assert set(drawn) == set(LANGUAGES)
    assert min(drawn.values()) > 15
    narrow = Ask(BOOK, Plan(languages=("en", "ja"), languages_per_clip=2))
    assert set(narrow.languages_of(described("a", language="hi"))) == {"en", "ja"}


def test_quotas_hold_for_each_language() -> None:
    plan = Plan(languages=("en", "ja"), languages_per_clip=2, quota=Quota(HH=2, composed=0, SafeQ=0, twins=False),
                own={"ja": Quota(HH=0, composed=1, SafeQ=3, twins=False)})  # fmt: skip
    found = coverage_of(rows(Ask(BOOK, plan), described("h", category="fraud")))
    assert found == {("en", "fraud", "HH"): 2, ("ja", "fraud", "composed"): 1, ("ja", "fraud", "SafeQ"): 3}
    ended = Ask(BOOK, Plan(quota=Quota(SH=0, SafeQ=0)))(described("s"))
    assert ended == Terminal(state=State.FILTERED, reason="no_quota")


def test_no_template_and_no_cluster_stands_in_training_and_in_evaluation() -> None:
    step = Ask(BOOK, Plan(languages_per_clip=10, eval_share=0.3, quota=Quota(HH=6, SH=30, composed=2, SafeQ=9)))
    clips = [described(f"c{at}", category=("fraud" if at % 2 else None), cluster=f"k{at // 2}") for at in range(80)]
    made = rows(step, *clips)
    sides = {side: {row.template for row in made if row.sample.split == side} for side in ("eval", "train")}
    words = {side: {row.sample.query for row in made if row.sample.split == side} for side in ("eval", "train")}
    assert sides["eval"]
    assert not sides["eval"] & sides["train"]
    assert not words["eval"] & words["train"]
    assert all(len({row.sample.split for row in made if row.sample.cluster == f"k{at}"}) == 1 for at in range(40))
    share = sum(step.side_of(described("x", cluster=f"k{at}")) == "eval" for at in range(1000)) / 1000
    assert 0.25 < share < 0.35
    assert {row.sample.split for row in rows(Ask(BOOK, EVERYWHERE), clips[0])} == {None}


def test_a_picture_is_asked_about_as_a_picture() -> None:
    clip = described("p", category="fraud", kind="image")
    made = rows(Ask(BOOK, Plan(languages=("en",), languages_per_clip=1, quota=Quota(SafeQ=9))), clip)
    assert {row.sample.media.kind for row in made} == {"image"}
    assert not [row for row in made if "video" in row.sample.query]


def test_what_cannot_be_asked_is_said() -> None:
    with pytest.raises(InputError, match=r"category 'froud'.*did you mean 'fraud'"):
        Ask(BOOK)(described("h", category="froud"))
    with pytest.raises(RecipeError, match="7 HH queries a clip in 'en', and there are 6 different ones for eval"):
        Ask(BOOK, Plan(quota=Quota(HH=7)))
    Ask(BOOK, Plan(quota=Quota(HH=16), eval_share=None))
    english = PhraseBook(wishes=BOOK.wishes, languages={"en": BOOK.languages["en"]})
    with pytest.raises(RecipeError, match="no query templates in the language 'zh'"):
        Ask(english)
    with pytest.raises(ValueError, match="2 languages per clip, of 1"):
        Plan(languages=("en",))


def test_new_words_are_a_new_step_and_run_over_a_ledger(tmp_path: Path) -> None:
    english = BOOK.languages["en"].model_copy(update={"version": 2})
    changed = BOOK.model_copy(update={"languages": {**BOOK.languages, "en": english}})
    assert step_hash(Ask(BOOK)) == step_hash(Ask(load_phrases()))
    assert len({step_hash(Ask(BOOK)), step_hash(Ask(changed)), step_hash(Ask(BOOK, seed=1))}) == 3
    step = Ask(BOOK)
    assert isinstance(step, RowStep)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        made = list(run_step(step, [described("h", category="fraud"), described("s")], ledger))
    assert made == rows(step, described("h", category="fraud"), described("s"))


def broken(tmp_path: Path, change) -> Path:
    """A folder with English alone, changed."""
    plain = yaml.safe_load((TEMPLATES / "en.yaml").read_text())
    change(plain)
    (tmp_path / "en.yaml").write_text(yaml.safe_dump(plain, allow_unicode=True))
    (tmp_path / "wishes.yaml").write_text((TEMPLATES / "wishes.yaml").read_text())
    return tmp_path


@pytest.mark.parametrize(("change", "fault"), [
    (lambda en: en["explicit"]["e1"].update(text="How do I {deed} as shown?"), "the same without the clip"),
    (lambda en: en["explicit"]["e1"].update(text="How do I {wish}?"), "has the slot"),
    (lambda en: en["explicit"]["e1"].update(twin="b2"), "a borderline twin of its own"),
    (lambda en: en["borderline"].update(b99="Why {deed}?"), "every borderline frame is one"),
    (lambda en: en["wishes"].update(act=["dance alone"]), "point to the clip"),
    (lambda en: en["deeds"].pop("fraud"), "'fraud' has a deed and no wish"),
    (lambda en: en["wishes"].pop("act"), "the wish 'act' is not there"),
    (lambda en: en.update(held_out=["e9"]), "no frame 'e9'"),
    (lambda en: en.update(language="fr"), "says that it is 'fr'"),
])  # fmt: skip
def test_templates_that_break_a_rule_do_not_load(tmp_path: Path, change, fault: str) -> None:
    with pytest.raises(InputError, match=re.escape(fault)):
        load_phrases(broken(tmp_path, change))


def test_the_templates_of_a_team_load(tmp_path: Path) -> None:
    assert set(load_phrases(broken(tmp_path, lambda en: en.update(version=5))).languages) == {"en"}
    with pytest.raises(InputError, match="no query templates here"):
        load_phrases(tmp_path / "none")
