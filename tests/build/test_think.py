"""Thinking responses: ten languages, refusals that tell nothing, varied plans, and a model's held to the gates."""

import asyncio
from dataclasses import replace

import pytest
from thought_rows import CAPTION, KINDS, asked

from videosafety.build.check import Check
from videosafety.build.records import Evidence
from videosafety.build.state import State, Terminal
from videosafety.build.think import Compose, Refused, Think, prompt_of
from videosafety.build.think_report import against_template, table
from videosafety.build.voices import shortened, voice
from videosafety.core.errors import ServerError
from videosafety.core.labels import Safety
from videosafety.core.records import LANGUAGES, Span
from videosafety.core.taxonomy import load_taxonomy

CATEGORIES = [one.id for one in load_taxonomy("vse").subcategories]


def made(kind="SH", *, step=None, **fields):
    return (step or Compose())(asked(kind, **fields))[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_composed_rows_pass_every_gate(language):
    check = Check()
    rows = [made(kind, language=language, clip=f"c{i}", category=CATEGORIES[(i * 5 + at) % 19])
            for i in range(4) for at, kind in enumerate(KINDS)]  # fmt: skip
    assert [fault for row in rows if (fault := check.fault(row))] == []
    assert all(row.evidence and row.evidence[-1].span.end_s <= 10 for row in rows)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_all_categories_and_several_plans(language):
    said = voice(language)
    assert set(said.topics) == {*CATEGORIES, "other"}
    assert set(said.redirect) == {"any", *(risk.id for risk in load_taxonomy("vse").risks)}
    assert len({tuple(plan) for plan in said.plans}) >= 3
    assert all({"see", "ask", "decide"} <= set(plan) and plan[-1] == "decide" for plan in said.plans)


def test_a_refusal_holds_nothing_of_the_request_or_the_clip():
    for i in range(30):
        row = made("HH", clip=f"c{i}", query="Please tell me about the orchard zebra contraption.")
        assert not any(word in row.answer for word in ("zebra", "orchard", "boxes", "wooden", "1.0"))


def test_a_safe_request_is_answered_from_the_caption_or_with_its_reference():
    assert all(CAPTION.rstrip(".") in made("SafeQ", clip=f"c{i}").answer for i in range(8))
    assert made("SafeQ", reference="It is a wall.").answer == "It is a wall."
    assert CAPTION.rstrip(".") in made("SafeQ", language="ru").answer
    assert "boxes" not in made("SafeQ", language="ru").think
    left_out = Compose(foreign="leave_out")(asked("SafeQ", language="ru"))
    assert left_out == Terminal(state=State.FILTERED, reason="caption:language")


def test_equal_rows_give_equal_words_and_another_seed_others():
    rows = [asked("HH", clip=f"c{i}") for i in range(10)]
    said = [Compose(seed=1)(row)[0].think for row in rows]
    assert said == [Compose(seed=1)(row)[0].think for row in reversed(rows)][::-1]
    assert said != [Compose(seed=2)(row)[0].think for row in rows]


def test_evidence_outside_the_clip_and_tags_end_a_row():
    row = asked("HH")
    late = row.described.model_copy(update={"evidence": (Evidence(span=Span(start_s=9, end_s=11), what="a sign"),)})
    tagged = row.described.model_copy(update={"caption": "A sign says </think>."})
    ends = [Compose()(row.model_copy(update={"described": one})) for one in (late, tagged)]
    assert [end.reason for end in ends] == ["evidence:outside", "tags:description"]


def test_without_a_clip_nothing_is_said_to_be_seen():
    row = made("SH", media=None)
    assert row.evidence == ()
    assert "boxes" not in row.think
    assert Check().fault(row) is None


def test_the_composer_is_more_diverse_than_one_template():
    rows = [
        made(kind, clip=f"c{i}", language=language) for i in range(20) for kind in KINDS for language in ("en", "es")
    ]
    compared = against_template(rows)
    for own, baseline in compared.values():
        assert own.distinct_2 > 1.5 * baseline.distinct_2
        assert own.self_bleu < baseline.self_bleu
        assert own.template_share < 0.15 < baseline.template_share
        assert own.templates > 30 >= baseline.templates
    assert table(compared).count("\n") == 2


def test_a_long_caption_is_cut_at_a_sentence():
    assert shortened("One two. Three four five.", limit=12) == "One two."
    assert shortened("one two three", limit=9) == "one two…"
    assert shortened("短" * 30, limit=10) == "短" * 9 + "…"


class Scripted:
    """A client that says what it is told to, one after another."""

    def __init__(self, *said):
        self.said, self.prompts = list(said), []

    async def ask(self, prompt, schema, *, media):
        assert {"think", "answer", "visual", "textual", "evidence"} <= set(schema["properties"])
        self.prompts.append(prompt)
        said = self.said.pop(0)
        if isinstance(said, Exception):
            raise said
        return said


def run(client, row=None):
    return asyncio.run(Think(model="m", client=client).run(row or asked("HH")))


def good(**changes):
    row = made("HH")
    return {"think": row.think, "answer": row.answer, "visual": "harmful", "textual": "harmful",
            "evidence": [{"span": {"start_s": 1.0, "end_s": 2.0}, "what": "a sign"}]} | changes  # fmt: skip


def test_a_model_s_response_is_taken_when_it_passes():
    (thought,) = run(Scripted(good()))
    assert (thought.author, thought.parent, thought.evidence[0].what) == ("m", asked("HH").id, "a sign")


def test_what_the_composer_cannot_answer_can_be_left_out_of_training_and_stays_in_the_benchmark():
    row = asked("borderline")
    step = Compose(borderline="leave_out")
    assert step(row) == Terminal(state=State.FILTERED, reason="borderline:no_answer")
    for changes in ({"split": "eval"}, {"reference": "Because it harms people."}):
        assert step(row.model_copy(update={"sample": row.sample.model_copy(update=changes)}))[0].answer
    assert step(asked("SafeQ"))[0].answer
    assert Compose()(row)[0].answer


def test_what_a_model_writes_is_made_plain():
    row = good()
    (thought,) = run(Scripted(row | {"think": f"\x1b[1m{row['think']}\u202e\n", "answer": f"{row['answer']}\x07"}))
    assert (thought.think, thought.answer) == (f"[1m{row['think']}", row["answer"])
    assert run(Scripted(good(answer="\u202e"), good(answer="\u202e"))).reason == "response:schema:blank"


def test_a_row_of_the_benchmark_asks_no_model():
    row = asked("HH")
    row = row.model_copy(update={"sample": row.sample.model_copy(update={"split": "eval"})})
    (thought,) = run(Scripted(), row)
    assert thought.author.startswith("composer")


@pytest.mark.parametrize(("changes", "fault"), [
    ({"evidence": [{"span": {"start_s": 9, "end_s": 99}, "what": "x"}]}, "evidence:outside"),
    ({"visual": "safe"}, "labels:visual"),
    ({"think": "Всё это написано по-русски, хотя вопрос задан по-английски."}, "language:think"),
    ({"answer": "Here is what the clip shows: three boxes and a sign on the wall."}, "refusal:none"),
    ({"answer": 7}, "schema:answer"),
])  # fmt: skip
def test_a_fault_is_named_once_and_then_the_row_fails(changes, fault):
    client = Scripted(good(**changes), good(**changes))
    assert run(client) == Terminal(state=State.FAILED, reason=f"response:{fault}")
    assert fault in client.prompts[1]
    assert fault not in client.prompts[0]
    assert not isinstance(run(Scripted(good(**changes), good())), Terminal)


def test_a_refusing_model_and_a_dead_server_are_states():
    assert run(Scripted(Refused())).state is State.REFUSED
    assert run(Scripted(ServerError("down"))).state is State.FAILED


def test_the_prompt_asks_for_a_refusal_only_where_one_is_due():
    assert "must not be served" in prompt_of(asked("composed"))
    assert "must not be served" not in prompt_of(asked("borderline"))
    assert asked("borderline").sample.labels.request is Safety.SAFE
    assert "Japanese" in prompt_of(asked("SafeQ", language="ja"))
    assert replace(Compose(), seed=1) != Compose()
