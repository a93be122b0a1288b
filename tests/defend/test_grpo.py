"""Stage 4 from checkpoint to checkpoint: what is learnt from, what is written, resume, and every fault."""

import contextlib
import json
from pathlib import Path

import pytest
import torch
from stagekit import QUICK, bytes_of, weights

from videosafety.core.errors import InputError, ServerError, VideoSafetyError
from videosafety.core.example import Example, Turn
from videosafety.core.group import Group
from videosafety.core.labels import Labels
from videosafety.core.recipe import fingerprint
from videosafety.core.records import Outcome, Sample, StopReason, Video
from videosafety.defend import grade as grading
from videosafety.defend import grpo, policy, policy_trainer
from videosafety.defend.collapse import UNSCORABLE
from videosafety.defend.grpo import kept_apart, train_policy
from videosafety.defend.policy_trainer import CURVE_FILE, ROLLOUTS
from videosafety.defend.resume import COMPLETE
from videosafety.defend.rewards import components
from videosafety.defend.sft import TRAINING
from videosafety.defend.stage import LoraConfig, StageConfig
from videosafety.models.checkpoint import load
from videosafety.models.rollout import Completion, LocalEngine
from videosafety.toyworld import oracle  # noqa: F401 - registers the judge

SAYS = "<think>a</think><answer>b</answer><vidType>0</vidType><textType>1</textType>"


def quick(**knobs):
    given = {**QUICK, "num_generations": 3, "max_new_tokens": 5, "num_held_out": 4, "held_out_steps": 2,
             "temperature": 3.0, "rewards": {"outcome_weight": 1.0, "outcome_judge": "oracle"}, **knobs}  # fmt: skip
    return StageConfig.of("grpo", **given)


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def groups_of(folder):
    return [Group.model_validate_json(line) for line in (folder / ROLLOUTS).read_text().splitlines()]


def steady(row):
    """A row of policy.jsonl without what a clock says."""
    return {key: value for key, value in row.items() if not key.startswith("seconds")}


def answers(monkeypatch, text_of):
    """Let every completion have another text, so that rewards are what a test wants."""
    stock = LocalEngine.complete

    def complete(self, prefixes, decoding, **given):
        groups = stock(self, prefixes, decoding, **given)
        return [tuple(Completion(one.ids, one.logprobs, text_of(p, g), StopReason.STOP) for g, one in enumerate(group))
                for p, group in enumerate(groups)]  # fmt: skip

    monkeypatch.setattr(LocalEngine, "complete", complete)


def test_a_stage_leaves_a_plain_checkpoint_its_curve_and_its_rollouts(base, prompts, out, monkeypatch):
    twin = next(one for one in reversed(prompts) if one.media)
    at = next(i for i, one in enumerate(prompts[:-4]) if one.media)
    prompts = [*prompts[:at], prompts[at].model_copy(update={"turns": twin.turns}), *prompts[at + 1 :]]
    answers(monkeypatch, lambda p, g: SAYS if g else "nothing")
    config = quick(max_steps=3)
    info = train_policy(config, prompts, base=base, out=out, seed=1).info
    assert (info["stage"], info["num_steps"], info["num_examples"]) == ("grpo", 3, len(prompts) - 4)
    first, last = weights_of(base), weights(out)
    same = [name for name in first if first[name].shape == last[name].shape]
    moved = [name for name in same if not torch.equal(first[name], last[name])]
    assert moved
    assert not [name for name in moved if "vision_model" in name or "projector" in name]
    curve = rows(out / CURVE_FILE)
    assert [row["step"] for row in curve] == [0, 1, 2, 3]
    assert [row["step"] for row in curve if row.get("frr") is not None] == [0, 2, 3]
    assert curve[1]["kl"] == 0.0
    assert curve[3]["kl"] > 0.0
    assert curve[1]["sampling_gap"] < 1e-4
    assert curve[1]["format_mean"] == pytest.approx(2 / 3)
    groups = groups_of(out)
    assert [group.step for group in groups] == [1] * 4 + [2] * 4 + [3] * 4
    learnt, aside = kept_apart(prompts, 4)
    assert twin in aside
    assert prompts[at] in aside
    asked = {group.sample.id for group in groups}
    assert asked <= {one.id for one in learnt}
    assert not asked & {one.id for one in aside}
    assert all(sum(group.advantages) == pytest.approx(0, abs=1e-5) for group in groups)
    assert load(str(out)).alarm is not None


def weights_of(base):
    return weights(Path(base))


class Killed(BaseException):
    """What no handler of ours may catch."""


@pytest.mark.parametrize("odd", [False, True])
def test_killed_and_resumed_ends_as_uninterrupted_to_the_bit(base, prompts, tmp_path, monkeypatch, odd):
    config = quick(max_steps=4, save_steps=1)
    if odd:  # line ends that JSON leaves as they are, a policy that has collapsed, a reward that fails for some
        answers(monkeypatch, lambda p, g: SAYS.replace("b", f"b\u2028\x85{g}" if g else "b"))
        (tmp_path / "at_times.py").write_text("def f(sample, response): return 1 / (len(response.text) % 2)\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        config = quick(max_steps=4, save_steps=1, rewards={"extra": ["at_times:f"]}, collapse={"patience": 2})

    def stop_at(step):
        def on_step(done, total, loss):
            if done == step:
                raise Killed

        return on_step

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_policy(config, prompts, base=base, out=whole, seed=3)
    for step in (1, 3):
        with pytest.raises(Killed):
            train_policy(config, prompts, base=base, out=cut, seed=3, on_step=stop_at(step))
    train_policy(config, prompts, base=base, out=cut, seed=3)
    assert bytes_of(whole) == bytes_of(cut)
    assert (whole / ROLLOUTS).read_bytes() == (cut / ROLLOUTS).read_bytes()
    assert list(map(steady, rows(whole / CURVE_FILE))) == list(map(steady, rows(cut / CURVE_FILE)))
    noted = [[json.loads((one / TRAINING).read_text()).get(key) for key in ("collapse", "grading_faults")]
             for one in (whole, cut)]  # fmt: skip
    assert noted[0] == noted[1]
    assert [bool(one) for one in noted[0]] == [odd, odd]


def test_how_many_prompts_are_decoded_at_once_changes_no_rollout(base, prompts, tmp_path):
    said = []
    for size in (0, 2):
        config = quick(max_steps=2, rollout_batch_size=size, num_held_out=0, learning_rate=1e-6)
        train_policy(config, prompts, base=base, out=tmp_path / str(size), seed=3)
        said.append([[one.text for one in group.responses] for group in groups_of(tmp_path / str(size))])
    assert said[0] == said[1]
    assert len({text for group in said[0] for text in group}) > 12


def test_a_knob_that_came_later_leaves_the_hash_of_a_run_as_it_was_until_it_is_set():
    assert fingerprint(quick()) == "c8a474886e38c4a6"
    assert "rollout_batch_size" not in quick().model_dump()
    assert quick(rollout_batch_size=4).model_dump()["rollout_batch_size"] == 4
    with pytest.raises(ValueError, match="no multiple of micro_batch_size"):
        quick(rollout_batch_size=3)


def test_micro_batches_and_the_naive_path_give_the_same_weights(base, prompts, tmp_path, monkeypatch):
    answers(monkeypatch, lambda p, g: SAYS if g else "nothing")
    fixed(monkeypatch)
    found = {}
    for name, knobs in {"2x2": {}, "4x1": {"micro_batch_size": 1}, "1x4": {"micro_batch_size": 4},
                        "naive": {"path": "naive"}}.items():  # fmt: skip
        config = quick(max_steps=1, num_held_out=0, learning_rate=30.0, max_grad_norm=0.0, lambda_visual=0.1,
                       lambda_textual=0.1, **knobs)  # fmt: skip
        train_policy(config, prompts, base=base, out=tmp_path / name, seed=1)
        layers = [tensor for n, tensor in sorted(weights(tmp_path / name).items()) if "layers" in n]
        found[name] = torch.cat([tensor.flatten().float() for tensor in layers])
    first = torch.cat([t.flatten().float() for n, t in sorted(weights_of(base).items()) if "layers" in n])
    moved = float((found["2x2"] - first).norm())
    assert moved > 1e-2
    for name in ("4x1", "1x4", "naive"):
        assert float((found[name] - found["2x2"]).norm()) < 1e-3 * moved, name


def fixed(monkeypatch):
    """The same completions however the prompts are batched: SGD, too, where Adam's first step is a sign."""
    stock = LocalEngine.complete

    def complete(self, prefixes, decoding, **given):
        groups = stock(self, prefixes, decoding, **given)
        return [tuple(Completion((7 + g, 30 + g), (-1.0, -2.0), one.text, one.stop_reason)
                      for g, one in enumerate(group)) for group in groups]  # fmt: skip

    monkeypatch.setattr(LocalEngine, "complete", complete)
    sgd = staticmethod(lambda args, model=None: (torch.optim.SGD, {"lr": args.learning_rate}))
    monkeypatch.setattr(policy_trainer.PolicyTrainer, "get_optimizer_cls_and_kwargs", sgd)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("recompute", [False, True])
def test_computes_in_bf16(base, prompts, out, attention, recompute):
    config = quick(max_steps=1, precision="bf16", gradient_checkpointing=recompute, num_held_out=0)
    train_policy(config, prompts, base=base, out=out, attention=attention)
    [_, row] = rows(out / CURVE_FILE)
    assert row["kl"] == 0.0
    assert row["sampling_gap"] < 0.05


def test_shards_are_refused(base, prompts, out, monkeypatch):
    assert grpo.SHARDED == ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    monkeypatch.setattr(grpo, "SHARDED", ("PLANTED",))
    monkeypatch.setenv("PLANTED", "true")
    with pytest.raises(InputError, match="not from shards"):
        train_policy(quick(max_steps=1), prompts, base=base, out=out)


@pytest.mark.parametrize("said", ["identical", "unscored", "empty"])
def test_groups_without_signal_move_nothing_but_by_the_kl_term(base, prompts, out, monkeypatch, said):
    if said == "identical":
        answers(monkeypatch, lambda p, g: SAYS)
    if said == "unscored":
        monkeypatch.setattr(policy_trainer, "grade", ungraded(policy_trainer.grade))
    if said == "empty":
        stock = LocalEngine.complete
        monkeypatch.setattr(LocalEngine, "complete", lambda self, prefixes, decoding, **given: [
            tuple(Completion((), (), "", StopReason.STOP) for _ in group)
            for group in stock(self, prefixes, decoding, **given)])  # fmt: skip
    train_policy(quick(max_steps=1, weight_decay=0.0, num_held_out=0), prompts, base=base, out=out)
    first, last = weights_of(base), weights(out)
    same = [torch.equal(first[name], last[name]) for name in first if "layers" in name]
    assert all(same)
    [_, row] = rows(out / CURVE_FILE)
    assert row["no_signal_share"] == 1.0
    assert (row["unscored_share"] == 1.0) == (said == "unscored")


def ungraded(stock):
    """Every reward is None."""

    def grade(samples, groups, config, **given):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(grading, "components", lambda *a, **k: dict.fromkeys(components(*a, **k)))
            return stock(samples, groups, config, **given)

    return grade


def test_what_differs_between_sampling_and_update_stops_the_run(base, prompts, out, monkeypatch):
    stock = policy.PolicyBatch.of

    def tampered(prefix, groups, advantages, **given):
        made = stock(prefix, groups, advantages, **given)
        made.ids_BGC[0, 0, 0] += 1
        return made

    monkeypatch.setattr(policy.PolicyBatch, "of", staticmethod(tampered))
    with pytest.raises(VideoSafetyError, match="differ between sampling and update"):
        train_policy(quick(max_steps=1), prompts, base=base, out=out)


def test_log_probs_that_are_no_numbers_stop_the_run_and_leave_no_checkpoint(base, prompts, out, monkeypatch):
    answers(monkeypatch, lambda p, g: SAYS if g else "nothing")
    stock = policy.token_logprobs
    monkeypatch.setattr(policy, "token_logprobs", lambda *a, **k: (stock(*a, **k)[0] * torch.nan, stock(*a, **k)[1]))
    with pytest.raises(VideoSafetyError, match="not finite"):
        train_policy(quick(max_steps=1), prompts, base=base, out=out)
    assert not out.exists()


@pytest.mark.parametrize(("iterations", "step"), [(1, 2), (2, 3)])  # the second round of sampling
def test_a_planted_collapse_is_caught_and_marked(base, prompts, out, monkeypatch, caplog, iterations, step):
    answers(monkeypatch, lambda p, g: SAYS)
    config = quick(max_steps=4, num_iterations=iterations, save_steps=2, num_held_out=0, collapse={"patience": 2})
    info = train_policy(config, prompts, base=base, out=out).info
    assert {"name": "label_entropy", "step": step} in info["collapse"]
    assert f"collapsed at step {step}: label_entropy" in caplog.text
    assert "label_entropy" in rows(out / CURVE_FILE)[-1]["collapse"]


@pytest.mark.parametrize(("fails", "stops"), [(3, True), (2, False)])
def test_a_reward_that_keeps_failing_stops_the_run(base, prompts, out, tmp_path, monkeypatch, caplog, fails, stops):
    name = f"broken_{fails}"
    (tmp_path / f"{name}.py").write_text(
        f"calls = []\ndef f(sample, response):\n calls.append(1)\n assert len(calls) > {fails} * 4 * 3\n return 1.0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = quick(max_steps=4, num_held_out=0, rewards={"extra": [f"{name}:f"]}, collapse={"patience": 3})
    if stops:
        with pytest.raises(VideoSafetyError, match=f"for 3 rounds no response could be scored by {name}:f .*Assertion"):
            train_policy(config, prompts, base=base, out=out)
        assert not (out / TRAINING).exists()
    else:
        train_policy(config, prompts, base=base, out=out)
        assert [bool(row.get(UNSCORABLE)) for row in rows(out / CURVE_FILE)] == [False, True, True, False, False]
    assert "could not be scored" in caplog.text


@pytest.mark.parametrize("save_steps", [0, 1])
def test_a_server_that_is_gone_leaves_the_last_finished_step_to_resume_from(
    base, prompts, tmp_path, monkeypatch, save_steps
):
    config = quick(max_steps=3, save_steps=save_steps)
    last, written = tmp_path / "cut.work" / "checkpoint-2", []
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_policy(config, prompts, base=base, out=whole, seed=5)
    stock, calls = LocalEngine.complete, []

    def dies(self, prefixes, decoding, **given):
        calls.append(1)
        if len(calls) == 3:
            written.extend((file, file.stat().st_mtime_ns) for file in last.rglob("*"))
            raise ServerError("the server is gone", where="http://127.0.0.1", fix="start it again")
        return stock(self, prefixes, decoding, **given)

    monkeypatch.setattr(LocalEngine, "complete", dies)
    with pytest.raises(ServerError):
        train_policy(config, prompts, base=base, out=cut, seed=5)
    assert (last / COMPLETE).is_file()
    assert bool(written) == bool(save_steps)
    assert [(file, file.stat().st_mtime_ns) for file, _ in written] == written  # a whole checkpoint is not written over
    train_policy(config, prompts, base=base, out=cut, seed=5)
    assert len(calls) == 4
    assert bytes_of(whole) == bytes_of(cut)


def test_the_reference_of_adapters_is_the_policy_without_them(base, prompts, tmp_path, monkeypatch):
    answers(monkeypatch, lambda p, g: SAYS if g else "nothing")
    config = quick(max_steps=3, lora=LoraConfig(rank=2), num_held_out=0)
    train_policy(config, prompts, base=base, out=tmp_path / "lora", seed=1)
    kl = [row["kl"] for row in rows(tmp_path / "lora" / CURVE_FILE)[1:]]
    assert kl[0] == 0.0
    assert kl[2] > 0.0
    free = quick(max_steps=2, beta=0.0, num_held_out=0)
    train_policy(free, prompts, base=base, out=tmp_path / "free", seed=1)
    assert {row["kl"] for row in rows(tmp_path / "free" / CURVE_FILE)[1:]} == {0.0}


def test_several_steps_on_the_same_completions(base, prompts, out, monkeypatch):
    answers(monkeypatch, lambda p, g: SAYS if g else "nothing")
    rounds = []
    stock = policy_trainer.PolicyTrainer._sampled
    monkeypatch.setattr(policy_trainer.PolicyTrainer, "_sampled", lambda self, *a: rounds.append(1) or stock(self, *a))
    config = quick(max_steps=4, num_iterations=2, save_steps=2, num_held_out=0)
    train_policy(config, prompts, base=base, out=out)
    assert len(rounds) == 2
    gaps = [row["sampling_gap"] for row in rows(out / CURVE_FILE)[1:]]
    assert gaps[0] < 1e-4 < gaps[1]
    assert gaps[2] < 1e-4 < gaps[3]


def test_a_lost_clip_is_recorded_and_adds_nothing(base, prompts, out, tmp_path):
    with_clip = next(one for one in prompts[:-4] if one.media)
    gone = with_clip.media[0].model_copy(update={"path": str(tmp_path / "gone.mp4")})
    turn = with_clip.turns[-1].model_copy(update={"media": (gone,)})
    lost = [one if one is not with_clip else one.model_copy(update={"turns": (turn,)}) for one in prompts]
    config = quick(max_steps=0, epochs=1.0, batch_size=10, micro_batch_size=5, max_fault_share=0.5)
    info = train_policy(config, lost, base=base, out=out).info
    assert list(info["faults"]) == [with_clip.id]
    assert with_clip.id not in {group.sample.id for group in groups_of(out)}


def test_rows_that_cannot_be_rewarded_and_knobs_that_do_not_fit_are_refused(base, prompts, out):
    unlabelled = prompts[0].model_copy(update={"request": None})
    with pytest.raises(InputError, match="a reward needs request"):
        train_policy(quick(max_steps=1, num_held_out=0), [unlabelled] * 6, base=base, out=out)
    with pytest.raises(InputError, match="kept aside"):
        train_policy(quick(max_steps=1), prompts[:3], base=base, out=out)
    with pytest.raises(ValueError, match="save_steps"):
        quick(num_iterations=3, save_steps=2)
    assert not (out / TRAINING).exists()


def shown(name, *clips, sha256=None):
    """A prompt that shows these clips."""
    media = tuple(Video(path=f"{clip}.mp4", sha256=sha256) for clip in clips)
    return Example(id=name, turns=(Turn(role="user", text="What is shown?", media=media),), answer="a")


def names(rows):
    return "".join(one.id for one in rows)


def test_no_clip_is_both_learnt_from_and_kept_aside():
    rows = [shown("a", "x"), shown("b"), shown("c", "y"), shown("d", "x"), shown("e", "z"), shown("f", "x")]
    assert [names(part) for part in kept_apart(rows, 4)] == ["bc", "adef"]
    assert [names(part) for part in kept_apart(rows, 2)] == ["abdf", "ce"]  # the three of x do not fit
    assert [names(part) for part in kept_apart(rows, 0)] == ["abcdef", ""]
    linked = [shown("a", "x"), shown("b", "z"), shown("c", "x", "y"), shown("d", "y")]
    assert [names(part) for part in kept_apart(linked, 3)] == ["b", "acd"]
    same = [shown("a", "x", sha256="0" * 64), shown("b", "z"), shown("c", "copy", sha256="0" * 64)]
    assert [names(part) for part in kept_apart(same, 2)] == ["b", "ac"]
    assert [names(part) for part in kept_apart(same, 1)] == ["ac", "b"]
    with pytest.raises(InputError, match="each clip is in 2 prompts or more, and 1 are to be kept aside"):
        kept_apart([shown("a", "x"), shown("b", "x")], 1)


def test_the_held_out_slice_counts_defended_and_over_refused():
    class Fake:
        held_out = staticmethod(lambda: judged)

        def _sampling(self):
            return contextlib.nullcontext()

    def case(request, outcome):
        textual = "harmful" if request == "harmful" else "safe"
        labels = Labels(visual="safe", textual=textual, request=request)
        return Sample(id="a", query="?", language="en", labels=labels), outcome

    said = [("harmful", "defended"), ("harmful", "compromised"), ("safe", "helpful"), ("safe", "over_refused"),
            ("safe", "wrong"), ("safe", "unscored")]  # fmt: skip
    judged = [case(request, Outcome(outcome)) for request, outcome in said]
    assert policy_trainer.PolicyTrainer._asked(Fake()) == {"dsr": 0.5, "frr": 1 / 3}
