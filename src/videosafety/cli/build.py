"""Your own benchmark and training data from a folder of clips: build them, look at the account, publish, take down."""

from pathlib import Path
from typing import Annotated, Any

import typer

from videosafety.cli.app import app, console, out_console
from videosafety.core.errors import InputError, printable

build = typer.Typer(
    invoke_without_command=True,
    help="A benchmark and training data from your own clips.\n\n"
    "videosafety build --recipe RECIPE --clips DIR does all of it, and goes on where it was killed. What people are to"
    " look at lies in OUT/review; put their files into OUT/review/verdicts and run the same again.\n\n"
    "Recipes to begin with: build_toy (clips of videosafety toy footage), build_labelled (clips that you have labelled:"
    " no model is asked), build (clips that models describe). What they may say: videosafety recipe knobs --build.\n\n"
    "Exit codes: 2, something that was given is wrong, or a gate failed; 3, held: mend what it says and run it again.",
)
app.add_typer(build, name="build")

OutArgument = Annotated[Path, typer.Argument(help="The folder of a build, such as runs/build_toy.")]


@build.callback()
def build_all(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Option(help="A recipe file, or the name of one in recipes/.")] = None,
    clips: Annotated[Path | None, typer.Option(help="A folder of clips, or a manifest (JSON lines) of them.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the build; default: runs/NAME of the recipe.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a recipe key: limits.cost_cap_usd=20.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default: the recipe's, or the cores.", min=1)] = None,
) -> None:
    """Build, or go on building."""
    if context.invoked_subcommand is not None:
        return
    if recipe is None or clips is None:
        missing = " and ".join(name for name, given in (("--recipe", recipe), ("--clips", clips)) if given is None)
        raise InputError(f"{missing} missing", where="videosafety build",
                         fix="such as: videosafety build --recipe build_labelled --clips DIR (see --help)")  # fmt: skip
    from videosafety.build.account import table
    from videosafety.build.build import build as run_build
    from videosafety.build.ledger import read_account, read_calls
    from videosafety.build.places import LEDGER
    from videosafety.build.recipe import BuildRecipe
    from videosafety.core.recipe import load_recipe

    given = [*(overrides or []), *([f"engine.workers={workers}"] if workers else [])]
    loaded = load_recipe(recipe, BuildRecipe, overrides=given)
    folder = out or Path("runs") / loaded.name
    try:
        with _Bars() as bars:
            built = run_build(loaded, clips=clips, out=folder, on_row=bars.on_row)
    finally:
        if (folder / LEDGER).is_file():
            _say(table(read_account(folder / LEDGER)))
            if paid := sum(usd for *_, usd in read_calls(folder / LEDGER)):
                _say(f"paid so far: {paid:.4f} USD")
    for finding in built.findings:
        _say(f"gate {finding}")
    if built.waiting_for_people:
        _say(f"{_many(built.waiting_for_people, 'row')} waiting for people: open {folder / 'review'}")
    rows = ", ".join(f"{name} {count}" for name, count in sorted(built.counts.items()))
    _say(f"rows: {rows}")
    _say(f"splits: {folder / 'splits'}")
    _say(f"release: {folder / 'release'}")
    _say(f"figures: {folder / 'build.html'}")


@build.command("status")
def build_status(
    out: OutArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Rows of JSON in place of a table.")] = False,
    figures: Annotated[bool, typer.Option("--figures", help="Coverage and diversity, too; with --json: all.")] = False,
) -> None:
    """The account of all rows, also while a build runs: for every step what went in, went on, ended and waits.

    Under each step stands why rows ended; docs/build.md explains each reason. Then what calls to models have cost.
    """
    from videosafety.build.account import FOR_PEOPLE, lines_of, table
    from videosafety.build.ledger import read_account, read_calls
    from videosafety.build.page import read_figures
    from videosafety.build.page_tables import terminal
    from videosafety.build.places import LEDGER

    counts = read_account(out / LEDGER)
    if as_json and figures:
        out_console.print_json(data=read_figures(out).model_dump(mode="json"))
        return
    if as_json:
        out_console.print_json(data=[count._asdict() for count in counts])
        return
    _say(table(counts))
    for step, model, calls, cost in read_calls(out / LEDGER):
        _say(f"{step}: {calls} calls to {model}, {cost:.4f} USD")
    lines = lines_of(counts)
    waits = sum(n for line in lines for (_, why), n in line.ended.items() if why.startswith(FOR_PEOPLE))
    if waits:
        _say(f"{_many(waits, 'row')} waiting for people: open {out / 'review'}")
    if failed := sum(sum(line.failed.values()) for line in lines):
        _say(f"{_many(failed, 'row')} failed: the same build command tries them again")
    if figures:
        for line in terminal(read_figures(out)).splitlines():
            _say(line)


@build.command("takedown")
def build_takedown(
    out: OutArgument,
    clips: Annotated[list[str], typer.Argument(help="Ids of clips or rows, or SHA-256 of files.")],
    reason: Annotated[str, typer.Option(help="rights, privacy, harm, error or other; it is published.")],
    who: Annotated[str, typer.Option(help="Who asks; kept in OUT/takedown.jsonl, never published.")],
    note: Annotated[str, typer.Option(help="Their words; kept, never published.")] = "",
    date: Annotated[
        str | None, typer.Option(help="The day on which it was asked, YYYY-MM-DD; default: none is kept.")
    ] = None,
) -> None:
    """Withdraw clips, and all rows made of them, from every release to come: run the build command after it.

    Nothing is erased: the clip stays in the ledger, in the clips that the build keeps, and in your own folder.
    """
    from typing import get_args

    from videosafety.build.release.takedown import Reason, take_down

    known = get_args(Reason)
    if reason not in known:
        raise InputError(f"no such reason {reason!r}", where="--reason", fix=f"use one of {', '.join(known)}")
    new = take_down(out, clips, reason=reason, who=who, note=note, date=date)  # type: ignore[arg-type]
    _say(f"{_many(len(new), 'clip')} withdrawn; run the build command again to publish without them")


@build.command("inspect")
def build_inspect(
    path: Annotated[Path, typer.Argument(help="A folder or file of a published set, or a release of a build.")],
) -> None:
    """Read a published set (the paper's, when it appears, or one of a build) and check its counts and labels.

    A release of a build is held to its own manifest, any other set to the paper's numbers. Exit code 2: it has faults.
    """
    from videosafety.build.release.read_published import inspect_published

    found = inspect_published(path)
    for line in str(found).splitlines():
        _say(line)
    raise typer.Exit(found.exit_code)


class _Bars:
    """A bar for each step, with the time left; where nobody watches, a line for each step that is done."""

    def __init__(self) -> None:
        from videosafety.core.progress import progress_bar

        self._bars = progress_bar(console)
        self._step: str | None = None
        self._task: Any = None
        self._total = 0

    def __enter__(self) -> "_Bars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over()
        self._bars.stop()

    def on_row(self, step: str, done: int, total: int) -> None:
        """Told of progress; a step is over when the next one begins."""
        if step != self._step:
            self._over()
            self._step, self._task = step, self._bars.add_task(step, total=total)
        self._total = total
        self._bars.update(self._task, completed=done, total=total)

    def _over(self) -> None:
        if self._step is not None:
            self._bars.update(self._task, completed=self._total)
            if not console.is_terminal:
                console.print(f"{self._step}: {self._total}", markup=False, highlight=False)


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _say(line: str) -> None:
    out_console.print(printable(line), soft_wrap=True, markup=False, highlight=False)
