"""Stage 4 sampling from a real process on loopback: new weights every step, a server that dies, and going on."""

import json
import sys
from pathlib import Path

import pytest
import torch
from stagekit import QUICK, bytes_of, quick
from tinyfamilies import tiny_checkpoint

sys.path.append(str(Path(__file__).parents[1] / "llm"))  # policyserver

from policyserver import PolicyServer

from videosafety.core.errors import InputError, ServerError, StorageError
from videosafety.defend import server_engine
from videosafety.defend.grpo import train_policy
from videosafety.defend.lora import add_adapters, merged
from videosafety.defend.policy_trainer import CURVE_FILE, ROLLOUTS
from videosafety.defend.resume import COMPLETE
from videosafety.defend.served_weights import ServedWeights
from videosafety.defend.sft import train_stage
from videosafety.defend.stage import LoraConfig, StageConfig
from videosafety.models.checkpoint import load, save_model
from videosafety.models.fold import rows_in_place
from videosafety.models.wrapped import AlarmModel
from videosafety.toyworld import oracle  # noqa: F401 - registers the judge


@pytest.fixture(scope="module")
def start(base, examples, tmp_path_factory):
    """A checkpoint with alarms in its template, as stage 4 finds it."""
    out = tmp_path_factory.mktemp("before") / "at_sft"
    train_stage("at_sft", quick(max_steps=1), examples, base=base, out=out)
    return out


@pytest.fixture(scope="module")
def process(start):
    running = PolicyServer(start)
    yield running
    running.close()


@pytest.fixture
def served(process, monkeypatch):
    """The server, well behaved, with the weights of the stage before; short waits for it."""
    process.kill()
    process.start()
    monkeypatch.setattr(server_engine, "WAITS_S", (0.02, 0.02))
    return process


def asking(served, folder, **knobs):
    """Stage 4 on four prompts a step, at a rate at which weights of the step before would show."""
    server = {"url": served.url, "model": "policy", "weights_dir": str(folder), "tolerance": 1e-3, "concurrency": 2}
    given = {**QUICK, "engine": "server", "server": server, "num_generations": 3, "max_new_tokens": 5, "max_steps": 3,
             "temperature": 3.0, "num_held_out": 0, "save_steps": 0, "learning_rate": 3e-3,
             "alarm_learning_rate": 1e-2, "trains": ("llm", "alarms"),
             "rewards": {"extra": ["launched:spelling"]}, **knobs}  # fmt: skip
    return StageConfig.of("grpo", **given)


def curve(folder):
    return [json.loads(line) for line in (folder / CURVE_FILE).read_text().splitlines()][1:]


def test_the_server_samples_each_step_from_the_weights_of_that_step(start, served, prompts, tmp_path):
    config = asking(served, tmp_path / "shared")
    train_policy(config, prompts, base=str(start), out=tmp_path / "out", seed=3)
    rows = curve(tmp_path / "out")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert max(row["sampling_gap"] for row in rows) < 1e-4
    assert rows[2]["kl"] > 1e-3  # so the first weights would have shown
    assert served.state()["calls"].count("/collective_rpc") == 3
    assert [path.name for path in (tmp_path / "shared" / "served_policy").iterdir()] == ["lock"]


def test_a_server_that_dies_in_a_round_stops_the_run_which_then_goes_on_as_if_nothing_had_been(
    start, served, prompts, tmp_path
):
    config = asking(served, tmp_path / "shared")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_policy(config, prompts, base=str(start), out=whole, seed=3)

    def doom(done, total, loss):
        if done == 2:
            served.set(kill_at=3 + 2)  # two probes of a reload, one before the round, and one prompt

    with pytest.raises(ServerError, match=r"stays away after 3 attempts.*of 4 prompts are answered and kept.*resume"):
        train_policy(config, prompts, base=str(start), out=cut, seed=3, on_step=doom)
    assert (tmp_path / "cut.work" / "checkpoint-2" / COMPLETE).is_file()
    with pytest.raises(ServerError, match="version 2 was not handed over"):
        train_policy(config, prompts, base=str(start), out=cut, seed=3)
    assert (tmp_path / "cut.work" / "checkpoint-2" / COMPLETE).is_file()
    served.start()
    train_policy(config, prompts, base=str(start), out=cut, seed=3)
    assert bytes_of(whole) == bytes_of(cut)
    assert (whole / ROLLOUTS).read_bytes() == (cut / ROLLOUTS).read_bytes()


def test_completions_of_other_weights_that_nobody_saw_are_not_learnt_from(
    start, served, prompts, tmp_path, monkeypatch
):
    stock = ServedWeights.push
    monkeypatch.setattr(ServedWeights, "push", lambda self, version: None if version == 2 else stock(self, version))
    monkeypatch.setattr(ServedWeights, "ensure", lambda self: True)
    with pytest.raises(ServerError, match=r"from the policy's on average, 0.001 is allowed.*resume the run"):
        train_policy(asking(served, tmp_path / "shared"), prompts, base=str(start), out=tmp_path / "out", seed=3)
    assert (tmp_path / "out.work" / "checkpoint-2" / COMPLETE).is_file()


def test_a_server_with_another_template_is_refused_by_its_token_ids(start, served, prompts, tmp_path):
    config = asking(served, tmp_path / "shared", modalities=("textual",))  # the server's has both
    with pytest.raises(ServerError, match=r"'probe'.*token ids differ first at position"):
        train_policy(config, prompts, base=str(start), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_has_one_run_a_key_is_set_and_a_server_is_named(start, served, tmp_path, monkeypatch):
    config = asking(served, tmp_path / "shared").server
    checkpoint = load(str(start))
    wrapped = AlarmModel(checkpoint.model, checkpoint.alarm)
    left, other = (tmp_path / "shared" / name for name in ("served_policy/weights-7", "weights-of-yours"))
    for folder in (left, other):
        folder.mkdir(parents=True)
    with server_engine.connected(config, wrapped, checkpoint):
        assert not left.exists()
        assert other.exists()
        with pytest.raises(StorageError, match="another process"), server_engine.connected(config, wrapped, checkpoint):
            pass
    keyed = config.model_copy(update={"key_env": "PLANTED_KEY"})
    with pytest.raises(InputError, match="PLANTED_KEY is not set"), server_engine.connected(keyed, wrapped, checkpoint):
        pass
    monkeypatch.setenv("PLANTED_KEY", "secret")
    with server_engine.connected(keyed, wrapped, checkpoint) as engine:
        assert engine.server.key == "secret"
        assert "secret" not in repr(engine.server)
    with pytest.raises(ValueError, match="go together"):
        StageConfig.of("grpo", engine="server")


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_handed_over_says_what_the_policy_says_and_leaves_it_as_it_was(tied, tmp_path, start):
    from alarmkit import with_heads

    checkpoint, wrapped = with_heads(load(str(tiny_checkpoint("qwen3_vl", tmp_path / "tiny", tied=tied)),
                                          dtype=torch.float32))  # fmt: skip
    model = checkpoint.model
    add_adapters(checkpoint.family.language_model(model), LoraConfig(rank=2))
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        wrapped.rows_AH.normal_(generator=noise)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1, generator=noise)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = merged(model, rows_in_place(wrapped, model.state_dict()))
    save_model(model, checkpoint.processor, tmp_path / "handed", state=state)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    stock = checkpoint.family.model_class.from_pretrained(tmp_path / "handed", dtype=torch.float32).eval()
    words = checkpoint.tokenizer("What is shown?", return_tensors="pt")["input_ids"]
    ids = torch.cat([torch.tensor([list(wrapped.alarm.token_ids)]), words], dim=1)
    with torch.no_grad():
        hidden_BTH = wrapped({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        own = wrapped.answer_logits(hidden_BTH[0])
        told = stock(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    ordinary = own.isfinite()
    torch.testing.assert_close(told[ordinary], own[ordinary], atol=1e-5, rtol=1e-5)
    assert not torch.equal(stock.get_input_embeddings().weight, model.get_input_embeddings().weight)
