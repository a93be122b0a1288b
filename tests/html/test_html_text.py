"""Untrusted text: marks, bounds, and CSV that no spreadsheet runs."""

import base64
import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videosafety.html.text import bounded, csv_text, csv_uri, visible


@pytest.mark.parametrize("character", list("\x00\x1b\x7f\x85\u202e\u2066\u200b\ufeff\u2028"))
def test_an_invisible_character_becomes_a_mark(character: str) -> None:
    marked = visible(f"a{character}b")
    assert character not in marked
    assert marked == f"a⟦U+{ord(character):04X}⟧b"


@pytest.mark.parametrize("text", ["plain", "كيف", "क्‍ष", "你好", "a\nb\tc", "é 👍"])
def test_ordinary_text_of_any_language_stays(text: str) -> None:
    assert visible(text) == text


@given(st.text(alphabet=st.characters(codec=None)))
def test_what_is_visible_can_be_written_and_is_stable(text: str) -> None:
    marked = visible(text)
    marked.encode()
    assert visible(marked) == marked


def test_a_long_text_is_cut_and_says_by_how_much() -> None:
    assert bounded("x" * 5000, 4000) == "x" * 4000 + " … (1,000 more characters)"
    assert bounded("short", 4000) == "short"


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "  =1"])
def test_a_formula_is_defused_and_a_number_is_not(cell: str) -> None:
    rows = list(csv.reader(io.StringIO(csv_text(["a", "b"], [[cell, -0.25]]), newline="")))
    assert rows[1] == [f"'{cell}", "-0.25"]


def test_the_csv_of_a_page_decodes_to_the_same_text() -> None:
    uri = csv_uri("a\r\nö\r\n")
    head, payload = uri.split(",", 1)
    assert head == "data:text/csv;charset=utf-8;base64"
    assert base64.b64decode(payload).decode("utf-8-sig") == "a\r\nö\r\n"
