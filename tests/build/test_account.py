"""The account: what waits for people and what failed are told apart, and what does not balance is said."""

import pytest

from videosafety.build.account import faults_of, held, lines_of, table
from videosafety.build.ledger import Count
from videosafety.build.state import State
from videosafety.llm.structured import _count


def lines(*ends: tuple[State | None, str, int], made: int = 90):
    counts = [Count("describe", State.OK, "", 90, made), *(Count("describe", *end, 0) for end in ends)]
    return lines_of(counts)


def test_rows_that_wait_for_people_hold_nothing_up():
    assert held(lines((State.FAILED, "votes:disagree", 10)), max_failed_share=0.02) is None
    assert held(lines((State.FAILED, "people:disagree", 10)), max_failed_share=0.02) is None


@pytest.mark.parametrize("reason", ["votes:too_few", "server:timeout", "labels:missing"])
def test_rows_that_failed_do(reason):
    said = held(lines((State.FAILED, reason, 10)), max_failed_share=0.02)
    assert f"10 of 100 rows of describe failed, most with {reason}" in said
    assert held(lines((State.FAILED, reason, 10)), max_failed_share=0.1) is None


def test_one_row_over_the_cap_holds_the_build_whatever_its_share():
    assert "the cost cap is reached" in held(lines((State.FAILED, "cost:cap", 1)), max_failed_share=1.0)


def test_reasons_that_name_a_clip_are_one_and_the_table_has_them():
    found = lines((State.FILTERED, "duplicate:near:clip-1", 2), (State.FILTERED, "duplicate:near:clip-2", 3))
    assert found[0].ended == {(State.FILTERED, "duplicate:near"): 5}
    said = table([Count("probe", State.OK, "", 3, 3), Count("probe", None, "", 2, 0)])
    assert said.splitlines()[1].split() == ["probe", "5", "3", "0", "2", "3"]


def test_what_does_not_balance_is_said():
    counts = [Count("a", State.OK, "", 3, 4), Count("b", State.OK, "", 3, 3)]
    assert faults_of(lines_of(counts)) == ["b: 3 rows, and a made 4"]
    assert faults_of(lines_of([counts[0], Count("b", State.OK, "", 4, 3)])) == []


def test_a_number_of_tokens_that_cannot_be_is_none():
    assert [_count(told) for told in (0, 7, 10**30, -1, True, "7", None)] == [0, 7, None, None, None, None, None]
