"""showing: gather the figures of a build as it stands, whether it came to its end or stopped, and write them down.

    OUT/build.html      one page for whoever leads the build
    OUT/figures.json    the same numbers

Example:
    >>> course = Course(recipe, plan, ledger, out, people)                                   # doctest: +SKIP
    >>> write_page(out, course.figures(stopped=error))                                       # doctest: +SKIP
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from videosafety.build.account import lines_of
from videosafety.build.annotate.purse import LocalPurse
from videosafety.build.collect import STEP as COLLECT
from videosafety.build.figures import Figures, Made, Sent, figures_of
from videosafety.build.gates import Finding
from videosafety.build.ledger import Ledger, reading
from videosafety.build.people.agreement import PairAgreement
from videosafety.build.people.people import People
from videosafety.build.people.review import FOLDER as REVIEW
from videosafety.build.recipe import BuildRecipe
from videosafety.build.rows import Rows
from videosafety.build.stages import Stage
from videosafety.core.errors import VideoSafetyError

MOST_BROKEN = 100  # files that are named


@dataclass
class Course:
    """A build under way: what it is made of, and the rows and findings that there are so far."""

    recipe: BuildRecipe
    plan: Sequence[Stage]
    ledger: Ledger
    out: Path
    people: People
    made: dict[str, Rows[Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    sent: Sent = field(default_factory=Sent)

    def figures(self, *, stopped: VideoSafetyError | None = None) -> Figures:
        """All figures of it as it stands; ``stopped``: why it ends here."""
        ask, think = self._step("ask"), self._step("think")
        made = {name: self.made.get(name, ()) for name in ("describe", "ask", "paraphrase", "heed")}
        rows = Made(made["describe"], made["paraphrase"] or made["ask"], made["heed"])
        return figures_of(
            name=self.recipe.name, account=lines_of(self.ledger.account()), rows=rows, sent=self.sent,
            findings=self.findings, people=self.people, pairs=_pairs(self.out), paid=_paid(self.ledger.path),
            broken=self._broken(), phrases=ask.phrases, languages=self.recipe.ask.languages,
            compose=getattr(think, "compose", think), stopped=None if stopped is None else _said(stopped),
        )  # fmt: skip

    def _step(self, name: str) -> Any:
        stage = next(stage for stage in self.plan if stage.name == name)
        return stage.make(self.ledger, LocalPurse(None))

    def _broken(self) -> Iterator[tuple[str, str, str]]:
        """Files that no step could read, by the names that they were found under."""
        query = (
            "SELECT c.step, o.reason, o.row FROM current c JOIN outcomes o ON o.step = c.step AND o.key = c.key"
            " JOIN steps s ON s.step = c.step WHERE o.state <> 'ok'"
            " AND (o.reason LIKE 'media:%' OR o.reason LIKE 'crash:%') ORDER BY s.place, c.place LIMIT ?"
        )
        with reading(self.ledger.path) as database:
            found = database.execute(query, (MOST_BROKEN,)).fetchall()
        ids = {row for step, _, row in found if step != COLLECT}
        paths = {clip.id: clip.path for clip in self.made.get(COLLECT, ()) if clip.id in ids} if ids else {}
        for step, reason, row in found:
            yield step, reason, paths.get(row, row)


def _paid(ledger: Path) -> list[tuple[str, str, int, float, int]]:
    """(step, model, calls, USD, calls that are lost) of all that the folder paid."""
    query = ("SELECT step, model, COUNT(*), SUM(cost), SUM(key LIKE '%:lost:%') FROM calls GROUP BY step, model"
             " ORDER BY step, model")  # fmt: skip
    with reading(ledger) as database:
        return list(database.execute(query))


def _pairs(out: Path) -> list[PairAgreement]:
    """The agreement of reviewers that stands beside their pages."""
    path = out / REVIEW / "agreement.json"
    if not path.is_file():
        return []
    return [PairAgreement.model_validate(one) for one in json.loads(path.read_text(encoding="utf-8"))]


def _said(error: VideoSafetyError) -> str:
    """What happened and what to do; not where, since a folder can be moved."""
    return f"{error.what}; {error.fix}" if error.fix else error.what
