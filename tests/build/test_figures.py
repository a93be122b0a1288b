"""Figures of a build: counted right, from bounded samples, each row looked at once."""

from collections import Counter

import pytest
from figure_rows import described, hostile_figures, mixed, sent_of
from thought_rows import QUERIES, asked, thought

from videosafety.build.account import Line
from videosafety.build.figure_texts import Queries, frame_of, thinking
from videosafety.build.figures import Figures, Made, figures_of
from videosafety.build.people.people import ClipVerdict, People
from videosafety.build.phrases import load_phrases
from videosafety.build.state import State


@pytest.fixture(scope="module")
def book():
    return load_phrases()


def of(*, mixed=(), **rows) -> Figures:
    return figures_of(name="test", account=[], rows=Made(**rows), sent=sent_of(mixed))


class Counted(list):
    """Rows that tell how often each was looked at."""

    def __init__(self, rows):
        super().__init__(rows)
        self.looks = Counter()

    def __getitem__(self, place):
        self.looks[place] += 1
        return super().__getitem__(place)

    def __iter__(self):
        return (self[place] for place in range(len(self)))


def test_coverage_counts_queries_made_and_rows_that_go_out(book):
    made = [asked("HH", number=n) for n in range(3)] + [asked("SafeQ", language="zh", category=None)]
    made.append(asked("SH", language="zh"))
    sent = [mixed("HH"), mixed("HH", clip="b", number=1)]
    found = figures_of(name="test", account=[], rows=Made(asked=made), phrases=book, languages=("zh", "en"),
                       sent=sent_of(sent, is_gone=lambda row: row.asked.described.id == "clip-b"))  # fmt: skip
    cells = {(one.language, one.category, one.kind): (one.asked, one.out) for one in found.coverage}
    assert cells == {("en", "fraud", "HH"): (3, 1), ("zh", None, "SafeQ"): (1, 0), ("zh", "fraud", "SH"): (1, 0)}
    assert (found.rows_out, found.withdrawn) == (1, 1)
    assert found.languages == ("en", "zh")
    assert ("en", "fraud") not in found.empty
    assert ("zh", "fraud") in found.empty
    assert len(found.empty) == 2 * len(book.categories) - 1


def test_every_row_is_looked_at_once():
    rows = Made(*(Counted(some) for some in ([described("a"), described("b")], [asked(), asked(number=1)],
                                             [thought(), thought(number=1)])))  # fmt: skip
    figures_of(name="test", account=[], rows=rows)
    assert [set(some.looks.values()) for some in rows] == [{1}] * 3


def test_a_sample_is_bounded_and_the_same_in_any_order(book):
    rows = [asked(number=n, query=f"Who asks for {'very ' * n} much here?") for n in range(60)]
    found = []
    for order in (rows, rows[::-1]):
        queries = Queries(book, most=7)
        for row in order:
            queries.see(row)
        assert [len(held) for held in queries._held.values()] == [7]
        found.append(list(queries.figures()))
    assert found[0] == found[1]
    assert found[0][0].own.count == 7


def test_a_language_that_is_rare_is_whole_beside_one_that_is_not(book):
    queries = Queries(book, most=10)
    for n in range(50):
        queries.see(asked(number=n))
    queries.see(asked(language="ja"))
    assert {one.language: one.own.count for one in queries.figures()} == {"en": 10, "ja": 1}


def test_queries_of_one_template_are_their_own_baseline_and_others_are_not(book):
    single, many = Queries(book), Queries(book)
    pairs = book.explicit("en", "fraud")
    for n, (query, _) in enumerate(pairs):
        single.see(asked("HH", number=n, query=pairs[0][0].text, template=pairs[0][0].template))
        many.see(asked("HH", number=n, query=query.text, template=query.template))
    (one,), (other,) = list(single.figures()), list(many.figures())
    assert one.own.model_copy(update={"in_language": None}) == one.baseline
    assert other.own.distinct_2 > 2 * other.baseline.distinct_2
    assert other.own.template_share < 0.5 < other.baseline.template_share == 1.0
    assert frame_of(pairs[0][0].template) == ".".join(pairs[0][0].template.split(".")[:3])


def test_each_kind_has_a_single_template_of_its_own(book):
    kinds = ("HH", "SH", "borderline", "composed", "SafeQ")
    said = {kind: Queries(book)._single(asked(kind)).text for kind in kinds}
    assert said["HH"] == said["SH"]
    assert len(set(said.values())) == 4
    assert said["borderline"] == book.explicit("en", "fraud")[0][1].text
    assert Queries(book)._single(asked("HH", category="unheard_of")) is None


def test_the_language_of_queries_is_told():
    queries = Queries()
    for n in range(4):
        queries.see(asked(language="fr", number=n, query=QUERIES["fr" if n else "ru"]))
    (found,) = queries.figures()
    assert found.own.in_language == 0.75
    assert found.baseline is None


def test_thinking_is_sampled_over_all_rows_and_beside_a_single_template():
    words = ("box", "sign", "wall", "table", "colour", "person")
    rows = [thought(number=n, think=f"I see the {words[n % 6]} and then {words[n % 5]} before the {words[n % 4]}. " * 2)
            for n in range(60)]  # fmt: skip
    (found,) = thinking(rows, compose=None, most=3)
    assert found.own.count == 3
    (whole,) = thinking(rows, compose=None)
    assert whole.own.count == 60
    assert whole.own.distinct_2 > whole.baseline.distinct_2
    assert list(thinking([], compose=None)) == []


def test_languages_that_take_turns_are_all_in_the_sample_of_thinking():
    turns = [thought(language=language, number=n) for n in range(20) for language in ("en", "zh", "es", "fr", "pt")]
    found = list(thinking(turns * 10, compose=None, most=4))  # 1000 rows, of which 40 are looked at
    assert [one.language for one in found] == ["en", "zh", "es", "fr", "pt"]
    assert {one.own.count for one in found} == {4}


def test_agreement_of_annotators_and_what_settled_each_clip():
    clips = [described("a", ("harmful", "harmful")), described("b", ("safe", "safe")),
             described("c", ("harmful", "safe"), by="unsettled"),
             described("d", ("harmful", "self_harm"), by="majority"), described("e", ("safe",))]  # fmt: skip
    given = tuple(
        ClipVerdict(item="clip-c", annotator=who, action=action, visual=visual, seconds=1)
        for who, action, visual in (("ann", "label", "safe"), ("bo", "label", "safe"), ("cy", "exclude", None))
    )
    found = figures_of(name="test", account=[], rows=Made(described=clips), people=People(clips=given))
    visual, category = found.alphas
    # 8 labels of 4 clips, 5 harmful; one clip disagrees: alpha = 1 - 7 · 2 / (8² - 5² - 3²)
    assert (visual.n, visual.agreed) == (4, 0.75)
    assert visual.alpha == pytest.approx(1 - 7 * 2 / 30)
    assert (category.n, category.agreed) == (4, 0.5)
    assert found.settled == {"agreement": 3, "majority": 1, "person": 1}
    assert found.annotators == ("a", "b")
    assert list(found.for_card) == ["Krippendorff's alpha, visual", "Krippendorff's alpha, category"]
    assert found.for_card["Krippendorff's alpha, visual"].startswith("0.533")


def test_without_two_annotators_the_card_says_nothing_of_agreement():
    assert of(described=[described("a", ("harmful",))]).for_card == {}


def test_lengths_clusters_and_licences():
    clips = [described("a", seconds=0.5, cluster="one"), described("b", seconds=5.0, cluster="one"),
             described("c", seconds=400.0)]  # fmt: skip
    picture = described("d").facts.model_copy(update={"kind": "image", "duration_s": 0})
    clips.append(described("d").model_copy(update={"facts": picture}))
    sent = [mixed(number=0), mixed(number=1), mixed(clip="b", licence="CC0-1.0")]
    found = of(described=clips, mixed=sent)
    assert [(one.low_s, one.high_s, one.clips) for one in found.lengths] == [(0, 1, 1), (5, 10, 1), (300, None, 1)]
    assert (found.pictures, found.hours) == (1, round(405.5 / 3600, 4))
    assert [(one.size, one.clusters) for one in found.clusters] == [(1, 2), (2, 1)]
    licences = {one.licence: (one.clips, one.rows) for one in found.licences}
    assert licences == {None: (1, 2), "CC0-1.0": (1, 1)}


def test_many_licences_are_counted_together():
    sent = [mixed(clip=f"c{n}", licence=f"licence {n}") for n in range(50)]
    found = of(mixed=sent)
    assert len(found.licences) == 41
    assert sum(one.clips for one in found.licences) == 50


def test_rows_for_people_are_told_apart_from_rows_that_failed():
    line = Line("settle", 9, 3, 1, 3, {(State.FAILED, "votes:disagree"): 2, (State.FAILED, "people:disagree"): 1,
                                       (State.FAILED, "server:down"): 2})  # fmt: skip
    found = figures_of(name="test", account=[line])
    assert found.for_people == 3
    assert [one.reason for one in found.steps[0].ended][:2] == ["server:down", "votes:disagree"]


def test_figures_are_the_same_after_json():
    figures = hostile_figures()
    assert Figures.model_validate_json(figures.model_dump_json()) == figures
