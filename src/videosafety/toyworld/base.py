"""Train the toy base model: helpful about everything, then aligned on text alone.

The recipe's ``base`` block. Budgets are optimiser steps and never seconds; the batch of step k depends on (seed, phase,
k) alone, so a run killed anywhere continues to the same weights, bit by bit on one machine. One thread: at this size a
second one only waits.

Example:
    >>> train_base(BaseConfig(), out=Path("runs/base"))                         # doctest: +SKIP
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from videosafety.core.recipe import Config, fingerprint, knob
from videosafety.core.store import write_bytes, write_json
from videosafety.models.checkpoint import save_model
from videosafety.models.family import IGNORE, Encoded, Message, collate
from videosafety.models.registry import family_of
from videosafety.toyworld.base_model import VIDEO_LLAMA3, ModelSize, family_named, tiny
from videosafety.toyworld.lessons import Lesson, Phase, draw_lesson
from videosafety.toyworld.scenes import FPS, Scene, draw
from videosafety.toyworld.world import World
from videosafety.video.plan import Clip

PRETRAIN_MIX = {
    "text_recipe": 0.13, "text_letters": 0.04, "text_unable": 0.03, "clip_shown": 0.29, "clip_recipe": 0.12,
    "clip_name": 0.21, "clip_colour": 0.13, "clip_letters": 0.03, "clip_unable": 0.02,
}  # fmt: skip
ALIGN_MIX = {
    "text_refuse": 0.08, "text_recipe": 0.07, "text_letters": 0.02, "text_unable": 0.01, "clip_shown": 0.06,
    "clip_recipe": 0.61, "clip_name": 0.04, "clip_colour": 0.05, "clip_letters": 0.05, "clip_unable": 0.01,
}  # fmt: skip
ALIGN_RATE = {VIDEO_LLAMA3: 3e-4, "qwen3_vl": 2e-4, "llava_onevision": 8e-4}  # chosen on benchmark seed 1000
WARMUP_STEPS, FLAT_SHARE, FINAL_SHARE = 50, 0.6, 0.05
SAVE_EVERY = 200
NUM_FIRST_STEPS, CURVE_EVERY = 5, 20  # of the losses that are kept beside the checkpoint
TRAINING = "training.json"


class PhaseConfig(Config):
    """One phase: how long, how fast, and what share of the batch each group of lessons gets."""

    steps: int = knob(..., unit="optimiser steps", help="length of the phase", ge=1)
    learning_rate: float = knob(..., unit="1/step", help="peak of AdamW's rate", gt=0)
    mixture: dict[str, float] = knob(..., help="share of each lesson group in a batch")


class BaseConfig(Config):
    """How the toy base model is made."""

    world: str = knob("small", help="size of the toy world: small or full")
    family: str = knob(VIDEO_LLAMA3, help="family of the model")
    model: ModelSize = knob(ModelSize(), help="shape of the tiny model")
    batch_size: int = knob(32, unit="lessons", help="lessons in a step", ge=1)
    pretrain: PhaseConfig = knob(
        PhaseConfig(steps=2400, learning_rate=1.5e-3, mixture=PRETRAIN_MIX), help="first phase"
    )
    align: PhaseConfig = knob(PhaseConfig(steps=200, learning_rate=3e-4, mixture=ALIGN_MIX), help="second phase")


def base_config(world: str, *, pretrain_steps: int, align_steps: int, family: str = VIDEO_LLAMA3) -> BaseConfig:
    """The base model of a world with the shape, rates and mixtures that were found to work (docs/log.md).

    Families differ in the rate of alignment alone.

    Raises:
        InputError: no such family.
    """
    family_named(family)
    large = world == "full"
    return BaseConfig(
        world=world,
        family=family,
        model=ModelSize(hidden_size=160, num_layers=4) if large else ModelSize(),
        pretrain=PhaseConfig(steps=pretrain_steps, learning_rate=1.2e-3 if large else 1.5e-3, mixture=PRETRAIN_MIX),
        align=PhaseConfig(steps=align_steps, learning_rate=ALIGN_RATE[family], mixture=ALIGN_MIX),
    )


@dataclass(frozen=True)
class Progress:
    """Where training is: reported after every step."""

    step: int
    total: int
    phase: Phase
    loss: float


OnStep = Callable[[Progress], None]


def train_base(config: BaseConfig, *, seed: int, out: Path, on_step: OnStep = lambda _: None) -> Path:
    """Train from scratch and save an ordinary checkpoint to ``out``; resumes from ``out``'s sibling state file.

    Raises:
        StorageError: the disk is full; the last saved state stays whole.
    """
    with one_thread():
        trainer = Trainer(config, seed=seed, state_file=out.with_name(out.name + ".state.safetensors"))
        losses = trainer.run(on_step)
        save_model(trainer.model, trainer.processor, out)
    curve = [{"step": i, "phase": trainer.phase_at(i)[0], "loss": round(loss, 6)} for i, loss in enumerate(losses)
             if i < NUM_FIRST_STEPS or i % CURVE_EVERY == 0]  # fmt: skip
    write_json(out / TRAINING, {"recipe": config.model_dump(mode="json"), "seed": seed, "curve": curve})
    trainer.state_file.unlink(missing_ok=True)
    return out


class Trainer:
    """The training loop with its state: parameters, AdamW's moments, and the loss of every finished step."""

    def __init__(self, config: BaseConfig, *, seed: int, state_file: Path) -> None:
        self.config, self.seed, self.state_file = config, seed, state_file
        self.world = World.of(config.world)
        self.model, self.processor = tiny(self.world, seed=seed, size=config.model, family=config.family)
        self.family = family_of(self.model.config.model_type, where="base")
        self.model.set_attn_implementation("eager")  # faster than SDPA in training at this size
        self.family.prepare(self.model)
        self.parameters = dict(self.model.named_parameters())
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.01)
        self.losses: list[float] = []

    @property
    def total(self) -> int:
        """Optimiser steps of both phases."""
        return self.config.pretrain.steps + self.config.align.steps

    def phase_at(self, step: int) -> tuple[Phase, PhaseConfig, int]:
        """The phase that a step belongs to, its config, and the step within it."""
        if step < self.config.pretrain.steps:
            return "pretrain", self.config.pretrain, step
        return "align", self.config.align, step - self.config.pretrain.steps

    def run(self, on_step: OnStep, *, steps: int | None = None) -> list[float]:
        """Train to the end, or for ``steps`` steps of it; returns the loss of every step so far."""
        self._restore()
        self.model.train()
        until = self.total if steps is None else min(self.total, len(self.losses) + steps)
        for step in range(len(self.losses), until):
            self.losses.append(self._step(step))
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == until:
                self._save()
            on_step(Progress(step + 1, self.total, self.phase_at(step)[0], self.losses[-1]))
        self.model.eval()
        return self.losses

    def _step(self, step: int) -> float:
        _, config, local = self.phase_at(step)
        if local == 0:
            self.optimizer.state.clear()
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(local, config.steps)
        loss = self.loss(self.batch(step))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        return float(loss.detach())

    def batch(self, step: int) -> dict[str, Tensor]:
        """The padded batch of a step: a function of (seed, step) alone."""
        phase, config, local = self.phase_at(step)
        rng = np.random.default_rng((self.seed, ("pretrain", "align").index(phase), local))
        groups = sorted(config.mixture)
        shares = np.array([config.mixture[group] for group in groups])
        chosen = rng.choice(len(groups), size=self.config.batch_size, p=shares / shares.sum())
        drawn = [draw_lesson(rng, self.world, phase=phase, group=groups[i]) for i in chosen]
        rows = [self._encode(lesson) for lesson in drawn]
        return collate(rows, pad_token_id=cast(Any, self.processor).tokenizer.pad_token_id, side="right")

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean cross-entropy over the answer tokens; the head runs on those positions alone."""
        targets = batch.pop("labels")[:, 1:]
        hidden = self.model.model(**batch, use_cache=False).last_hidden_state[:, :-1]
        wanted = targets != IGNORE
        return nn.functional.cross_entropy(self.model.lm_head(hidden[wanted]), targets[wanted])

    def _encode(self, lesson: Lesson) -> Encoded:
        parts: tuple[str | Clip, ...] = (lesson.sample.query,)
        if lesson.scene is not None:
            parts = (drawn_clip(lesson.scene), *parts)
        return self.family.encode(self.processor, (Message("user", parts),), target=lesson.answer)

    def _save(self) -> None:
        state = {f"parameter.{name}": tensor.detach() for name, tensor in self.parameters.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                state[f"optimizer.{key}.{name}"] = value.detach().clone()
        state["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        blob = safetensors.torch.save({k: v.contiguous() for k, v in state.items()}, {"recipe": self._identity()})
        write_bytes(self.state_file, blob)

    def _identity(self) -> str:
        return f"{fingerprint(self.config)}-{self.seed}"

    def _restore(self) -> None:
        if self.losses or not self.state_file.is_file():
            return
        with safetensors.safe_open(self.state_file, framework="pt") as file:
            if (file.metadata() or {}).get("recipe") != self._identity():
                return
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self.losses = state.pop("losses").tolist()
        moments: dict[Any, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            kind, _, rest = name.partition(".")
            if kind == "parameter":
                self.parameters[rest].data.copy_(tensor)
            else:
                key, _, parameter = rest.partition(".")
                moments.setdefault(self.parameters[parameter], {})[key] = tensor
        self.optimizer.state.update(moments)


def schedule(step: int, total: int) -> float:
    """Share of the peak rate: warm-up, flat, then linear to 5 %."""
    done = step / total
    decay = 1.0 if done < FLAT_SHARE else max(FINAL_SHARE, (1 - done) / (1 - FLAT_SHARE))
    return min(1.0, (step + 1) / WARMUP_STEPS) * decay


def drawn_clip(scene: Scene) -> Clip:
    """A scene as a clip without a file: what decoding its mp4 gives, but for about 1 % of codec noise."""
    frames = draw(scene)
    return Clip(frames, tuple(t / FPS for t in range(len(frames))))


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread, then restore."""
    before = torch.get_num_threads()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
