"""One row of a data set that somebody published: its labels, strictly; its split, category and language, as given.

No words are kept: a pair of clip and query is known by a hash. What is wrong is said without the row's words.

Example:
    >>> row_of({"video": ["a.mp4"], "safety_labels": {"visual": 1, "textual": 0}, "language": "en", "conversations": [
    ...     {"from": "human", "value": "<video>What is it?"}, {"from": "gpt", "value": "A sign."}]}).visual
    <Safety.HARMFUL: 'harmful'>
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from videosafety.core.errors import printable
from videosafety.core.explain import explain
from videosafety.core.labels import Labels, Safety
from videosafety.core.response import ParseStatus, parse

Split = Literal["eval", "sft", "cot", "rl"]
NAMES = ("visual", "textual", "request")
GROUPS = ("safety_labels", "labels")
FLAT = {f"{name}{ending}": name for name in NAMES for ending in ("", "_safety_label", "_label")}
MEDIA = ("video", "videos", "image", "images", "path", "media", "video_path", "image_path")
QUERY = ("query", "question", "problem", "prompt")
CATEGORY = ("category", "subcategory", "sub_category")
LANGUAGE = ("language", "lang")
USER, ASSISTANT = frozenset({"human", "user"}), frozenset({"gpt", "assistant"})
SPLITS: dict[str, Split] = {
    "eval": "eval", "evaluation": "eval", "test": "eval", "bench": "eval", "benchmark": "eval", "vse": "eval",
    "sft": "sft", "cot": "cot", "rl": "rl", "grpo": "rl",
}  # fmt: skip


class LabelError(ValueError):
    """A label that is missing, is none, or does not go with another."""


class PublishedRow(NamedTuple):
    """What a row says of itself. ``pair`` tells clip and query from others; None: it has no clip."""

    pair: str | None
    split: Split | None
    category: str | None
    language: str | None
    visual: Safety | None
    textual: Safety
    request: Safety | None


def row_of(raw: Mapping[str, Any], *, harmful_is: Literal[0, 1] = 1) -> PublishedRow:
    """A row of any known layout.

    Args:
        raw: the object; a null is as good as nothing.
        harmful_is: the digit that means harmful.

    Raises:
        LabelError: see there.
        ValueError: the layout is not known, or the response breaks its grammar.
    """
    query, answer = _said(raw)
    media = sorted(name for key in MEDIA for name in _paths(raw.get(key)))
    labels = _labels(raw, answer, harmful_is=harmful_is)
    if "textual" not in labels or (media and "visual" not in labels):
        missing = "textual" if "textual" not in labels else "visual"
        raise LabelError(f"no {missing} label")
    if not media and labels.get("visual") is Safety.HARMFUL:
        raise LabelError("visual is harmful but there is no media")
    if "request" in labels:
        try:
            Labels(**{"visual": Safety.SAFE, **labels})
        except ValidationError as error:
            raise LabelError("; ".join(explain(error, kind=Labels)[:3])) from None
    told = query if query is not None else str(raw.get("id", ""))
    pair = hashlib.sha256("\0".join([*media, told]).encode(errors="replace")).hexdigest() if media else None
    return PublishedRow(pair, split_of(str(raw.get("split") or "")), _first(raw, CATEGORY), _first(raw, LANGUAGE),
                        labels.get("visual"), labels["textual"], labels.get("request"))  # fmt: skip


def split_of(name: str) -> Split | None:
    """The split that a file, a folder or a column names: ``vst_cot_15k`` → ``cot``."""
    words = re.findall(r"[a-z]+", name.lower())
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def _said(raw: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The user's words and the last answer, from whatever layout. Raises ValueError: it is none that is known."""
    talk = next((raw[key] for key in ("conversations", "messages") if isinstance(raw.get(key), list)), None)
    if talk is not None:
        spoken = [(one.get("from", one.get("role")), one.get("value", one.get("content")))
                  for one in talk if isinstance(one, Mapping)]  # fmt: skip
        asked = [str(words) for who, words in spoken if who in USER]
        answers = [str(words) for who, words in spoken if who in ASSISTANT]
        if not asked or len(spoken) < len(talk):
            raise ValueError("a conversation without a user's message, or with a message that is no object")
        return "\0".join(asked), answers[-1] if answers else None
    solution = raw.get("solution")
    named = [key for key in QUERY if key in raw]
    if not named:
        keys = ", ".join(sorted(printable(str(key))[:40] for key in raw)[:6])
        raise ValueError(f"a layout that is not known (its keys begin with {keys})")
    words = next((raw[key] for key in named if isinstance(raw[key], str)), None)
    return words, solution if isinstance(solution, str) else None


def _labels(raw: Mapping[str, Any], answer: str | None, *, harmful_is: Literal[0, 1]) -> dict[str, Safety]:
    """Labels by name from all places where a row may hold them. Raises LabelError, ValueError."""
    found: list[tuple[str, str, Safety]] = []
    for group in GROUPS:
        held = raw.get(group)
        if not isinstance(held, Mapping):
            continue
        for name in NAMES:
            if held.get(name) is not None:
                found.append((f"{group}.{name}", name, _safety(held[name], f"{group}.{name}", harmful_is)))
    for key, name in FLAT.items():
        if raw.get(key) is not None:
            found.append((key, name, _safety(raw[key], key, harmful_is)))
    found += _tagged(answer, harmful_is=harmful_is) if answer is not None else []
    labels: dict[str, Safety] = {}
    for where, name, label in found:
        if labels.setdefault(name, label) is not label:
            raise LabelError(f"{where} disagrees with another {name} label of the row")
    return labels


def _tagged(answer: str, *, harmful_is: Literal[0, 1]) -> Iterable[tuple[str, str, Safety]]:
    """The labels in a structured response; a solution may go without thinking."""
    parsed = parse(answer)
    if parsed.status is ParseStatus.UNTAGGED:
        return
    whole = parsed.answer and parsed.visual is not None and parsed.textual is not None
    if parsed.status is not ParseStatus.COMPLETE and not (
        whole and parsed.think is None and parsed.status is ParseStatus.MISSING_TAG
    ):
        raise ValueError(f"its response breaks the grammar: {parsed.status.value}")
    for tag, name, label in (("<vidType>", "visual", parsed.visual), ("<textType>", "textual", parsed.textual)):
        if label is not None:
            other = Safety.SAFE if label is Safety.HARMFUL else Safety.HARMFUL
            yield tag, name, label if harmful_is == 1 else other


def _safety(value: object, key: str, harmful_is: Literal[0, 1]) -> Safety:
    if isinstance(value, str) and value in {label.value for label in Safety}:
        return Safety(value)
    if isinstance(value, int | str) and str(value) in ("0", "1"):
        return Safety.HARMFUL if int(value) == harmful_is else Safety.SAFE
    raise LabelError(f"{key} is none of 0, 1, safe, harmful")


def _paths(value: object) -> list[str]:
    values = value if isinstance(value, list | tuple) else [value]
    paths = [one.get("path") if isinstance(one, Mapping) else one for one in values]
    return [path for path in paths if isinstance(path, str) and path]


def _first(raw: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    return next((str(raw[key])[:200] for key in keys if isinstance(raw.get(key), str) and raw[key]), None)
