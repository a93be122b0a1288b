"""The recipe of a build: one YAML file says what is wanted of clips, who is asked, how rows are divided and shown.

Example:
    >>> load_recipe("build", BuildRecipe).ask.languages_per_clip                             # doctest: +SKIP
    2
"""

import os
from typing import Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from videosafety.build.annotate.annotator import AnnotatorConfig
from videosafety.build.annotate.describe import DescribeConfig
from videosafety.build.ask import Plan, Quota
from videosafety.build.check import Check
from videosafety.build.gates import Amount, Declared
from videosafety.build.mix import Quotas
from videosafety.build.people.queue import ReviewConfig
from videosafety.build.release.config import PublishConfig
from videosafety.build.sides import NEAR
from videosafety.core.recipe import Config, knob
from videosafety.core.records import Language

THRESHOLDS = ("static_below", "duplicate_below", "related_below")


class CollectConfig(Config):
    """What is known of all clips, and where they are kept."""

    source: str = knob("", help="where the clips come from; a manifest of clips says it row by row")
    licence: str | None = knob(None, help="licence of clips that name none")
    keep: Literal["copy", "link", "in_place"] = knob(
        "copy", help="copy or hard-link clips by their hash into OUT/store, or read them where they are"
    )


class EmbedConfig(Config):
    """What a clip looks like, and what is too still or too alike."""

    embedder: Literal["phash", "dinov2"] = knob("phash", help="phash needs no weights; dinov2 a local checkpoint")
    checkpoint: str | None = knob(None, help="dinov2: folder of a Dinov2Model")
    device: str | None = knob(None, help="dinov2: cpu, cuda; null: a GPU if there is one")
    static_below: float | None = knob(None, help="a clip that changes less is static; null: the embedder's", ge=0)
    duplicate_below: float | None = knob(None, help="a clip nearer to an earlier one is a copy of it", ge=0)
    related_below: float | None = knob(None, help="clips nearer than this are never divided by a split", ge=0)

    @model_validator(mode="after")
    def _has_its_weights(self) -> Self:
        if (self.embedder == "dinov2") != (self.checkpoint is not None):
            raise ValueError("embedder 'dinov2' and the key 'checkpoint' go together")
        if self.embedder == "dinov2" and any(getattr(self, name) is None for name in THRESHOLDS):
            raise ValueError(f"no thresholds are known to be right for dinov2: give {', '.join(THRESHOLDS)}")
        near, related = self.duplicate_below, self.related_below
        if near is not None and related is not None and near > related:
            raise ValueError("duplicate_below is more than related_below: a copy is related, too")
        return self


class AskConfig(Config):
    """In which languages clips are asked about, and how often."""

    languages: tuple[Language, ...] = knob(get_args(Language), help="languages of the queries")
    languages_per_clip: int = knob(2, help="languages in which each clip is asked about", ge=1)
    quota: Quota = Field(default=Quota(), description="queries for each clip and language")
    own: dict[Language, Quota] = knob({}, help="quotas of single languages")
    eval_share: float = knob(0.15, help="of the clips, asked with held-out templates only", ge=0, le=1)
    phrases: str | None = knob(None, help="folder of query templates; null: ours")
    paraphrase: AnnotatorConfig | None = knob(None, help="model that says the templates' words in its own; null: none")

    @property
    def plan(self) -> Plan:
        """As the step takes it."""
        return Plan(languages=self.languages, languages_per_clip=self.languages_per_clip, quota=self.quota,
                    own=self.own, eval_share=self.eval_share)  # fmt: skip

    @model_validator(mode="after")
    def _is_a_plan(self) -> Self:
        _ = self.plan
        return self


class ThinkConfig(Config):
    """Who writes the responses that stages 3 and 4 learn from."""

    model: AnnotatorConfig | None = knob(None, help="model that writes them; null: our composer, offline")
    caption_language: Language = knob("en", help="of the annotators' captions")
    foreign: Literal["quote", "leave_out"] = knob("quote", help="captions in another language than the query's")
    borderline: Literal["leave_out", "describe"] = knob(
        "leave_out", help="composer: training rows that ask about a delicate subject, which it cannot answer"
    )


class CheckConfig(Config):
    """Bounds of the row gates, in characters."""

    min_think: int = knob(40, unit="characters", help="shortest thinking; half of it in Chinese and Japanese", ge=1)
    max_think: int = knob(4000, unit="characters", help="longest thinking", ge=1)
    min_answer: int = knob(12, unit="characters", help="shortest answer", ge=1)
    max_answer: int = knob(4000, unit="characters", help="longest answer", ge=1)
    max_refusal: int = knob(500, unit="characters", help="longest answer to a harmful request", ge=1)

    @model_validator(mode="after")
    def _some_text_passes(self) -> Self:
        for what in ("think", "answer"):
            if getattr(self, f"min_{what}") > getattr(self, f"max_{what}"):
                raise ValueError(f"min_{what} is more than max_{what}: nothing would pass")
        return self

    def step(self, taxonomy: str) -> Check:
        """As the step takes it."""
        return Check(taxonomy=taxonomy, **self.model_dump())


class MixConfig(Config):
    """How rows are divided."""

    quotas: Quotas = Field(default=Quotas(), description="rows wanted, by split; null: all there are")
    near: float = knob(NEAR, help="similarity from which two queries count as one", gt=0, le=1)
    declared: dict[str, Amount] = knob({}, help="numbers that were promised: rows, categories, languages")

    @field_validator("declared")
    @classmethod
    def _known(cls, declared: dict[str, Amount]) -> dict[str, Amount]:
        known = get_args(Declared.__args__[0])  # type: ignore[attr-defined]
        if stray := sorted(set(declared) - set(known)):
            raise ValueError(f"{stray[0]!r} is no number that is counted; known: {', '.join(known)}")
        return declared


class LimitsConfig(Config):
    """What calls to models may take."""

    cost_cap_usd: float | None = knob(None, unit="USD", help="all calls of this folder together; null: no cap", ge=0)
    concurrency: int = knob(32, help="rows that wait for models at a time", ge=1)
    max_failed_share: float = knob(0.02, help="of a step's rows; with more the build stops before it mixes", ge=0, le=1)


class EngineConfig(Config):
    """Where the steps run."""

    kind: Literal["pool", "ray"] = knob("pool", help="processes of this machine, or tasks of a Ray cluster")
    workers: int | None = knob(None, help="processes; null: the cores", ge=1)
    rows_per_shard: int = knob(128, help="ray: rows of a task", ge=1)
    address: str | None = knob(None, help="ray: address of the cluster; null: one on this machine")

    @property
    def num_workers(self) -> int:
        """Processes on this machine."""
        return self.workers or os.cpu_count() or 1


class BuildRecipe(Config):
    """One build."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,94}$", description="what the data set is called")
    seed: int = knob(0, help="of all that is drawn", ge=0)
    taxonomy: str = knob("vse", help="harm categories: a name or a file")
    collect: CollectConfig = Field(default=CollectConfig(), description="the clips")
    embed: EmbedConfig = Field(default=EmbedConfig(), description="what clips look like, static ones and copies")
    describe: DescribeConfig | None = Field(default=None, description="models that say what clips show")
    labels: str | None = knob(None, help="in place of models, labels that you have: JSON lines of path or sha256, …")
    ask: AskConfig = Field(default=AskConfig(), description="the queries")
    think: ThinkConfig = Field(default=ThinkConfig(), description="the responses")
    check: CheckConfig = Field(default=CheckConfig(), description="the row gates")
    mix: MixConfig = Field(default=MixConfig(), description="splits and quotas")
    review: ReviewConfig = Field(default=ReviewConfig(), description="what people look at")
    publish: PublishConfig = Field(default=PublishConfig(), description="the release")
    limits: LimitsConfig = Field(default=LimitsConfig(), description="cost and concurrency")
    engine: EngineConfig = Field(default=EngineConfig(), description="where the steps run")

    @model_validator(mode="after")
    def _somebody_describes(self) -> Self:
        if (self.describe is None) == (self.labels is None):
            raise ValueError("name describe.annotators, or a file of labels")
        return self

    @model_validator(mode="after")
    def _a_cap_means_something(self) -> Self:
        if self.limits.cost_cap_usd is not None:
            for one in self.asked:
                if not one.has_prices:
                    prices = "usd_per_million_input and usd_per_million_output (0 where it is free)"
                    raise ValueError(f"limits.cost_cap_usd is set, and {one.label} has no prices: give {prices}")
        return self

    @property
    def asked(self) -> tuple[AnnotatorConfig, ...]:
        """All models that are asked for anything."""
        describe = self.describe
        some = (*describe.annotators, describe.adjudicator) if describe is not None else ()
        return tuple(one for one in (*some, self.ask.paraphrase, self.think.model) if one is not None)
