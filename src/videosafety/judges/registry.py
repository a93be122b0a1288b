"""The judges by name: a dict and a good error. A judge joins with cases it must pass: graders check themselves.

Example:
    >>> get("refusl")
    Traceback (most recent call last):
    videosafety.core.errors.InputError: unknown judge 'refusl'; did you mean 'rules'? known: oracle, rules
"""

from collections.abc import Callable, Sequence

from videosafety.core.errors import InputError, did_you_mean
from videosafety.judges.base import Golden, Judge
from videosafety.judges.rules import RuleJudge, golden_cases

_JUDGES: dict[str, Judge] = {}
_GOLDEN: dict[str, Callable[[], Sequence[Golden]]] = {}


def register(judge: Judge, *, golden: Callable[[], Sequence[Golden]]) -> None:
    """Add a judge, with the cases that it must get right: gold and anti-gold for both kinds of request.

    Raises:
        InputError: another judge has the name.
    """
    if judge.name in _JUDGES:
        raise InputError(f"there is a judge {judge.name!r} already", fix="give the new one a name of its own")
    _JUDGES[judge.name] = judge
    _GOLDEN[judge.name] = golden


def get(name: str) -> Judge:
    """The judge of this name.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    if name not in _JUDGES:
        raise InputError(f"unknown judge {name!r}", fix=did_you_mean(name, _JUDGES))
    return _JUDGES[name]


def names() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted(_JUDGES))


def golden(name: str) -> tuple[Golden, ...]:
    """The cases that the judge of this name must get right.

    Raises:
        InputError: there is no such judge.
    """
    get(name)
    return tuple(_GOLDEN[name]())


register(RuleJudge(), golden=golden_cases)
