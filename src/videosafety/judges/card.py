"""The judge card: what goes beside every number, so that two numbers by two judges are never taken for one.

Example:
    >>> card(get("rules")).measures
    <Measures.REFUSAL: 'refusal'>
"""

from pydantic import Field

from videosafety.core.records import Record
from videosafety.judges.base import Judge, Measures


class JudgeCard(Record):
    """A judge's name, version, what it sees and can tell apart, and the SHA-256 of its rules or policy."""

    name: str
    version: str
    sees: tuple[str, ...]
    measures: Measures
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")


def card(judge: Judge) -> JudgeCard:
    """The card of a judge."""
    return JudgeCard(
        name=judge.name,
        version=judge.version,
        sees=tuple(sorted(judge.sees)),
        measures=judge.measures,
        fingerprint=judge.fingerprint,
    )
