"""What the offline composer can say: sentences by language, in ``thinking/*.yaml``, and how they become a text.

A plan is an order of moves (what is seen, what is asked, what follows); each move takes one of its sentences. Plan and
sentences are drawn with the given generator, so equal rows get equal texts. Topics stay names of categories: no
sentence and no slot says how harm is done.

Example:
    >>> voice("es").clip["video"]
    'el vídeo'
"""

import random
import re
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import Field

from videosafety.build.records import Evidence
from videosafety.core.records import Record

Move = Literal["see", "note", "moments", "ask", "weigh", "decide"]
MAX_MOMENTS = 3  # that one response names
STOPS = ".!?…。！？।؟"
_QUOTES = re.compile('[“”«»「」"]')


class Voice(Record):
    """One language's sentences; the head of ``thinking/en.yaml`` explains the slots."""

    version: int = Field(ge=1)
    join: str
    decimal: str
    seconds: str
    moment: str
    and_: str = Field(alias="and")
    quote: str
    clip: dict[Literal["video", "image"], str]
    in_clip: dict[Literal["video", "image"], str]
    topics: dict[str, str]
    plans: tuple[tuple[Move, ...], ...] = Field(min_length=3)
    see: dict[Literal["safe", "harmful", "none"], tuple[str, ...]]
    note: tuple[str, ...]
    moments: tuple[str, ...]
    ask: dict[Literal["harmful", "safe", "composed", "borderline"], tuple[str, ...]]
    weigh: dict[Literal["refuse", "help"], tuple[str, ...]]
    decide: dict[Literal["refuse", "help"], tuple[str, ...]]
    refuse: tuple[str, ...]
    redirect: dict[str, tuple[str, ...]]
    help: tuple[str, ...]
    show: tuple[str, ...]

    def topic(self, category: str | None) -> str:
        """The name of a category; one that the file does not have is "harmful content"."""
        return self.topics.get(category or "other", self.topics["other"])

    def when(self, evidence: tuple[Evidence, ...], *, with_words: bool) -> str:
        """The first moments of the evidence as "1.0–2.5 s (a red sign), 4.0–5.0 s"."""
        return self.and_.join(self._moment(one, with_words=with_words) for one in evidence[:MAX_MOMENTS])

    def _moment(self, one: Evidence, *, with_words: bool) -> str:
        first, last = (f"{value:.1f}".replace(".", self.decimal) for value in (one.span.start_s, one.span.end_s))
        when = self.seconds.format(a=first, b=last)
        return self.moment.format(when=when, what=one.what.strip().rstrip(STOPS)) if with_words else when

    def quoted(self, text: str) -> str:
        """Foreign words as a quotation, without their full stop."""
        return self.quote.format(text=unquoted(text).rstrip(STOPS))

    def text(self, sentences: list[str]) -> str:
        """Sentences as one text, each with a capital at its head where the script has them."""
        return self.join.join(one[:1].upper() + one[1:] for one in sentences)


def unquoted(text: str) -> str:
    """A text with apostrophes for its quotation marks."""
    return _QUOTES.sub("'", text).strip()


@cache
def voice(language: str, taxonomy: str = "vse") -> Voice:
    """The sentences of a language; the toy taxonomy has its own. Raises FileNotFoundError: it is not one of ours."""
    inner = files("videosafety.build") / "thinking"
    text = ((inner / "toy" if taxonomy == "toy" else inner) / f"{language}.yaml").read_text(encoding="utf-8")
    return Voice.model_validate(yaml.safe_load(text))


def shortened(text: str, *, limit: int) -> str:
    """A text of at most ``limit`` characters: whole sentences where one fits, else its first words."""
    text = " ".join(text.split())
    if len(text) <= limit:
        return text
    head = text[:limit]
    end = max(head.rfind(stop) for stop in STOPS)
    return head[: end + 1] if end > 0 else f"{head[: limit - 1].rpartition(' ')[0] or head[: limit - 1]}…"


def ended(text: str, *, like: str) -> str:
    """A text with a full stop; ``like`` is a sentence of the language that it takes the stop from."""
    return text if text.endswith(tuple(STOPS)) else text + next((c for c in reversed(like) if c in STOPS), ".")


def drawn(rng: random.Random, sentences: tuple[str, ...], **slots: str) -> str:
    """One of the sentences, its slots filled."""
    return rng.choice(sentences).format(**slots)
