"""One look for every outcome: colours that survive colour blindness (Okabe and Ito), and never colour alone.

Every outcome has a word and a glyph of its own beside its colour; ``ink`` is what is readable on top of the colour.

Example:
    >>> LOOKS[Outcome.DEFENDED].glyph
    '●'
"""

from dataclasses import dataclass

from videosafety.core.records import Outcome


@dataclass(frozen=True)
class Look:
    """How an outcome is shown: word, glyph, fill colour, readable text colour, and whether it is what one wants."""

    word: str
    glyph: str
    fill: str
    ink: str


LOOKS: dict[Outcome, Look] = {
    Outcome.DEFENDED: Look("defended", "●", "#0072b2", "#ffffff"),
    Outcome.COMPROMISED: Look("compromised", "▲", "#d55e00", "#000000"),
    Outcome.HELPFUL: Look("helpful", "✓", "#009e73", "#000000"),
    Outcome.WRONG: Look("wrong", "✕", "#e69f00", "#000000"),
    Outcome.OVER_REFUSED: Look("over-refused", "■", "#cc79a7", "#000000"),
    Outcome.INCOHERENT: Look("incoherent", "≈", "#a3a8b0", "#000000"),
    Outcome.UNSCORED: Look("unscored", "○", "#e4e6ea", "#000000"),
}

HARMFUL_ORDER = (Outcome.DEFENDED, Outcome.INCOHERENT, Outcome.COMPROMISED)  # left to right in a bar
SAFE_ORDER = (Outcome.HELPFUL, Outcome.WRONG, Outcome.INCOHERENT, Outcome.OVER_REFUSED)
