"""transformers' Trainer with our loss: counts of the global batch, a rate for each part, curves, exact resume.

What is ours: the loss is normalised by the answer tokens and labelled samples of the whole *global* batch (all
micro-batches of all processes), so 1 × 8 examples and 8 × 1 give the same gradient; the language model, the alarm rows
and the heads have their own rates; rows that lost their media are recorded; a checkpoint counts only once it is
complete. Optimiser, precision, accumulation, DDP, FSDP2 and DeepSpeed are the Trainer's.

Example:
    >>> SafetyTrainer(objective, rows, config, parts=parts, work=folder, seed=0).train()     # doctest: +SKIP
"""

import contextlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from videosafety.core.errors import InputError, VideoSafetyError
from videosafety.core.store import write_json
from videosafety.defend.losses import Counts, Sums, total
from videosafety.defend.objective import Objective, count
from videosafety.defend.rows import FAULTS, Row, Rows
from videosafety.defend.stage import StageConfig

COMPLETE = "complete"  # in a checkpoint that was written to its end
FAULT_ROWS = "faults.jsonl"
RATES = {"llm": "learning_rate", "alarms": "alarm_learning_rate", "heads": "head_learning_rate"}

OnStep = Callable[[int, int, float], None]


class Ordered(Dataset[Row]):
    """Rows in the order in which a run sees them, all epochs in one list."""

    def __init__(self, rows: Rows, order: Sequence[int]) -> None:
        self.rows, self.order = rows, list(order)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Row:
        return self.rows[self.order[index]]


class SafetyTrainer(Trainer):
    """A Trainer of an ``Objective``. ``train`` resumes from the last complete checkpoint in ``work``."""

    def __init__(
        self,
        objective: Objective,
        rows: Rows,
        config: StageConfig,
        *,
        parts: Mapping[str, list[nn.Parameter]],
        order: Sequence[int],
        work: Path,
        seed: int,
        on_step: OnStep = lambda step, total, loss: None,
    ) -> None:
        require_fp32(parts)
        self.config, self.parts, self.work = config, parts, work
        self._parts_of_log = torch.zeros(4)
        self._started = time.monotonic()
        self.faults: dict[str, str] = {}
        super().__init__(
            model=objective, args=arguments(config, work=work, seed=seed, num_rows=len(order)),
            train_dataset=Ordered(rows, order), data_collator=rows.collate,
            callbacks=[_Report(on_step), _Marker()],
        )  # fmt: skip
        self.num_rows = len(set(order))
        self.remove_callback(PrinterCallback)  # it prints every log; the curve is in a file

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with one group for each part, each with its own rate."""
        if self.optimizer is None:
            groups = [
                {"params": parameters, "lr": getattr(self.config, RATES[part]), "name": part}
                for part, parameters in self._live_parts(model).items()
            ]
            kind, arguments_ = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = kind(groups, **{**arguments_, "weight_decay": self.config.weight_decay})
        return self.optimizer

    def _live_parts(self, model: Any) -> dict[str, list[nn.Parameter]]:
        """The parts as parameters of the model that is trained: sharding makes new ones, under the same names."""
        name_of = {id(p): name for name, p in self._names.items()}
        live = dict(cast(nn.Module, model or self.model).named_parameters())
        return {part: [live[name_of[id(p)]] for p in some] for part, some in self.parts.items()}

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The micro-batches of one step, and the counts (3,) of the global batch."""
        batches = []
        with contextlib.suppress(StopIteration):
            for _ in range(num_batches):
                batches.append(next(epoch_iterator))
        for batch in batches:
            self._record(batch.pop(FAULTS))
        counts = torch.tensor([count(batch) for batch in batches]).sum(dim=0).to(device)
        if self.args.world_size > 1:
            counts = self.accelerator.reduce(counts, reduction="sum")
        return batches, counts

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None, **_: Any
    ) -> Any:
        """The micro-batch's part of the loss of the global batch, times the processes that will be averaged over."""
        sums: Sums = model(inputs)
        counts = Counts(*num_items_in_batch)
        weights = {"lambda_visual": self.config.lambda_visual, "lambda_textual": self.config.lambda_textual}
        loss = total(sums, counts, scaling=self.config.atc_scaling, **weights)
        means = [(s / c.clamp(min=1)).detach().float() for s, c in zip(sums, num_items_in_batch, strict=True)]
        tokens = inputs["attention_mask"].sum().float()
        self._parts_of_log = self._parts_of_log.to(loss.device) + torch.stack([*means, tokens])
        return loss * self.args.world_size

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The Trainer's log with the parts of the loss; a loss that is no number ends the run."""
        if "loss" in logs:
            steps = max(1, self.config.log_steps)
            parts = self._parts_of_log
            if self.args.world_size > 1:
                parts = self.accelerator.reduce(parts, reduction="sum")
            answer, visual, textual, tokens = (parts / steps).tolist()
            logs |= {"loss_answer": answer, "loss_visual": visual, "loss_textual": textual, "tokens": tokens}
            logs["seconds"] = round(time.monotonic() - self._started, 3)
            self._parts_of_log = torch.zeros(4)
            if not math.isfinite(logs["loss"]):
                raise VideoSafetyError(f"the loss is {logs['loss']} at step {self.state.global_step}",
                                       where=str(self.work), fix="lower the learning rates")  # fmt: skip
        super().log(logs, start_time)

    def _record(self, faults: Sequence[tuple[str, str]]) -> None:
        for id_, what in faults:
            if id_ in self.faults:
                continue
            self.faults[id_] = what
            with (self.work / FAULT_ROWS).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"id": id_, "fault": what, "step": self.state.global_step}) + "\n")
        if len(self.faults) > max(1.0, self.config.max_fault_share * self.num_rows):
            first, what = next(iter(self.faults.items()))
            raise InputError(f"{len(self.faults)} rows lost their media while training, such as {first} ({what})",
                             where=str(self.work / FAULT_ROWS),
                             fix="restore the files and run the same command again: it resumes")  # fmt: skip

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Trained parameters as safetensors, each tied tensor once; the Trainer would refuse tied ones."""
        folder = Path(output_dir or self.work)
        folder.mkdir(parents=True, exist_ok=True)
        model = cast(nn.Module, self.model)
        named = state_dict or {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
        unique = {n: t.contiguous().cpu() for n, t in named.items()}
        safetensors.torch.save_file(unique, folder / "model.safetensors", {"format": "pt"})

    def train(self, *_: Any, **__: Any) -> Any:
        """Train to the end from the last complete checkpoint, or from the start."""
        self._names = dict(cast(nn.Module, self.model).named_parameters())
        last = last_complete(self.work)
        try:
            return super().train(resume_from_checkpoint=None if last is None else str(last))
        except torch.OutOfMemoryError as error:
            fix = "lower micro_batch_size or decoding.max_frames, or set gradient_checkpointing: true or lora"
            raise VideoSafetyError("out of memory while training", where=str(self.work), fix=fix) from error


def arguments(config: StageConfig, *, work: Path, seed: int, num_rows: int) -> TrainingArguments:
    """The Trainer's arguments of a stage.

    Raises:
        InputError: the global batch is no multiple of what all processes hold at once.
    """
    made = TrainingArguments(
        output_dir=str(work), per_device_train_batch_size=config.micro_batch_size, seed=seed, data_seed=seed,
        max_steps=config.max_steps or -1, num_train_epochs=1, train_sampling_strategy="sequential",
        learning_rate=config.learning_rate, lr_scheduler_type=config.schedule, warmup_steps=config.warmup_share,
        weight_decay=config.weight_decay, max_grad_norm=config.max_grad_norm, adam_beta2=0.999,
        bf16=config.precision == "bf16", logging_steps=config.log_steps, logging_nan_inf_filter=False,
        save_strategy="steps" if config.save_steps else "no", save_steps=max(1, config.save_steps), save_total_limit=1,
        remove_unused_columns=False, disable_tqdm=True, report_to=list(config.report_to) or "none",
        dataloader_num_workers=config.workers, dataloader_drop_last=False, ddp_find_unused_parameters=False,
        average_tokens_across_devices=True, log_level="error", use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    at_once = config.micro_batch_size * made.world_size
    if config.batch_size % at_once:
        what = f"batch_size {config.batch_size} is no multiple of micro_batch_size {config.micro_batch_size}"
        raise InputError(f"{what} times {made.world_size} processes", where="train", fix=f"use a multiple of {at_once}")
    made.gradient_accumulation_steps = config.batch_size // at_once
    return made


def require_fp32(parts: Mapping[str, list[nn.Parameter]]) -> None:
    """Raises InputError: a trained weight is not fp32. At a rate of 1e-6 a bf16 weight does not move at all."""
    wrong = next((p.dtype for some in parts.values() for p in some if p.dtype is not torch.float32), None)
    if wrong is not None:
        what = f"the weights to train are {str(wrong).removeprefix('torch.')}, in which small steps are lost"
        raise InputError(what, where="dtype", fix="load them as float32; precision: bf16 computes in bf16")


def last_complete(work: Path) -> Path | None:
    """The newest checkpoint that was written to its end; others are removed."""
    found = sorted(work.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
    for folder in found:
        if not (folder / COMPLETE).is_file():
            shutil.rmtree(folder)
    return next((folder for folder in reversed(found) if folder.exists()), None)


class _Marker(TrainerCallback):
    """Marks a checkpoint as complete: called after everything in it is written."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            write_json(folder / COMPLETE, {"step": state.global_step})


class _Report(TrainerCallback):
    """Tells a person how far training is."""

    def __init__(self, on_step: OnStep) -> None:
        self.on_step = on_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        loss = next((row["loss"] for row in reversed(state.log_history) if "loss" in row), math.nan)
        self.on_step(state.global_step, state.max_steps, float(loss))
