"""Wrapped and folded are the same model, in every family, tied or not; what is on disk needs nothing of ours."""

import json
import logging
from copy import deepcopy

import pytest
import torch
from alarmkit import Folded, batch_of, folded, mixed, with_heads
from tinyfamilies import FAMILY_NAMES, tiny_checkpoint
from transformers import AutoModelForImageTextToText, AutoProcessor

from videosafety.core.alarm import ALARMS, MODALITIES, TOKENS
from videosafety.core.errors import CheckpointError
from videosafety.models.alarm import add_alarms, taken_ids
from videosafety.models.checkpoint import load, save_model
from videosafety.models.fold import MAX_MASS, Seen, fit_offset, fold, observe, side_effect
from videosafety.models.generate import generate
from videosafety.models.wrapped import AlarmModel

SHARD = "40KB"


@pytest.fixture(scope="session", params=[(name, tied) for name in FAMILY_NAMES for tied in (True, False)],
                ids=lambda one: f"{one[0]}-{'tied' if one[1] else 'untied'}")  # fmt: skip
def made(request, tmp_path_factory) -> Folded:
    name, tied = request.param
    folder = tiny_checkpoint(name, tmp_path_factory.mktemp("fold") / name, tied=tied)
    return folded(folder, mixed())


@pytest.fixture(scope="session")
def saved(made, tmp_path_factory):
    checkpoint = made.checkpoint
    return save_model(checkpoint.model, checkpoint.processor, tmp_path_factory.mktemp("saved") / "folded",
                      alarm=checkpoint.alarm, max_shard_size=SHARD)  # fmt: skip


@pytest.fixture
def one(tmp_path):
    """A folded VideoLLaMA3 that a test may change."""
    return folded(tiny_checkpoint("videollama3", tmp_path / "tiny", tied=True), mixed())


@torch.inference_mode()
def outputs(model, batch):
    """Logits of all positions and the hidden states that the LM head read, from the stock class."""
    model.eval()
    read = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda module, args: read.append(args[0]))
    logits = model(**batch).logits
    hook.remove()
    return logits, read[0]


def by_log_probs(alarm, logits_BTV, batch):
    """The alarms' logits as a server's log-probs give them."""
    log_probs = logits_BTV.float().log_softmax(-1)
    at_BA = alarm.positions(batch["input_ids"]).tolist()
    return torch.tensor([
        [alarm.from_log_probs(*(float(log_probs[b, at, token]) for token in pair), modality)
         for at, pair, modality in zip(row, alarm.verdict_ids, MODALITIES, strict=True)]
        for b, row in enumerate(at_BA)
    ])  # fmt: skip


def test_wrapped_and_folded_logits_are_equal_on_the_original_ids(made):
    real = made.batch["attention_mask"].bool()
    logits, _ = outputs(made.checkpoint.model, made.batch)
    n = made.num_before
    torch.testing.assert_close(logits[real][:, :n], made.wrapped_logits_BTV[real][:, :n], atol=1e-5, rtol=1e-5)


def test_tied_alarm_rows_are_scored_as_in_training_and_untied_ones_are_not(made):
    real, ids = made.batch["attention_mask"].bool(), list(made.checkpoint.alarm.token_ids)
    logits, _ = outputs(made.checkpoint.model, made.batch)
    before = made.wrapped_logits_BTV[real][:, ids]
    if made.checkpoint.model.config.tie_word_embeddings:
        torch.testing.assert_close(logits[real][:, ids], before, atol=1e-5, rtol=1e-5)
    else:
        assert before.isneginf().all()


def test_hidden_state_and_log_probs_give_the_same_alarm_as_the_wrapped_model(made):
    alarm = made.checkpoint.alarm
    logits, hidden = outputs(made.checkpoint.model, made.batch)
    by_hidden = alarm.logits(hidden, made.batch["input_ids"])
    assert by_hidden.isfinite().all()
    assert by_hidden.std() > 0.1
    torch.testing.assert_close(by_hidden, made.alarm_logits_BA, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(by_log_probs(alarm, logits, made.batch), by_hidden, atol=1e-4, rtol=1e-4)


def test_the_embedding_grows_by_six_and_no_more(made):
    assert len(made.checkpoint.model.get_input_embeddings().weight) == made.num_before + len(TOKENS)
    assert made.checkpoint.model.config.get_text_config().vocab_size == made.num_before + len(TOKENS)


def test_shards_load_with_the_stock_class_and_processor_and_nothing_of_ours(made, saved):
    assert len(list(saved.glob("model-*.safetensors"))) > 1
    model = AutoModelForImageTextToText.from_pretrained(saved)
    assert type(model) is made.checkpoint.family.model_class
    expected, _ = outputs(made.checkpoint.model, made.batch)
    real = made.batch["attention_mask"].bool()
    torch.testing.assert_close(outputs(stock_batching(model, made), made.batch)[0][real], expected[real])
    text = AutoProcessor.from_pretrained(saved).apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Why?"}]}], add_generation_prompt=True
    )
    assert [text.count(token) for token in ALARMS.values()] == [1, 1]


def stock_batching(model, made):
    """LLaVA-OneVision's own class cannot batch clips of several lengths; that is no matter of folding."""
    if made.checkpoint.family.name == "llava_onevision":
        made.checkpoint.family.prepare(model)
    return model


def test_loading_and_wrapping_gives_rows_and_heads_back_exactly(made, saved):
    again = load(str(saved))
    alarm, before = again.alarm, made.checkpoint.alarm
    wrapped = AlarmModel(again.model, alarm)
    assert torch.equal(wrapped.rows_AH, made.rows_AH)
    assert torch.equal(wrapped.head_weight_AH, before.weight_AH)
    assert torch.equal(wrapped.head_bias_A, before.bias_A)
    told = [(a.token_ids, a.verdict_ids, a.scale, a.measured, a.modalities) for a in (alarm, before)]
    assert told[0] == told[1]


def test_bf16_on_disk_loads_and_its_alarm_is_near(made, tmp_path):
    checkpoint = made.checkpoint
    half = save_model(deepcopy(checkpoint.model).bfloat16(), checkpoint.processor, tmp_path / "half",
                      alarm=checkpoint.alarm)  # fmt: skip
    again = load(str(half))
    assert again.model.dtype == torch.bfloat16
    assert torch.equal(again.alarm.weight_AH, checkpoint.alarm.weight_AH)
    full = load(str(half), dtype=torch.float32)
    logits, hidden = outputs(full.model, made.batch)
    by_hidden = full.alarm.logits(hidden, made.batch["input_ids"]).sigmoid()
    assert (by_hidden - made.alarm_logits_BA.sigmoid()).abs().max() < 0.1
    assert (by_log_probs(full.alarm, logits, made.batch).sigmoid() - by_hidden).abs().max() < 0.1


@pytest.mark.parametrize("spare", [6, 40])
def test_spare_rows_of_a_padded_vocabulary_are_used(tmp_path, spare):
    checkpoint = load(str(tiny_checkpoint("videollama3", tmp_path / "tiny", tied=False)))
    num = len(checkpoint.tokenizer) + spare
    checkpoint.model.resize_token_embeddings(num)
    padded = folded(save_model(checkpoint.model, checkpoint.processor, tmp_path / "padded"), mixed()[:1])
    assert len(padded.checkpoint.model.get_input_embeddings().weight) == num
    assert max(padded.checkpoint.alarm.all_ids) < num


def test_too_few_spare_rows_grow_the_embedding_by_what_is_missing(tmp_path):
    checkpoint = load(str(tiny_checkpoint("videollama3", tmp_path / "tiny", tied=True)))
    words = len(checkpoint.tokenizer)
    checkpoint.model.resize_token_embeddings(words + 2)
    alarm = add_alarms(checkpoint.model, checkpoint.processor)
    assert max(alarm.all_ids) == words + 5
    assert len(checkpoint.model.get_input_embeddings().weight) == words + 6


def favour(model, ids):
    """The logits of some ids are raised over all others."""

    def raise_(module, args, logits):
        return logits.index_add(-1, torch.tensor(ids), logits.new_full((*logits.shape[:-1], len(ids)), 1e4))

    return model.get_output_embeddings().register_forward_hook(raise_)


def test_no_generation_says_an_alarm_a_verdict_or_a_vision_token_that_the_logits_favour(saved):
    checkpoint = load(str(saved))
    model, asked = checkpoint.model, mixed()[:2]
    never = checkpoint.alarm.all_ids + checkpoint.family.vision_token_ids(model)
    batch = batch_of(checkpoint, asked, side="left")
    before = [one.text for one in generate(checkpoint, asked, max_new_tokens=4)]
    hook = favour(model, never)
    assert [one.text for one in generate(checkpoint, asked, max_new_tokens=4)] == before
    said = model.generate(**batch, max_new_tokens=4)[:, batch["input_ids"].shape[1] :]
    assert not torch.isin(said, torch.tensor(never)).any()
    model.generation_config.suppress_tokens = None
    assert torch.isin(model.generate(**batch, max_new_tokens=1)[:, -1], torch.tensor(never)).all()
    hook.remove()


def test_without_its_sidecar_a_checkpoint_answers_the_same_and_takes_no_new_alarms(saved, monkeypatch):
    whole = load(str(saved))
    monkeypatch.setattr("videosafety.models.checkpoint.read_sidecar", lambda *a, **k: None)
    bare = load(str(saved))
    assert bare.alarm is None
    assert taken_ids(bare.tokenizer) == whole.alarm.all_ids
    hook = favour(bare.model, whole.alarm.all_ids)
    asked = mixed()[:2]
    answers = [[one.text for one in generate(checkpoint, asked, max_new_tokens=4)] for checkpoint in (whole, bare)]
    hook.remove()
    assert answers[0] == answers[1]
    assert generate(bare, asked, max_new_tokens=1)[0].alarm is None
    with pytest.raises(CheckpointError, match=r"already has .*visual_alarm"):
        add_alarms(bare.model, bare.processor)


def test_generation_reports_the_wrapped_model_s_probabilities(made, saved):
    answers = generate(load(str(saved)), mixed(), max_new_tokens=1, batch_size=3)
    told = torch.tensor([one.alarm for one in answers])
    torch.testing.assert_close(told, made.alarm_logits_BA.sigmoid(), atol=1e-4, rtol=1e-4)


def test_folding_twice_changes_nothing(one):
    before = {name: tensor.clone() for name, tensor in one.checkpoint.model.state_dict().items()}
    wrapped = AlarmModel(one.checkpoint.model, one.checkpoint.alarm).eval()
    again = fold(wrapped, observe(wrapped, [one.batch]))
    assert torch.equal(again.weight_AH, one.checkpoint.alarm.weight_AH)
    verdicts = one.checkpoint.alarm.all_ids[2:]
    for name, tensor in wrapped.unwrap().state_dict().items():
        ordinary = [i for i in range(len(tensor)) if i not in verdicts] if tensor.dim() == 2 else slice(None)
        torch.testing.assert_close(tensor[ordinary], before[name][ordinary])


def test_an_offset_that_does_not_exist_is_measured_and_warned_about(tmp_path, caplog):
    """Hidden states h and −h: any u that lowers one raises the other."""
    checkpoint = load(str(tiny_checkpoint("videollama3", tmp_path / "tiny", tied=True)))
    _, wrapped = with_heads(checkpoint)
    real = observe(wrapped, [batch_of(checkpoint, mixed())])
    both = Seen(*(torch.cat([one, sign * one]) for one, sign in zip(
        (real.hidden_NH, real.normaliser_N, real.best_N, real.rank_N), (-1, 1, 1, 1), strict=True)))  # fmt: skip
    with caplog.at_level(logging.WARNING):
        alarm = fold(wrapped, both)
    measured = json.loads(alarm.measured)
    assert measured["share_within"] < 1
    assert measured["verdict_mass_max"] > MAX_MASS
    assert "exceed their bound" in caplog.text


def test_the_offset_keeps_every_seen_position_within_the_bound_where_it_can(caplog):
    generator = torch.Generator().manual_seed(0)
    hidden_NH = torch.randn(400, 24, generator=generator) + 2.0
    normaliser_N = 8 + torch.rand(400, generator=generator)
    seen = Seen(hidden_NH, normaliser_N, normaliser_N - 0.1, normaliser_N - 6)
    offset_H = fit_offset(seen)
    assert (hidden_NH @ offset_H <= seen.ceiling_N - 1.99).all()


def test_the_side_effect_is_that_of_the_rows_as_written(one):
    """Rows raised after folding show; the measure reads the LM head and not the fit."""
    wrapped = AlarmModel(one.checkpoint.model, one.checkpoint.alarm).eval()
    seen = observe(wrapped, [one.batch])
    head = one.checkpoint.model.get_output_embeddings().weight.detach().clone()
    harmful = one.checkpoint.alarm.verdict_ids[0][0]
    head[harmful] = 100 * seen.hidden_NH[0]
    worse = side_effect(one.checkpoint.alarm, head, seen)
    assert worse["verdict_mass_max"] > 1
    assert worse["share_within"] < 1
    head[one.checkpoint.alarm.token_ids[0]] = 100 * seen.hidden_NH[0]
    assert side_effect(one.checkpoint.alarm, head, seen)["share_alarm_best"] > 0


def test_a_long_row_leaves_room_for_its_answer():
    from videosafety.models.family import IGNORE
    from videosafety.models.fold import _spread

    ordinary = torch.ones(2, 200, dtype=torch.bool)
    labels = torch.full((2, 200), IGNORE)
    labels[0, -20:] = 5
    chosen = _spread(ordinary, labels, 40)
    assert chosen.sum(dim=1).tolist() == [40, 40]
    assert chosen[0, 179:199].all()  # the positions that say the answer's tokens
    assert _spread(ordinary, None, 500).all()
