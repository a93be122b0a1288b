"""Stages 1 to 3: alarm initialisation, AT-SFT and the reasoning cold start, each from one checkpoint to the next.

Paper section 4.2 and table of stages. A stage loads an ordinary checkpoint in fp32, gives it alarms where it has none,
trains, folds, and saves an ordinary checkpoint with its sidecar. What it did is in ``training.json`` beside the
weights: how far the alarm rows moved, what was trained on, what was lost. How we differ from the released code: the
heads survive, text-only prompts carry the alarms, weights are fp32 masters, and a failing row is recorded and never
replaced.

Example:
    >>> train_stage("at_sft", StageConfig.of("at_sft"), examples, base="runs/a/alarm_init", out=Path("runs/a/at_sft"))
    ...                                                                         # doctest: +SKIP
    PosixPath('runs/a/at_sft')
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from videosafety.core.example import Example
from videosafety.core.jsonl import read_json
from videosafety.core.recipe import fingerprint
from videosafety.core.store import write_json, write_text
from videosafety.defend.objective import NOT_INPUTS, Objective, movement, trainable
from videosafety.defend.rows import Rows
from videosafety.defend.stage import Stage, StageConfig
from videosafety.defend.trainer import OnStep, SafetyTrainer
from videosafety.models.alarm import Alarm, add_alarms, set_template
from videosafety.models.checkpoint import Checkpoint, load, save_model
from videosafety.models.fold import fold, observe, suppress
from videosafety.models.wrapped import AlarmModel
from videosafety.video.cache import FrameCache
from videosafety.video.plan import Sampling

TRAINING = "training.json"
CURVE = "curve.jsonl"
CURVE_KEYS = ("step", "loss", "loss_answer", "loss_visual", "loss_textual", "learning_rate", "tokens", "seconds")
NUM_OBSERVED = 256  # examples whose positions are looked at when the verdict rows are fitted


@dataclass(frozen=True)
class Trained:
    """What a stage left: its checkpoint folder, and ``training.json``."""

    folder: Path
    info: Mapping[str, Any]


def train_stage(
    stage: Stage,
    config: StageConfig,
    examples: Sequence[Example],
    *,
    base: str,
    out: Path,
    seed: int = 0,
    sampling: Sampling | None = None,
    cache: FrameCache | None = None,
    attention: str | None = None,
    on_step: OnStep = lambda step, total, loss: None,
) -> Trained:
    """Train one stage; a stage that is finished in ``out`` is only read, one that was killed is resumed.

    Args:
        stage: its name, for the record.
        config: its knobs.
        examples: with absolute media paths, checked (``defend/data``).
        base: the checkpoint to start from: a folder or a hub id.
        out: the checkpoint folder to write; work in progress stands beside it.
        seed: of the order of the rows.
        sampling: how frames are taken.
        cache: of decoded frames.
        attention: transformers' attention implementation, None for its default.
        on_step: called with (step, steps, loss).

    Raises:
        CheckpointError: the base does not load, or its tokenizer has our tokens without a sidecar.
        InputError: weights that are not fp32, a batch that does not divide, too many rows lost while training.
        StorageError: the disk is full.
    """
    identity = fingerprint(config) + f"-{seed}-{len(examples)}"
    if (out / TRAINING).is_file():
        return Trained(out, read_json(out / TRAINING))
    work = out.with_name(f"{out.name}.work")
    work.mkdir(parents=True, exist_ok=True)
    _claim(work, {"stage": stage, "identity": identity, "base": base})
    checkpoint = load(base, dtype=torch.float32, attention=attention, device=_device())
    checkpoint = with_alarms(checkpoint, config)
    torch.manual_seed(seed)
    wrapped = AlarmModel(checkpoint.model, checkpoint.alarm)
    if config.gradient_checkpointing:
        checkpoint.model.gradient_checkpointing_enable({"use_reentrant": False})
    objective = Objective(wrapped)
    vision = checkpoint.family.vision_modules(checkpoint.model)
    parts = trainable(objective, vision, parts=config.trains)
    rows = Rows(examples, checkpoint=checkpoint, structured=config.structured, sampling=sampling, cache=cache)
    order = order_of(len(examples), config, seed=seed)
    before = {name: p.detach().clone() for name, p in objective.named_parameters() if name.startswith("wrapped.rows")}
    trainer = SafetyTrainer(objective, rows, config, parts=parts, order=order, work=work, seed=seed, on_step=on_step)
    trainer.train()
    if config.gradient_checkpointing:
        checkpoint.model.gradient_checkpointing_disable()
    moved = {name.rpartition(".")[2]: [movement(a, b) for a, b in zip(start, dict(objective.named_parameters())[name],
                                       strict=True)] for name, start in before.items()}  # fmt: skip
    alarm = _folded(wrapped, rows, checkpoint, config)
    info = {
        "stage": stage, "seed": seed, "base": base, "config": config.model_dump(mode="json"),
        "num_examples": len(examples), "num_steps": trainer.state.global_step, "alarm_rows": moved.get("rows_AH"),
        "faults": trainer.faults, "fold": None if alarm is None else {"scale": alarm.scale, "measured": alarm.measured},
    }  # fmt: skip
    curve = [{key: log.get(key) for key in CURVE_KEYS} for log in trainer.state.log_history if "loss" in log]
    _save(wrapped, checkpoint, alarm, out, info=info, curve=curve)
    shutil.rmtree(work)
    return Trained(out, info)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _claim(work: Path, identity: Mapping[str, str]) -> None:
    """Work of another configuration is put aside: it cannot be resumed."""
    mark = work / "identity.json"
    if mark.is_file() and read_json(mark) != dict(identity):
        shutil.rmtree(work)
        work.mkdir(parents=True)
    write_json(mark, dict(identity))


def with_alarms(checkpoint: Checkpoint, config: StageConfig) -> Checkpoint:
    """The checkpoint with the alarms that the recipe wants; heads and rows that it already has are kept."""
    wanted, alarm = config.modalities, checkpoint.alarm
    if not wanted and alarm is None:
        return checkpoint
    if alarm is None:
        alarm = add_alarms(checkpoint.model, checkpoint.processor, modalities=wanted, init=config.alarm_init,
                           where=checkpoint.path)  # fmt: skip
    elif alarm.modalities != wanted:
        set_template(checkpoint.processor, wanted)
        alarm = replace(alarm, modalities=tuple(wanted))
    return replace(checkpoint, alarm=alarm)


def order_of(num_rows: int, config: StageConfig, *, seed: int) -> list[int]:
    """Which row is seen when: all epochs, each a permutation of its own; a function of (seed, size) alone."""
    num = config.max_steps * config.batch_size if config.max_steps else round(config.epochs * num_rows)
    order: list[int] = []
    epoch = 0
    while len(order) < num:
        order += np.random.default_rng((seed, 13, epoch)).permutation(num_rows).tolist()
        epoch += 1
    return order[:num]


def _folded(wrapped: AlarmModel, rows: Rows, checkpoint: Checkpoint, config: StageConfig) -> Alarm | None:
    if wrapped.alarm is None:
        return None
    wrapped.eval()
    return fold(wrapped, observe(wrapped, _batches(rows, wrapped.model.device, config.micro_batch_size)))


def _batches(rows: Rows, device: torch.device, size: int) -> Iterator[dict[str, Tensor]]:
    """Batches of examples spread evenly over the rows, as model inputs."""
    stride = max(1, len(rows) // NUM_OBSERVED)
    chosen = iter(range(0, len(rows), stride))
    while some := list(islice(chosen, size)):
        batch = rows.collate([rows[i] for i in some])
        yield {name: cast(Tensor, value).to(device) for name, value in batch.items() if name not in NOT_INPUTS}


def _save(
    wrapped: AlarmModel, checkpoint: Checkpoint, alarm: Alarm | None, out: Path, *, info: Mapping[str, Any],
    curve: Sequence[Mapping[str, Any]],
) -> None:  # fmt: skip
    model = wrapped.unwrap()
    model.requires_grad_(True)
    suppress(model, checkpoint.family.vision_token_ids(model))
    part = out.with_name(f"{out.name}.part")
    save_model(model, checkpoint.processor, part, alarm=alarm)
    write_text(part / CURVE, "".join(f"{json.dumps(row)}\n" for row in curve))
    write_json(part / TRAINING, dict(info))
    if out.exists():
        shutil.rmtree(out)
    part.rename(out)
