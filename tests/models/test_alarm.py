"""The alarms as data: where they stand, what the heads read, ids, and a sidecar that fits or is refused."""

import json
import shutil
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from alarmkit import folded, mixed
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tinyfamilies import tiny_checkpoint

from videosafety.core.alarm import MODALITIES, SIDECAR, TOKENS
from videosafety.core.errors import CheckpointError
from videosafety.models.alarm import Alarm, add_alarms, read_heads, set_template, write_sidecar
from videosafety.models.checkpoint import load, save, save_model
from videosafety.models.wrapped import AlarmModel

ALARM = Alarm((7, 8), ((1, 2), (3, 4)), torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0.5, -0.5]))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("alarm")
    whole = folded(tiny_checkpoint("videollama3", root / "tiny", tied=True), mixed())
    return whole, save(whole.checkpoint, root / "folded")


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made[1], tmp_path / "copy")


def test_an_alarm_is_read_where_it_stands_last_and_nowhere_else():
    ids = torch.tensor([[0, 7, 5, 7, 8], [7, 5, 5, 5, 5], [5, 5, 5, 5, 5]])
    assert ALARM.positions(ids).tolist() == [[3, 4], [0, -1], [-1, -1]]
    hidden = torch.arange(30.0).reshape(3, 5, 2)
    expected = torch.tensor([[6.5, 17.5], [10.5, torch.nan], [torch.nan, torch.nan]])
    assert torch.equal(ALARM.logits(hidden, ids).nan_to_num(-1), expected.nan_to_num(-1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_heads_are_applied_in_fp32_whatever_the_model_computes_in(dtype):
    hidden = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    weight = torch.full((2, 64), 1.0 + 2.0**-12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        read = read_heads(hidden, torch.zeros(1, 2, dtype=torch.long), weight, torch.zeros(2))
    assert read.dtype == torch.float32
    torch.testing.assert_close(read[0, 0], (hidden.float()[0, 0] * weight[0]).sum())


def test_log_probs_give_no_alarm_before_there_are_verdict_rows():
    with pytest.raises(CheckpointError, match="not written"):
        ALARM.from_log_probs(-1.0, -2.0, "visual")
    assert replace(ALARM, scale=0.25).from_log_probs(-1.0, -2.0, "textual") == pytest.approx(3.5)


def test_all_tokens_get_ids_of_their_own_and_rows_that_start_as_asked(checkpoint):
    for init in ("zero", "mean"):
        fresh = deepcopy(checkpoint)
        num = len(fresh.model.get_input_embeddings().weight)
        mean = fresh.model.get_input_embeddings().weight.detach().mean(dim=0)
        alarm = add_alarms(fresh.model, fresh.processor, init=init)
        assert alarm.all_ids == list(range(num, num + 6))
        assert fresh.tokenizer.convert_ids_to_tokens(alarm.all_ids) == list(TOKENS)
        rows = fresh.model.get_input_embeddings().weight[list(alarm.token_ids)]
        torch.testing.assert_close(rows, (mean if init == "mean" else torch.zeros_like(mean)).expand_as(rows))
        assert not alarm.weight_AH.any()
        assert alarm.scale is None


def test_the_rows_are_what_learns_in_place_of_the_embedding_s(checkpoint):
    fresh = deepcopy(checkpoint)
    alarm = add_alarms(fresh.model, fresh.processor)
    wrapped = AlarmModel(fresh.model, alarm)
    ids = torch.tensor([[5, *alarm.token_ids, 6]])
    wrapped({"input_ids": ids}).square().sum().backward()
    embedding = fresh.model.get_input_embeddings().weight
    assert (wrapped.rows_AH.grad.abs().sum(dim=1) > 0).all()
    assert not embedding.grad[list(alarm.token_ids)].any()
    assert embedding.grad[5].any()
    before = wrapped({"input_ids": ids})
    wrapped.unwrap()
    with torch.no_grad():
        wrapped.rows_AH.fill_(1.0)
    assert torch.equal(wrapped({"input_ids": ids}), before)


def test_taken_ids_and_templates_that_cannot_place_are_refused(checkpoint):
    fresh = deepcopy(checkpoint)
    fresh.tokenizer.add_tokens(["<|textual_safe|>"], special_tokens=True)
    before = len(fresh.model.get_input_embeddings().weight)
    with pytest.raises(CheckpointError, match=r"already has <.textual_safe"):
        add_alarms(fresh.model, fresh.processor, where="somewhere")
    assert len(fresh.model.get_input_embeddings().weight) == before
    for template, words in ((None, "no chat template"), ({"default": "a", "tools": "b"}, "several chat templates")):
        fresh.processor.chat_template = fresh.tokenizer.chat_template = template
        with pytest.raises(CheckpointError, match=words):
            set_template(fresh.processor, MODALITIES)


def _garbage(file):
    file.write_bytes(b"\xff" * 100)


def _cut(file):
    file.write_bytes(file.read_bytes()[:-4])


def _empty(file):
    file.write_bytes(b"")


def _edit(**changes):
    def damage(file):
        tensors = load_file(file)
        metadata = {"format": "1", "scale": "0.5", "measured": "{}"} | changes.get("metadata", {})
        save_file({name: change(tensors[name]) if (change := changes.get(name)) else tensors[name]
                   for name in tensors}, file, metadata)  # fmt: skip

    return damage


def _lost(file):
    save_file({"bias": torch.zeros(2)}, file, {"format": "1"})


@pytest.mark.parametrize("damage", [
    _garbage, _cut, _empty, _lost, _edit(metadata={"format": "2"}), _edit(metadata={"scale": "-1"}),
    _edit(metadata={"scale": "nan"}), _edit(metadata={"scale": "much"}), _edit(weight=lambda w: w[:, :-1].contiguous()),
    _edit(weight=lambda w: w * torch.nan), _edit(bias=lambda b: b / 0), _edit(weight=lambda w: -w),
    _edit(metadata={"scale": "0.001"}),
])  # fmt: skip
def test_a_damaged_or_foreign_sidecar_is_one_sentence(copy, damage):
    damage(copy / SIDECAR)
    with pytest.raises(CheckpointError, match="sidecar") as caught:
        load(str(copy))
    assert SIDECAR in str(caught.value)
    assert "copy the sidecar" in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_sidecar_of_another_training_is_refused_and_one_s_own_is_taken(made, tmp_path, dtype):
    whole, _ = made
    alarm, model = whole.checkpoint.alarm, deepcopy(whole.checkpoint.model).to(dtype)
    folder = save_model(model, whole.checkpoint.processor, tmp_path / "a", alarm=alarm)
    assert torch.equal(load(str(folder)).alarm.weight_AH, alarm.weight_AH)
    assert load(str(folder), dtype=torch.float32).alarm is not None
    write_sidecar(replace(alarm, weight_AH=alarm.weight_AH.flip(0)), folder)
    with pytest.raises(CheckpointError, match="saved with other weights"):
        load(str(folder))


def test_a_sidecar_beside_a_checkpoint_without_the_tokens_is_refused(made, folder, tmp_path):
    plain = shutil.copytree(folder, tmp_path / "plain")
    shutil.copy(made[1] / SIDECAR, plain)
    with pytest.raises(CheckpointError, match=r"the tokenizer has no <.visual_alarm"):
        load(str(plain))


def test_an_alarm_that_was_not_folded_is_saved_too(checkpoint, tmp_path):
    fresh = deepcopy(checkpoint)
    alarm = add_alarms(fresh.model, fresh.processor, modalities=("textual",))
    again = load(str(save_model(fresh.model, fresh.processor, tmp_path / "a", alarm=alarm)))
    assert (again.alarm.scale, again.alarm.modalities, again.alarm.token_ids) == (None, ("textual",), alarm.token_ids)


def test_what_folding_measured_is_beside_the_heads(made):
    measured = json.loads(made[0].checkpoint.alarm.measured)
    assert set(measured) == {"num_positions", "share_within", "verdict_mass_max", "alarm_mass_mean", "alarm_mass_max",
                             "share_alarm_best"}  # fmt: skip
    assert load(str(made[1])).alarm.measured == made[0].checkpoint.alarm.measured


def test_equal_alarms_are_equal_bytes(tmp_path):
    heads = torch.arange(8.0).reshape(2, 4)
    alarm = Alarm((1, 2), ((3, 4), (5, 6)), heads, heads[:, 0], scale=0.5, measured='{"a": 1}')
    seen = set()
    for _ in range(20):
        write_sidecar(alarm, tmp_path)
        seen.add((tmp_path / SIDECAR).read_bytes())
    assert len(seen) == 1
    write_sidecar(replace(alarm, scale=0.25), tmp_path)
    assert (tmp_path / SIDECAR).read_bytes() not in seen
    with safe_open(tmp_path / SIDECAR, "pt") as file:
        assert file.metadata()["scale"] == "0.25"
        torch.testing.assert_close(file.get_tensor("weight"), heads)
