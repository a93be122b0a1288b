"""Page shell, charts, tables and pictures: hostile values stay values."""

import base64
import hashlib
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from videosafety.core.records import Outcome
from videosafety.html.charts import Bar, Bin, Dot, Line, line_panels, outcome_bars, reliability_plot, seed_dots
from videosafety.html.media import MAX_SIDE_PX, strip
from videosafety.html.page import render
from videosafety.html.palette import HARMFUL_ORDER, LOOKS, SAFE_ORDER
from videosafety.html.table import Cell, Column, Table

HOSTILE = "</svg></script><script>alert(1)</script>\u202e"


def test_the_shell_escapes_and_marks_every_value_and_allows_its_own_script_only() -> None:
    html = render("shell.html.j2", title=HOSTILE, lead=HOSTILE, sections=[(HOSTILE, HOSTILE)])
    assert "<script>alert" not in html
    assert "\u202e" not in html
    assert "⟦U+202E⟧" in html
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in html
    assert "default-src &#39;none&#39;" in html


def test_a_chart_is_well_formed_whatever_its_labels_say() -> None:
    bar = Bar(HOSTILE, {Outcome.DEFENDED: 0.25, Outcome.COMPROMISED: 0.75}, 0.1, 0.4)
    for svg in (
        outcome_bars([bar], title=HOSTILE),
        reliability_plot([(HOSTILE, [Bin(0.2, 0.1, 0.0, 0.3), Bin(0.8, 0.9)])], title=HOSTILE),
        line_panels([Line(HOSTILE, [1, 2], [0.7, 0.1])], title=HOSTILE, x_title="step"),
        seed_dots([Dot(HOSTILE, 0.5, seed=1), Dot(HOSTILE, 0.5, low=0.4, high=0.6)], title=HOSTILE),
    ):
        root = ElementTree.fromstring(svg)
        assert root.attrib["role"] == "img"
        assert not [e for e in root.iter() if e.tag.endswith(("script", "image", "foreignObject", "}a"))]
        assert "\u202e" not in svg


def test_a_bar_prints_its_shares_so_colour_is_not_needed() -> None:
    svg = outcome_bars([Bar("HH", {Outcome.DEFENDED: 0.25, Outcome.COMPROMISED: 0.75})], title="t")
    assert "● 25" in svg
    assert "▲ 75" in svg


def test_every_outcome_has_a_word_and_a_glyph_of_its_own_and_readable_ink() -> None:
    assert set(LOOKS) == set(Outcome)
    assert len({look.glyph for look in LOOKS.values()}) == len({look.word for look in LOOKS.values()}) == len(Outcome)
    assert set(HARMFUL_ORDER) | set(SAFE_ORDER) | {Outcome.UNSCORED} == set(Outcome)
    for look in LOOKS.values():
        light, dark = sorted((_luminance(look.fill), _luminance(look.ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, look.word


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize(("side_px", "pixelated", "media_type"), [(40, True, "image/png"), (700, False, "image/jpeg")])
def test_tiny_frames_stay_exact_and_large_ones_shrink(side_px: int, pixelated: bool, media_type: str) -> None:
    (picture,) = strip(np.zeros((1, side_px, side_px, 3), dtype=np.uint8))
    assert picture.pixelated is pixelated
    assert picture.width_px == min(side_px, MAX_SIDE_PX)
    assert picture.uri.startswith(f"data:{media_type};base64,")


def test_groups_span_neighbours() -> None:
    columns = (Column("a"), Column("b", "G"), Column("c", "G"), Column("d", "H"))
    table = Table("t", "T", columns, ((Cell("x"),) * 4,), ("v",), ((0.5,),))
    assert table.groups == [("", 1), ("G", 2), ("H", 1)]
    assert table.starts == {1, 3}
    assert table.csv == "v\r\n0.5\r\n"
