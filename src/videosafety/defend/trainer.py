"""transformers' Trainer with our loss: counts of the global batch, a rate for each part, curves, exact resume.

What is ours: the loss is normalised by the answer tokens and labelled samples of the whole *global* batch (all
micro-batches of all processes), so 1 × 8 examples and 8 × 1 give the same gradient; the language model, the alarm rows
and the heads have their own rates; rows that lost their media are recorded; a checkpoint counts only once it is
complete. Optimiser, precision, accumulation, DDP, FSDP2 and DeepSpeed are the Trainer's. Only the first process writes.

Example:
    >>> SafetyTrainer(objective, rows, config, args=args, parts=parts, order=order).train()  # doctest: +SKIP
"""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from videosafety.core.errors import CheckpointError, InputError, VideoSafetyError
from videosafety.core.store import storage_errors, write_text
from videosafety.defend.losses import Counts, Sums, total
from videosafety.defend.needs import need
from videosafety.defend.objective import Objective, count
from videosafety.defend.resume import FAULT_ROWS, last_complete, mark_complete
from videosafety.defend.rows import FAULTS, Row, Rows
from videosafety.defend.stage import StageConfig
from videosafety.models.features import MEDIA_KEYS, FeatureCache
from videosafety.models.memory import is_out_of_memory

RATES = {"llm": "learning_rate", "alarms": "alarm_learning_rate", "heads": "head_learning_rate"}
WEIGHTS = "model.safetensors"

OnStep = Callable[[int, int, float], None]


class Ordered(Dataset[Row]):
    """Rows in the order in which a run sees them, all epochs in one list; None is a row that adds nothing."""

    def __init__(self, rows: Rows, order: Sequence[int | None]) -> None:
        self.rows, self.order = rows, list(order)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Row:
        row = self.order[index]
        return self.rows.blank() if row is None else self.rows[row]


class SafetyTrainer(Trainer):
    """A Trainer of an ``Objective``. ``train`` resumes from the last complete checkpoint in ``args.output_dir``."""

    def __init__(
        self,
        objective: Objective,
        rows: Rows,
        config: StageConfig,
        *,
        args: TrainingArguments,
        parts: Mapping[str, list[nn.Parameter]],
        order: Sequence[int],
        features: FeatureCache | None = None,
        on_step: OnStep = lambda step, total, loss: None,
    ) -> None:
        require_fp32(parts)
        self.config, self.parts, self.work = config, parts, Path(str(args.output_dir))
        self.features = features
        self.num_rows = len(set(order))
        self.faults: dict[str, str] = {}
        self.notes: dict[str, Any] = {}  # for training.json
        self._parts_of_log, self._steps_of_log = torch.zeros(4), 0
        self._started, self._spent_s = time.monotonic(), 0.0
        at_once = args.per_device_train_batch_size * args.world_size
        filled = [*order, *[None] * (-len(order) % at_once)]  # else accelerate fills up with the first rows again
        super().__init__(
            model=objective, args=args, train_dataset=Ordered(rows, filled), data_collator=rows.collate,
            callbacks=[_Report(on_step), _Marker(self._require_finite)],
        )  # fmt: skip
        self.remove_callback(PrinterCallback)  # it prints every log; the curve is in a file
        if self.is_fsdp_enabled and args.bf16:  # accelerate would add gradients up in bf16, too
            policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = policy

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with one group for each part, each with its own rate."""
        if self.optimizer is None:
            groups = [
                {"params": parameters, "lr": getattr(self.config, RATES[part]), "name": part}
                for part, parameters in self.parts.items()
            ]
            kind, arguments_ = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = kind(groups, **{**arguments_, "weight_decay": self.config.weight_decay})
        return self.optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The micro-batches of one step, and the counts (3,) of the global batch."""
        batches = []
        with contextlib.suppress(StopIteration):
            for _ in range(num_batches):
                batches.append(next(epoch_iterator))
        faults = [fault for batch in batches for fault in batch.pop(FAULTS)]
        counts = torch.stack([count(batch) for batch in batches]).sum(dim=0).to(device)
        self._record(faults)
        self._steps_of_log += 1
        return batches, self._summed(counts)

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None, **_: Any
    ) -> Any:
        """The micro-batch's part of the loss of the global batch, times the processes that will be averaged over."""
        with self.features.showing(inputs[MEDIA_KEYS]) if self.features else contextlib.nullcontext():
            sums: Sums = model(inputs)
        counts = Counts(*num_items_in_batch)
        weights = {"lambda_visual": self.config.lambda_visual, "lambda_textual": self.config.lambda_textual}
        loss = total(sums, counts, scaling=self.config.atc_scaling, **weights)
        means = [(s / c.clamp(min=1)).detach().float() for s, c in zip(sums, num_items_in_batch, strict=True)]
        tokens = inputs["attention_mask"].sum().float()
        self._parts_of_log = self._parts_of_log.to(loss.device) + torch.stack([*means, tokens])
        return loss * self.args.world_size

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The Trainer's log with the parts of the loss, means over the steps since the last one."""
        if "loss" in logs:
            self._require_finite()
            answer, visual, textual, tokens = (self._summed(self._parts_of_log) / max(1, self._steps_of_log)).tolist()
            logs |= {"loss_answer": answer, "loss_visual": visual, "loss_textual": textual, "tokens": tokens}
            logs["seconds"] = round(self._spent_s + time.monotonic() - self._started, 3)
            self._parts_of_log, self._steps_of_log = torch.zeros(4), 0
        super().log(logs, start_time)

    def _require_finite(self) -> None:
        """A loss that is no number ends the run before anything of it is saved, in all processes at once."""
        if not self._summed(self._parts_of_log).isfinite().all():
            raise VideoSafetyError(f"the loss is no number at step {self.state.global_step}", where=str(self.work),
                                   fix="lower the learning rates")  # fmt: skip

    def _summed(self, values: Tensor) -> Tensor:
        """Over all processes."""
        if self.args.world_size == 1:
            return values
        return cast(Tensor, self.accelerator.reduce(values.to(self.args.device), reduction="sum"))

    def _record(self, faults: Sequence[tuple[str, str]]) -> None:
        found: list[tuple[str, str]] = list(faults)
        if self.args.world_size > 1 and float(self._summed(torch.tensor(float(len(faults))))):
            found = gather_object(found)
        for id_, what in found:
            if id_ in self.faults:
                continue
            self.faults[id_] = what
            if self.is_world_process_zero():
                file_path = self.work / FAULT_ROWS
                with storage_errors(file_path), file_path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"id": id_, "fault": what, "step": self.state.global_step}) + "\n")
        if len(self.faults) > max(1.0, self.config.max_fault_share * self.num_rows):
            first, what = next(iter(self.faults.items()))
            raise InputError(f"{len(self.faults)} rows lost their media while training, such as {first} ({what})",
                             where=str(self.work / FAULT_ROWS),
                             fix="restore the files and run the same command again: it resumes")  # fmt: skip

    def _recall(self, last: Path | None) -> None:
        """Faults and seconds up to the checkpoint from which training goes on."""
        state = {} if last is None else json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))
        step, file = state.get("global_step", 0), self.work / FAULT_ROWS
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        kept = [row for row in map(json.loads, lines) if row["step"] < step]
        self.faults = {row["id"]: row["fault"] for row in kept}
        self._spent_s = max((log["seconds"] for log in state.get("log_history", []) if "seconds" in log), default=0.0)
        self.accelerator.wait_for_everyone()
        if lines and self.is_world_process_zero():
            write_text(file, "".join(f"{json.dumps(row)}\n" for row in kept))

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """A checkpoint that the disk cuts off is one sentence; it is not marked, so the one before it stays."""
        with storage_errors(self.work):
            super()._save_checkpoint(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Trained parameters as safetensors, each tied tensor once; the Trainer would refuse tied ones."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.work)
        folder.mkdir(parents=True, exist_ok=True)
        model = cast(nn.Module, self.model)
        named = state_dict or {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
        unique = {n: t.contiguous().cpu() for n, t in named.items()}
        safetensors.torch.save_file(unique, folder / WEIGHTS, {"format": "pt"})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """What ``_save`` wrote; the Trainer's own expects one of its models, and all weights."""
        if self.is_fsdp_enabled:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        saved = safetensors.torch.load_file(Path(resume_from_checkpoint) / WEIGHTS)
        found = cast(nn.Module, model or self.model).load_state_dict(saved, strict=False)
        trained = {n for n, p in cast(nn.Module, self.model).named_parameters() if p.requires_grad}
        wrong = [*found.unexpected_keys, *sorted(trained - set(saved))]
        if wrong:
            raise CheckpointError(f"the saved work has other weights, such as {wrong[0]}", where=resume_from_checkpoint,
                                  fix="remove the folder to start anew")  # fmt: skip

    def train(self, *_: Any, **__: Any) -> Any:
        """Train to the end from the last complete checkpoint, or from the start."""
        last = last_complete(self.work, sharded=self.is_fsdp_enabled)
        self._recall(last)
        result = super().train(resume_from_checkpoint=None if last is None else str(last))
        self._require_finite()
        return result

    def whole_state(self) -> dict[str, Tensor] | None:
        """All parameters of a model that lies in shards, gathered in the first process; None where there are none."""
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            return None
        return cast(dict[str, Tensor], self.accelerator.get_state_dict(self.model_wrapped))


def arguments(config: StageConfig, *, work: Path, seed: int) -> TrainingArguments:
    """The Trainer's arguments of a stage.

    Raises:
        DependencyError: a logger is not installed.
        InputError: the global batch is no multiple of what all processes hold at once.
    """
    for logger in config.report_to:
        need(logger, f"training curves in {logger}")
    made = TrainingArguments(
        output_dir=str(work), per_device_train_batch_size=config.micro_batch_size, seed=seed, data_seed=seed,
        max_steps=config.max_steps or -1, num_train_epochs=1, train_sampling_strategy="sequential",
        learning_rate=config.learning_rate, lr_scheduler_type=config.schedule, warmup_steps=config.warmup_share,
        weight_decay=config.weight_decay, max_grad_norm=config.max_grad_norm, adam_beta2=0.999,
        bf16=config.precision == "bf16", logging_steps=config.log_steps, logging_nan_inf_filter=False,
        save_strategy="steps" if config.save_steps else "no", save_steps=max(1, config.save_steps),
        remove_unused_columns=False, disable_tqdm=True, report_to=list(config.report_to) or "none",
        dataloader_num_workers=config.workers, dataloader_drop_last=False, ddp_find_unused_parameters=False,
        average_tokens_across_devices=True, log_level="error", use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    at_once = config.micro_batch_size * made.world_size
    if config.batch_size % at_once:
        what = f"batch_size {config.batch_size} is no multiple of micro_batch_size {config.micro_batch_size}"
        raise InputError(f"{what} times {made.world_size} processes", where="train", fix=f"use a multiple of {at_once}")
    made.gradient_accumulation_steps = config.batch_size // at_once
    made._n_gpu = min(1, made.n_gpu)  # else one process would split each batch among all GPUs (nn.DataParallel)
    return made


def require_fp32(parts: Mapping[str, list[nn.Parameter]]) -> None:
    """Raises InputError: a trained weight is not fp32. At a rate of 1e-6 a bf16 weight does not move at all."""
    wrong = next((p.dtype for some in parts.values() for p in some if p.dtype is not torch.float32), None)
    if wrong is not None:
        what = f"the weights to train are {str(wrong).removeprefix('torch.')}, in which small steps are lost"
        raise InputError(what, where="dtype", fix="load them as float32; precision: bf16 computes in bf16")


@contextlib.contextmanager
def memory_errors(where: Path, *, samples: bool = False) -> Iterator[None]:
    """Out of memory, on a device or in the machine, as one sentence that says what to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sampling = "rollout_batch_size (0 decodes all prompts of a step at once), max_new_tokens, " if samples else ""
        fix = f"lower {sampling}micro_batch_size or max_frames, or set gradient_checkpointing: true or lora"
        raise VideoSafetyError("out of memory while training", where=str(where), fix=fix) from error


class _Marker(TrainerCallback):
    """Marks a checkpoint as complete once all processes have written their part, and removes older ones."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.check = check

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.check()
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            with storage_errors(str(args.output_dir)):
                mark_complete(Path(str(args.output_dir)), state.global_step)


class _Report(TrainerCallback):
    """Tells a person how far training is."""

    def __init__(self, on_step: OnStep) -> None:
        self.on_step = on_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        loss = next((row["loss"] for row in reversed(state.log_history) if "loss" in row), math.nan)
        if state.is_world_process_zero:
            self.on_step(state.global_step, state.max_steps, float(loss))
