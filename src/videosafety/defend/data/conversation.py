"""A foreign conversation row as an ``Example``: the released code's layout and that of chat datasets.

Layouts: ``conversations`` of {"from": human | gpt | system, "value": text with <video> and <image>}, and ``messages``
(or ``prompt`` and ``completion``) of {"role", "content": text or typed parts}. Media stand in ``video``, ``videos``,
``image`` or ``images``, or in a typed part itself. The last answer is learned; what comes before it is context. Where
we differ from the released code: nothing is repaired, guessed or replaced, and labels never travel in the text; its
``$v$t`` markers are read only on request. Errors name keys and numbers and never quote what was said.

Example:
    >>> row = {"video": ["a.mp4"], "visual_safety_label": 0, "textual_safety_label": 0, "conversations": [
    ...     {"from": "human", "value": "<video>\\nWhat is shown?"}, {"from": "gpt", "value": "A sign."}]}
    >>> example_of(row, row_id="row-1", legacy_labels=False, harmful_is=1).answer
    'A sign.'
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from videosafety.core.errors import did_you_mean
from videosafety.core.example import Example, Turn
from videosafety.core.explain import explain
from videosafety.core.labels import Safety
from videosafety.core.records import Image, Video
from videosafety.core.response import ParsedResponse, ParseStatus, parse, render
from videosafety.defend.data.labelling import FLAT, GROUPS, agreed, labels_of, quoted, safety

Role = Literal["system", "user", "assistant"]
Kind = Literal["video", "image"]

ROLES: dict[str, Role] = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system",
}  # fmt: skip
TALKS = ("conversations", "messages", "prompt", "completion")
MEDIA: dict[str, Kind] = {"video": "video", "videos": "video", "image": "image", "images": "image"}
REFUSED = ("stream", "start_time", "end_time")  # a part of a clip: training on the whole would be something else
KEYS = frozenset({"id", "language", *TALKS, *MEDIA, *REFUSED, *GROUPS, *FLAT})

_PLACEHOLDER = re.compile(r"<(video|image)>")
_MARKER = re.compile(r"\$([01])\$([01])")


@dataclass(frozen=True)
class Part:
    """A piece of a message: words, or a medium whose path is None where a column of the row holds it."""

    kind: Literal["text", "video", "image"]
    value: str | None


@dataclass(frozen=True)
class Message:
    """One message, its parts in their order."""

    role: Role
    parts: tuple[Part, ...]


def example_of(row: dict[str, Any], *, row_id: str, legacy_labels: bool, harmful_is: Literal[0, 1]) -> Example:
    """The example that a row holds, with the labels that it gives; a label that it does not give is None.

    Args:
        row: the object; null values are as good as absent, since Arrow fills missing keys with them.
        row_id: the id where the row has none.
        legacy_labels: whether ``$v$t`` markers in the words are labels; otherwise they are a fault.
        harmful_is: the digit that means harmful, in fields, markers and tags alike.

    Raises:
        ValueError: one sentence on what is wrong, without the row's words.
    """
    for key in REFUSED:
        if row.get(key) not in (None, False):
            raise ValueError(f"{key} asks for a part of a clip, which is not supported: cut the clip")
    messages = [_message(one, number) for number, one in enumerate(_talk(row), start=1)]
    found = [("the row's fields", name, label) for name, label in labels_of(row, harmful_is=harmful_is).items()]
    messages, marked = _markers(messages, legacy_labels=legacy_labels, harmful_is=harmful_is)
    turns, (answer, said) = _turns(messages, _columns(row), harmful_is=harmful_is)
    if said is not None:
        tagged = (("visual", "vidType", said.visual), ("textual", "textType", said.textual))
        found += [(f"<{tag}>", name, label) for name, tag, label in tagged if label is not None]
    fields: dict[str, Any] = {
        "id": _id(row.get("id"), row_id), "turns": turns, "answer": answer, "think": said.think if said else None,
        **agreed(found + marked),
    }  # fmt: skip
    try:
        return Example(**fields, language=row.get("language"))
    except ValidationError as error:
        raise ValueError("; ".join(explain(error, kind=Example)[:3])) from None


def _id(given: object, row_id: str) -> str:
    if given is None:
        return row_id
    if isinstance(given, str) or type(given) is int:
        return str(given)
    raise ValueError("id should be text or a whole number")


def _talk(row: dict[str, Any]) -> list[Any]:
    """The row's messages, from the one key that holds them."""
    found = [key for key in TALKS if row.get(key) is not None]
    if found not in (["conversations"], ["messages"], ["prompt", "completion"]):
        given = " and ".join(found) or "none of these"
        raise ValueError(f"a row needs conversations, or messages, or prompt and completion; it has {given}")
    for key in found:
        if not isinstance(row[key], list):
            raise ValueError(f"{key} should be a list of messages")
    return [one for key in found for one in row[key]]


def _message(one: object, number: int) -> Message:
    if not isinstance(one, dict):
        raise ValueError(f"message {number} should be an object")
    given = {key for key, value in one.items() if value is not None}
    speaker, words = ("from", "value") if "from" in given else ("role", "content")
    if unread := sorted(given - {speaker, words}):
        raise ValueError(f"message {number} holds the field {quoted(unread[0])}, which is not read")
    if not {speaker, words} <= given:
        raise ValueError(f"message {number} needs {speaker} and {words}")
    role = ROLES.get(one[speaker]) if isinstance(one[speaker], str) else None
    if role is None:
        raise ValueError(f"message {number} is from {quoted(one[speaker])}; {did_you_mean(str(one[speaker]), ROLES)}")
    parts = _parts(one[words], number)
    if role != "user" and any(part.kind != "text" for part in parts):
        raise ValueError(f"message {number} holds media or a placeholder but is not the user's")
    return Message(role, parts)


def _parts(content: object, number: int) -> tuple[Part, ...]:
    """The parts of a message's content: text with placeholders, or a list of typed parts."""
    if isinstance(content, str):
        return _split(content)
    if not isinstance(content, list):
        raise ValueError(f"message {number} should hold text or a list of parts")
    parts: list[Part] = []
    for one in content:
        kind = one.get("type") if isinstance(one, dict) else None
        if kind == "text" and isinstance(one.get("text"), str):
            parts += _split(one["text"])
        elif kind in ("video", "image"):
            if one.get("url") is not None:
                raise ValueError(f"message {number} names its {kind} by URL; download it and give its path")
            inside = one.get(kind) if one.get(kind) is not None else one.get("path")
            parts.append(Part(kind, None if inside is None else _path(inside, key=f"message {number}")))
        else:
            raise ValueError(f"message {number} holds a part that is neither text, nor video, nor image")
    return tuple(parts)


def _split(text: str) -> tuple[Part, ...]:
    pieces = _PLACEHOLDER.split(text)
    if len(pieces) == 1:
        return (Part("text", text),)
    kinds = [Part("video" if kind == "video" else "image", None) for kind in pieces[1::2]]
    words = [Part("text", piece.strip()) for piece in pieces[::2]]
    woven = [part for pair in zip(words, kinds, strict=False) for part in pair] + [words[-1]]
    return tuple(part for part in woven if part.kind != "text" or part.value)


def _columns(row: dict[str, Any]) -> dict[Kind, list[str]]:
    """The paths that the row's own media columns hold, by kind, in their order."""
    paths: dict[Kind, list[str]] = {"video": [], "image": []}
    for key, kind in MEDIA.items():
        value = row.get(key)
        values = value if isinstance(value, list) else [] if value is None else [value]
        paths[kind] += [_path(one, key=key) for one in values]
    return paths


def _path(value: object, *, key: str) -> str:
    if isinstance(value, dict):  # a media column of a dataset, left undecoded
        if value.get("bytes") is not None:
            raise ValueError(f"{key} holds the media itself; save it as a file and give its path")
        value = value.get("path")
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} should be the path of a file")
    return value


def _markers(
    messages: list[Message], *, legacy_labels: bool, harmful_is: Literal[0, 1]
) -> tuple[list[Message], list[tuple[str, str, Safety]]]:
    """The messages without ``$v$t`` markers, and the labels of these. Raises ValueError: markers nobody asked for."""
    marked: list[tuple[str, str, Safety]] = []
    clean: list[Message] = []
    for number, message in enumerate(messages, start=1):
        parts: list[Part] = []
        for part in message.parts:
            for visual, textual in _MARKER.findall(part.value) if part.kind == "text" and part.value else ():
                if not legacy_labels:
                    raise ValueError(f"message {number} carries labels as a $v$t marker; set legacy_labels: true on"
                                     " its source to read such markers")  # fmt: skip
                where = f"the marker of message {number}"
                marked += [(where, "visual", safety(visual, key=where, harmful_is=harmful_is)),
                           (where, "textual", safety(textual, key=where, harmful_is=harmful_is))]  # fmt: skip
            bare = part.kind == "text" and part.value is not None and _MARKER.search(part.value)
            parts.append(Part("text", _MARKER.sub("", part.value or "").strip()) if bare else part)
        clean.append(Message(message.role, tuple(parts)))
    return clean, marked


def _turns(
    messages: list[Message], columns: dict[Kind, list[str]], *, harmful_is: Literal[0, 1]
) -> tuple[list[Turn], tuple[str, ParsedResponse | None]]:
    """All turns before the last answer, and that answer with its fields where it is structured."""
    roles = [message.role for message in messages]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if not spoken or spoken[-1] != "assistant":
        raise ValueError("the conversation does not end with an answer of the assistant")
    if any(role != ("user", "assistant")[place % 2] for place, role in enumerate(spoken)):
        raise ValueError("user and assistant do not take turns, user first")
    for kind, paths in columns.items():
        num = sum(part.kind == kind and part.value is None for message in messages for part in message.parts)
        if num != len(paths):
            raise ValueError(f"{num} <{kind}> placeholders for {len(paths)} {kind} paths")
    left = {kind: iter(paths) for kind, paths in columns.items()}
    turns: list[Turn] = []
    said: tuple[str, ParsedResponse | None] = ("", None)
    for number, message in enumerate(messages, start=1):
        words, media = _words(message.parts), []
        for part in message.parts:
            if part.kind == "video":
                media.append(_medium(Video, part.value or next(left["video"])))
            elif part.kind == "image":
                media.append(_medium(Image, part.value or next(left["image"])))
        if message.role == "assistant":
            said = _said(words, number, harmful_is=harmful_is)
            words = said[0] if said[1] is None else _rendered(said[1])
        if not words.strip() and not media:
            raise ValueError(f"message {number} is empty")
        try:
            turns.append(Turn(role=message.role, text=words, media=tuple(media)))
        except ValidationError as error:
            raise ValueError(f"message {number}: {explain(error, kind=Turn)[0]}") from None
    return turns[:-1], said


def _words(parts: tuple[Part, ...]) -> str:
    """A message's words: untouched where they are all that it holds, else its pieces joined by a space."""
    texts = [part.value or "" for part in parts if part.kind == "text"]
    return texts[0] if len(parts) == len(texts) == 1 else " ".join(text.strip() for text in texts if text.strip())


def _medium(kind: type[Video] | type[Image], path: str) -> Video | Image:
    try:
        return kind(path=path)
    except ValidationError as error:
        raise ValueError(f"a media path does not fit: {explain(error, kind=kind)[0]}") from None


def _said(text: str, number: int, *, harmful_is: Literal[0, 1]) -> tuple[str, ParsedResponse | None]:
    """An assistant's answer and its fields, None for a plain one. Raises ValueError: it breaks the grammar."""
    parsed = parse(text)
    if parsed.status is ParseStatus.UNTAGGED:
        return text, None
    if parsed.status is not ParseStatus.COMPLETE or parsed.answer is None:
        raise ValueError(f"the answer in message {number} breaks the response grammar: {parsed.status.value}")
    if harmful_is == 1:
        return parsed.answer, parsed
    turned = {Safety.SAFE: Safety.HARMFUL, Safety.HARMFUL: Safety.SAFE}
    visual, textual = (None if label is None else turned[label] for label in (parsed.visual, parsed.textual))
    return parsed.answer, ParsedResponse(parsed.status, parsed.think, parsed.answer, visual, textual, parsed.text)


def _rendered(said: ParsedResponse) -> str:
    """A structured answer as it stands in the context of a later one: in our polarity."""
    if said.answer is None or said.visual is None or said.textual is None:
        return said.text
    return render(think=said.think or "", answer=said.answer, visual=said.visual, textual=said.textual)
