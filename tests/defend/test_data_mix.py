import random
from pathlib import Path

import pytest
from data_fixtures import row, source, write_rows
from hypothesis import given
from hypothesis import strategies as st

from videosafety.core.errors import RecipeError
from videosafety.defend.data.mix import Mixture, mix
from videosafety.defend.data.source import Source


def rows(num: int, start: int = 0) -> list[dict[str, object]]:
    return [row(id=f"r{number}") for number in range(start, start + num)]


def sources_of(tmp_path: Path, sizes: dict[str, int], **change: dict[str, object]) -> list[Source]:
    return [source(write_rows(tmp_path / f"{name}.jsonl", *rows(num)), name=name, **change.get(name, {}))
            for name, num in sizes.items()]  # fmt: skip


def ids(mixture: Mixture) -> list[str]:
    return [example.id for example in mixture.examples]


def test_equal_arguments_give_equal_mixtures_and_the_seed_decides(tmp_path: Path) -> None:
    sources = sources_of(tmp_path, {"x": 40, "y": 30}, x={"limit": 10})
    assert ids(mix(sources, seed=1)) == ids(mix(sources, seed=1))
    assert set(ids(mix(sources, seed=1))) != set(ids(mix(sources, seed=2)))
    full = sources_of(tmp_path, {"x": 40, "y": 30})
    assert set(ids(mix(full, seed=1))) == set(ids(mix(full, seed=2)))
    assert ids(mix(full, seed=1)) != ids(mix(full, seed=2))


def test_ids_carry_their_source_so_that_none_stands_twice(tmp_path: Path) -> None:
    mixture = mix(sources_of(tmp_path, {"x": 3, "y": 3}), seed=0)
    assert sorted(ids(mixture)) == ["x:r0", "x:r1", "x:r2", "y:r0", "y:r1", "y:r2"]
    assert all(example.id.startswith(f"{example.source}:") for example in mixture.examples)


def test_each_example_knows_its_line(tmp_path: Path) -> None:
    mixture = mix(sources_of(tmp_path, {"x": 9}), seed=0)
    assert [f"x:r{place.line - 1}" for place in mixture.places] == ids(mixture)
    assert {place.file for place in mixture.places} == {str(tmp_path / "x.jsonl")}


def test_a_limit_is_counted_and_a_larger_one_keeps_what_a_smaller_one_kept(tmp_path: Path) -> None:
    kept: set[str] = set()
    for limit in (1, 5, 12, 20, 50):
        mixture = mix(sources_of(tmp_path, {"x": 20}, x={"limit": limit}), seed=3)
        [report] = mixture.report.sources
        assert (report.num_rows, report.num_used, report.num_left_out) == (20, min(limit, 20), max(0, 20 - limit))
        assert mixture.report.num_examples == len(mixture.examples) == report.num_used
        assert kept <= set(ids(mixture))
        kept = set(ids(mixture))


def test_neither_the_order_of_rows_nor_other_sources_change_the_choice(tmp_path: Path) -> None:
    given_ = rows(30)
    chosen = mix([source(write_rows(tmp_path / "x.jsonl", *given_), name="x", limit=7)], seed=0)
    random.Random(0).shuffle(given_)
    path = write_rows(tmp_path / "x.jsonl", *given_)
    again = mix([source(path, name="x", limit=7), *sources_of(tmp_path, {"y": 5})], seed=0)
    assert [id for id in ids(again) if id.startswith("x:")] == ids(chosen)


def test_a_mixture_is_shuffled(tmp_path: Path) -> None:
    mixture = mix(sources_of(tmp_path, {"x": 50, "y": 50}), seed=0)
    first = [example.source for example in mixture.examples[:50]]
    assert 10 < first.count("x") < 40


def test_a_large_limit_does_not_take_the_first_rows(tmp_path: Path) -> None:
    mixture = mix(sources_of(tmp_path, {"x": 100}, x={"limit": 50}), seed=0)
    assert max(place.line for place in mixture.places) > 80


@pytest.mark.parametrize(
    ("sizes", "shares", "counts"),
    [
        ((60, 20, 20), (0.6, 0.2, 0.2), (60, 20, 20)),
        ((60, 10, 20), (0.6, 0.2, 0.2), (30, 10, 10)),
        ((100, 100), (0.3, 0.7), (43, 99)),  # N = 142: 42.6 and 99.4, and the largest remainder gets the last row
        ((1, 3), (0.25, 0.75), (1, 3)),
        ((7,), (1.0,), (7,)),
    ],
)
def test_shares_are_exact(
    tmp_path: Path, sizes: tuple[int, ...], shares: tuple[float, ...], counts: tuple[int, ...]
) -> None:
    names = "xyz"[: len(sizes)]
    change = {name: {"share": share} for name, share in zip(names, shares, strict=True)}
    report = mix(sources_of(tmp_path, dict(zip(names, sizes, strict=True)), **change), seed=0).report
    assert tuple(one.num_used for one in report.sources) == counts
    assert [one.num_left_out for one in report.sources] == [a - b for a, b in zip(sizes, counts, strict=True)]


@given(st.lists(st.integers(5, 25), min_size=2, max_size=3), st.integers(1, 9))
def test_shares_hold_to_one_row_and_use_as_much_as_they_can(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], first: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    shares = [first / 10, *[(10 - first) / 10 / (len(sizes) - 1)] * (len(sizes) - 1)]
    names = "xyz"[: len(sizes)]
    change = {name: {"share": share} for name, share in zip(names, shares, strict=True)}
    try:
        report = mix(sources_of(folder, dict(zip(names, sizes, strict=True)), **change), seed=0).report
    except RecipeError as error:
        assert "gives no row" in str(error)  # noqa: PT017
        return
    total = report.num_examples
    assert all(abs(one.num_used - share * total) < 1 for one, share in zip(report.sources, shares, strict=True))
    assert all(one.num_used <= size for one, size in zip(report.sources, sizes, strict=True))
    assert any((total + 1) * share > size - 1e-6 for size, share in zip(sizes, shares, strict=True))


def test_a_limit_holds_before_the_shares(tmp_path: Path) -> None:
    change = {"x": {"share": 0.5, "limit": 4}, "y": {"share": 0.5}}
    report = mix(sources_of(tmp_path, {"x": 20, "y": 20}, **change), seed=0).report
    assert [(one.num_used, one.num_left_out, one.share) for one in report.sources] == [(4, 16, 0.5), (4, 16, 0.5)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": {"share": 0.5}, "y": {}}, "some have none"),
        ({"x": {"share": 0.5}, "y": {"share": 0.4}}, "sum to 0.9"),
        ({"x": {"share": 0.999}, "y": {"share": 0.001}}, "source 'y' with share 0.001 gives no row of 5"),
    ],
)
def test_shares_that_do_not_fit(tmp_path: Path, change: dict[str, dict[str, object]], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        mix(sources_of(tmp_path, {"x": 5, "y": 5}, **change), seed=0)


def test_sources_need_different_names(tmp_path: Path) -> None:
    [one] = sources_of(tmp_path, {"x": 1})
    with pytest.raises(RecipeError, match="two sources are called 'x'"):
        mix([one, one], seed=0)
    with pytest.raises(RecipeError, match="no source"):
        mix([], seed=0)


def test_the_report_counts_dropped_labels_and_names_unread_keys(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "x.jsonl", row(model="m"), row(id="b", safety_labels=None, meta=None, duration=3))
    [report] = mix([source(path, labels="none")], seed=0).report.sources
    assert report.num_labels_dropped == 1
    assert report.ignored_keys == ("duration", "model")
    assert mix([source(write_rows(path, row()))], seed=0).report.sources[0].num_labels_dropped == 0
