"""think: the structured response that stage 3 teaches, in the query's language: thinking, answer, evidence in time.

``Think`` asks a model and holds its answer to the row gates of ``check``; one that fails is asked again once with its
fault. ``Compose`` needs no model: it writes from the description, in many sentence plans a language (``voices``). What
it cannot do: it knows the clip's description and nothing of the world, so a safe question is answered from the caption,
or with ``sample.reference`` where the row has one. Both answer a harmful request with a refusal and another way.

The paper publishes no prompt for its thinking data (section 3); the one here is ours.

Example:
    >>> Compose(seed=0)(asked)[0].answer                                                     # doctest: +SKIP
    "I can't assist with this request, since it is about fraud and scams. …"
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal, Protocol

from pydantic import Field, ValidationError

from videosafety.build.annotate.annotator import reason_of
from videosafety.build.annotate.text import cleaned
from videosafety.build.check import SLACK_S, Check
from videosafety.build.records import Asked, Evidence, Thought
from videosafety.build.state import State, Terminal
from videosafety.build.voices import Voice, drawn, ended, shortened, voice
from videosafety.core.errors import ServerError
from videosafety.core.labels import Safety
from videosafety.core.records import Image, Language, Record, Video
from videosafety.core.response import FIELDS
from videosafety.core.taxonomy import load_taxonomy

TAGS = tuple(f"<{slash}{name}>" for slash in ("", "/") for name in FIELDS)
NOTE_CHARS, ANSWER_CHARS = 400, 1500  # of the caption, in the thinking and in the answer
NAMES: dict[str, str] = {"en": "English", "zh": "Chinese (simplified)", "hi": "Hindi", "es": "Spanish", "ar": "Arabic",
                         "fr": "French", "pt": "Portuguese", "ru": "Russian", "ja": "Japanese",
                         "id": "Indonesian"}  # fmt: skip


@dataclass(frozen=True)
class Compose:
    """The offline step. ``caption_language`` is that of the annotators' words.

    Where the query's language is another, their words are quoted in the answer and left out of the thinking
    (``foreign="quote"``), or a safe question without a reference ends here (``foreign="leave_out"``). A borderline
    question is about a subject of which the composer knows nothing: it describes the clip, or a row of training ends
    here (``borderline``); the benchmark keeps it, since nobody learns that response. ``plans`` and ``choices`` bound
    how many plans, and sentences of a move, are used (0: all; 1 and 1: the single template that the diversity report
    compares with).
    """

    seed: int = 0
    caption_language: Language = "en"
    foreign: Literal["quote", "leave_out"] = "quote"
    borderline: Literal["describe", "leave_out"] = "describe"
    taxonomy: str = "vse"
    plans: int = 0
    choices: int = 0
    name: ClassVar[str] = "think"
    version: ClassVar[int] = 1
    opens_media: ClassVar[bool] = False
    makes: ClassVar[type[Thought]] = Thought

    def __call__(self, asked: Asked) -> Sequence[Thought] | Terminal:
        """The query with its response, or why there is none."""
        evidence = asked.described.evidence if asked.sample.media is not None else ()
        if any(one.span.end_s > asked.described.facts.duration_s + SLACK_S for one in evidence):
            return Terminal(state=State.FILTERED, reason="evidence:outside")
        words = (asked.described.caption, asked.sample.reference or "", *(one.what for one in evidence))
        if any(tag in text for text in words for tag in TAGS):
            return Terminal(state=State.FILTERED, reason="tags:description")
        unanswered = asked.kind == "borderline" and not asked.sample.reference and asked.sample.split != "eval"
        if unanswered and self.borderline == "leave_out":
            return Terminal(state=State.FILTERED, reason="borderline:no_answer")
        text = _Composer(self, asked)
        if text.is_foreign and self.foreign == "leave_out" and text.course == "help" and not asked.sample.reference:
            return Terminal(state=State.FILTERED, reason="caption:language")
        return [Thought(id=f"{asked.id}.t", parent=asked.id, asked=asked, think=text.think(), answer=text.answer(),
                        evidence=evidence, author=f"composer:{self.version}")]  # fmt: skip


class _Composer:
    """One row's words. The generator is seeded by the row and the step's seed alone."""

    def __init__(self, step: Compose, asked: Asked) -> None:
        self.asked, self.sample, self.described, self.step = asked, asked.sample, asked.described, step
        self.voice: Voice = voice(self.sample.language, step.taxonomy)
        digest = hashlib.sha256(f"{step.seed}:{asked.id}".encode()).digest()
        self.rng = random.Random(int.from_bytes(digest[:8], "big"))
        self.is_foreign = self.sample.language != step.caption_language
        self.course: Literal["refuse", "help"] = "refuse" if self.sample.labels.request is Safety.HARMFUL else "help"
        kind: Literal["video", "image"] = "image" if self.described.facts.kind == "image" else "video"
        timed = self.sample.media is not None and kind == "video"
        self.moments = self.voice.when(self.described.evidence, with_words=not self.is_foreign) if timed else ""
        self.slots = {"clip": self.voice.clip[kind], "in_clip": self.voice.in_clip[kind], "moments": self.moments}

    def think(self) -> str:
        """The moves of a plan, one sentence each; moves that have nothing to say are left out."""
        plans = self.voice.plans[: self.step.plans or None]
        sentences = []
        for move in self.rng.choice(plans):
            if move == "see":
                sentences.append(self._say(self.voice.see[self._shows()], topic=self.described.category))
            elif move == "ask":
                sentences.append(self._say(self.voice.ask[self._asks()], topic=self.sample.category))
            elif move == "note" and self.sample.media is not None and not self.is_foreign:
                sentences.append(self._say(self.voice.note, caption=self._caption(NOTE_CHARS)))
            elif move == "moments" and self.moments:
                sentences.append(self._say(self.voice.moments))
            elif move in ("weigh", "decide"):
                said = self.voice.weigh if move == "weigh" else self.voice.decide
                sentences.append(self._say(said[self.course]))
        return self.voice.text(sentences)

    def answer(self) -> str:
        """A refusal with another way, or what the clip shows."""
        if self.course == "refuse":
            risk = _risk(self.step.taxonomy, self.sample.category)
            ways = self.voice.redirect.get(risk, ()) + self.voice.redirect["any"]
            return self.voice.text([self._say(self.voice.refuse, topic=self.sample.category), self._say(ways)])
        if self.sample.reference:
            return self.sample.reference
        helps = tuple(one for one in self.voice.help if one != "{caption}" or not self.is_foreign)
        sentences = [self._say(helps, caption=self._caption(ANSWER_CHARS))]
        if self.moments and self.rng.random() < 0.5:
            sentences.append(self._say(self.voice.show))
        return self.voice.text(sentences)

    def _shows(self) -> Literal["safe", "harmful", "none"]:
        if self.sample.media is None:
            return "none"
        return "harmful" if self.sample.labels.visual is Safety.HARMFUL else "safe"

    def _asks(self) -> Literal["harmful", "safe", "composed", "borderline"]:
        if self.sample.labels.textual is Safety.HARMFUL:
            return "harmful"
        if self.course == "refuse":
            return "composed"
        return "borderline" if self.asked.kind == "borderline" and self.sample.category else "safe"

    def _caption(self, limit: int) -> str:
        text = shortened(self.described.caption, limit=limit)
        stop = self.voice.decide["help"][0]
        return ended(self.voice.quoted(text), like=stop) if self.is_foreign else ended(text, like=stop)

    def _say(self, sentences: tuple[str, ...], *, topic: str | None = None, caption: str = "") -> str:
        few = sentences[: self.step.choices or None]
        return drawn(self.rng, few, topic=self.voice.topic(topic), caption=caption, **self.slots)


@cache
def _risk(taxonomy: str, category: str | None) -> str:
    """The id of the risk that a category belongs to, or ``any``."""
    found = load_taxonomy(taxonomy)
    known = {one.id for one in found.subcategories}
    return found.risk_of(category).id if category in known and category is not None else "any"


class Draft(Record):
    """What a model is asked for: the fields of a response, and how it reads both sides."""

    think: str = Field(min_length=1, max_length=20_000, description="the reasoning, in the language of the question")
    answer: str = Field(min_length=1, max_length=20_000, description="what the user reads, in the same language")
    visual: Safety = Field(description="is what the clip shows harmful?")
    textual: Safety = Field(description="is what the words alone ask harmful?")
    evidence: tuple[Evidence, ...] = Field(default=(), description="moments of the clip that the reasoning names")


class Refused(Exception):
    """A client raises it when its model refused to work on the row."""


class Client(Protocol):
    """A model behind a wire: keeps what was paid, waits, retries."""

    async def ask(self, prompt: str, schema: dict[str, Any], *, media: Video | Image | None) -> dict[str, Any]:
        """An object of the schema. Raises Refused, ServerError."""


@dataclass(frozen=True)
class Think:
    """The step over a model. ``model`` is its name: part of what a row is, and its author.

    A row of the benchmark needs no response, and no call is paid for one: ``compose`` writes it.
    """

    model: str
    client: Client = field(compare=False)
    check: Check = field(default_factory=Check, compare=False)
    compose: Compose = field(default_factory=Compose)
    name: ClassVar[str] = "think"
    version: ClassVar[int] = 2
    makes: ClassVar[type[Thought]] = Thought

    async def run(self, asked: Asked) -> Sequence[Thought] | Terminal:
        """The query with its response; FAILED after a second answer that passes no gate."""
        if asked.sample.split == "eval":
            return self.compose(asked)
        fault, prompt = "", prompt_of(asked)
        for _ in range(2):
            again = f"\n\nYour last answer failed this check: {fault}. Write it anew." if fault else ""
            try:
                said = await self.client.ask(prompt + again, Draft.model_json_schema(), media=asked.sample.media)
            except Refused:
                return Terminal(state=State.REFUSED, reason=f"model:{self.model}"[:200])
            except ServerError as error:
                return Terminal(state=State.FAILED, reason=reason_of(error))
            thought, fault = self._thought(asked, said)
            if thought is not None:
                return [thought]
        return Terminal(state=State.FAILED, reason=f"response:{fault}"[:200])

    def _thought(self, asked: Asked, said: dict[str, Any]) -> tuple[Thought | None, str]:
        """The row that an answer makes, or the check that it fails."""
        try:
            draft = Draft.model_validate(said)
        except ValidationError as error:
            return None, "schema:" + ".".join(str(part) for part in error.errors()[0]["loc"])
        evidence = tuple(one.model_copy(update={"what": cleaned(one.what)}) for one in draft.evidence)
        if not all((cleaned(draft.think), cleaned(draft.answer), *(one.what for one in evidence))):
            return None, "schema:blank"
        labels = asked.sample.labels
        for side, given, right in (("visual", draft.visual, labels.visual), ("textual", draft.textual, labels.textual)):
            if given is not right:
                return None, f"labels:{side}"
        thought = Thought(id=f"{asked.id}.t", parent=asked.id, asked=asked, think=cleaned(draft.think),
                          answer=cleaned(draft.answer), evidence=evidence, author=self.model)  # fmt: skip
        fault = self.check.fault(thought)
        return (thought, "") if fault is None else (None, fault)


def prompt_of(asked: Asked) -> str:
    """What a model is asked, in English; its answer is to be in the query's language."""
    sample, described = asked.sample, asked.described
    labels = sample.labels
    seen = "\n".join(f"- {one.span.start_s:.1f} s to {one.span.end_s:.1f} s: {one.what}" for one in described.evidence)
    task = (
        "The request must not be served. Answer with one short refusal that names the subject in general terms and one"
        " safe alternative. Do not repeat the request, give no details of the subject, and do not lecture."
        if labels.request is Safety.HARMFUL
        else "The request is legitimate. Answer it helpfully and concretely from what the clip shows. Do not refuse and"
        " do not warn without need."
    )
    return "\n".join([
        "Write the response that a careful assistant should give to a question about a clip.",
        f"Language of the thinking and of the answer: {NAMES[sample.language]}.",
        f"Question: {sample.query}",
        f"Description of the clip (lasts {described.facts.duration_s:.1f} s): {described.caption}"
        if sample.media is not None else "There is no clip.",
        *([f"Moments of the clip:\n{seen}"] if seen and sample.media is not None else []),
        f"Known: what is shown is {labels.visual.value}; what the words alone ask is {labels.textual.value}; category:"
        f" {sample.category or described.category or 'none'}. Repeat both judgements in `visual` and `textual`.",
        task,
        "In `think`, reason in natural sentences: what can be seen and when, what is asked, how both belong together,"
        " what follows. Vary order and wording from one response to the next; use no headings and no lists.",
        "In `evidence`, name only moments inside the clip, in seconds. Use no tags such as <think> in any field.",
    ])  # fmt: skip
