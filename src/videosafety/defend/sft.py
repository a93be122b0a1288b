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

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from torch import Tensor, nn
from transformers import TrainingArguments

from videosafety.core.errors import VideoSafetyError
from videosafety.core.example import Example
from videosafety.core.jsonl import read_json
from videosafety.core.recipe import fingerprint
from videosafety.core.store import storage_errors, write_json, write_text
from videosafety.defend.lengths import kept_lengths
from videosafety.defend.lora import add_adapters
from videosafety.defend.objective import NOT_INPUTS, Objective, movement, trainable
from videosafety.defend.order import order_of
from videosafety.defend.resume import claim
from videosafety.defend.rows import Rows
from videosafety.defend.stage import Stage, StageConfig
from videosafety.defend.trainer import OnStep, SafetyTrainer, arguments, memory_errors
from videosafety.models.alarm import Alarm, add_alarms, set_template
from videosafety.models.checkpoint import Checkpoint, load, save_model
from videosafety.models.features import FeatureCache, cached_vision
from videosafety.models.fold import MAX_POSITIONS, fold, observe, suppress
from videosafety.models.wrapped import AlarmModel
from videosafety.video.cache import FrameCache
from videosafety.video.plan import Sampling

TRAINING = "training.json"
CURVE = "curve.jsonl"
LENGTHS = "lengths.json"
FEATURES = "features"
CURVE_KEYS = ("step", "loss", "loss_answer", "loss_visual", "loss_textual", "learning_rate", "tokens", "seconds")
NUM_OBSERVED = 512  # examples to which the verdict rows are fitted; as many others measure them


@dataclass(frozen=True)
class Trained:
    """What a stage left: its checkpoint folder, and ``training.json``."""

    folder: Path
    info: Mapping[str, Any]


def train_stage(
    stage: Stage, config: StageConfig, examples: Sequence[Example], *, base: str, out: Path, seed: int = 0,
    sampling: Sampling | None = None, cache: FrameCache | None = None, features: Path | None = None,
    attention: str | None = None, on_step: OnStep = lambda step, total, loss: None, fit: "Fit | None" = None,
    ships: Sequence[str] = (),
) -> Trained:  # fmt: skip
    """Train one stage; a stage that is finished in ``out`` is only read, one that was killed is resumed.

    Args:
        stage: its name, for the record.
        config: its knobs.
        examples: with absolute media paths, checked (``defend/data``).
        base: the checkpoint to start from: a folder or a hub id.
        out: the checkpoint folder to write; work in progress stands beside it.
        seed: of the order of the rows.
        sampling, cache: how frames are taken; where decoded ones are kept.
        features: folder of vision features where ``feature_cache_gib`` is over 0; None: beside ``out``.
        attention: transformers' attention implementation, None for its default.
        on_step: called with (step, steps, loss).
        fit: how weights are trained, the supervised way by default.
        ships: names of files in the work folder that stay beside the checkpoint.

    Raises:
        CheckpointError: the base does not load, or its tokenizer has our tokens without a sidecar.
        InputError: a batch that does not divide, too many rows lost, features of a family that cannot be kept.
        StorageError: the disk is full.
    """
    if (out / TRAINING).is_file():
        return Trained(out, read_json(out / TRAINING))
    work = out.with_name(f"{out.name}.work")
    args = arguments(config, work=work, seed=seed)
    claim(work, {"stage": stage, "base": base, "config": fingerprint(config), "seed": str(seed),
                 "rows": rows_hash(examples, sampling)})  # fmt: skip

    def begin(device: str) -> Assembled:
        checkpoint = load(base, dtype=torch.float32, attention=attention, device=device)
        return assemble(checkpoint, config, seed=seed)

    with memory_errors(work, samples=stage == "grpo"):
        made = begin("cpu" if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true" else str(args.device))
        rows = Rows(examples, checkpoint=made.checkpoint, structured=config.structured, sampling=sampling, cache=cache)
        before = made.rows()
        kept = _features(config, features or out.parent / FEATURES)
        trainer = (fit or _train)(made, rows, config, args=args, kept=kept, work=work, seed=seed, on_step=on_step)
        whole = trainer.whole_state()
        if PartialState().is_main_process:
            if whole is not None:
                made = begin(str(args.device))
                made.objective.load_state_dict(whole)
            done = Done(trainer.state.global_step, trainer.state.log_history, trainer.faults, tuple(ships))
            known = {"stage": stage, "seed": seed, "base": base, "num_examples": len(examples), **trainer.notes}
            _finish(made, rows, config, before, done, out=out, work=work, known=known)
    PartialState().wait_for_everyone()
    return Trained(out, read_json(out / TRAINING))


Fit = Callable[..., SafetyTrainer]


def _train(
    made: "Assembled", rows: Rows, config: StageConfig, *, args: TrainingArguments, kept: FeatureCache | None,
    work: Path, seed: int, on_step: OnStep,
) -> SafetyTrainer:  # fmt: skip
    """The trainer of a stage, at its last step."""
    lengths = kept_lengths(rows, work / LENGTHS) if config.group_by_length else None
    order = order_of(len(rows), config, seed=seed, lengths=lengths)
    with cached_vision(made.checkpoint, kept) if kept else nullcontext():
        trainer = SafetyTrainer(made.objective, rows, config, args=args, parts=made.parts, order=order, features=kept,
                                on_step=on_step)  # fmt: skip
        trainer.train()
    return trainer


def rows_hash(examples: Sequence[Example], sampling: Sampling | None) -> str:
    """16 hex digits over the rows and how their frames are taken: other rows are other work."""
    total = hashlib.sha256(repr(sampling).encode())
    for example in examples:
        total.update(example.model_dump_json().encode() + b"\n")
    return total.hexdigest()[:16]


@dataclass(frozen=True)
class Assembled:
    """A checkpoint ready to be trained: wrapped, frozen but for its parts, with adapters where the recipe has them."""

    checkpoint: Checkpoint
    objective: Objective
    parts: Mapping[str, list[nn.Parameter]]
    merge: Callable[[], object]

    @property
    def wrapped(self) -> AlarmModel:
        """The model with its alarms."""
        return self.objective.wrapped

    def rows(self) -> Tensor | None:
        """A copy of the alarms' input vectors (A, H)."""
        return None if self.wrapped.alarm is None else self.wrapped.rows_AH.detach().clone().cpu()


def assemble(checkpoint: Checkpoint, config: StageConfig, *, seed: int) -> Assembled:
    """Alarms, adapters and heads in place, everything else frozen. Equal seeds give equal weights in every process."""
    checkpoint = with_alarms(checkpoint, config)
    torch.manual_seed(seed)
    model, decoder = checkpoint.model, checkpoint.family.language_model(checkpoint.model)
    merge: Callable[[], object] = (lambda: None) if config.lora is None else add_adapters(decoder, config.lora)
    if config.gradient_checkpointing:
        recompute = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        recompute({"use_reentrant": False})  # the second name is that of transformers before 5.20
    objective = Objective(AlarmModel(model, checkpoint.alarm))
    objective.shard_by(decoder)
    head = cast(nn.Module, model.get_output_embeddings())
    return Assembled(checkpoint, objective, trainable(objective, (decoder, head), parts=config.trains), merge)


def require_finite(parts: Mapping[str, Sequence[Tensor]], *, where: Path) -> None:
    """Raises VideoSafetyError: a trained weight is no number, so nothing may be saved."""
    if not all(bool(p.isfinite().all()) for some in parts.values() for p in some):
        raise VideoSafetyError("trained weights are no numbers", where=str(where), fix="lower the learning rates")


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


def _features(config: StageConfig, folder: Path) -> FeatureCache | None:
    """The cache of vision features, where the recipe asks for one."""
    num_bytes = int(config.feature_cache_gib * 2**30)
    return FeatureCache(folder, max_bytes=num_bytes) if num_bytes else None


@dataclass(frozen=True)
class Done:
    """What training left beside the weights."""

    num_steps: int
    logs: Sequence[Mapping[str, Any]]
    faults: Mapping[str, str]
    ships: tuple[str, ...]


def _finish(
    made: Assembled, rows: Rows, config: StageConfig, before: Tensor | None, done: Done, *, out: Path, work: Path,
    known: Mapping[str, Any],
) -> None:  # fmt: skip
    """Merge, fold and save; then the work folder goes."""
    require_finite(made.parts, where=work)
    rows.checkpoint = made.checkpoint
    made.merge()
    after = made.rows()
    moved = None if before is None or after is None else [movement(a, b) for a, b in zip(before, after, strict=True)]
    alarm = _folded(made.wrapped, rows, config)
    info = {
        **known, "config": config.model_dump(mode="json"), "num_steps": done.num_steps, "alarm_rows": moved,
        "faults": dict(done.faults),
        "fold": None if alarm is None else {"scale": alarm.scale, "measured": alarm.measured},
    }  # fmt: skip
    curve = [{key: log.get(key) for key in CURVE_KEYS} for log in done.logs if "loss" in log]
    beside = [work / "runs", *(file for name in done.ships for file in sorted(work.glob(f"*{name}")))]
    _save(made.wrapped, made.checkpoint, alarm, out, info=info, curve=curve, beside=beside)
    shutil.rmtree(work)


def _folded(wrapped: AlarmModel, rows: Rows, config: StageConfig) -> Alarm | None:
    if wrapped.alarm is None:
        return None
    wrapped.eval()
    fitted, held_out = (observe(wrapped, _batches(rows, wrapped.model.device, config.micro_batch_size, half=half),
                                per_row=MAX_POSITIONS // NUM_OBSERVED) for half in (0, 1))  # fmt: skip
    return fold(wrapped, fitted, check=held_out)


def _batches(rows: Rows, device: torch.device, size: int, *, half: int) -> Iterator[dict[str, Tensor]]:
    """Batches of one half of some examples spread evenly over the rows, as model inputs with their labels."""
    stride = max(1, len(rows) // (2 * NUM_OBSERVED))
    chosen = iter(range(min(half * stride, len(rows) - 1), len(rows), 2 * stride))
    while some := list(islice(chosen, size)):
        batch = rows.collate([rows[i] for i in some])
        kept = [name for name in batch if name == "labels" or name not in NOT_INPUTS]
        yield {name: cast(Tensor, batch[name]).to(device) for name in kept}


def _save(
    wrapped: AlarmModel, checkpoint: Checkpoint, alarm: Alarm | None, out: Path, *, info: Mapping[str, Any],
    curve: Sequence[Mapping[str, Any]], beside: Sequence[Path],
) -> None:  # fmt: skip
    model = wrapped.unwrap()
    model.requires_grad_(True)
    suppress(model, checkpoint.family.vision_token_ids(model))
    part = out.with_name(f"{out.name}.part")
    save_model(model, checkpoint.processor, part, alarm=alarm)
    with storage_errors(out):
        write_text(part / CURVE, "".join(f"{json.dumps(row)}\n" for row in curve))
        for one in beside:
            if one.is_dir():
                shutil.copytree(one, part / one.name)
            elif one.is_file():
                shutil.copyfile(one, part / one.name)
        write_json(part / TRAINING, dict(info))
        if out.exists():
            shutil.rmtree(out)
        part.rename(out)
