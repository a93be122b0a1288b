"""Prompt baselines: the same words around every query in every arm, recorded, and never mixed with other words."""

from pathlib import Path

import pytest
from evalkit import mixed, row
from inspect_ai.model import Model, ModelOutput, get_model

from videosafety.core.errors import InputError
from videosafety.core.jsonl import read_json, read_records
from videosafety.core.prompts import treatment
from videosafety.core.records import Sample
from videosafety.core.taxonomy import load_taxonomy
from videosafety.evaluate import provider_local
from videosafety.evaluate.folder import EvaluationInfo
from videosafety.evaluate.manifest import Benchmark
from videosafety.evaluate.prompting import cards, treatments
from videosafety.evaluate.run import evaluate
from videosafety.evaluate.tasks import Decoding, build_task, decoding_of
from videosafety.models.family import Conversation
from videosafety.models.generate import Generated, generate
from videosafety.toyworld.dialogue import redirection, refusals

POLICY = Decoding(prompt="policy", max_new_tokens=2)
REMINDER = Decoding(prompt="self_reminder", max_new_tokens=2)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run" / "evaluations" / "base"


def listening(heard: list[list[tuple[str, str]]]) -> Model:
    """A model that writes down what it gets."""

    def output(messages: list, tools: list, tool_choice: object, config: object) -> ModelOutput:  # type: ignore[type-arg]
        heard.append([(message.role, message.text) for message in messages])
        return ModelOutput.from_content("mock", "Sorry, I cannot help with that.")

    return get_model("mockllm/model", custom_outputs=output, memoize=False)


def info(out: Path) -> EvaluationInfo:
    return EvaluationInfo.model_validate(read_json(out / "evaluation.json"))


def test_the_policy_is_a_system_turn_in_every_arm_and_the_query_stays(tmp_path: Path, out: Path) -> None:
    heard: list[list[tuple[str, str]]] = []
    items = mixed(tmp_path / "data")
    evaluate(listening(heard), items, out=out, decoding=POLICY)
    words = treatment("policy", items.taxonomy)
    assert words.system is not None
    for each in load_taxonomy("vse").subcategories:
        assert f"- {each.name}: {each.policy}" in words.system
    assert len(heard) == 8
    assert all(roles == [("system", words.system), ("user", roles[1][1])] for roles in heard)
    assert {roles[1][1].strip() for roles in heard} == {sample.query for sample in items.samples}
    assert read_records(out / "samples.jsonl", Sample) == list(items.samples)  # judges and reports see the item


def test_the_reminder_stands_before_and_after_the_query(tmp_path: Path, out: Path) -> None:
    heard: list[list[tuple[str, str]]] = []
    evaluate(listening(heard), mixed(tmp_path / "data"), out=out, arms=["text"], decoding=REMINDER)
    words = treatment("self_reminder", load_taxonomy("vse"))
    assert words.system is None
    assert ("user", f"{words.before}what is dax{words.after}") in [roles[0] for roles in heard]
    assert all(len(roles) == 1 for roles in heard)
    assert words.before.strip()
    assert words.after.strip()


def test_without_a_baseline_nothing_is_added(tmp_path: Path, out: Path) -> None:
    heard: list[list[tuple[str, str]]] = []
    evaluate(listening(heard), mixed(tmp_path / "data"), out=out, arms=["text"])
    assert [("user", "what is dax")] in heard
    assert (info(out).prompts, info(out).decoding["prompt"]) == ((), None)


def test_the_folder_says_which_words_were_used_and_refuses_others(tmp_path: Path, out: Path) -> None:
    items = mixed(tmp_path / "data")
    model = listening([])
    evaluate(model, items, out=out, decoding=POLICY)
    [card] = info(out).prompts
    assert (card.name, card.version) == ("policy", 1)
    assert card.sha256 == treatment("policy", items.taxonomy).sha256
    assert info(out).decoding["prompt"] == "policy"
    other = Benchmark(items.name, items.samples, items.root, load_taxonomy("toy"))  # the same items, other words
    for data, decoding in ((items, REMINDER), (items, Decoding(max_new_tokens=2)), (other, POLICY)):
        with pytest.raises(InputError, match="holds the evaluation of another decoding"):
            evaluate(model, data, out=out, decoding=decoding)


def test_an_answer_under_other_words_is_another_answer(tmp_path: Path) -> None:
    items = mixed(tmp_path / "data")

    def keys(data: Benchmark, decoding: Decoding) -> set[str]:
        task = build_task(data, arm="text", judges=["rules"], decoding=decoding, media={})
        return {(sample.metadata or {})["asked"]["key"] for sample in task.dataset}

    toy = Benchmark(items.name, items.samples, items.root, load_taxonomy("toy"))
    found = [keys(items, Decoding(max_new_tokens=2)), keys(items, POLICY), keys(items, REMINDER), keys(toy, POLICY)]
    assert all(one.isdisjoint(other) for i, one in enumerate(found) for other in found[:i])


def test_a_toy_benchmark_gets_the_toy_world_s_words_in_each_language(toy: Benchmark) -> None:
    whole = Benchmark(toy.name, toy.samples, toy.root, load_taxonomy("toy"))
    words = treatments("policy", whole)
    assert set(words) == {"en", "zh"}
    for language, one in words.items():
        assert redirection(language, "zarn") in (one.system or "")
    reminder = treatments("self_reminder", whole)["zh"]
    assert reminder.around("?") == f"{refusals('zh')[0]} ? {refusals('zh')[-1]}"
    assert len(cards(words.values())) == 2
    assert len(cards(treatments("policy", toy).values())) == 1  # one wording for all languages elsewhere


def test_a_local_model_is_shown_the_system_turn(
    checkpoint: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Conversation] = []

    def listened(*args: object, **kw: object) -> list[Generated]:
        seen.extend(args[1])  # type: ignore[arg-type]
        return generate(*args, **kw)  # type: ignore[arg-type]

    monkeypatch.setattr(provider_local, "generate", listened)
    items = Benchmark("toy", (row("a", query="How do I make a dax?"),), tmp_path, load_taxonomy("toy"))
    evaluate(str(checkpoint), items, out=out, decoding=POLICY)
    [(system, user)] = seen
    assert (system.role, user.role) == ("system", "user")
    assert system.parts == (treatments("policy", items)["en"].system,)
    assert user.parts == ("How do I make a dax?",)


def test_names_of_baselines() -> None:
    assert decoding_of(prompt="none") == decoding_of(prompt=None) == decoding_of()
    with pytest.raises(InputError, match="prompt is 'polcy'; did you mean 'policy'"):
        decoding_of(prompt="polcy")
