"""The paper as an ordered list of stages; run it, kill it, run it again.

    benchmark   the toy clips and questions                       -> benchmark/
    base        a video LLM that is safe on text                  -> bases/seed-N/ (or the committed checkpoint)
    evaluate    the same items with the video and as text alone   -> evaluations/base-seed-N/
    report      tidy rows and one page                            -> summary.json, report.html

A stage writes a folder and is then marked in ``run.json`` with what it cost; a marked stage is not repeated. Stages of
the defence (alarm initialisation, AT-SFT, reasoning cold start, GRPO) join this list when they exist.

Run: ``videosafety run recipes/toy.yaml --out runs/demo``

Example:
    >>> run(load_recipe("toy", Recipe), out=Path("runs/demo"))                  # doctest: +SKIP
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from rich.console import Console

from videosafety.core.errors import InputError
from videosafety.core.jsonl import read_json
from videosafety.core.metrics import SummaryRow
from videosafety.core.recipe import Config, knob
from videosafety.core.store import write_json, write_text
from videosafety.evaluate.folder import exit_code, summarise_run
from videosafety.evaluate.manifest import load_benchmark, progress_bar
from videosafety.evaluate.run import Named, evaluate
from videosafety.evaluate.tasks import Decoding
from videosafety.report.book import Book
from videosafety.report.build import build as build_report
from videosafety.report.markdown import markdown
from videosafety.report.rows import main_rows, split_rows
from videosafety.toyworld.build import MANIFEST, BenchmarkConfig, build_benchmark

BASES = Path(__file__).parent / "toyworld" / "bases"  # committed checkpoints, by size of the world
RESULTS = Path(__file__).parents[2] / "results"  # in a clone: the committed tables
NOTICE = "Toy world: harm is a harmless symbol. These numbers say nothing about real models."


class BaseSteps(Config):
    """Size of the training of the toy base model; everything else is ``toyworld.base.BaseConfig``."""

    pretrain: int = knob(2400, unit="optimiser steps", help="helpful about everything", ge=1)
    align: int = knob(200, unit="optimiser steps", help="aligned on text alone", ge=1)


class BaseStage(Config):
    """Where the base model comes from."""

    source: Literal["committed", "train"] = knob("committed", help="the committed checkpoint, or trained from scratch")
    steps: BaseSteps = Field(default=BaseSteps(), description="how long it is trained")


class EvaluateStage(Config):
    """What is asked and who judges."""

    arms: tuple[str, ...] = knob(("video", "text"), help="what is shown of each item")
    judges: tuple[str, ...] = knob(("oracle",), help="who judges the answers")
    decoding: Decoding = Field(default=Decoding(max_new_tokens=48), description="how clips are shown and answers end")
    batch_size: int = knob(64, unit="items", help="items in a batch of generation", ge=1)

    @field_validator("arms", "judges")
    @classmethod
    def _some(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("name at least one")
        return names


class Recipe(Config):
    """One run of the paper on the toy world."""

    name: str = knob(..., help="what the run is called in tables")
    seeds: tuple[int, ...] = knob((0,), help="training seeds; committed bases have seed 0 alone")
    benchmark: BenchmarkConfig = Field(default=BenchmarkConfig(), description="the toy benchmark")
    base: BaseStage = Field(default=BaseStage(), description="the base model")
    evaluate: EvaluateStage = Field(default=EvaluateStage(), description="the evaluation")

    @field_validator("seeds")
    @classmethod
    def _seeds_are_some(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("seeds are whole numbers from 0, each once, and at least one")
        return seeds


@dataclass(frozen=True)
class Run:
    """A recipe, its folder, and where people see progress."""

    recipe: Recipe
    folder: Path
    console: Console
    workers: int

    def checkpoint(self, seed: int) -> Path:
        """The base model of a seed."""
        if self.recipe.base.source == "committed":
            return BASES / self.recipe.benchmark.world
        return self.folder / "bases" / f"seed-{seed}"

    def evaluation(self, seed: int) -> Path:
        """The evaluation folder of a seed."""
        return self.folder / "evaluations" / f"base-seed-{seed}"


def benchmark_stage(run: Run) -> None:
    """The toy clips and questions, as files."""
    config = run.recipe.benchmark
    with progress_bar(run.console) as bar:
        task = bar.add_task("drawing clips", total=None)
        build_benchmark(
            run.folder / "benchmark", size=config.world, seed=config.seed, clips_per_name=config.clips_per_name,
            on_clip=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip


def base_stage(run: Run) -> None:
    """A video LLM that is safe on text: the committed checkpoint, or one trained from scratch for every seed."""
    recipe = run.recipe
    if recipe.base.source == "committed":
        if recipe.seeds != (0,):
            raise InputError(f"the committed base has seed 0, not {list(recipe.seeds)}", where="seeds",
                             fix="use seeds: [0], or base.source: train")  # fmt: skip
        return
    from videosafety.toyworld.base import base_config
    from videosafety.toyworld.seeds import train_seeds

    steps = recipe.base.steps
    config = base_config(recipe.benchmark.world, pretrain_steps=steps.pretrain, align_steps=steps.align)
    with progress_bar(run.console) as bar:
        tasks = {seed: bar.add_task(f"training the base, seed {seed}", total=steps.pretrain + steps.align)
                 for seed in recipe.seeds}  # fmt: skip
        train_seeds(config, seeds=recipe.seeds, folder=run.folder / "bases", workers=run.workers,
                    on_progress=lambda seed, p: bar.update(tasks[seed], completed=p.step))  # fmt: skip


def evaluate_stage(run: Run) -> None:
    """The same items with the video and as text alone, judged exactly."""
    config = run.recipe.evaluate
    benchmark = load_benchmark(run.folder / "benchmark" / MANIFEST, name="toy", taxonomy="toy")
    for seed in run.recipe.seeds:
        named = Named(f"toy-{run.recipe.benchmark.world}", stage="base", seed=seed, notice=NOTICE)
        evaluate(str(run.checkpoint(seed)), benchmark, out=run.evaluation(seed), arms=config.arms, judges=config.judges,
                 decoding=config.decoding, named=named, model_args={"batch_size": config.batch_size},
                 console=run.console)  # fmt: skip


def report_stage(run: Run) -> None:
    """Tidy rows and one page."""
    summarise_run(run.folder)
    committed = RESULTS / f"toy_{run.recipe.benchmark.world}" / "summary.json"
    build_report(run.folder, committed=committed if committed.is_file() else None)


STAGES: tuple[tuple[str, Callable[[Run], None]], ...] = (
    ("benchmark", benchmark_stage),
    ("base", base_stage),
    ("evaluate", evaluate_stage),
    ("report", report_stage),
)
EVERY_TIME = ("report",)  # made anew from the records: cheap, and never behind them


def run(recipe: Recipe, *, out: Path, console: Console | None = None, workers: int | None = None) -> int:
    """Run every stage that is not done yet; returns the exit code of the evaluation.

    Raises:
        InputError: ``out`` holds a run of another recipe.
        CheckpointError, StorageError: a checkpoint does not load; the disk is full.
    """
    this = Run(recipe, out, console or Console(stderr=True), workers or len(os.sched_getaffinity(0)))
    book = Book.open(out, name=recipe.name, seeds=recipe.seeds, recipe=recipe.model_dump(mode="json"))
    for name, stage in STAGES:
        if name in EVERY_TIME or not book.finished(name):
            with book.stage(name):
                stage(this)
    return exit_code([this.evaluation(seed) for seed in recipe.seeds])


def results_table(rows: Sequence[SummaryRow]) -> str:
    """``table.md``: what the oracle found, the headline and the rows of their own."""
    exact = [row for row in rows if row.judge == "oracle"]
    tables = {"Headline": main_rows(exact), "Rows of their own": split_rows(exact)}
    text = "\n\n".join(f"## {title}\n\n{markdown(some)}" for title, some in tables.items())
    return f"{NOTICE}\n\n{text}\n"


def publish(folder: Path, results: Path) -> None:
    """Write what is committed of a run: ``run.json``, ``table.md``, and the rows of ``summary.json`` behind it.

    Left out: languages and categories crossed, and either of them by seed; the run's own page shows those.
    """
    rows = [SummaryRow.model_validate(row) for row in read_json(folder / "summary.json")]
    kept = [r for r in rows if (r.language is not None) + (r.category is not None) + (r.seed is not None) <= 1]
    write_json(results / "summary.json", [row.model_dump(mode="json") for row in kept])
    write_text(results / "table.md", results_table(kept))
    write_json(results / "run.json", read_json(folder / "run.json"))
