"""The labels of a foreign row: where they may stand, how they may be written, and what a source says about them.

On the wire 0 = safe and 1 = harmful (docs/method.md); data of the opposite polarity exists and is read only when its
source says ``harmful_is: 0``, which turns digits and never words. A label is never guessed: in the released code a row
without labels was searched for key words and otherwise called safe, and general data was called safe without being
asked. Here it is an error, or it is masked because the recipe says so.

Example:
    >>> labels_of({"safety_labels": {"visual": 1, "textual": "safe"}}, harmful_is=1)
    {'visual': <Safety.HARMFUL: 'harmful'>, 'textual': <Safety.SAFE: 'safe'>}
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Literal

from videosafety.core.errors import did_you_mean
from videosafety.core.example import Example
from videosafety.core.labels import Safety

Policy = Literal["given", "safe", "none"]

NAMES = ("visual", "textual", "request")
GROUPS = ("safety_labels", "labels")  # {"visual": 1, "textual": 0}, with or without "request"
FLAT = {f"{name}{ending}": name for name in NAMES for ending in ("_safety_label", "_label")}

_WORD = re.compile(r"[A-Za-z0-9_-]{1,20}")


def labels_of(row: dict[str, Any], *, harmful_is: Literal[0, 1]) -> dict[str, Safety]:
    """The labels that a row gives under any of the known keys; null is as good as absent.

    Raises:
        ValueError: a label outside {0, 1, safe, harmful}, an unknown name, or two places that disagree.
    """
    found: list[tuple[str, str, Safety]] = []
    for key in GROUPS:
        group = row.get(key)
        if group is None:
            continue
        if not isinstance(group, dict):
            raise ValueError(f"{key} should be an object with visual and textual")
        for name, value in group.items():
            if name not in NAMES and value is not None:
                raise ValueError(f"unknown label {key}.{quoted(name)}; {did_you_mean(str(name), NAMES)}")
            if value is not None:
                found.append((f"{key}.{name}", name, safety(value, key=f"{key}.{name}", harmful_is=harmful_is)))
    for key, name in FLAT.items():
        if row.get(key) is not None:
            found.append((key, name, safety(row[key], key=key, harmful_is=harmful_is)))
    return agreed(found)


def agreed(found: Iterable[tuple[str, str, Safety]]) -> dict[str, Safety]:
    """Labels by name from (where it stands, name, label). Raises ValueError: two places disagree."""
    first: dict[str, tuple[str, Safety]] = {}
    for where, name, label in found:
        seen_in, seen = first.setdefault(name, (where, label))
        if seen is not label:
            raise ValueError(f"the {name} label is {seen.value} in {seen_in} but {label.value} in {where}")
    return {name: label for name, (_, label) in first.items()}


def safety(value: object, *, key: str, harmful_is: Literal[0, 1]) -> Safety:
    """One label: 0, 1, "0", "1", "safe" or "harmful". Raises ValueError for anything else, true and 1.0 included."""
    if isinstance(value, str) and value in {label.value for label in Safety}:
        return Safety(value)
    if isinstance(value, int | str) and str(value) in ("0", "1"):
        return Safety.HARMFUL if int(str(value)) == harmful_is else Safety.SAFE
    raise ValueError(f"{key} is {quoted(value)} and not one of 0, 1, safe, harmful")


def quoted(value: object) -> str:
    """A value as an error may show it: a short word or number; of anything else only its type."""
    text = str(value)
    if isinstance(value, str | int | float) and _WORD.fullmatch(text):
        return repr(text) if isinstance(value, str) else text
    return f"{type(value).__name__} of {len(text)} characters" if isinstance(value, str) else type(value).__name__


def settle(example: Example, policy: Policy, *, ignored: frozenset[str] = frozenset()) -> tuple[Example, bool]:
    """The example under its source's word on labels, and whether labels that it gave were dropped.

    ``given``: both labels must be there; a row without media has nothing to show, so its visual label may be absent and
    stays None. ``safe``: all are safe. ``none``: all are masked. ``ignored`` are keys that nothing read, for the hint.

    Raises:
        ValueError: a label is missing under ``given``, or harmful under ``safe``.
    """
    labels = {name: getattr(example, name) for name in NAMES}
    if policy == "safe":
        harmful = [name for name in NAMES if labels[name] is Safety.HARMFUL]
        if harmful:
            raise ValueError(f"the {harmful[0]} label is harmful, but the source declares labels: safe")
        return example.model_copy(update=dict.fromkeys(NAMES, Safety.SAFE)), False
    if policy == "none":
        dropped = any(label is not None for label in labels.values())
        return example.model_copy(update=dict.fromkeys(NAMES)), dropped
    needed = NAMES[:2] if example.media else NAMES[1:2]
    missing = [name for name in needed if labels[name] is None]
    if missing:
        close = [key for key in sorted(ignored) if get_close_matches(key, [*GROUPS, *FLAT], n=1, cutoff=0.8)]
        hint = f" ({quoted(close[0])} is no key that is read)" if close else ""
        raise ValueError(f"no {' and no '.join(missing)} label{hint}; give it as safety_labels, or declare the source's"
                         " labels: safe or labels: none")  # fmt: skip
    return example, False
