"""The Trainer of stage 4: sample, reward, advantage, update, one optimiser step at a time.

Optimiser, precision, accumulation, processes and resume are those of stages 1 to 3 (``trainer.py``). A step's prompts
are encoded once; what was sampled is a function of (seed, step, place in the global batch, weights), so a run that was
killed goes on as if it had not been, and several processes sample what one would. Every step is a row of
``policy.jsonl``, every group of completions a row of ``rollouts.jsonl``.

Axes: S sequences, C completion tokens.

Example:
    >>> trainer = PolicyTrainer(objective, rows, config, args=args, parts=parts, order=order, engine=engine)
    ...                                                                         # doctest: +SKIP
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from videosafety.core.errors import ServerError, VideoSafetyError
from videosafety.core.labels import Safety
from videosafety.core.records import Outcome, Sample, StopReason
from videosafety.core.store import storage_errors, write_text
from videosafety.defend.collapse import UNSCORABLE, collapsed, unscorable
from videosafety.defend.grade import Graded, grade, step_row
from videosafety.defend.policy import POLICY, PolicyBatch, PolicyObjective, PolicyOutput, PolicyRow, PolicyRows
from videosafety.defend.policy_loss import BatchCounts, policy_loss
from videosafety.defend.resume import is_complete, mark_complete
from videosafety.defend.rows import ALARM_TARGETS, FAULTS
from videosafety.defend.server_engine import ServerEngine
from videosafety.defend.stage import GrpoConfig
from videosafety.defend.trainer import OnStep, SafetyTrainer
from videosafety.models.features import MEDIA_KEYS
from videosafety.models.prefix import Prefix
from videosafety.models.rollout import Completion, Decoding, LocalEngine, Prompt

NOTHING_SAID = Completion((), (), "", StopReason.STOP)
CURVE_FILE, ROLLOUTS = "policy.jsonl", "rollouts.jsonl"
FAULT_COUNTS = "faults"  # of a row: why completions could not be scored, and how often
MEANS = ("kl", "clip_share", "entropy", "sampling_gap")  # over the tokens of a step
HELD_OUT = (("dsr", Safety.HARMFUL, Outcome.DEFENDED), ("frr", Safety.SAFE, Outcome.OVER_REFUSED))
HeldOut = Callable[[], Sequence[tuple[Sample, Outcome]]]

log = logging.getLogger(__name__)


class PolicyTrainer(SafetyTrainer):
    """A trainer of a ``PolicyObjective``. ``held_out`` answers prompts that are kept aside and judges the answers."""

    def __init__(
        self,
        objective: PolicyObjective,
        rows: PolicyRows,
        config: GrpoConfig,
        *,
        args: TrainingArguments,
        parts: Mapping[str, list[nn.Parameter]],
        order: Sequence[int],
        engine: LocalEngine | ServerEngine,
        held_out: HeldOut | None = None,
        on_step: OnStep = lambda step, total, loss: None,
    ) -> None:
        super().__init__(objective, rows, config, args=args, parts=parts, order=order, on_step=on_step)
        self.policy, self.knobs, self.engine, self.held_out = objective, config, engine, held_out
        self.grading_faults: Counter[str] = Counter()
        self.history: list[dict[str, Any]] = []
        self._batches: list[PolicyBatch] = []
        self._row: dict[str, Any] = {}
        self._sums, self._update_began = torch.zeros(5), 0.0
        self.add_callback(_StepEnd(self._end_step))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The prompts of a step with sampled completions and their advantages, and the counts of the global batch."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.state.global_step == 0 and not self.history:
            self._keep({"step": 0, **self._asked()})
        if self.state.global_step % self.knobs.num_iterations == 0:
            self._batches = self._sampled(batches, device)
        known = [(~one.targets_BA.isnan()).sum(dim=0) for one in self._batches]
        counted = sum(one.num_counted for one in self._batches)
        tokens = sum(int(one.mask_SC.sum()) for one in self._batches)
        counts = torch.tensor([counted, tokens, *torch.stack(known).sum(dim=0).tolist()], dtype=torch.float32)
        self._update_began = time.monotonic()
        return [{POLICY: one} for one in self._batches], self._summed(counts.to(device))

    def _sampled(self, batches: Sequence[dict[str, Any]], device: torch.device) -> list[PolicyBatch]:
        """One round: encode, sample, score."""
        began = time.monotonic()
        rows: list[list[PolicyRow]] = [batch.pop(POLICY) for batch in batches]
        with self._sampling():
            prefixes = [Prefix.of(self.policy.wrapped.model, _inputs(batch, device)) for batch in batches]
            groups = self._said(rows, prefixes)
        sampled = time.monotonic()
        flat = [row for some in rows for row in some]
        asked = [(row.sample, group) for row, group in zip(flat, groups, strict=True) if row.sample is not None]
        mine = {"rank": self.args.process_index, "several": self.args.world_size > 1}
        graded = grade([sample for sample, _ in asked], [group for _, group in asked], self.knobs, **mine)
        for fault in sorted(set(graded.faults) - set(self.grading_faults)):
            log.warning("a completion could not be scored: %s (told once)", fault)
        self._record_rollouts(graded)
        self._row |= {"seconds_rollout": sampled - began, "seconds_reward": time.monotonic() - sampled}
        advantages = iter(graded.found.values_PG[graded.first : graded.first + len(asked)])
        nothing = torch.zeros(self.knobs.num_generations)
        each = [nothing if row.sample is None else next(advantages) for row in flat]
        made, start = [], 0
        for batch, prefix, some in zip(batches, prefixes, rows, strict=True):
            at = slice(start, start + len(some))
            made.append(PolicyBatch.of(prefix, groups[at], torch.stack(each[at]), targets_BA=batch[ALARM_TARGETS],
                                       counts=[row.sample is not None for row in some]))  # fmt: skip
            start += len(some)
        return made

    def _said(self, rows: Sequence[Sequence[PolicyRow]], prefixes: Sequence[Prefix]) -> list[tuple[Completion, ...]]:
        """Completions of this process's prompts, in their order; rows that add nothing are asked of no server."""
        knobs, seed = self.knobs, np.random.SeedSequence((self.args.seed, self.state.global_step)).generate_state(1)
        decoding = Decoding(knobs.num_generations, knobs.max_new_tokens, knobs.temperature)
        if isinstance(self.engine, LocalEngine):
            return self.engine.complete(prefixes, decoding, seed=int(seed[0]), places=self._places(rows))
        self.engine.refresh(self.state.global_step)
        flat = [row for some in rows for row in some]
        asked = [Prompt(row.id, row.conversation, row.encoded) for row in flat if row.sample is not None]
        answered = iter(self.engine.generate(asked, decoding, seed=int(seed[0])))
        nothing = (NOTHING_SAID,) * knobs.num_generations
        return [nothing if row.sample is None else next(answered) for row in flat]

    def _places(self, rows: Sequence[Sequence[PolicyRow]]) -> list[int]:
        """Of this process's prompts in the global batch, whose micro-batches go to the processes in turn."""
        size, rank, num = self.args.per_device_train_batch_size, self.args.process_index, self.args.world_size
        return [(k * num + rank) * size + j for k, some in enumerate(rows) for j in range(len(some))]

    @contextmanager
    def _sampling(self) -> Iterator[None]:
        """The policy as it samples: without dropout, in the precision of training."""
        self.policy.eval()
        try:
            with torch.no_grad(), self.accelerator.autocast():
                yield
        finally:
            self.policy.train()

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None, **_: Any
    ) -> Any:
        """The micro-batch's part of the policy loss of the global batch."""
        one: PolicyBatch = inputs[POLICY]
        one.require_same()
        out: PolicyOutput = model(inputs)
        sequences, tokens, *labelled = num_items_in_batch
        terms = policy_loss(
            out.logp_SC, one.old_SC, one.advantage_S, one.mask_SC, ref_SC=out.ref_SC, beta=self.knobs.beta,
            counts=BatchCounts(sequences, tokens, self.knobs.max_new_tokens), epsilon_low=self.knobs.epsilon_low,
            epsilon_high=self.knobs.epsilon_high, loss_type=self.knobs.loss_type, kl=self.knobs.kl,
        )  # fmt: skip
        visual, textual = (s / c.clamp(min=1) for s, c in zip((out.visual, out.textual), labelled, strict=True))
        loss = terms.loss + self.knobs.lambda_visual * visual + self.knobs.lambda_textual * textual
        gap = torch.where(one.mask_SC, (out.logp_SC - one.old_SC).abs(), 0.0).sum()
        self._require_own(gap.detach() / terms.tokens)
        sums = torch.stack([terms.kl_sum, terms.clipped_sum, out.entropy_SC.sum(), gap, terms.tokens]).detach().float()
        self._sums = self._sums.to(loss.device) + sums
        means = torch.stack([torch.zeros_like(visual), visual, textual]).detach().float()
        length = (one.prefix.mask_BP.sum() + one.mask_SC.sum()).float().reshape(1)
        self._parts_of_log = self._parts_of_log.to(loss.device) + torch.cat([means, length])
        return loss * self.args.world_size

    def _require_own(self, gap: Tensor) -> None:
        """What a server sampled must have the policy's log-probs when it is learnt from for the first time."""
        server = self.knobs.server
        if server is None or self.state.global_step % self.knobs.num_iterations or not gap > server.tolerance:
            return
        what = f"log-probs of a step's completions are {float(gap):.3g} from the policy's on average"
        fix = "let one server, which nobody else reloads, answer there; then resume the run"
        raise ServerError(
            f"{what}, {server.tolerance:g} is allowed: some are of other weights", where=server.url, fix=fix
        )

    def _end_step(self) -> None:
        """Write the row of the step that was just taken."""
        kl, clipped, entropy, gap, tokens = self._summed(self._sums).tolist()
        self._sums = torch.zeros(5)
        means = (value / tokens if tokens else None for value in (kl, clipped, entropy, gap))
        row = {"step": self.state.global_step, **self._row, **dict(zip(MEANS, means, strict=True)),
               "seconds_update": time.monotonic() - self._update_began}  # fmt: skip
        every = self.knobs.held_out_steps
        if every and (self.state.global_step % every == 0 or self.state.global_step == self.state.max_steps):
            row |= self._asked()
        rounds = [one for one in (*self.history, row) if (one["step"] - 1) % self.knobs.num_iterations == 0]
        self._require_scorable(rounds)
        fired = collapsed(rounds, self.knobs.collapse)
        row["collapse"] = fired
        self._note(row)
        for one in self.notes.get("collapse", ()):
            if one["step"] == row["step"]:
                log.warning(
                    "stage 4 has collapsed at step %d: %s (%s)", one["step"], one["name"], self.work / CURVE_FILE
                )
        self._keep(row)
        self._row.pop(FAULT_COUNTS, None)  # further steps on the same completions have not failed again

    def _note(self, row: Mapping[str, Any]) -> None:
        """What a row adds to ``training.json``; called for every row in turn, also after a resume."""
        before = self.history[-1].get("collapse", []) if self.history else []
        for name in sorted(set(row.get("collapse", ())) - set(before)):
            self.notes.setdefault("collapse", []).append({"name": name, "step": row["step"]})
        self.grading_faults.update(row.get(FAULT_COUNTS, {}))
        self.notes["grading_faults"] = dict(self.grading_faults)

    def _require_scorable(self, rounds: Sequence[Mapping[str, Any]]) -> None:
        """A reward that keeps failing must not leave the others to train alone."""
        patience = self.knobs.collapse.patience
        if lost := unscorable(rounds, patience):
            why = ", ".join(fault for fault, _ in Counter(rounds[-1][FAULT_COUNTS]).most_common(3))
            raise VideoSafetyError(
                f"for {patience} rounds no response could be scored by {', '.join(lost)} ({why})",
                where=str(self.work / CURVE_FILE), fix="mend that and run the same command again: it resumes",
            )  # fmt: skip

    def _asked(self) -> dict[str, float | None]:
        """DSR and FRR of the prompts that were kept aside, greedy."""
        if self.held_out is None:
            return {}
        with self._sampling():
            judged = self.held_out()
        found: dict[str, float | None] = {}
        scored = [(sample.labels.request, said) for sample, said in judged if said is not Outcome.UNSCORED]
        for name, request, outcome in HELD_OUT:
            known = [said for asked, said in scored if asked is request]
            found[name] = sum(said is outcome for said in known) / len(known) if known else None
        return found

    def _record_rollouts(self, graded: Graded) -> None:
        step = self.state.global_step + 1
        groups = graded.groups(step)
        self._row = dict(step_row(graded))
        if graded.faults:
            self._row |= {FAULT_COUNTS: dict(graded.faults), UNSCORABLE: graded.unscorable(self.knobs.rewards)}
        if self.knobs.keep_rollouts and groups:
            file = ROLLOUTS if self.args.world_size == 1 else f"{self.args.process_index}-{ROLLOUTS}"
            self._append(file, "".join(group.model_dump_json() + "\n" for group in groups))

    def _keep(self, row: dict[str, Any]) -> None:
        self.history.append(row)
        if self.is_world_process_zero():
            self._append(CURVE_FILE, json.dumps(row) + "\n")

    def _append(self, name: str, text: str) -> None:
        with storage_errors(self.work / name), (self.work / name).open("a", encoding="utf-8") as file:
            file.write(text)

    def _recall(self, last: Path | None) -> None:
        """Rows and completions up to the checkpoint from which training goes on; later ones will be made again."""
        super()._recall(last)
        state = {} if last is None else json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))
        step = state.get("global_step", -1)
        for row in _cut(self.work / CURVE_FILE, step, write=self.is_world_process_zero()):
            self._note(row)
            self.history.append(row)
        for file in self.work.glob(f"*{ROLLOUTS}"):
            _cut(file, step, write=self.is_world_process_zero())
        self.accelerator.wait_for_everyone()

    def train(self, *_: Any, **__: Any) -> Any:
        """Train to the end; a server that is gone leaves a checkpoint of the last finished step."""
        try:
            return super().train()
        except ServerError:
            step = self.state.global_step
            if step and not is_complete(self.work, step):  # a whole one is never written over
                self._save_checkpoint(self.model, trial=None)
                mark_complete(self.work, step)
            raise


def _inputs(batch: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    """A family's tensors of a batch, on the device."""
    apart = ("labels", ALARM_TARGETS, FAULTS, MEDIA_KEYS, POLICY)
    return {name: cast(Tensor, value).to(device) for name, value in batch.items() if name not in apart}


def _cut(file: Path, step: int, *, write: bool) -> list[dict[str, Any]]:
    """The rows of a file up to a step; a line that was cut off by a kill is none of them."""
    kept: list[dict[str, Any]] = []
    lines = file.read_text(encoding="utf-8").split("\n") if file.is_file() else [""]  # a text may hold U+2028
    for line in lines[:-1]:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if row["step"] > step:
            break
        kept.append(row)
    if write and lines[len(kept) :] != [""]:
        write_text(file, "".join(line + "\n" for line in lines[: len(kept)]))
    return kept


class _StepEnd(TrainerCallback):
    """Tells the trainer that a step is done, before anything is saved."""

    def __init__(self, end: Callable[[], None]) -> None:
        self.end = end

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.end()
