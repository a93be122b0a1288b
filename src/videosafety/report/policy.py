"""Stage 4 over its steps: ``training/grpo-seed-<seed>.policy.jsonl``, one line an optimiser step.

Every reward component with the range of its answers, and what tells whether the training is sound: reward spread, KL,
clipping, groups without signal, length, entropy, the gap between rollout and update, and DSR and FRR on the held-out
slice. A key that is null throughout has no panel. Where a collapse detector starts to fire stands a rule with its name.
Charts and CSV are thinned as those of the losses.

Example:
    >>> policy_charts([])
    []
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict

from videosafety.core.jsonl import read_records
from videosafety.html.panels import Band, Mark, band_panels
from videosafety.html.table import Cell, Column, Table
from videosafety.html.text import Scalar
from videosafety.report.curves import thinned
from videosafety.report.rows import percent

MIDDLE, LOW, HIGH = "_mean", "_p10", "_p90"
COMPONENTS = {  # of the reward, in the order of the panels; others follow by name
    "format": "format", "visual": "visual verdict", "textual": "textual verdict", "rouge": "ROUGE",
    "outcome": "outcome",
}  # fmt: skip
HEALTH = {  # key -> panel
    "reward_std": "reward, standard deviation",
    "advantage_std": "advantage, standard deviation",
    "no_signal_share": "groups without signal, share",
    "unscored_share": "unscored answers, share",
    "kl": "KL to the reference, nats a token",
    "clip_share": "clipped tokens, share",
    "entropy": "entropy, nats a token",
    "sampling_gap": "sampling gap, nats a token",
    "length_mean": "length, tokens (to the p90)",
    "truncated_share": "truncated answers, share",
    "dsr": "DSR, held-out slice",
    "frr": "FRR, held-out slice",
}
REWARD = "reward_mean"
SECONDS = ("seconds_rollout", "seconds_reward", "seconds_update")
IN_TABLE = (REWARD, "dsr", "frr", "length_mean", "kl", "no_signal_share", "unscored_share", "truncated_share",
            "sampling_gap", *SECONDS)  # fmt: skip
_NAME = re.compile(r"^grpo-seed-(?P<seed>\d+)\.policy$")


class PolicyStep(BaseModel):
    """One optimiser step: any number of named values, null where not known.

    ``collapse``: detectors that fired; ``faults``: why completions could not be scored, and how often;
    ``unscorable``: the rewards that failed for all.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, float | None]

    step: int
    collapse: tuple[str, ...] = ()
    faults: dict[str, int] = {}
    unscorable: tuple[str, ...] = ()

    def value(self, key: str) -> float | None:
        """A value by its key; None where it is null or not there."""
        return (self.model_extra or {}).get(key)


@dataclass(frozen=True)
class PolicyRun:
    """The steps of one training run, in their order."""

    seed: int
    steps: tuple[PolicyStep, ...]

    def values(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of one key, without the steps that do not have it."""
        known = [(one.step, value) for one in self.steps if (value := one.value(key)) is not None]
        return [step for step, _ in known], [value for _, value in known]

    @property
    def keys(self) -> list[str]:
        """Every key that has a value somewhere, in the order of the panels, unknown ones last by name."""
        found = {key for one in self.steps for key, value in (one.model_extra or {}).items() if value is not None}
        known = [REWARD, *(f"{name}{MIDDLE}" for name in COMPONENTS), *HEALTH]
        return [key for key in known if key in found] + sorted(found - set(known))

    @property
    def alarms(self) -> list[tuple[int, str]]:
        """Where each collapse detector begins to fire: (step, name)."""
        begun, before = [], set[str]()
        for one in self.steps:
            begun += [(one.step, name) for name in one.collapse if name not in before]
            before = set(one.collapse)
        return begun


def read_policy(folder: Path) -> tuple[PolicyRun, ...]:
    """The policy runs of a run folder, by seed.

    Raises:
        RecordError: a line does not load; names every bad line.
    """
    runs = []
    for path in folder.glob("training/*.policy.jsonl"):
        if (name := _NAME.match(path.stem)) and path.stat().st_size:
            steps = read_records(path, PolicyStep, unique="step")
            runs.append(PolicyRun(int(name["seed"]), tuple(sorted(steps, key=lambda one: one.step))))
    return tuple(sorted(runs, key=lambda run: run.seed))


def policy_lines(run: PolicyRun) -> list[dict[str, float | list[str] | None]]:
    """The steps of a run with no more than ``policy_table`` shows; ``read_policy`` reads them again."""
    return [
        {"step": one.step, **{key: one.value(key) for key in IN_TABLE}, "collapse": list(one.collapse)}
        for one in run.steps
    ]


def policy_charts(runs: Sequence[PolicyRun]) -> list[tuple[str, str, Markup]]:
    """The rewards, then what tells whether the training is sound: (file name, title, SVG)."""
    found = set(_keys(runs))
    rewards = {REWARD: "reward, all components"} | {f"{name}{MIDDLE}": said for name, said in _components(runs).items()}
    marks = _marks(runs)
    charts = []
    for name, title, panels in (
        ("policy-rewards", "Rewards over the steps", rewards),
        ("policy-health", "The policy over the steps", HEALTH),
    ):
        bands = [_band(run, key, said) for key, said in panels.items() if key in found for run in runs]
        if some := [band for band in bands if band.steps]:
            several = f", {len(runs)} runs" if len(runs) > 1 else ""
            charts.append((name, title + several, band_panels(some, marks, title=title + several, x_title="step")))
    return charts


def _keys(runs: Sequence[PolicyRun]) -> list[str]:
    return list(dict.fromkeys(key for run in runs for key in run.keys))


def _components(runs: Sequence[PolicyRun]) -> dict[str, str]:
    """The reward components that have a mean, the known ones first."""
    found = {key.removesuffix(MIDDLE) for key in _keys(runs) if key.endswith(MIDDLE)} - {"reward", "length"}
    known = {name: said for name, said in COMPONENTS.items() if name in found}
    return known | {name: name for name in sorted(found - set(known))}


def _band(run: PolicyRun, key: str, panel: str) -> Band:
    """The curve of a key, with its p10 and p90 where both are known at the same steps (p90 alone above a mean)."""
    steps, values = thinned(*run.values(key))
    name = key.removesuffix(MIDDLE)
    low, high = (thinned(*run.values(name + end)) for end in (LOW, HIGH))
    if not key.endswith(MIDDLE) or high[0] != steps:
        return Band(panel, steps, values)
    return Band(panel, steps, values, low=low[1] if low[0] == steps else values, high=high[1])


def _marks(runs: Sequence[PolicyRun]) -> list[Mark]:
    """Detectors that begin to fire at the same step share a rule."""
    by_step: dict[int, dict[int, list[str]]] = {}
    for run in runs:
        for step, name in run.alarms:
            by_step.setdefault(step, {}).setdefault(run.seed, []).append(name)
    several = len(runs) > 1
    return [
        Mark(step, "; ".join((f"seed {seed}: " if several else "") + ", ".join(names) for seed, names in said.items()))
        for step, said in sorted(by_step.items())
    ]


def policy_table(runs: Sequence[PolicyRun]) -> Table:
    """One row a run: the rewards at the start and at the end (means of a tenth of the steps), and its soundness.

    The CSV holds the points of the charts.
    """
    columns = (
        Column("run", numeric=False), Column("collapse", numeric=False), Column("reward"), Column("DSR"), Column("FRR"),
        Column("length"), Column("KL"), Column("no signal"), Column("unscored"), Column("truncated"),
        Column("largest gap"), Column("seconds a step"),
    )  # fmt: skip
    lines = []
    for run in runs:
        shares = [_mean(run, key) for key in ("no_signal_share", "unscored_share", "truncated_share")]
        lines.append((
            Cell(f"seed {run.seed}", f"{run.steps[-1].step:,} steps"), _collapse(run), _ends(run, REWARD),
            _ends(run, "dsr", share=True), _ends(run, "frr", share=True), _ends(run, "length_mean", digits=1),
            _ends(run, "kl"), *shares, _largest_gap(run), _seconds(run),
        ))  # fmt: skip
    data: list[tuple[Scalar, ...]] = [
        (run.seed, key, step, value)
        for run in runs
        for key in run.keys
        for step, value in zip(*thinned(*run.values(key)), strict=True)
    ]
    note = (
        "Start → end: means of the first and of the last tenth of the steps. DSR and FRR on the held-out slice and the "
        "mean shares of groups without signal and of unscored and truncated answers in percent; length in tokens; KL "
        "in nats a token. Gap: mean |log-probability at the rollout − at the update| of a token. Collapse: the first "
        "step at which a detector began to fire, and which ones did, with their step."
    )
    header = ("seed", "key", "step", "value")
    return Table("policy", "Safety-GRPO, each training run", columns, tuple(lines), header, tuple(data), note)


def _ends(run: PolicyRun, key: str, *, share: bool = False, digits: int = 3) -> Cell:
    _, values = run.values(key)
    if not values:
        return Cell("–")
    tenth = max(1, len(values) // 10)
    ends = (sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth)
    return Cell(" → ".join(percent(end) if share else f"{end:.{digits}f}".replace("-", "−") for end in ends))


def _mean(run: PolicyRun, key: str) -> Cell:
    _, values = run.values(key)
    return Cell(percent(sum(values) / len(values)) if values else "–")


def _largest_gap(run: PolicyRun) -> Cell:
    _, values = run.values("sampling_gap")
    return Cell(f"{max(values):.2g}" if values else "–")


def _seconds(run: PolicyRun) -> Cell:
    """The mean of a step, and of its parts."""
    parts = {key.removeprefix("seconds_"): run.values(key)[1] for key in SECONDS}
    means = {name: sum(values) / len(values) for name, values in parts.items() if values}
    if not means:
        return Cell("–")
    return Cell(f"{sum(means.values()):.2f}", "\n".join(f"{mean:.2f} {name}" for name, mean in means.items()))


def _collapse(run: PolicyRun) -> Cell:
    if not run.alarms:
        return Cell("none")
    return Cell(f"step {run.alarms[0][0]:,}", "\n".join(f"{name}, {step:,}" for step, name in run.alarms))
