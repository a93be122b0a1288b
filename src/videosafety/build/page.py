"""page: one static page that shows a build to whoever leads it, and ``figures.json`` with the same numbers.

What went in and where it ended, what waits for people, what goes out, which cells are empty, how diverse the texts are
beside a single template, how annotators agree, what was paid, and the gates. It holds no media, no query, no caption
and no answer. It works offline and without scripts; all names on it are foreign text and are escaped.

Example:
    >>> write_page(Path("runs/ours"), figures)                                               # doctest: +SKIP
    PosixPath('runs/ours/build.html')
"""

import re
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from videosafety.build.account import FOR_PEOPLE
from videosafety.build.figures import Figures, StepFigures
from videosafety.build.page_tables import tables
from videosafety.build.people.review import FOLDER as REVIEW
from videosafety.build.state import State
from videosafety.core.errors import InputError
from videosafety.core.explain import explain
from videosafety.core.store import write_json, write_text
from videosafety.html.page import render

PAGE, FIGURES = "build.html", "figures.json"
_REVIEW_PAGE = re.compile(r"^(clips|rows|agreement)(-[A-Za-z0-9._@+-]+)?\.html$")


class Look(NamedTuple):
    """How an end is shown: a sign and a word beside the colour, and ink that is readable on it."""

    word: str
    sign: str
    fill: str
    ink: str


LOOKS = {  # colours of Okabe and Ito
    "ok": Look("went on", "●", "#0072b2", "#ffffff"),
    "people": Look("waits for people", "◆", "#f0e442", "#000000"),
    "waiting": Look("not come to yet", "○", "#e4e6ea", "#000000"),
    State.PARTIAL.value: Look("partial", "◐", "#56b4e9", "#000000"),
    State.FILTERED.value: Look("filtered", "–", "#a3a8b0", "#000000"),
    State.REFUSED.value: Look("refused", "■", "#cc79a7", "#000000"),
    State.FAILED.value: Look("failed", "▲", "#d55e00", "#000000"),
    State.QUARANTINED.value: Look("quarantined", "✕", "#e69f00", "#000000"),
}


class Part(NamedTuple):
    """A piece of a step's bar; ``share`` of the step's rows."""

    look: Look
    rows: int
    share: float
    reasons: tuple[tuple[str, int], ...]

    @property
    def percent(self) -> str:
        """As a width."""
        return f"{100 * self.share:.3f}"


class Flow(NamedTuple):
    """A step with its bar."""

    step: StepFigures
    parts: tuple[Part, ...]


def write_page(out: Path, figures: Figures) -> Path:
    """Write both files; the page's path. Equal figures give equal bytes. Raises StorageError: the disk refuses."""
    folder = out / REVIEW
    pages = sorted(path.name for path in folder.iterdir() if _REVIEW_PAGE.match(path.name)) if folder.is_dir() else []
    write_json(out / FIGURES, figures.model_dump(mode="json"))
    write_text(out / PAGE, page(figures, review_pages=pages))
    return out / PAGE


def read_figures(out: Path) -> Figures:
    """The figures of a build's last run. Raises InputError: there are none, or the file is something else."""
    path = out / FIGURES
    if not path.is_file():
        raise InputError("there are no figures", where=str(path), fix="run `videosafety build` to its end")
    try:
        return Figures.model_validate_json(path.read_bytes())
    except ValidationError as error:
        what = "; ".join(explain(error, kind=Figures)[:3])
        raise InputError(what, where=str(path), fix="run the build command again: it writes this file") from error


def page(figures: Figures, *, review_pages: list[str]) -> str:
    """The page's HTML; ``review_pages`` are names of files in OUT/review."""
    shown = tables(figures)
    sections = [("flow", "Flow", True), ("people", "People", True), ("release", "Release", True),
                ("coverage", "Coverage", figures.coverage or figures.categories),
                ("diversity", "Diversity", figures.texts), ("agreement", "Agreement", figures.settled),
                ("money", "Money", True), ("gates", "Gates", True),
                ("files", "Broken files", figures.broken)]  # fmt: skip
    return render(
        "build.html.j2", package="videosafety.build", scripts=("page.js",), figures=figures, tables=shown,
        title=f"{figures.name}: the build", sections=[(id_, label) for id_, label, has in sections if has],
        flow=[_flow(step) for step in figures.steps], legend=_legend(figures), pages=review_pages,
        waits=_waits(figures), lead=lead(figures),
    )  # fmt: skip


def lead(figures: Figures) -> str:
    """The build in one sentence."""
    clips = figures.steps[0].rows if figures.steps else 0
    if figures.stopped is not None:
        return f"{clips:,} files went in. The build stopped before its release."
    splits = ", ".join(f"{figures.total(name):,} {name}" for name in ("eval", "sft", "cot", "rl"))
    return f"{clips:,} files went in, {figures.rows_out:,} rows came out: {splits}."


def _flow(step: StepFigures) -> Flow:
    """The bar of a step: what went on first, then the ends, the larger ones first."""
    held: dict[str, dict[str, int]] = {"ok": {"": step.ok}}
    for one in step.ended:
        kind = "people" if one.reason.startswith(FOR_PEOPLE) else one.state.value
        held.setdefault(kind, {})[one.reason] = one.rows
    held["waiting"] = {"": step.waiting}
    parts = []
    for kind, reasons in held.items():
        if rows := sum(reasons.values()):
            told = tuple((reason, count) for reason, count in reasons.items() if reason)
            parts.append(Part(LOOKS[kind], rows, rows / step.rows, told))
    return Flow(step, tuple(parts))


def _legend(figures: Figures) -> list[Look]:
    """The looks that the flow uses."""
    used = {part.look for step in figures.steps for part in _flow(step).parts}
    return [look for look in LOOKS.values() if look in used]


def _waits(figures: Figures) -> list[tuple[str, str, int]]:
    """(step, reason, rows) of all that waits for people."""
    return [(step.step, one.reason, one.rows) for step in figures.steps for one in step.ended
            if one.reason.startswith(FOR_PEOPLE)]  # fmt: skip
