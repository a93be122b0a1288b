"""Rollouts over a real loopback process with a tiny checkpoint: same tokens, same log-probs, its weights known."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from tinyfamilies import tiny_checkpoint

sys.path.append(str(Path(__file__).parents[1] / "llm"))  # policyserver

from policyserver import PolicyServer

from videosafety.core.errors import InputError, ServerError
from videosafety.core.records import StopReason
from videosafety.defend.served_weights import ServedWeights
from videosafety.defend.server_engine import ServerEngine
from videosafety.llm.readout import Server
from videosafety.models.checkpoint import load, save
from videosafety.models.family import Encoded, Message, collate
from videosafety.models.logprobs import Head
from videosafety.models.rollout import Decoding, Prompt, end_ids, never_ids
from videosafety.models.wrapped import AlarmModel
from videosafety.video.plan import Clip, Picture

DECODING = Decoding(num_generations=3, max_new_tokens=6, temperature=0.7)
QUICK = (0.02, 0.02)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny_checkpoint("qwen3_vl", tmp_path_factory.mktemp("policy") / "start", tied=False)


@pytest.fixture(scope="module")
def process(start):
    running = PolicyServer(start)
    yield running
    running.close()


@pytest.fixture
def served(process):
    """The server, well behaved, with the weights of its start."""
    process.kill()
    process.start()
    return process


@pytest.fixture
def policy(start):
    checkpoint = load(str(start))
    return checkpoint, AlarmModel(checkpoint.model, checkpoint.alarm)


@pytest.fixture
def engine(policy, served, tmp_path):
    return make(policy, served, tmp_path)


def make(policy, served, folder, **knobs):
    checkpoint, wrapped = policy
    server = Server(served.url, "policy", timeout_s=knobs.pop("timeout_s", 60))
    knobs = {"waits_s": QUICK, "concurrency": 2, "tolerance": 1e-3, **knobs}
    weights = ServedWeights(wrapped, checkpoint, server, folder=folder, save=lambda to: save(checkpoint, to),
                            tolerance=knobs.pop("tolerance"))  # fmt: skip
    return ServerEngine(weights, **knobs)


def nudge(policy, by, seed=0):
    """One step of training, so to say."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy[0].model.parameters():
            weight.add_(torch.randn(weight.shape, generator=noise), alpha=by)


def clip(seed, num=5, gap_s=1.5):
    frames = np.random.default_rng(seed).integers(0, 256, (num, 32, 32, 3), np.uint8)
    return Clip(frames, tuple(gap_s * i for i in range(num)))


def prompt_of(policy, name, *parts):
    conversation = (Message("user", parts),)
    return Prompt(name, conversation, policy[0].family.encode(policy[0].processor, conversation))


def prompts_of(policy, num):
    return [prompt_of(policy, f"p{i}", f"What is shown in {i}?") for i in range(num)]


def own_logprobs(policy, prompt, ids, temperature):
    """What the policy says of a completion, in one forward pass."""
    checkpoint, wrapped = policy
    encoded, more = prompt.encoded, torch.tensor(ids)
    per_token = {name: torch.cat([v, torch.zeros_like(more)]) for name, v in encoded.per_token.items()}
    row = Encoded(torch.cat([encoded.input_ids, more]), per_token=per_token, stacked=encoded.stacked)
    batch = collate([row], pad_token_id=0, side="right")
    batch.pop("labels")
    with torch.no_grad():
        hidden = wrapped(batch)[0, len(encoded.input_ids) - 1 : -1]
        logp = Head(wrapped, never=never_ids(checkpoint), temperature=temperature)(hidden).log_softmax(-1)
    return logp.gather(1, more[:, None])[:, 0].tolist()


def test_completions_of_clips_pictures_and_words_have_the_policys_own_log_probs(engine, policy):
    picture = Picture(np.random.default_rng(7).integers(0, 256, (32, 32, 3), np.uint8))
    prompts = [
        prompt_of(policy, "clip", clip(1), "What is shown?"),
        prompt_of(policy, "picture", picture, "What is shown?"),
        prompt_of(policy, "words", "What is shown?"),
        prompt_of(policy, "other clip", clip(2), "What is shown?"),
    ]
    groups = engine.generate(prompts, DECODING, seed=3)
    for prompt, group in zip(prompts, groups, strict=True):
        assert len(group) == 3
        for one in group:
            assert one.logprobs == pytest.approx(own_logprobs(policy, prompt, one.ids, 0.7), abs=1e-4)
            assert one.text == policy[0].tokenizer.decode(list(one.ids), skip_special_tokens=True)
            assert one.stop_reason == (StopReason.LENGTH if len(one.ids) == 6 else StopReason.STOP)
    assert len({one.ids for group in groups for one in group}) > 6
    assert engine.generate(prompts, DECODING, seed=3) == groups
    assert engine.generate(prompts, DECODING, seed=4) != groups


def test_one_prompt_twice_is_two_groups_and_an_end_token_ends(engine, policy):
    twice = [prompt_of(policy, "same", "What is shown?")] * 2
    one, other = engine.generate(twice, DECODING, seed=0)
    assert one != other
    end = min(end_ids(policy[0]))
    with torch.no_grad():
        policy[0].model.get_output_embeddings().weight[end] *= 40
    engine.refresh(1)
    long = Decoding(num_generations=8, max_new_tokens=6, temperature=0.7)
    said = engine.generate(twice, long, seed=0)
    ended = [c for group in said for c in group if c.ids[-1] == end]
    assert ended
    assert all(c.stop_reason is StopReason.STOP for c in ended)
    assert all(len(c.ids) == 6 for group in said for c in group if c.ids[-1] != end)


def test_a_server_that_samples_frames_again_stops_the_run(engine, policy, served):
    served.set(sample_again=True)
    with pytest.raises(ServerError, match=r"'a clip'.*differ first at position \d+ .*sample no frames"):
        engine.generate([prompt_of(policy, "a clip", clip(1, num=6), "What is shown?")], DECODING, seed=0)


def test_raw_log_probs_are_refused(engine, served):
    served.set(raw=True)
    with pytest.raises(ServerError, match=r"before temperature.*--logprobs-mode processed_logprobs"):
        engine.refresh(0)


def test_a_refresh_serves_the_new_weights_and_forgets_caches_and_old_files(engine, policy, served, tmp_path):
    [prompt] = prompts_of(policy, 1)
    [before] = engine.generate([prompt], DECODING, seed=0)
    nudge(policy, 0.05)
    engine.refresh(1)
    [after] = engine.generate([prompt], DECODING, seed=0)
    for one in after:
        assert one.logprobs == pytest.approx(own_logprobs(policy, prompt, one.ids, 0.7), abs=1e-4)
    assert before != after
    calls = served.state()["calls"]
    assert calls.index("/collective_rpc") < calls.index("/reset_prefix_cache")
    assert calls.count("/reset_encoder_cache") == 2
    assert [one.name for one in tmp_path.iterdir()] == ["weights-1"]
    engine.refresh(2)


@pytest.mark.parametrize(("modes", "step", "why"), [
    ({}, 0.05, "from the policy's on average"), ({}, 0.003, "to the last digit as before"),
    ({"labels": True}, 0.003, "to the last digit as before"), ({"checksums": True}, 1e-5, "the hashes of its weights"),
    ({"noise": 1e-4}, 0.003, "its answer is that of version 0-"),
])  # fmt: skip
def test_a_server_that_ignores_a_reload_is_named(policy, served, tmp_path, modes, step, why):
    engine = make(policy, served, tmp_path, tolerance=0.05)
    served.set(**modes)
    engine.refresh(0)
    nudge(policy, step)
    served.set(ignore_reload=True, **modes)
    with pytest.raises(ServerError, match=rf"does not serve version 1-\w{{16}}: .*{why}"):
        engine.refresh(1)


def test_many_small_ignored_steps_are_seen_when_they_matter(policy, served, tmp_path):
    engine = make(policy, served, tmp_path, tolerance=0.5)
    engine.refresh(0)
    nudge(policy, 0.02)
    engine.refresh(0)
    served.set(ignore_reload=True)
    taken = []

    def train():
        for version in range(1, 30):
            nudge(policy, 1e-4)
            engine.refresh(version)
            taken.append(version)

    with pytest.raises(ServerError, match="to the last digit as before"):
        train()
    assert 1 <= len(taken) < 28


@pytest.mark.parametrize("modes", [{"noise": 1e-3}, {"digits": 1}])
def test_a_servers_rounding_is_not_taken_for_old_weights(policy, served, tmp_path, modes):
    engine = make(policy, served, tmp_path, tolerance=0.05)
    served.set(**modes, labels=True, checksums=True)
    for version, step in enumerate((0.0, 1e-2, 1e-6, 1e-6, 1e-4, 1e-5)):
        nudge(policy, step)
        engine.refresh(version)


@pytest.mark.parametrize("labels", [True, False])
def test_a_server_that_restarted_gets_the_weights_again_before_it_is_asked(policy, served, tmp_path, labels):
    engine = make(policy, served, tmp_path)
    nudge(policy, 0.05)
    served.set(labels=labels)
    engine.refresh(1)
    served.kill()
    served.start()
    served.set(labels=labels)
    [prompt] = prompts_of(policy, 1)
    [group] = engine.generate([prompt], DECODING, seed=0)
    assert "/collective_rpc" in served.state()["calls"]
    for one in group:
        assert one.logprobs == pytest.approx(own_logprobs(policy, prompt, one.ids, 0.7), abs=1e-4)


def test_a_server_killed_in_a_rollout_stops_it_and_nothing_that_it_answered_is_lost(policy, served, tmp_path):
    engine = make(policy, served, tmp_path, concurrency=1)
    prompts = prompts_of(policy, 5)
    nudge(policy, 0.05)
    engine.refresh(1)
    expected = engine.generate(prompts, DECODING, seed=1)
    served.set(kill_at=1 + 3)  # the check of the weights, and three prompts
    with pytest.raises(ServerError, match=r"stays away after 3 attempts.*2 of 5 prompts are answered and kept.*resume"):
        engine.generate(prompts, DECODING, seed=1)
    served.start()
    assert engine.generate(prompts, DECODING, seed=1) == expected
    asked = [text for text in served.state()["asked"] if text.startswith("What is shown")]
    assert asked == [f"What is shown in {i}?" for i in (2, 3, 4)]


def test_what_a_server_answered_from_other_weights_inside_a_round_is_asked_again(policy, served, tmp_path):
    engine = make(policy, served, tmp_path, concurrency=1)
    prompts = prompts_of(policy, 4)
    nudge(policy, 0.3)
    engine.refresh(1)
    stock, asked = engine._ask, []

    def ask(key, prompt, *given):
        if len(asked) == 2:  # it restarts between two requests: none fails, and its weights are those of the start
            served.kill()
            served.start()
        asked.append(prompt.id)
        return stock(key, prompt, *given)

    engine._ask = ask
    groups = engine.generate(prompts, DECODING, seed=1)
    assert asked == ["p0", "p1", "p2", "p3", "p2", "p3"]
    for prompt, group in zip(prompts, groups, strict=True):
        for one in group:
            assert one.logprobs == pytest.approx(own_logprobs(policy, prompt, one.ids, 0.7), abs=1e-4)


def test_a_server_that_comes_back_in_time_is_not_noticed(policy, served, tmp_path):
    engine = make(policy, served, tmp_path, waits_s=(0.1,) * 50)
    prompts = prompts_of(policy, 4)
    nudge(policy, 0.05)
    engine.refresh(1)
    expected = engine.generate(prompts, DECODING, seed=1)
    served.set(kill_at=3)
    back = threading.Timer(0.3, served.start)
    back.start()
    assert engine.generate(prompts, DECODING, seed=1) == expected
    back.join()


def test_no_answer_in_time_and_no_reload_at_all(policy, served, tmp_path):
    engine = make(policy, served, tmp_path, timeout_s=5, waits_s=())
    engine.refresh(0)
    slow = make(policy, served, tmp_path, timeout_s=0.3, waits_s=(0.01,))
    slow.weights.now = engine.weights.now
    served.set(delay_s=1.0)
    with pytest.raises(ServerError, match=r"after 2 attempts: no answer within 0\.3 s; 0 of 1"):
        slow.generate(prompts_of(policy, 1), DECODING, seed=0)
    served.set(no_dev_mode=True)
    with pytest.raises(ServerError, match=r"cannot reload weights; .*VLLM_SERVER_DEV_MODE=1"):
        engine.refresh(1)


def test_clips_of_different_times_in_one_prompt_are_refused(engine, policy):
    both = prompt_of(policy, "two", clip(1), clip(2, gap_s=1.0), "Which is longer?")
    with pytest.raises(InputError, match=r"two clips with different times.*local engine"):
        engine.generate([both], DECODING, seed=0)
    engine.generate([prompt_of(policy, "two", clip(1), clip(2), "Which is longer?")], DECODING, seed=0)
