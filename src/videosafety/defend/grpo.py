"""Stage 4, Safety-GRPO: from a checkpoint that reasons to one that reasons because it pays.

Paper section 4.3. The stage is ``sft.train_stage`` with another way to fit: same checkpoint handling, same resume, same
shipping. The reference is the checkpoint that it starts from: the policy with its adapters off, or a second copy, or
none where ``beta`` is 0.

Example:
    >>> train_policy(config, examples, base="runs/a/cot", out=Path("runs/a/grpo"))           # doctest: +SKIP
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from videosafety.core.errors import InputError, MediaError
from videosafety.core.example import Example
from videosafety.core.records import Outcome, Response, Sample
from videosafety.defend.grade import ARM, MODEL
from videosafety.defend.order import order_of
from videosafety.defend.policy import PolicyObjective, PolicyRows
from videosafety.defend.policy_trainer import CURVE_FILE, ROLLOUTS, HeldOut, PolicyTrainer
from videosafety.defend.rewards import pays_to_mislabel, rewards
from videosafety.defend.rows import Rows
from videosafety.defend.server_engine import ServerEngine, connected
from videosafety.defend.sft import Assembled, Trained, train_stage, with_alarms
from videosafety.defend.stage import GrpoConfig
from videosafety.defend.trainer import OnStep
from videosafety.judges.base import judge_response
from videosafety.judges.registry import get
from videosafety.models.checkpoint import load
from videosafety.models.family import Conversation
from videosafety.models.features import FeatureCache
from videosafety.models.generate import generate
from videosafety.models.rollout import LocalEngine, never_ids
from videosafety.models.shared_prefix import why_not
from videosafety.models.wrapped import AlarmModel

SHARDED = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")


def train_policy(config: GrpoConfig, examples: Sequence[Example], *, base: str, out: Path, **given: Any) -> Trained:
    """Train stage 4; ``given`` are the other arguments of ``sft.train_stage``.

    Raises:
        InputError: too few prompts, or one without labels or language.
        VideoSafetyError: a log-prob is no number, or what was sampled is not what is learnt from.
    """
    config = config.model_copy(update={"structured": all(one.think for one in examples)})  # what folding looks at
    rewards(config.rewards)  # a judge or a reward that does not exist is said before anything is loaded
    if pays_to_mislabel(config.rewards):
        warnings.warn("a wrong label can pay: keep alpha_max - alpha_min under both gammas", stacklevel=2)
    asks = config.rewards.outcome_judge is not None and config.held_out_steps
    kept_aside = config.num_held_out if asks else 0
    if len(examples) <= kept_aside:
        raise InputError(f"{len(examples)} prompts, of which {kept_aside} are to be kept aside", where="stage 4",
                         fix="give more prompts, or lower num_held_out")  # fmt: skip
    learnt, held_out = kept_apart(examples, kept_aside)
    fit = partial(_fit, base=base, held_out=held_out, attention=given.get("attention"))
    return train_stage("grpo", config, learnt, base=base, out=out, fit=fit, ships=(CURVE_FILE, ROLLOUTS), **given)


def kept_apart(examples: Sequence[Example], num: int) -> tuple[list[Example], list[Example]]:
    """The prompts to learn from, and at most ``num`` of the last ones to be kept aside; no clip or picture is in both.

    Prompts with the same clip, also by way of a third, go together; a set of them that no longer fits is learnt from.
    A clip is known by its path, and by its content where the row has its hash.

    Raises:
        InputError: no set of prompts is small enough.
    """
    parents, first = list(range(len(examples))), dict[str, int]()

    def root(row: int) -> int:
        while parents[row] != row:
            row = parents[row]
        return row

    for row, example in enumerate(examples):
        for media in example.media:
            for name in (media.path, media.sha256):
                if name is not None:
                    parents[root(row)] = root(first.setdefault(name, row))
    sets: dict[int, list[int]] = {}
    for row in reversed(range(len(examples))):
        sets.setdefault(root(row), []).append(row)
    aside: set[int] = set()
    for rows in sets.values():
        if len(aside) + len(rows) <= num:
            aside.update(rows)
    if num and not aside:
        smallest = min(map(len, sets.values()))
        raise InputError(f"each clip is in {smallest} prompts or more, and {num} are to be kept aside", where="stage 4",
                         fix=f"set num_held_out to {smallest} or more, or to 0")  # fmt: skip
    return ([one for row, one in enumerate(examples) if row not in aside],
            [one for row, one in enumerate(examples) if row in aside])  # fmt: skip


def _fit(
    made: Assembled, rows: Rows, config: GrpoConfig, *, args: TrainingArguments, kept: FeatureCache | None, work: Path,
    seed: int, on_step: OnStep, base: str, held_out: Sequence[Example], attention: str | None,
) -> PolicyTrainer:  # fmt: skip
    """The trainer, at its last step."""
    if any(os.environ.get(name, "").lower() == "true" for name in SHARDED):
        raise InputError("stage 4 samples from whole weights, not from shards", where="stage 4",
                         fix="launch it with DDP, and set lora if memory is short")  # fmt: skip
    checkpoint = made.checkpoint
    language = checkpoint.family.language_model(checkpoint.model)
    cannot = why_not(language) if config.path == "shared" else None
    if cannot is not None:
        warnings.warn(f"no shared prefix: {cannot}; one pass for each completion", stacklevel=2)
    prompts = PolicyRows(rows.examples, checkpoint=checkpoint, sampling=rows.sampling, cache=rows.cache,
                         tells=config.server is not None)  # fmt: skip
    second = config.beta > 0 and config.lora is None
    reference = _reference(base, config, attention=attention, device=str(args.device)) if second else None
    objective = PolicyObjective(made.wrapped, config, never=never_ids(checkpoint), language=language,
                                reference=reference)  # fmt: skip
    order = _repeated(order_of(len(prompts), config, seed=seed), config)
    with _engine(made, config, num_processes=args.world_size) as engine:
        trainer = PolicyTrainer(objective, prompts, config, args=args, parts=made.parts, order=order, engine=engine,
                                held_out=_asker(prompts, held_out, config), on_step=on_step)  # fmt: skip
        trainer.train()
    return trainer


@contextmanager
def _engine(made: Assembled, config: GrpoConfig, *, num_processes: int) -> Iterator[LocalEngine | ServerEngine]:
    """What samples, while open."""
    if config.server is None:
        yield LocalEngine(made.wrapped, made.checkpoint, batch_size=config.rollout_batch_size)
        return
    if num_processes > 1:
        raise InputError(f"{num_processes} processes would give one server their weights", where="defend.grpo.engine",
                         fix="train in one process, or sample locally")  # fmt: skip
    with connected(config.server, made.wrapped, made.checkpoint) as engine:
        yield engine


def _reference(base: str, config: GrpoConfig, *, attention: str | None, device: str) -> tuple[AlarmModel, nn.Module]:
    """A frozen second copy of what the stage starts from."""
    other = with_alarms(load(base, dtype=torch.float32, attention=attention, device=device), config)
    other.model.requires_grad_(False)
    wrapped = AlarmModel(other.model, other.alarm).requires_grad_(False).eval()
    return wrapped, other.family.language_model(other.model)


def _repeated(order: Sequence[int], config: GrpoConfig) -> list[int]:
    """Every global batch ``num_iterations`` times on end, no more steps than asked for."""
    size = config.batch_size
    batches = [list(order[start : start + size]) for start in range(0, len(order), size)]
    repeated = [batch for batch in batches for _ in range(config.num_iterations)]
    return [row for batch in (repeated[: config.max_steps] if config.max_steps else repeated) for row in batch]


def _asker(rows: PolicyRows, held_out: Sequence[Example], config: GrpoConfig) -> HeldOut | None:
    """Greedy answers to the prompts that were kept aside, judged by the judge that rewards."""
    if not held_out or config.rewards.outcome_judge is None:
        return None
    judge, size = get(config.rewards.outcome_judge), config.micro_batch_size * config.num_generations

    def ask() -> list[tuple[Sample, Outcome]]:
        judged: list[tuple[Sample, Outcome]] = []
        for start in range(0, len(held_out), size):
            known = [pair for pair in map(shown, held_out[start : start + size]) if pair is not None]
            said = generate(rows.checkpoint, [conversation for _, conversation in known], batch_size=size,
                            max_new_tokens=config.max_new_tokens)  # fmt: skip
            for (sample, _), one in zip(known, said, strict=True):
                response = Response(sample_id=sample.id, arm=ARM, model=MODEL, text=one.text,
                                    stop_reason=one.stop_reason)  # fmt: skip
                judged.append((sample, judge_response(judge, sample, response).outcome))
        return judged

    def shown(example: Example) -> tuple[Sample, Conversation] | None:
        try:
            return example.sample(), rows.conversation(example)
        except MediaError:  # lost since the check: it is not asked
            return None

    return ask
