"""The command line: verbs, one call each.

Exit codes: 0 done; 1 a bug of ours; 2 something in the input is wrong (one sentence says what and how to mend it; a run
with damaged clips still finishes and counts them); 3 more than 2 % of the answers could not be scored; 130 interrupted.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console

from videosafety import __version__
from videosafety.core.errors import InputError, VideoSafetyError, did_you_mean

app = typer.Typer(
    name="videosafety",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Measure and fix the safety that video language models lose once a video is there.\n\n"
    "Start with [bold]videosafety demo[/bold]: the paper's finding on this machine, on harmless symbols, in minutes.",
)
toy = typer.Typer(no_args_is_help=True, help="The toy world: clips with exact ground truth.")
video = typer.Typer(no_args_is_help=True, help="Look at media files as the evaluation sees them.")
data_app = typer.Typer(no_args_is_help=True, help="Training data: check it before anything is trained.")
recipe = typer.Typer(no_args_is_help=True, help="Recipes: what can be set, and what is.")
app.add_typer(toy, name="toy")
app.add_typer(video, name="video")
app.add_typer(recipe, name="recipe")
app.add_typer(data_app, name="data")

INTERRUPTED = 130
# typer carries a click of its own, or uses the installed one
USAGE_FAULT: type[Exception] = next(k for k in typer.BadParameter.__mro__ if k.__name__ == "ClickException")
out_console = Console()
console = Console(stderr=True)

Out = Annotated[Path, typer.Option("--out", help="Folder of the run; the same command again resumes it.")]
Workers = Annotated[int | None, typer.Option(help="Processes for training seeds; default: the cores.", min=1)]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a recipe key: base.steps.align=100.")]


def _version(wanted: bool) -> None:
    if wanted:
        out_console.print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The root of all verbs."""


@app.command()
def demo(out: Out = Path("runs/demo")) -> None:
    """The paper on this machine: committed toy model, stages 1 to 4, video against text after each, one page."""
    run_recipe("toy", out=out)


@app.command("run")
def run_recipe(
    name: Annotated[str, typer.Argument(help="A recipe file, or the name of one in recipes/.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run; the same again resumes it.")] = None,
    overrides: Set = None,
    workers: Workers = None,
) -> None:
    """Run a recipe: every stage that is not done yet, then the headline table and the page."""
    from videosafety.core.recipe import load_recipe
    from videosafety.pipeline import run
    from videosafety.settings import Recipe

    loaded = load_recipe(name, Recipe, overrides=overrides or [])
    folder = out or Path("runs") / loaded.name
    code = run(loaded, out=folder, console=console, workers=workers)
    _finish(folder, code)


@app.command()
def ablate(
    name: Annotated[str, typer.Argument(help="A recipe file, or the name of one in recipes/.")],
    over: Annotated[list[str], typer.Option(help="A key and its values: defend.cot.learning_rate=1e-4,1e-3.")],
    grid: Annotated[bool, typer.Option("--grid", help="Every combination; default: one key at a time.")] = False,
    after: Annotated[str | None, typer.Option(help="Stage whose checkpoint is compared; default: the last.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the sweep; the same again resumes it.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Training seeds (commas), in place of the recipe's.")] = None,
    overrides: Set = None,
    reuse: Annotated[Path | None, typer.Option(help="A run on the same base: its checkpoints are linked.")] = None,
    min_dsr: Annotated[float, typer.Option(help="Target: DSR on HH and composed, percent.", min=0, max=100)] = 90,
    max_frr: Annotated[float, typer.Option(help="Target: FRR, percent.", min=0, max=100)] = 3,
    min_helpful: Annotated[float, typer.Option(help="Target: HELPFUL, percent.", min=0, max=100)] = 95,
    workers: Workers = None,
) -> None:
    """Sweep over settings of a recipe: one table, one plot, and the critical range of every number."""
    from videosafety.core.recipe import load_recipe
    from videosafety.report.sweeps import Targets
    from videosafety.settings import Recipe
    from videosafety.sweep import plan, sweep

    given = [*(overrides or []), *([f"seeds=[{seeds}]"] if seeds else [])]
    planned = plan(load_recipe(name, Recipe, overrides=given), over=over, grid=grid, after=after)
    folder = out or Path("runs") / f"{planned.recipe.name}_sweep_{planned.stage}"
    targets = Targets(dsr=min_dsr / 100, frr=max_frr / 100, helpful=min_helpful / 100)
    done = sweep(planned, out=folder, targets=targets, reuse=reuse, console=console, workers=workers)
    for line in (*done.lines, f"sweep: {done.page}"):
        out_console.print(line, soft_wrap=True, markup=False, highlight=False)
    raise typer.Exit(done.exit_code)


@app.command()
def reproduce(
    out: Annotated[Path, typer.Option("--out", help="Folder of the runs; the same again resumes them.")] = Path("runs"),
    results: Annotated[Path, typer.Option(help="Where the tables to commit are written.")] = Path("results"),
    only: Annotated[list[str] | None, typer.Option(help="Only these recipes.")] = None,
    workers: Workers = None,
) -> None:
    """Train toy bases from scratch on several seeds, stages 1 to 3 and variants, and write the committed tables."""
    from videosafety.core.recipe import load_recipe
    from videosafety.pipeline import run
    from videosafety.publish import publish
    from videosafety.settings import Recipe

    worst = 0
    for name in only or ("toy_small_seeds", "toy_full_seeds"):
        loaded = load_recipe(name, Recipe)
        folder = out / loaded.name
        worst = max(worst, run(loaded, out=folder, console=console, workers=workers))
        publish(folder, results / loaded.name.removesuffix("_seeds"))
        _show(folder)
    raise typer.Exit(worst)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="A recipe file, or the name of one in recipes/.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run; the same again resumes it.")] = None,
    overrides: Set = None,
) -> None:
    """Only the training stages of a recipe: what accelerate launch and torchrun start in every process.

    One GPU: videosafety train RECIPE. Eight: accelerate launch --num_processes 8 -m videosafety.cli train RECIPE.
    Then videosafety run RECIPE evaluates what was trained.
    """
    from videosafety.core.recipe import load_recipe
    from videosafety.pipeline import train as train_stages
    from videosafety.settings import Recipe

    loaded = load_recipe(name, Recipe, overrides=overrides or [])
    first = os.environ.get("RANK", "0") == "0"  # of the processes that a launcher started
    folders = train_stages(loaded, out=out or Path("runs") / loaded.name,
                           console=console if first else Console(stderr=True, quiet=True))  # fmt: skip
    for folder in folders if first else ():
        out_console.print(str(folder), soft_wrap=True, markup=False, highlight=False)


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="A checkpoint folder, a hub id, or any Inspect model such as google/…")],
    data: Annotated[Path, typer.Option(help="A manifest: one JSON record a line; docs/evaluation.md has the fields.")],
    out: Out = Path("runs/evaluate"),
    arms: Annotated[str, typer.Option(help="What is shown: video, text (commas).")] = "video,text",
    judges: Annotated[str, typer.Option(help="Who judges: rules, oracle (commas).")] = "rules",
    taxonomy: Annotated[str, typer.Option(help="Harm categories: vse, toy, or a file.")] = "vse",
    name: Annotated[str, typer.Option(help="What the benchmark is called in tables.")] = "vse",
    stage: Annotated[str, typer.Option(help="Training stage of the model, for tables.")] = "base",
    seed: Annotated[int | None, typer.Option(help="Training seed of the model, for tables.", min=0)] = None,
    fps: Annotated[float, typer.Option(help="Frames taken per second of a clip.")] = 1.0,
    max_frames: Annotated[int, typer.Option(help="Frames at most.")] = 90,
    max_side_px: Annotated[int | None, typer.Option(help="Longer side at most, in pixels.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer at most.")] = 768,
    prompt: Annotated[str, typer.Option(help="Words put around every question: none, policy, self_reminder.")] = "none",
    batch_size: Annotated[int, typer.Option(help="Items in a batch, for local checkpoints.")] = 16,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …, for local checkpoints; default: the best.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, …, for local checkpoints; auto: as saved.")] = "auto",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let a checkpoint run code of its own.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="Only the first so many items.")] = None,
) -> None:
    """Ask a model every item with the video and as text alone, judge the answers, and write the report.

    A damaged clip is recorded, counted and never scored; the command then ends with exit code 2.
    """
    from videosafety.evaluate.folder import exit_code, summarise_run
    from videosafety.evaluate.manifest import load_benchmark
    from videosafety.evaluate.run import Named, inspect_name
    from videosafety.evaluate.run import evaluate as run_evaluation
    from videosafety.evaluate.tasks import decoding_of, names
    from videosafety.report.book import Book
    from videosafety.report.build import build
    from videosafety.report.rows import STAGES

    decoding = decoding_of(fps=fps, max_frames=max_frames, max_side_px=max_side_px, max_new_tokens=max_new_tokens,
                           prompt=prompt)  # fmt: skip
    benchmark = load_benchmark(data, name=name, taxonomy=taxonomy, limit=limit)
    if stage not in STAGES:
        raise InputError(f"unknown stage {stage!r}", where="--stage", fix=did_you_mean(stage, STAGES))
    called = model.rstrip("/").rpartition("/")[2]
    folder = out / "evaluations" / f"{stage}-seed-{0 if seed is None else seed}"
    local = inspect_name(model).startswith("videosafety/")
    book = Book.open(out, name=Path(os.path.abspath(out)).name, seeds=[] if seed is None else [seed], recipe={
        "model": model, "data": str(data), "benchmark": name, "taxonomy": taxonomy, "arms": names(arms),
        "judges": names(judges), "stage": stage, "decoding": decoding.model_dump(mode="json"), "limit": limit,
    })  # fmt: skip
    local_args = {"batch_size": batch_size, "device": device, "dtype": dtype, "trust_remote_code": trust_remote_code}
    with book.stage("evaluate"):
        run_evaluation(model, benchmark, out=folder, arms=names(arms), judges=names(judges), decoding=decoding,
                       named=Named(called, stage=stage, seed=seed), console=console,
                       model_args=local_args if local else None)  # fmt: skip
    with book.stage("report"):
        summarise_run(out)
        build(out)
    _finish(out, exit_code([folder]))


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(help="The folder of a run.")],
    committed: Annotated[Path | None, typer.Option(help="A published summary.json to show beside it.")] = None,
) -> None:
    """Write report.html and tables/*.csv of a run anew from its records."""
    from videosafety.evaluate.folder import summarise_run
    from videosafety.report.build import build

    summarise_run(run_folder)
    build(run_folder, committed=committed)
    _finish(run_folder, 0)


@toy.command("build")
def toy_build(
    out: Annotated[Path, typer.Option("--out", help="A new folder.")],
    size: Annotated[str, typer.Option(help="small (2 languages) or full (10 languages, 19 rules).")] = "small",
    seed: Annotated[int, typer.Option(help="Equal seeds give equal bytes.", min=0)] = 2000,
    clips_per_name: Annotated[int, typer.Option(help="Clips that show each thing.", min=1, max=1000)] = 10,
) -> None:
    """Write the toy benchmark: mp4 and png files with exact labels, and manifest.jsonl."""
    from videosafety.core.progress import progress_bar
    from videosafety.toyworld.build import build_benchmark

    with progress_bar(console) as bar:
        task = bar.add_task("drawing clips", total=None)
        manifest = build_benchmark(
            out, size=size, seed=seed, clips_per_name=clips_per_name,
            on_clip=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    out_console.print(str(manifest), soft_wrap=True, markup=False, highlight=False)


@video.command("probe")
def video_probe(files: Annotated[list[Path], typer.Argument(help="Videos or images.")]) -> None:
    """What a file holds, or one sentence why it cannot be used."""
    from videosafety.core.errors import MediaError
    from videosafety.video.probe import probe

    worst = 0
    for file in files:
        try:
            info = probe(file)
        except MediaError as error:
            worst = error.exit_code
            _complain(error)
            continue
        sound = "with sound" if info.has_audio else "no sound"
        length = "" if info.kind == "image" else f", {info.duration_s:.2f} s at {info.fps or 0:.3g} fps"
        line = f"{file}: {info.kind}, {info.codec}, {info.width_px}x{info.height_px} px{length}, {sound}"
        out_console.print(line, soft_wrap=True, markup=False, highlight=False)
    raise typer.Exit(worst)


@data_app.command("check")
def data_check(
    name: Annotated[str, typer.Argument(help="A recipe with data of its own: a file, or a name in recipes/.")],
    overrides: Set = None,
    media: Annotated[bool, typer.Option(help="Open every media file as well.")] = True,
    base: Annotated[bool, typer.Option(help="Look for special tokens of the base model as well.")] = True,
) -> None:
    """Read, mix and check a recipe's training data; every bad row is named by file and line."""
    from videosafety.core.recipe import load_recipe
    from videosafety.defend.data.check import REWARD, check_sources, demands
    from videosafety.defend.data.markup import markup_of
    from videosafety.settings import Recipe

    loaded = load_recipe(name, Recipe, overrides=overrides or [])
    own = loaded.data
    if own is None or not (own.sources or own.reasoned or own.prompts):
        raise InputError("this recipe brings no training data of its own", where=name, fix="name data.sources in it")
    markup = markup_of(str(loaded.base.checkpoint)) if base else None
    first = demands(*(loaded.defend.config(stage) for stage in loaded.defend.stages if stage not in ("cot", "grpo")))
    for what, sources, demand in (("stages 1 and 2", own.sources, first), ("stage 4", own.prompts, REWARD),
                                  ("stage 3", own.reasoned, demands(loaded.defend.cot))):  # fmt: skip
        if sources:
            _, summary = check_sources(sources, seed=0, demand=demand, markup=markup, with_media=media)
            out_console.print(f"{what}: {summary.model_dump()}", markup=False, highlight=False, soft_wrap=True)


@recipe.command("show")
def recipe_show(name: Annotated[str, typer.Argument(help="A recipe file or name.")], overrides: Set = None) -> None:
    """A recipe with every default filled in, as YAML."""
    import yaml

    from videosafety.core.recipe import load_recipe
    from videosafety.settings import Recipe

    loaded = load_recipe(name, Recipe, overrides=overrides or [])
    text = yaml.safe_dump(loaded.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    out_console.print(text, markup=False, highlight=False)


@recipe.command("knobs")
def recipe_knobs() -> None:
    """Every key that a recipe may set, with default, unit and the paper's value."""
    from videosafety.core.recipe import describe
    from videosafety.settings import Recipe

    for row in describe(Recipe):
        unit = f" {row.unit}" if row.unit else ""
        paper = "" if row.paper is None else f" (paper: {row.paper})"
        line = f"{row.key} = {row.default}{unit}{paper}\n    {row.help}"
        out_console.print(line, markup=False, highlight=False, soft_wrap=True)


def _show(folder: Path) -> None:
    """The headline table of a run (main rows, first judge: the page has the others), then where its page is."""
    from videosafety.core.jsonl import read_json
    from videosafety.core.metrics import SummaryRow
    from videosafety.report.headline import headline
    from videosafety.report.rows import main_rows

    rows = [SummaryRow.model_validate(row) for row in read_json(folder / "summary.json")]
    rows = main_rows(rows)
    first = "oracle" if any(row.judge == "oracle" for row in rows) else rows[0].judge if rows else ""
    out_console.print(headline([row for row in rows if row.judge == first]))
    out_console.print(f"report: {folder / 'report.html'}", soft_wrap=True, markup=False, highlight=False)


@app.command()
def replay(
    rollouts: Annotated[Path, typer.Argument(help="rollouts.jsonl of a stage 4.")], overrides: Set = None
) -> None:
    """Score stored rollouts under other rewards, without a model: --set gamma_visual=2 (defend.grpo.rewards)."""
    from videosafety.core.recipe import with_overrides
    from videosafety.defend.replay import replay as score
    from videosafety.defend.rewards import RewardConfig
    from videosafety.toyworld import oracle  # noqa: F401 - a judge that --set may name

    config = with_overrides({}, overrides or [], schema=RewardConfig, where="--set")
    out_console.print_json(data=score(rollouts, config)[-1])


def _finish(folder: Path, code: int) -> None:
    _show(folder)
    raise typer.Exit(code)


def _complain(error: object) -> None:
    console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line; every mistake a person can mend is one sentence and an exit code, without a traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        code = app(standalone_mode=False)  # else an interruption ends without a sentence
        if code == INTERRUPTED:
            raise KeyboardInterrupt  # typer took the signal
    except USAGE_FAULT as error:
        cast(Any, error).show()
        code = cast(Any, error).exit_code
    except VideoSafetyError as error:
        code = _ended(error, error.exit_code)
    except OSError as error:
        from videosafety.core.store import FIXES

        if error.errno not in FIXES:
            raise
        where = None if error.filename is None else str(error.filename)
        sentence = InputError(os.strerror(error.errno).lower(), where=where, fix=FIXES[error.errno])
        code = _ended(sentence, sentence.exit_code)
    except (KeyboardInterrupt, typer.Abort) as error:
        code = _ended(error, INTERRUPTED, "interrupted; run the same command again to go on")
    sys.exit(code if isinstance(code, int) else 0)


def _ended(error: BaseException, code: int, sentence: str | None = None) -> int:
    """Say why in one sentence; with VIDEOSAFETY_DEBUG set, show the traceback instead."""
    if os.environ.get("VIDEOSAFETY_DEBUG"):
        raise error
    _complain(sentence or error)
    return code


if __name__ == "__main__":
    main()
