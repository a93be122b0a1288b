"""A validation error of pydantic as sentences for a person: which field, what is wrong, what was meant.

The value is quoted only where it is a short name (a label, a language, a field): queries and answers can hold harmful
text, which never goes to a terminal.

Example:
    >>> from videosafety.core.labels import Labels
    >>> try:
    ...     Labels.model_validate({"visual": "saf", "textual": "safe", "request": "safe"})
    ... except ValidationError as error:
    ...     explain(error, kind=Labels)
    ["visual is 'saf'; did you mean 'safe'? known: harmful, safe"]
"""

import re
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from videosafety.core.errors import did_you_mean

_QUOTED = re.compile(r"'([^']*)'")


def explain(error: ValidationError, *, kind: type[BaseModel]) -> list[str]:
    """One sentence for each fault, each starting with the dotted key. ``kind`` is the model that refused."""
    return [_sentence(fault, kind) for fault in error.errors(include_url=False, include_context=True)]


def dotted(loc: Sequence[int | str]) -> str:
    """``("labels", "visual")`` as ``labels.visual``."""
    return ".".join(str(part) for part in loc)


def models_in(annotation: object) -> list[type[BaseModel]]:
    """The models that a type names at any depth: ``tuple[Span, ...] | None`` names Span."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def _sentence(fault: Any, kind: type[BaseModel]) -> str:
    loc, given, context = fault["loc"], fault["input"], fault.get("ctx", {})
    key, last = dotted(loc), str(loc[-1]) if loc else ""
    match fault["type"]:
        case "missing":
            return f"the field {key!r} is missing"
        case "extra_forbidden":
            hint = did_you_mean(last, _known_fields(kind, loc[:-1]))
            return f"unknown field {_short(key)}; {hint}"
        case "literal_error" | "enum":
            known = _QUOTED.findall(str(context["expected"]))
            return f"{key} is {_short(given)}; {did_you_mean(str(given), known)}"
        case "union_tag_invalid":
            known = _QUOTED.findall(str(context["expected_tags"]))
            tag = f"{key}.{str(context['discriminator']).strip(chr(39))}"
            return f"{tag} is {_short(context['tag'])}; {did_you_mean(str(context['tag']), known)}"
        case "union_tag_not_found":
            return f"{key} needs the field {context['discriminator']}"
        case "json_invalid":
            return f"the line is no JSON: {context['error']}"
        case "value_error":
            said = str(context.get("error", fault["msg"]))
            return f"{key}: {said}" if key else said
        case "string_pattern_mismatch":
            return f"{key} is {_short(given)} and does not match {context['pattern']}"
        case _:
            said = str(fault["msg"]).replace("Input should", "should")
            named = f" (is {given})" if isinstance(given, int | float) and not isinstance(given, bool) else ""
            return f"{key or 'the row'} {said[:1].lower()}{said[1:]}{named}"


def _short(value: object) -> str:
    """A quoted value, cut to 60 characters."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= 60 else text[:59] + "…")


def _known_fields(kind: type[BaseModel], loc: Sequence[int | str]) -> set[str]:
    """The fields of the model at ``loc``; list indices and union tags on the way are stepped over."""
    models = [kind]
    for part in loc:
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        models = [inner for field in fields for inner in models_in(field.annotation)] or models
    return {name for model in models for name in model.model_fields}
