"""Calls to annotators: a paid answer is kept and bought once, limits hold, a server may die, a key stays secret."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from annotator_server import USD_INPUT, USD_OUTPUT
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from PIL import Image as Pixels

from videosafety.build.annotate.annotator import (
    KEY,
    AnnotatorConfig,
    CallFault,
    CostCap,
    InvalidAnswer,
    Unshown,
    reason_of,
)
from videosafety.build.annotate.caller import Caller, object_of, refuses
from videosafety.build.annotate.purse import LocalPurse
from videosafety.build.ledger import Ledger
from videosafety.build.think import Refused
from videosafety.core.errors import ServerError
from videosafety.core.records import Image
from videosafety.llm.structured import InspectModel, Said

SCHEMA = {"type": "object", "properties": {"caption": {"type": "string"}}, "required": ["caption"]}


def config_of(server, name="a", **fields):
    given = {"usd_per_million_input": USD_INPUT, "usd_per_million_output": USD_OUTPUT, "backoff_s": 0.01,
             "max_tokens": 200, "timeout_s": 20.0, "tokens_per_frame": 100, "patience_s": 30.0}  # fmt: skip
    return AnnotatorConfig(model=server.model(name), **(given | fields))


def caller_of(server, ledger, *, purse=None, root=Path(), model=None, **fields):
    return Caller(config_of(server, **fields), ledger=ledger, purse=purse or LocalPurse(None), step="test", root=root,
                  model=model)  # fmt: skip


def ask(caller, *prompts, media=None):
    async def every():
        asked = (caller.ask(prompt, SCHEMA, media=media) for prompt in prompts)
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(every())
    return found[0] if len(prompts) == 1 else found


def calls(ledger):
    query = "SELECT key, answer, cost, retries, input_tokens FROM calls"
    return list(ledger._database.execute(query))


def test_an_answer_is_bought_once_whoever_asks_and_whenever(serve, ledger):
    server = serve()
    first, second, other = ask(caller_of(server, ledger), "one?", "one?", "two?")
    assert first == second != other
    assert ask(caller_of(server, ledger), "one?", "two?") == [first, other]
    assert len(server.lines()) == 2
    assert server.charged() > 0
    assert ledger.spent() == pytest.approx(server.charged())


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"seed": 1}, {"name": "b"}, {"structured": "prompt"}])
def test_other_parameters_are_another_call(serve, ledger, change):
    server = serve()
    ask(caller_of(server, ledger), "one?")
    ask(caller_of(server, ledger, **change), "one?")
    assert len(server.lines()) == 2


def test_prices_limits_and_the_address_are_not(serve, ledger):
    first, second = serve(), serve()
    ask(caller_of(first, ledger), "one?")
    ask(caller_of(second, ledger, usd_per_million_input=0.0, connections=1, timeout_s=5.0), "one?")
    assert (len(first.lines()), len(second.lines())) == (1, 0)


def test_frames_go_as_pictures_and_count_by_their_bytes(serve, ledger, tmp_path):
    server = serve()
    for seed, name in enumerate(("a.png", "b.png")):
        pixels = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Pixels.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes())
    caller = caller_of(server, ledger, root=tmp_path)
    answers = [ask(caller, "what?", media=Image(path=name)) for name in ("a.png", "b.png", "c.png")]
    assert answers[0] == answers[2] != answers[1]
    assert [line["pictures"] for line in server.lines()] == [1, 1]
    assert isinstance(missing := ask(caller, "what?", media=Image(path="none.png")), Unshown)
    assert missing.reason == "media:missing"
    changed = ask(caller, "what?", media=Image(path="a.png", sha256="0" * 64))
    assert isinstance(changed, Unshown)
    assert changed.reason == "media:changed"


def test_many_rows_through_all_kinds_of_trouble(serve, ledger):
    """Slow, busy, refusing and wordy by a tenth each, and it dies once: all end, nothing answered is asked again."""
    trouble = ("slow", "busy", "refuse", "invalid")
    server = serve(*trouble, "die=60")
    server.start_again_when_dead(*trouble)
    prompts = [f"question {number}?" for number in range(150)]
    caller = caller_of(server, ledger, connections=12)
    answers = ask(caller, *prompts)
    kinds = [type(answer).__name__ for answer in answers]
    assert set(kinds) <= {"dict", "Refused", "InvalidAnswer"}
    assert kinds.count("dict") > 100
    assert kinds.count("Refused") > 5
    answered = [line["answered"] for line in server.lines("answered")]
    assert len(set(answered)) == len(answered)
    assert max(line["under_way"] for line in server.lines()) <= 12
    lost = [cost for key, _, cost, _, _ in calls(ledger) if ":lost:" in key]
    assert lost
    assert ledger.spent() - sum(lost) == pytest.approx(server.charged())
    assert len(calls(ledger)) - len(lost) == len(answered)
    num_asked = len(server.lines())
    again = ask(caller_of(server, ledger), *prompts)
    assert [type(answer).__name__ for answer in again] == kinds
    assert len(server.lines()) == num_asked


class Counting:
    """A model that knows how many questions it has at once."""

    def __init__(self):
        self.now = self.most = 0

    async def say(self, request):
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.001)
        self.now -= 1
        return Said('{"caption": "x"}', input_tokens=1, output_tokens=1)


def test_as_many_questions_as_connections_are_under_way(ledger):
    config, model = AnnotatorConfig(model="a/b", connections=5), Counting()
    caller = Caller(config, ledger=ledger, purse=LocalPurse(None), step="test", root=Path(), model=model)
    ask(caller, *(f"question {number}?" for number in range(30)))
    assert model.most == 5


@pytest.mark.parametrize(("kind", "cap"), [("slow", 0.015), ("half", 0.04)])  # half: charged, and does not arrive
def test_a_cap_holds_and_a_higher_one_goes_on(serve, ledger, kind, cap):
    server = serve(kind)
    prompts = [f"question {number}? {'x' * 400}" for number in range(60)]
    purse = LocalPurse(cap)
    answers = ask(caller_of(server, ledger, purse=purse, connections=16), *prompts)
    capped = [answer for answer in answers if isinstance(answer, CostCap)]
    assert 0 < len(capped) < 60 or kind == "half"
    assert reason_of(capped[0]) == "cost:cap"
    assert 0 < server.charged() <= ledger.spent() + 1e-12  # sums of equal amounts in another order
    assert ledger.spent() <= cap
    assert purse.reserved == 0
    assert purse.spent == pytest.approx(ledger.spent())
    more = LocalPurse(1.0, spent_usd=ledger.spent())
    again = ask(caller_of(server, ledger, purse=more, connections=16), *prompts)
    assert all(isinstance(answer, dict) for answer in again)
    answered = [line["answered"] for line in server.lines("answered")]
    assert len(set(answered)) == len(answered) == 60


def test_without_a_usage_the_highest_cost_counts(serve, ledger):
    server = serve("untold")
    caller = caller_of(server, ledger)
    ask(caller, "one?")
    assert ledger.spent() > 2 * server.charged() > 0


def test_prompts_over_their_bound_raise_the_bounds_that_follow(serve, ledger, tmp_path):
    Pixels.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    server = serve("slow")
    caller = caller_of(server, ledger, root=tmp_path, tokens_per_frame=0, structured="prompt")
    before = caller._more
    asyncio.run(caller.ask("q" * 8, {}, media=Image(path="a.png")))
    assert caller._more == before  # the bytes of words are bound enough for one small frame
    for _ in range(8):  # all of them were under way with the same bound
        caller._learn(Said("", input_tokens=300), 100, 1.0)
    assert caller._more == 3.0
    caller._learn(Said("", input_tokens=600), 300, 3.0)
    assert caller._more == 6.0


@pytest.mark.parametrize(("kinds", "fields", "error", "reason"), [
    (["invalid_always"], {}, InvalidAnswer, "answer:invalid"),
    (["cut"], {}, InvalidAnswer, "answer:invalid"),
    (["half", "half_always"], {"tries": 2}, CallFault, "server:connection"),
    (["late"], {"tries": 2, "timeout_s": 0.2}, CallFault, "server:timeout"),
    (["wait"], {"patience_s": 1.0}, CallFault, "server:rate_limited"),
    (["500"], {"tries": 2}, CallFault, "server:server_error"),
])  # fmt: skip
def test_what_does_not_pass_is_said_in_a_word(serve, ledger, kinds, fields, error, reason):
    server = serve(*kinds)
    found = ask(caller_of(server, ledger, **fields), "one?")
    assert type(found) is error
    assert found.reason == reason
    assert server.charged() <= ledger.spent() + 1e-12


@pytest.mark.parametrize("kind", ["refuse_always", "words", "filter", "filtered_prompt"])
def test_a_refusal_is_one_in_every_form_and_is_kept(serve, ledger, kind):
    server = serve(kind)
    caller = caller_of(server, ledger)
    assert isinstance(ask(caller, "one?"), Refused)
    assert isinstance(ask(caller, "one?"), Refused)
    assert len(server.lines()) == len(calls(ledger)) == 1


def test_a_server_without_schemas_and_one_with_another_key_are_told_once(serve, ledger, monkeypatch):
    server = serve("noschema")
    caller = caller_of(server, ledger, connections=1)
    found = ask(caller, "one?", "two?", "three?")
    assert all(isinstance(one, ServerError) for one in found)
    assert "structured: json" in str(found[0])
    assert len(server.lines()) == 1
    assert caller.broken is found[0]
    assert isinstance(ask(caller_of(server, ledger, structured="prompt"), "one?"), dict)
    assert "response_format" not in server.lines()[-1]["fields"]
    monkeypatch.setenv(KEY, "sk-very-secret-key")
    found = ask(caller_of(serve("wrong_key"), ledger), "one?")
    assert KEY in str(found)
    assert "sk-very" not in repr(found) + str(found)


def test_a_key_that_a_server_says_back_is_kept_nowhere(serve, ledger, monkeypatch, tmp_path):
    monkeypatch.setenv(KEY, "sk-very-secret-key")
    found = ask(caller_of(serve("echo"), ledger), "one?")
    assert found == {"caption": "I saw Bearer [key]"}
    monkeypatch.setenv(f"{KEY}_TWO", "none")  # a word like this is no secret, and stays
    found = ask(caller_of(serve("echo"), ledger, key_env=f"{KEY}_TWO", seed=2), "one?")
    assert found == {"caption": "I saw Bearer none"}
    assert ask(caller_of(serve("echo"), ledger, key_env=None, seed=3), "one?") == {"caption": "I saw None"}
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.sqlite*"))
    assert b"sk-" not in kept
    assert b"I saw None" in kept


def test_an_inspect_model_is_asked_the_same_way(ledger, tmp_path):
    Pixels.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    seen = []

    def output(messages, tools, tool_choice, config):
        seen.append((messages[0].content, config))
        text = {1: '{"caption": "first"}', 2: "no JSON"}.get(len(seen), '```json\n{"caption": "again"}\n```')
        said = ModelOutput.from_content("mockllm/model", text)
        said.usage = ModelUsage(input_tokens=300, input_tokens_cache_read=200, output_tokens=50)
        return said

    given = get_model("mockllm/model", custom_outputs=output)
    config = AnnotatorConfig(model="mockllm/model", usd_per_million_input=1.0, usd_per_million_output=1.0, seed=3)
    model = InspectModel("mockllm/model", connections=2, timeout_s=5, given=given)
    caller = Caller(config, ledger=ledger, purse=LocalPurse(None), step="test", root=tmp_path, model=model)
    assert ask(caller, "one?", media=Image(path="a.png")) == {"caption": "first"}
    assert [part.type for part in seen[0][0]] == ["image", "text"]
    assert seen[0][0][0].image.startswith("data:image/jpeg;base64,")
    assert ask(caller, "two?") == {"caption": "again"}
    assert len(seen) == len(calls(ledger)) == 3
    assert seen[0][1].response_schema.json_schema.properties["caption"].type == "string"
    assert (seen[0][1].seed, seen[0][1].temperature, seen[0][1].max_retries) == (3, 0.0, 0)
    assert ledger.spent() == pytest.approx(3 * 550e-6)


def test_a_fault_of_an_inspect_provider_is_no_answer(ledger):
    class APITimeoutError(Exception):
        pass

    def output(messages, tools, tool_choice, config):
        raise APITimeoutError

    given = get_model("mockllm/model", custom_outputs=output)
    config = AnnotatorConfig(model="mockllm/model", tries=2, backoff_s=0.01)
    model = InspectModel("mockllm/model", connections=2, timeout_s=5, given=given)
    caller = Caller(config, ledger=ledger, purse=LocalPurse(None), step="test", root=Path(), model=model)
    found = ask(caller, "one?")
    assert isinstance(found, CallFault)
    assert found.reason == "server:timeout"


def test_a_model_that_inspect_does_not_know_is_told_once(ledger):
    caller = Caller(
        AnnotatorConfig(model="nobody/knows"), ledger=ledger, purse=LocalPurse(None), step="test", root=Path()
    )
    found = ask(caller, "one?", "two?")
    assert all(type(one) is ServerError for one in found)
    assert "does not load" in str(caller.broken)


CHILD = """
import asyncio, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from videosafety.build.annotate.annotator import AnnotatorConfig
from videosafety.build.annotate.caller import Caller
from videosafety.build.ledger import Ledger
from videosafety.build.annotate.purse import LocalPurse
async def every(caller):
    await asyncio.gather(*(caller.ask(f"question {{n}}?", {schema!r}, media=None) for n in range(60)))
with Ledger(Path({ledger!r})) as ledger:
    config = AnnotatorConfig(model={model!r}, connections=4)
    asyncio.run(every(Caller(config, ledger=ledger, purse=LocalPurse(None), step="test", root=Path())))
"""


def test_killed_and_run_again_no_finished_call_is_repeated(serve, tmp_path):
    server, path = serve("slow"), tmp_path / "ledger.sqlite"
    script = CHILD.format(tests=str(Path(__file__).parent), schema=SCHEMA, ledger=str(path), model=server.model("a"))
    child = subprocess.Popen([sys.executable, "-c", script])
    until = time.monotonic() + 60
    while len(server.lines("answered")) < 20 and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with Ledger(path) as ledger:
        kept = len(calls(ledger))
    num_asked = len(server.lines())
    assert 0 < kept < 60
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert len(server.lines()) - num_asked == 60 - kept


def test_a_server_that_stays_away_ends_the_wait_and_one_that_is_back_answers(serve, ledger):
    server = serve()
    caller = caller_of(server, ledger, patience_s=0.3)
    server.kill()
    found = ask(caller, *(f"question {number}?" for number in range(20)))
    assert {one.reason for one in found} == {"server:connection"}
    assert calls(ledger) == []  # nothing went out, so nothing was paid
    server.start()
    assert all(isinstance(one, dict) for one in ask(caller, "question 1?", "question 2?"))


def test_a_call_that_is_given_up_counts_as_paid(serve, ledger):
    purse = LocalPurse(1.0)
    caller = caller_of(serve("late"), ledger, purse=purse)
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(caller.ask("one?", SCHEMA, media=None), timeout=0.3))
    ((key, answer, cost, _, _),) = calls(ledger)
    assert ":lost:" in key
    assert answer == '{"lost":"no answer"}'
    assert purse.reserved == 0
    assert purse.spent == pytest.approx(cost)
    assert cost > 0


def test_answers_are_one_json_object():
    assert object_of(Said('```json\n{"a": 1}\n```')) == {"a": 1}
    assert object_of(Said('<think>{"b": 2}</think>\n {"a": 1} ')) == {"a": 1}
    for text in ("", "[1]", '{"a": 1} and more', '{"a": 1, "a": 2}', '{"a": NaN}', '{"a"', "```json\n{}\n``` so"):
        with pytest.raises(ValueError, match=r"."):
            object_of(Said(text))
    with pytest.raises(ValueError, match="cut off"):
        object_of(Said('{"a": 1}', cut=True))
    assert refuses("Lo siento, pero no puedo ayudarte con eso.")
    assert not refuses("A person waits at a bus stop.")


def test_what_is_said_is_kept_whole(serve, ledger):
    ask(caller_of(serve("invalid_always"), ledger), "one?")
    kept = [json.loads(answer)["text"] for _, answer, _, _, _ in calls(ledger)]
    assert len(kept) == 2
    assert all(text.startswith("Here you are: ") for text in kept)
