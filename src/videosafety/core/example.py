"""One training example: a conversation, the answer to learn (stage 4: to compare with), and what is known of its harm.

A benchmark item is a ``Sample``; an ``Example`` is what a model learns from. A label that nobody gave is None and stays
None: its alarm loss is masked, never guessed and never "safe" (in the released code a missing label was inferred).

Example:
    >>> ask = Turn(role="user", text="What is shown?", media=(Video(path="a.mp4"),))
    >>> one = Example(id="a", turns=(ask,), answer="A sign.", visual=Safety.SAFE)
    >>> one.textual is None, one.target(structured=False)
    (True, 'A sign.')
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from videosafety.core.errors import InputError
from videosafety.core.labels import Labels, Safety
from videosafety.core.records import Identifier, Image, Language, Record, Sample, Video
from videosafety.core.response import render


class Turn(Record):
    """One message; its media are shown before its words."""

    role: Literal["system", "user", "assistant"]
    text: str = Field(max_length=100_000)
    media: tuple[Annotated[Video | Image, Field(discriminator="kind")], ...] = ()


class Example(Record):
    """A conversation that ends with a user's turn, and the assistant's answer to it.

    ``visual`` and ``textual`` are the two alarms' targets, None where unlabelled. ``think`` is the reasoning that stage
    3 teaches, None where the row has none. ``facts`` is what an exact judge checks. Media paths are relative to the
    file's folder, or absolute.
    """

    id: Identifier
    turns: tuple[Turn, ...] = Field(min_length=1)
    answer: str = Field(min_length=1, max_length=100_000)
    think: str | None = Field(default=None, max_length=100_000)
    visual: Safety | None = None
    textual: Safety | None = None
    request: Safety | None = None
    language: Language | None = None
    source: str = Field(default="", max_length=200)
    facts: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_a_question(self) -> Self:
        if self.turns[-1].role != "user":
            raise ValueError("the last turn is not the user's")
        if any(turn.media and turn.role != "user" for turn in self.turns):
            raise ValueError("media outside a user's turn")
        if not self.answer.strip():
            raise ValueError("the answer is blank")
        if self.visual is Safety.HARMFUL and not self.media:
            raise ValueError("visual is harmful but there is no media")
        if self.textual is Safety.HARMFUL and self.request is Safety.SAFE:
            raise ValueError("textual is harmful but request is safe: harmful words must be defended")
        if self.request is Safety.HARMFUL and self.visual is self.textual is Safety.SAFE:
            raise ValueError("request is harmful but neither visual nor textual is")
        return self

    @property
    def media(self) -> tuple[Video | Image, ...]:
        """All media, in the order in which they are shown."""
        return tuple(one for turn in self.turns for one in turn.media)

    def target(self, *, structured: bool) -> str:
        """What the model learns to say: the answer, or the structured response of stage 3.

        Raises:
            InputError: the structured response needs thinking and both labels, or its fields hold our tags.
        """
        if not structured:
            return self.answer
        missing = [name for name in ("think", "visual", "textual") if getattr(self, name) is None]
        if self.think is None or self.visual is None or self.textual is None:
            raise InputError(f"a structured response needs {' and '.join(missing)}", where=self.id,
                             fix="label the row, or leave it out of stage 3")  # fmt: skip
        return render(think=self.think, answer=self.answer, visual=self.visual, textual=self.textual)

    def sample(self) -> Sample:
        """The row as the graders of stage 4 see it: the last question, its first clip or picture, and three labels.

        Raises:
            InputError: a label or the language is missing.
        """
        missing = [name for name in ("visual", "textual", "request", "language") if getattr(self, name) is None]
        if self.visual is None or self.textual is None or self.request is None or self.language is None:
            raise InputError(f"a reward needs {' and '.join(missing)}", where=self.id,
                             fix="label the row, or leave it out of stage 4")  # fmt: skip
        labels = Labels(visual=self.visual, textual=self.textual, request=self.request)
        return Sample(id=self.id, media=next(iter(self.media), None), query=self.turns[-1].text,
                      language=self.language, labels=labels, reference=self.answer, facts=self.facts)  # fmt: skip
