"""Votes on a clip: how several become one description, and how well annotators agree.

All say the same visual label and category: ``agreement``. More than half do: ``majority``. Else an adjudicator decides,
or the description is ``unsettled`` and carries the most careful vote until a person looks. Caption and evidence are
those of one vote, the first with the chosen labels: what one annotator saw is not mixed with what another did.

Agreement is Krippendorff's alpha over nominal labels (``judges.kappa``): 1 is perfect, 0 is chance; annotators may be
missing from clips that they refused.

Example:
    >>> settled([vote, vote, other])                                                         # doctest: +SKIP
    (Vote(annotator='a', …), 'majority')
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from videosafety.build.records import Described, Vote
from videosafety.core.labels import Safety
from videosafety.judges.kappa import Agreement, krippendorff

By = Literal["agreement", "majority", "unsettled"]
NO_HARM = "none"  # what a harmless clip has for a category


class VotesAgree(NamedTuple):
    """Alphas over clips that two or more annotators described; ``category`` has harmless clips as one more category."""

    visual: Agreement
    category: Agreement


def settled(votes: Sequence[Vote]) -> tuple[Vote, By]:
    """The vote that stands for all, and why; ``unsettled``: no label has more than half of them.

    Raises:
        ValueError: there are no votes.
    """
    if not votes:
        raise ValueError("no votes")
    labels, count = Counter(label_of(vote) for vote in votes).most_common(1)[0]
    if 2 * count > len(votes):
        by: By = "agreement" if count == len(votes) else "majority"
        return next(vote for vote in votes if label_of(vote) == labels), by
    harmful = [vote for vote in votes if vote.visual is Safety.HARMFUL]
    labels = Counter(label_of(vote) for vote in harmful).most_common(1)[0][0]
    return next(vote for vote in harmful if label_of(vote) == labels), "unsettled"


def label_of(vote: Vote) -> tuple[Safety, str | None]:
    """What votes are counted by."""
    return vote.visual, vote.category


def agreement(described: Iterable[Described]) -> VotesAgree:
    """How well annotators agree, with intervals that take near duplicates for one clip. A person's votes count too.

    The clips are gone through once; nothing but their labels is kept.
    """
    clusters: list[str] = []
    votes: list[dict[str, tuple[Safety, str | None]]] = []
    for one in described:
        clusters.append(one.cluster)
        votes.append({vote.annotator: label_of(vote) for vote in one.votes})
    names = sorted({name for row in votes for name in row})
    visual = [[row[name][0].value if name in row else None for name in names] for row in votes]
    category = [[(row[name][1] or NO_HARM) if name in row else None for name in names] for row in votes]
    return VotesAgree(krippendorff(visual, clusters=clusters), krippendorff(category, clusters=clusters))
