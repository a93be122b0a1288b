"""From a recipe: the demo, a run, a sweep, the committed tables, the training stages, stored rollouts graded anew."""

import os
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from videosafety.cli.app import Out, Set, Workers, app, console, finish, out_console, show


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
    finish(folder, code)


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
        show(folder)
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
def replay(
    rollouts: Annotated[Path, typer.Argument(help="rollouts.jsonl of a stage 4.")], overrides: Set = None
) -> None:
    """Score stored rollouts under other rewards, without a model: --set gamma_visual=2 (defend.grpo.rewards)."""
    from videosafety.core.recipe import with_overrides
    from videosafety.defend.replay import replay as score
    from videosafety.defend.rewards import RewardConfig
    from videosafety.toyworld import oracle  # noqa: F401 - a judge that --set may name

    config = with_overrides({}, overrides or [], schema=RewardConfig, where="--set")
    faults = Counter[str]()
    out_console.print_json(data=score(rollouts, config, faults=faults)[-1])
    for fault, count in faults.most_common():
        console.print(f"{count} times not scored: {fault}", soft_wrap=True, markup=False, highlight=False)
