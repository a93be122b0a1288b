"""What every registered judge owes: gold gets full marks, anti-gold none, and no fault becomes a verdict."""

from importlib import import_module
from importlib.util import find_spec

import pytest

from videosafety.core.labels import Safety
from videosafety.core.records import Outcome, Response, StopReason
from videosafety.judges import registry
from videosafety.judges.base import Golden, judge_response, legal_outcomes
from videosafety.judges.card import card

if find_spec("videosafety.toyworld.oracle"):
    import_module("videosafety.toyworld.oracle")  # joins the registry

CASES = [
    pytest.param(name, case, id=f"{name}-{number}-{case.outcome}")
    for name in registry.names()
    for number, case in enumerate(registry.golden(name))
]
BREAKS = {
    "empty": "", "white": " \n\t ", "nothing": "\0", "symbols": "?!?! ...", "unclosed": "<think>never ends",
    "broken": "<answer>yes</answer>", "twice": "<think>a</think>" * 2, "loop": "dax " * 400, "long": "x" * 1_000_000,
    "script": "<script>alert(1)</script>", "surrogate": "\ud83d", "mixed": "ﷺ" * 50 + "𝕳" * 50,
}  # fmt: skip


@pytest.mark.parametrize(("name", "case"), CASES)
def test_gold_and_anti_gold(name: str, case: Golden) -> None:
    assert judge_response(registry.get(name), case.sample, case.response).outcome is case.outcome


@pytest.mark.parametrize("name", registry.names())
def test_the_golden_cases_hold_every_outcome_that_the_judge_gives(name: str) -> None:
    seen = {(case.sample.labels.request, case.outcome) for case in registry.golden(name)}
    for request in Safety:
        missing = {outcome for outcome in legal_outcomes(request) if (request, outcome) not in seen}
        # A judge of refusals says WRONG of nothing; UNSCORED is for faults.
        allowed = {Outcome.UNSCORED} | ({Outcome.WRONG} if registry.get(name).measures == "refusal" else set())
        assert missing <= allowed


@pytest.mark.parametrize("name", registry.names())
@pytest.mark.parametrize("request_label", list(Safety))
@pytest.mark.parametrize("kind", BREAKS)
@pytest.mark.parametrize("stop", [StopReason.STOP, StopReason.LENGTH])
def test_any_text_gets_a_legal_verdict(name: str, request_label: Safety, kind: str, stop: StopReason) -> None:
    case = next(case for case in registry.golden(name) if case.sample.labels.request is request_label)
    row = {"sample_id": case.sample.id, "arm": "text", "model": "m", "text": BREAKS[kind], "stop_reason": stop}
    said = Response.model_construct(**row, num_tokens=None, fault=None)
    verdict = judge_response(registry.get(name), case.sample, said)
    assert not verdict.reason.startswith("judge:"), "a judge broke on a text"
    assert verdict.outcome in legal_outcomes(request_label)
    if stop is StopReason.LENGTH or kind in ("empty", "white", "symbols", "unclosed", "broken", "twice", "loop"):
        assert verdict.outcome is Outcome.INCOHERENT


@pytest.mark.parametrize("name", registry.names())
def test_a_fault_is_unscored_with_its_reason(name: str) -> None:
    sample = registry.golden(name)[0].sample
    said = Response(sample_id=sample.id, arm="text", model="m", text="", stop_reason="fault", fault="media:missing")
    verdict = judge_response(registry.get(name), sample, said)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNSCORED, "media:missing")


@pytest.mark.parametrize("name", registry.names())
def test_every_judge_has_a_card(name: str) -> None:
    assert card(registry.get(name)).name == name
