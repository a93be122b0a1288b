"""The structured response: what stages 3 and 4 teach the model to say, and the one module that writes and reads it.

Grammar (docs/method.md has the stages), line breaks free, ``0`` = safe and ``1`` = harmful:

    <think>…</think><answer>…</answer><vidType>0|1</vidType><textType>0|1</textType>

Rendering, parsing, rewards and scores all go through here. What stands inside ``<think>`` never counts. Unlike in the
released code a missing label stays missing: it is never guessed from other text and never "safe". Every text has a
status: ``parse`` never raises and is linear in the length of the text.

Example:
    >>> said = render(think="A sign.", answer="No.", visual=Safety.HARMFUL, textual=Safety.SAFE)
    >>> parsed = parse(said)
    >>> parsed.status, parsed.answer, parsed.visual
    (<ParseStatus.COMPLETE: 'complete'>, 'No.', <Safety.HARMFUL: 'harmful'>)
"""

import re
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from videosafety.core.errors import InputError
from videosafety.core.labels import Safety

FIELDS: tuple[str, ...] = ("think", "answer", "vidType", "textType")  # in their order on the wire
MAX_CHARS = 1_000_000  # the longest text that a Response record holds; a longer one is not parsed

_TAG = re.compile(r"<(/?)(think|answer|vidType|textType)>")
_ORDER = [f"<{slash}{name}>" for name in FIELDS for slash in ("", "/")]
_DIGIT = {Safety.SAFE: "0", Safety.HARMFUL: "1"}
_SAFETY = {digit: safety for safety, digit in _DIGIT.items()}


class ParseStatus(StrEnum):
    """What a text is, seen by the grammar. The first that applies, in this order, is the status.

    COMPLETE and UNTAGGED can be judged; every other status is the model's own broken output (INCOHERENT).
    """

    TRUNCATED = "truncated"  # the caller says that generation hit its limit, whatever the text looks like
    OVERSIZE = "oversize"  # longer than MAX_CHARS: not parsed
    EMPTY = "empty"  # nothing but white space; or all tags in place and an answer of nothing but white space
    UNTAGGED = "untagged"  # none of our tags: an ordinary answer, which judges read whole
    DUPLICATE_TAG = "duplicate_tag"  # one of our tags twice
    MISSING_TAG = "missing_tag"  # one of our tags absent (an unclosed <think> swallows all that follows it)
    OUT_OF_ORDER = "out_of_order"  # all eight tags, in another order or one inside another
    STRAY_TEXT = "stray_text"  # text before, between or after the fields
    BAD_LABEL = "bad_label"  # a label that is not 0 or 1
    COMPLETE = "complete"  # the grammar, and nothing else


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """A text and what the grammar sees in it.

    A field is set when its own pair of tags stands exactly once outside ``<think>`` with none of our tags between, so
    that a reward can tell the right label in a broken response from a wrong one; else it is None. ``think`` and
    ``answer`` come without surrounding white space. ``text`` is all that the caller received.
    """

    status: ParseStatus
    think: str | None
    answer: str | None
    visual: Safety | None
    textual: Safety | None
    text: str


def render(*, think: str, answer: str, visual: Safety, textual: Safety) -> str:
    """The structured response with these fields, on one line; ``parse`` gives them back (think and answer stripped).

    Raises:
        InputError: the answer is blank or holds one of our tags, or ``think`` holds ``</think>``.
    """
    if not answer.strip():
        raise InputError("the answer of a structured response is blank", fix="give an answer, or leave the row out")
    if inside := _TAG.search(answer):
        raise InputError(f"the answer holds the tag {inside.group()}", fix="take the tag out of the answer")
    if "</think>" in think:
        raise InputError("the thinking holds the tag </think>", fix="take the tag out of the thinking")
    values = (think.strip(), answer.strip(), _DIGIT[visual], _DIGIT[textual])
    return "".join(f"<{name}>{value}</{name}>" for name, value in zip(FIELDS, values, strict=True))


def parse(text: str, *, truncated: bool = False) -> ParsedResponse:
    """Any text in, a status out; never an exception.

    Args:
        text: what the model said, of any length and content.
        truncated: generation stopped at its token limit, not at the model's own end token.
    """
    if len(text) > MAX_CHARS:
        status = ParseStatus.TRUNCATED if truncated else ParseStatus.OVERSIZE
        return ParsedResponse(status, None, None, None, None, text)
    tags = _tags_outside_think(text)
    found, outside = _fields(text, tags)
    labels = [_SAFETY.get(found.get(name, "")) for name in ("vidType", "textType")]
    status = ParseStatus.TRUNCATED if truncated else _status(text, tags, found, outside)
    return ParsedResponse(status, found.get("think"), found.get("answer"), labels[0], labels[1], text)


def _tags_outside_think(text: str) -> list[re.Match[str]]:
    """Our tags in their order; after ``<think>`` only ``</think>`` is one."""
    tags: list[re.Match[str]] = []
    thinking = False
    for tag in _TAG.finditer(text):
        if thinking and tag.group() != "</think>":
            continue
        thinking = tag.group() == "<think>"
        tags.append(tag)
    return tags


def _fields(text: str, tags: list[re.Match[str]]) -> tuple[dict[str, str], str]:
    """What stands in each well-formed field, stripped; and all that stands outside of them."""
    times = Counter(tag.group() for tag in tags)
    found: dict[str, str] = {}
    outside: list[str] = []
    cursor = 0
    for opening, closing in pairwise(tags):
        name = opening[2]
        pair = (opening.group(), closing.group()) == (f"<{name}>", f"</{name}>")
        if pair and times[opening.group()] == times[closing.group()] == 1:
            found[name] = text[opening.end() : closing.start()].strip()
            outside.append(text[cursor : opening.start()])
            cursor = closing.end()
    outside.append(text[cursor:])
    return found, "".join(outside)


def _status(text: str, tags: list[re.Match[str]], found: dict[str, str], outside: str) -> ParseStatus:
    """The first status that applies, TRUNCATED and OVERSIZE apart."""
    names = [tag.group() for tag in tags]
    if not text.strip():
        return ParseStatus.EMPTY
    if not names:
        return ParseStatus.UNTAGGED
    if len(set(names)) < len(names):
        return ParseStatus.DUPLICATE_TAG
    if len(names) < len(_ORDER):
        return ParseStatus.MISSING_TAG
    if names != _ORDER:
        return ParseStatus.OUT_OF_ORDER
    if not found["answer"]:
        return ParseStatus.EMPTY
    if outside.strip():
        return ParseStatus.STRAY_TEXT
    if not {found["vidType"], found["textType"]} <= set(_SAFETY):
        return ParseStatus.BAD_LABEL
    return ParseStatus.COMPLETE
