"""Labels, quadrants and subsets: who is harmful, the picture or the words, and what must be defended.

Paper section 3 (HH, SH, SafeQ) with our ``composed`` beside it; docs/method.md has the table. Three labels belong to
every (item, arm): ``visual`` (what is shown), ``textual`` (what the words ask), ``request`` (what must be defended).
Polarity is a word and not a bit, so it cannot flip by accident; 0 and 1 exist only in the response grammar on the wire.

Example:
    >>> Labels(visual=Safety.HARMFUL, textual=Safety.SAFE, request=Safety.HARMFUL).subset
    <Subset.COMPOSED: 'composed'>
"""

from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator


class Safety(StrEnum):
    """Safe or harmful. On the wire (response grammar): 0 = safe, 1 = harmful."""

    SAFE = "safe"
    HARMFUL = "harmful"


class Subset(StrEnum):
    """The benchmark's subsets. First letter: what is shown; second: what is asked."""

    HH = "HH"  # harmful clip, harmful words; the query is harmful without the clip too
    SH = "SH"  # harmless clip, harmful words
    COMPOSED = "composed"  # words harmless, harmful with this clip; no text arm
    SS = "SS"  # SafeQ with a harmless clip
    HS = "HS"  # SafeQ with a harmful clip


SAFEQ: frozenset[Subset] = frozenset({Subset.SS, Subset.HS})
DEFENDED_SUBSETS: frozenset[Subset] = frozenset({Subset.HH, Subset.SH, Subset.COMPOSED})


class Labels(BaseModel):
    """What is shown, what is asked, what must be defended.

    Raises:
        ValueError: harmful words that need no defence, or a request to defend with nothing harmful in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    visual: Safety
    textual: Safety
    request: Safety

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        shown, asked, defend = (s is Safety.HARMFUL for s in (self.visual, self.textual, self.request))
        if asked and not defend:
            raise ValueError("textual is harmful but request is safe: harmful words must be defended")
        if defend and not (shown or asked):
            raise ValueError("request is harmful but neither visual nor textual is")
        return self

    @property
    def quadrant(self) -> str:
        """``HH``, ``HS``, ``SH`` or ``SS``, video first."""
        return "".join("H" if s is Safety.HARMFUL else "S" for s in (self.visual, self.textual))

    @property
    def subset(self) -> Subset:
        """The subset that these labels belong to when the clip is there."""
        if self.request is Safety.SAFE:
            return Subset(self.quadrant)
        return Subset.COMPOSED if self.textual is Safety.SAFE else Subset(self.quadrant)

    def without_vision(self) -> "Labels":
        """The labels of the text arm: nothing is shown, so ``visual`` is safe and only the words can need a defence."""
        return Labels(visual=Safety.SAFE, textual=self.textual, request=self.textual)
