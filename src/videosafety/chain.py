"""A variant of a recipe as a chain of checkpoints, and what is done at each link: train it, ask it.

A link's folder is named by a hash over everything that made it (base, data, the knobs of its stage and of all before),
so variants share what they have in common, and a changed knob is another folder.

Example:
    >>> chain = Chain("main", recipe, Path("runs/demo"))                        # doctest: +SKIP
    >>> chain.step(0, seed=0).out                                               # doctest: +SKIP
    PosixPath('runs/demo/checkpoints/alarm_init-1f0c9a2b/seed-0')
"""

import json
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SerializeAsAny
from rich.console import Console

from videosafety.core.ablation import by_model, compare
from videosafety.core.jobs import Report
from videosafety.core.jsonl import read_json
from videosafety.core.recipe import Config, fingerprint
from videosafety.core.store import write_json
from videosafety.defend.data.source import Source
from videosafety.defend.stage import GrpoConfig, Stage, StageConfig
from videosafety.evaluate.folder import scored_items
from videosafety.evaluate.manifest import load_benchmark
from videosafety.evaluate.run import Named, evaluate
from videosafety.settings import MAIN, BaseStage, EvaluateStage, OwnData, Recipe
from videosafety.toyworld.build import MANIFEST
from videosafety.toyworld.training import GENERAL, SAFETY, TrainingConfig
from videosafety.video.plan import Sampling

BASES = Path(__file__).parent / "toyworld" / "bases"  # committed checkpoints, by size of the world
BASE = "base"
NOTICE = "Toy world: harm is a harmless symbol. These numbers say nothing about real models."
CURVES = "training"  # the folder of training curves that the report reads
ABLATIONS = "ablations.json"
POLICY_CURVE = "policy.jsonl"  # of a checkpoint of stage 4
TRAININGS = "training.json"  # of a run: a row for each trained checkpoint


@dataclass(frozen=True)
class Step:
    """One training stage of one seed: everything that ``train_step`` needs."""

    name: str
    stage: Stage
    config: StageConfig
    base: str
    out: Path
    seed: int
    sources: tuple[Source, ...]
    sampling: Sampling
    attention: str | None
    frame_cache: tuple[Path, int] | None
    features: Path  # of frozen vision, where the stage keeps them: one folder for all stages
    toy: bool

    @property
    def finished(self) -> bool:
        """Is its checkpoint there?"""
        return (self.out / "training.json").is_file()


@dataclass(frozen=True)
class Answering:
    """One checkpoint asked everything."""

    name: str
    checkpoint: str
    out: Path
    named: Named
    manifest: Path
    taxonomy: str
    config: EvaluateStage

    @property
    def finished(self) -> bool:
        """Is its evaluation there?"""
        return (self.out / "evaluation.json").is_file()


class _MadeBy(Config):
    """All that a checkpoint follows from, its seed apart."""

    base: BaseStage
    sampling: Sampling
    training: TrainingConfig
    data: OwnData | None
    stages: tuple[Stage, ...]
    configs: tuple[SerializeAsAny[StageConfig], ...]


class _MadeByPolicy(_MadeBy):
    """The same of a chain with stage 4."""

    prompts: TrainingConfig


@dataclass(frozen=True)
class Chain:
    """A variant's checkpoints inside a run folder."""

    name: str
    recipe: Recipe
    folder: Path

    @property
    def lessons(self) -> Path:
        """The folder of the toy training set."""
        return self.folder / "lessons" / fingerprint(self.recipe.training)[:8]

    @property
    def prompts(self) -> Path:
        """The folder of the toy prompts of stage 4."""
        return self.folder / "lessons" / fingerprint(self.recipe.prompts)[:8]

    @property
    def _toy(self) -> str:
        """The world, and the family of its base where that is not the paper's."""
        world, family = self.recipe.benchmark.world, self.recipe.base.family
        return world if family == "videollama3" else f"{world}-{family}"

    @property
    def model(self) -> str:
        """What the model is called in tables."""
        recipe = self.recipe
        called = f"toy-{self._toy}" if recipe.data is None else (recipe.base.checkpoint or "").rstrip("/")
        return called.rpartition("/")[2] + ("" if self.name == MAIN else f"/{self.name}")

    def base(self, seed: int) -> str:
        """The checkpoint before the first stage."""
        base = self.recipe.base
        if base.source == "checkpoint":
            return str(base.checkpoint)
        if base.source == "committed":
            return str(BASES / self._toy)
        return str(self.folder / "bases" / f"seed-{seed}")

    def step(self, level: int, seed: int) -> Step:
        """The training of one stage."""
        recipe, stage = self.recipe, self.recipe.defend.stages[level]
        toy, gib = recipe.data is None, recipe.defend.frame_cache_gib
        before = self.base(seed) if level == 0 else str(self._checkpoint(level - 1, seed))
        return Step(
            name=f"{stage} {'' if self.name == MAIN else self.name + ' '}seed {seed}", stage=stage,
            config=recipe.defend.config(stage), base=before, out=self._checkpoint(level, seed), seed=seed,
            sources=self._sources(stage), sampling=recipe.defend.sampling,
            attention=recipe.base.attention or ("eager" if toy else None),
            frame_cache=(self.folder / "frames", int(gib * 2**30)) if gib else None,
            features=self.folder / "features", toy=toy,
        )  # fmt: skip

    def _checkpoint(self, level: int, seed: int) -> Path:
        recipe = self.recipe
        stages = recipe.defend.stages[: level + 1]
        made_by = _MadeBy(
            base=recipe.base, sampling=recipe.defend.sampling, training=recipe.training, data=recipe.data,
            stages=stages, configs=tuple(recipe.defend.config(stage) for stage in stages),
        )  # fmt: skip
        if "grpo" in stages:
            made_by = _MadeByPolicy(**dict(made_by), prompts=recipe.prompts)
        return self.folder / "checkpoints" / f"{stages[-1]}-{fingerprint(made_by)[:8]}" / f"seed-{seed}"

    def _sources(self, stage: Stage) -> tuple[Source, ...]:
        if self.recipe.data is not None:
            own = self.recipe.data
            return {"cot": own.reasoned, "grpo": own.prompts}.get(stage, own.sources)
        if stage == "grpo":
            return (Source(name="prompts", path=str(self.prompts / SAFETY)),)
        safety = Source(name="safety", path=str(self.lessons / SAFETY))
        if stage == "cot" or not self.recipe.training.general_share:
            return (safety,)
        return safety, Source(name="general", path=str(self.lessons / GENERAL), labels="none")

    def stage(self, level: int) -> str:
        """What the checkpoint of a level is called: ``base`` for −1, and −2 is the last one."""
        named = (BASE, *self.recipe.defend.stages)
        return named[-1] if level == -2 else named[level + 1]

    @property
    def stages_asked(self) -> list[str]:
        """After which stages it is evaluated: after every one, or a variant only at its end."""
        every = self.name == MAIN and self.recipe.evaluate.after == "every_stage"
        return [self.stage(level) for level in self._levels] if every else [self.stage(-2)]

    @property
    def _levels(self) -> range:
        return range(-1, len(self.recipe.defend.stages))

    def answerings(self, seed: int) -> list[Answering]:
        """The evaluations of a seed, in the order of the stages."""
        if self._manifest is None:
            return []
        return [self.answering(level, seed) for level in self._levels if self.stage(level) in self.stages_asked]

    @property
    def _manifest(self) -> Path | None:
        own = self.recipe.data
        if own is None:
            return self.folder / "benchmark" / MANIFEST
        return None if own.benchmark is None else Path(own.benchmark)

    def answering(self, level: int, seed: int) -> Answering:
        """The evaluation after one level."""
        recipe, stage = self.recipe, self.stage(level)
        called = f"{stage}-seed-{seed}" if self.name == MAIN else f"{self.name}-{stage}-seed-{seed}"
        toy = recipe.data is None
        assert self._manifest is not None
        return Answering(
            name=called, checkpoint=self.base(seed) if level < 0 else str(self._checkpoint(level, seed)),
            out=self.folder / "evaluations" / called, config=recipe.evaluate, manifest=self._manifest,
            named=Named(self.model, stage=stage, seed=seed, notice=NOTICE if toy else None),
            taxonomy="toy" if recipe.data is None else recipe.data.taxonomy,
        )  # fmt: skip


def train_step(step: Step, report: Report) -> None:
    """Check the data and train the stage."""
    from videosafety.defend.data.check import check_sources, demands
    from videosafety.defend.data.markup import markup_of
    from videosafety.defend.grpo import train_policy
    from videosafety.defend.sft import train_stage
    from videosafety.toyworld import oracle  # noqa: F401 - registers the judge that a toy recipe may name
    from videosafety.toyworld.base import one_thread
    from videosafety.video.cache import FrameCache

    policy = isinstance(step.config, GrpoConfig)
    mixture, _ = check_sources(step.sources, seed=0, demand="reward" if policy else demands(step.config),
                               markup=markup_of(step.base), with_media=not step.toy)  # fmt: skip
    cache = None if step.frame_cache is None else FrameCache(step.frame_cache[0], max_bytes=step.frame_cache[1])
    given: dict[str, Any] = {
        "base": step.base, "out": step.out, "seed": step.seed, "sampling": step.sampling, "cache": cache,
        "features": step.features, "attention": step.attention,
        "on_step": lambda done, total, loss: report(done, total),
    }  # fmt: skip
    with one_thread() if step.toy else nullcontext():
        if isinstance(step.config, GrpoConfig):
            train_policy(step.config, mixture.examples, **given)
        else:
            train_stage(step.stage, step.config, mixture.examples, **given)


def keep_curves(folder: Path, chain: Chain, *, seeds: Sequence[int]) -> None:
    """Copy the training curves of a chain to where the report reads them."""
    from videosafety.defend.sft import CURVE

    for seed in seeds:
        for level, stage in enumerate(chain.recipe.defend.stages):
            trained, target = chain.step(level, seed).out, folder / CURVES / f"{stage}-seed-{seed}.jsonl"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(trained / CURVE, target)
            if stage == "grpo":
                shutil.copyfile(trained / POLICY_CURVE, target.with_suffix(".policy.jsonl"))


def keep_trainings(folder: Path, chains: Sequence[Chain], *, seeds: Sequence[int]) -> None:
    """``training.json`` of the run: what each training did; one that variants share stands once, under the first.

    No file where nothing was trained.
    """
    rows, seen = [], set[Path]()
    for chain in chains:
        for level, stage in enumerate(chain.recipe.defend.stages):
            for seed in seeds:
                out = chain.step(level, seed).out
                if out in seen:
                    continue
                seen.add(out)
                info = read_json(out / TRAININGS)
                measured = json.loads(info["fold"]["measured"]) if info["fold"] else {}
                rows.append({"model": chain.model, "stage": stage, "seed": seed, "num_steps": info["num_steps"],
                             "num_examples": info["num_examples"], "num_faults": len(info["faults"]),
                             "alarm_rows": info["alarm_rows"], "verdict_scale": (info["fold"] or {}).get("scale"),
                             "verdict_share_within": measured.get("share_within")})  # fmt: skip
    if rows:
        write_json(folder / TRAININGS, rows)


def answer_step(answering: Answering, quiet: bool, report: Report) -> None:
    """Ask one checkpoint every item under every arm."""
    config = answering.config
    name = "toy" if answering.taxonomy == "toy" else "vse"
    benchmark = load_benchmark(answering.manifest, name=name, taxonomy=answering.taxonomy)
    evaluate(answering.checkpoint, benchmark, out=answering.out, arms=config.arms, judges=config.judges,
             decoding=config.decoding, named=answering.named, model_args={"batch_size": config.batch_size},
             console=Console(stderr=True, quiet=quiet))  # fmt: skip
    report(1, 1)


def compare_variants(folder: Path, chains: Sequence[Chain], *, seeds: Sequence[int]) -> None:
    """``ablations.json``: every variant against the recipe itself after the same stage; no file where there is none.

    Variants that end after the same stage are one family of comparisons for Holm's correction.
    """
    file = folder / ABLATIONS
    main, *variants = chains
    if not variants:
        file.unlink(missing_ok=True)
        return
    rows = []
    for level in range(-1, len(main.recipe.defend.stages)):
        stage = main.stage(level)
        some = [chain for chain in variants if chain.stage(-2) == stage]
        if not some or stage not in main.stages_asked:
            continue
        asked = [main.answering(level, seed) for seed in seeds]
        asked += [chain.answerings(seed)[-1] for chain in some for seed in seeds]
        items = [item for one in asked for item in scored_items(one.out)]
        rows += compare(items, reference=main.model, variants=[chain.model for chain in some], key=by_model)
    write_json(file, [row.model_dump(mode="json") for row in rows])
