"""What stage 4 rewards: format, the two labels, likeness to the reference, and (ours) the judged outcome.

Paper section 4.3:

    r = r_format + α·r_rouge + γ_v·[visual right] + γ_t·[textual right]  (+ δ·r_outcome, ours; δ = 0 is the paper)
    α = α_min + (1 − Correct_v·Correct_t)·(α_max − α_min)                (DRA: dynamic reward adjustment)

A reward is a pure function ``(Sample, Response) -> float | None``; None means that it does not apply or cannot be
scored, and is never 0 (the released code turns any exception into 0). What has no video still has a visual label: the
response says vidType whatever it was shown, and "safe" is right. A label that is missing in the response is wrong.

Example:
    >>> sample = Sample(id="a", query="What is it?", language="en", reference="A dax.",
    ...                 labels=Labels(visual="safe", textual="safe", request="safe"))
    >>> said = "<think>.</think><answer>A dax.</answer><vidType>0</vidType><textType>1</textType>"
    >>> scores = components(sample, Response(sample_id="a", arm="train", model="m", text=said, stop_reason="stop"))
    >>> scores["format"], scores["visual"], scores["textual"], scores["rouge"], total(scores)
    (1.0, 1.0, 0.0, 1.0, 2.5)
"""

import importlib
import math
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from videosafety.core.errors import RecipeError, RecordError, did_you_mean
from videosafety.core.recipe import Config, knob
from videosafety.core.records import Outcome, Response, Sample, StopReason
from videosafety.core.response import ParsedResponse, ParseStatus, parse
from videosafety.defend.rouge import rouge
from videosafety.judges.base import Judge, judge_response
from videosafety.judges.registry import get

Reward = Callable[[Sample, Response], float | None]
Scores = Mapping[str, float | None]

ARM = "train"  # of responses that are made here
OUTCOMES: Mapping[Outcome, float | None] = {
    Outcome.DEFENDED: 1.0, Outcome.HELPFUL: 1.0, Outcome.COMPROMISED: -1.0, Outcome.OVER_REFUSED: -1.0,
    Outcome.WRONG: 0.0, Outcome.INCOHERENT: 0.0, Outcome.UNSCORED: None,
}  # fmt: skip


class RewardConfig(Config):
    """What stage 4 rewards. A component of weight 0 is measured where it can be, and never counts."""

    gamma_visual: float = knob(1.0, paper=1.0, help="weight of the right visual label", ge=0)
    gamma_textual: float = knob(1.0, paper=1.0, help="weight of the right textual label", ge=0)
    rouge: bool = knob(True, paper=True, help="reward likeness to the reference answer, with the weight alpha")
    rouge_stemming: bool = knob(False, paper=True, help="Porter stemming of [a-z0-9] words, as in the released code")
    alpha_min: float = knob(0.1, paper=0.1, help="weight of ROUGE where both labels are right", ge=0)
    alpha_max: float = knob(0.5, paper=0.5, help="weight of ROUGE where a label is wrong", ge=0)
    dra: bool = knob(True, paper=True, help="alpha follows the labels; off: always the middle of the two bounds")
    outcome_weight: float = knob(0.0, paper=0.0, help="weight of the judged outcome, +1, 0 or -1", ge=0)
    outcome_judge: str | None = knob(None, help="judge of the outcome; never the one that evaluates")
    extra: tuple[str, ...] = knob((), help="more rewards as module:function, each with weight 1")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.alpha_min > self.alpha_max:
            raise ValueError(f"alpha_min {self.alpha_min} is more than alpha_max {self.alpha_max}")
        if self.outcome_weight and self.outcome_judge is None:
            raise ValueError("outcome_weight needs a judge: set outcome_judge")
        wrong = [name for name in self.extra if not all(part.strip() for part in name.partition(":"))]
        if wrong or len(set(self.extra)) < len(self.extra):
            raise ValueError("extra names different rewards, each as module:function")
        return self


def pays_to_mislabel(config: RewardConfig) -> bool:
    """Whether a wrong label can pay: it lifts alpha, which is worth more than the label where ROUGE is near 1.

    A policy was seen to break its tags for it (docs/log.md); the paper's bounds, 0.4 against 1, are safe.
    """
    gain = config.alpha_max - config.alpha_min
    return config.rouge and config.dra and gain > min(config.gamma_visual, config.gamma_textual)


class AdvantageConfig(Config):
    """How rewards become advantages."""

    scale_rewards: Literal["group", "batch", "none"] = knob(
        "group", paper="group", help="divide by the deviation within the group, over the batch, or not at all"
    )
    aggregation: Literal["sum", "gdpo"] = knob(
        "sum", paper="sum", help="sum the rewards, or normalise each by itself first"
    )
    signal: Literal["any", "verified"] = knob(
        "any", paper="any", help="groups that teach: any difference, or one of something other than ROUGE"
    )


DEFAULT = RewardConfig()


def format_reward(sample: Sample, response: Response) -> float | None:
    """1 for a complete structured response, else 0."""
    parsed = _parsed(response)
    return None if parsed is None else float(parsed.status is ParseStatus.COMPLETE)


def visual_reward(sample: Sample, response: Response) -> float | None:
    """1 for the right vidType, else 0. Also without media, where "safe" is right."""
    parsed = _parsed(response)
    return None if parsed is None else float(parsed.visual is sample.labels.visual)


def textual_reward(sample: Sample, response: Response) -> float | None:
    """1 for the right textType, else 0."""
    parsed = _parsed(response)
    return None if parsed is None else float(parsed.textual is sample.labels.textual)


def rouge_reward(sample: Sample, response: Response, *, stemming: bool = False) -> float | None:
    """Mean F1 of ROUGE-1, -2 and -L of the answer in [0, 1]; 0 without an answer, None without a reference."""
    parsed = _parsed(response)
    if parsed is None or sample.reference is None:
        return None
    return rouge(parsed.answer or "", reference=sample.reference, stemming=stemming)


def outcome_reward(judge: Judge, *, faults: Counter[str] | None = None) -> Reward:
    """A reward of what ``judge`` finds: +1 defended or helpful, -1 compromised or over-refused, 0 wrong or incoherent.

    None where there is no verdict; ``faults`` then counts why.
    """

    def outcome(sample: Sample, response: Response) -> float | None:
        verdict = judge_response(judge, sample, response)
        if verdict.outcome is Outcome.UNSCORED and faults is not None:
            faults[f"outcome: {verdict.reason}"] += 1
        return OUTCOMES[verdict.outcome]

    return outcome


def rewards(config: RewardConfig, *, faults: Counter[str] | None = None) -> dict[str, Reward]:
    """The rewards of a config by name; the outcome only where there is a judge.

    Raises:
        InputError: there is no such judge.
        RecipeError: an ``extra`` reward cannot be imported.
    """

    def likeness(sample: Sample, response: Response) -> float | None:
        return rouge_reward(sample, response, stemming=config.rouge_stemming)

    found: dict[str, Reward] = {"format": format_reward, "visual": visual_reward, "textual": textual_reward,
                                "rouge": likeness}  # fmt: skip
    if config.outcome_judge is not None:
        found["outcome"] = outcome_reward(get(config.outcome_judge), faults=faults)
    return found | {name: resolve(name) for name in config.extra}


def resolve(name: str) -> Reward:
    """A reward by ``module:function``.

    Raises:
        RecipeError: no such module or function, or it is no function.
    """
    module, _, function = name.partition(":")
    try:
        room = importlib.import_module(module)
    except ImportError as error:
        raise RecipeError(f"the module {module!r} cannot be imported: {error}", where=f"extra reward {name!r}",
                          fix="install it, or start where Python finds it") from error  # fmt: skip
    reward = getattr(room, function, None)
    if not callable(reward):
        known = [key for key, value in vars(room).items() if callable(value) and not key.startswith("_")]
        raise RecipeError(f"{module} has no function {function!r}", where=f"extra reward {name!r}",
                          fix=did_you_mean(function, known))  # fmt: skip
    return reward  # type: ignore[no-any-return]  # whatever it returns is checked when it is called


def components(
    sample: Sample, response: Response, config: RewardConfig = DEFAULT, *, faults: Counter[str] | None = None
) -> dict[str, float | None]:
    """Every reward of one response by name. What cannot be scored is None, and ``faults`` counts why.

    Raises:
        RecordError: the response belongs to another item.
        InputError, RecipeError: as ``rewards``.
    """
    faults = Counter() if faults is None else faults
    if response.sample_id != sample.id:
        raise RecordError(f"a response to {response.sample_id!r} was paired with the item {sample.id!r}",
                          where=sample.id, fix="join responses to items by sample_id")  # fmt: skip
    found = rewards(config, faults=faults)
    if response.fault is not None:
        faults[f"response: {response.fault}"] += 1
        return dict.fromkeys(found)
    return {
        name: _guarded(name, reward, sample, response, faults) if name in config.extra else reward(sample, response)
        for name, reward in found.items()
    }


def weights(scores: Scores, config: RewardConfig = DEFAULT) -> dict[str, float]:
    """The weight of each component of a response; that of ROUGE is its alpha, which depends on the labels."""
    known = {"format": 1.0, "visual": config.gamma_visual, "textual": config.gamma_textual,
             "rouge": alpha(scores, config) if config.rouge else 0.0, "outcome": config.outcome_weight}  # fmt: skip
    return {name: known.get(name, 1.0) for name in scores}


def alpha(scores: Scores, config: RewardConfig = DEFAULT) -> float:
    """DRA: ``alpha_min`` where both labels are right, else ``alpha_max``. ``request`` plays no part."""
    if not config.dra:
        return (config.alpha_min + config.alpha_max) / 2
    correct = scores.get("visual") == 1 and scores.get("textual") == 1
    return config.alpha_min if correct else config.alpha_max


def total(scores: Scores, config: RewardConfig = DEFAULT) -> float | None:
    """The weighted sum of the components that are not None; None where none of any weight is left.

    Whether a response with a component missing may be compared with the others of its group, ``advantages`` decides.
    """
    weight = weights(scores, config)
    terms = [weight[name] * score for name, score in scores.items() if score is not None and weight[name]]
    return math.fsum(terms) if terms else None


def as_trl_reward(reward: Reward, *, name: str | None = None, column: str = "sample") -> Callable[..., Any]:
    """A reward function for stock TRL (1.16): ``(prompts, completions, **columns) -> list[float | None]``.

    Args:
        reward: any of ours. What it raises, TRL raises.
        name: under which TRL logs it; the function's own by default.
        column: the data set's column that holds each row's ``Sample``, as JSON.

    TRL does not tell a reward that the token limit cut a completion: all count as stopped by themselves.
    """

    def called(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        if column not in columns:
            raise RecipeError(f"the data set has no column {column!r}", where="TRL reward",
                              fix="add it: Sample.model_dump_json() of each row")  # fmt: skip
        samples = [Sample.model_validate_json(row) for row in columns[column]]
        return [reward(sample, _said(sample, one)) for sample, one in zip(samples, completions, strict=True)]

    called.__name__ = name or str(getattr(reward, "__name__", "reward"))
    return called


def _said(sample: Sample, completion: Any) -> Response:
    """A completion of TRL: text, or messages whose content is text or parts of it."""
    if not isinstance(completion, str):
        contents = [message.get("content") or "" for message in completion if message.get("role") == "assistant"]
        parts = [[{"text": one}] if isinstance(one, str) else one for one in contents]
        completion = "".join(str(part.get("text", "")) for one in parts for part in one)
    return Response(sample_id=sample.id, arm=ARM, model="trl", text=completion, stop_reason=StopReason.STOP)


def _parsed(response: Response) -> ParsedResponse | None:
    """The response as the grammar sees it; None where there is none."""
    if response.fault is not None:
        return None
    return parse(response.text, truncated=response.stop_reason is StopReason.LENGTH)


def _guarded(name: str, reward: Reward, sample: Sample, response: Response, faults: Counter[str]) -> float | None:
    """A user's reward may break: then None, the reason counted, without its message, which may quote the answer."""
    try:
        score: object = reward(sample, response)
        if isinstance(score, str | bytes):
            raise TypeError
        value = None if score is None else float(score)  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001 - in any way
        place = traceback.extract_tb(error.__traceback__)[-1]
        faults[f"{name}: {type(error).__name__} at {Path(place.filename).name}:{place.lineno}"] += 1
        return None
    if value is not None and not math.isfinite(value):
        faults[f"{name}: {value}"] += 1
        return None
    return value
