"""What is wrapped and trained: only answers reach the LM head, only named parts move, clips are really seen."""

import pytest
import torch
from stagekit import batch_of, difference, gradients, quick, ready
from tinyfamilies import tiny_checkpoint

from videosafety.defend.objective import count
from videosafety.defend.rows import ALARM_TARGETS
from videosafety.models.family import IGNORE, watch_vision


def test_only_answer_positions_reach_the_lm_head(base, examples):
    made = ready(base, quick())
    batch = batch_of(made, examples[:4])
    seen = []
    made.wrapped.model.get_output_embeddings().register_forward_hook(lambda module, args, out: seen.append(out.shape))
    made.objective(batch)
    num_answer = int((batch["labels"] != IGNORE).sum())
    assert sum(shape[0] for shape in seen) == num_answer == int(count(batch)[0])
    assert num_answer < batch["input_ids"].numel() / 2


def test_labels_hold_the_answer_and_nothing_else(base, examples):
    made = ready(base, quick())
    batch = batch_of(made, examples[:6])
    learnt = batch["labels"] != IGNORE
    assert torch.equal(batch["labels"][learnt], batch["input_ids"][learnt])  # no metadata rides along
    assert batch[ALARM_TARGETS].shape == (6, 2)
    assert set(batch[ALARM_TARGETS][~batch[ALARM_TARGETS].isnan()].tolist()) <= {0.0, 1.0}


def test_the_clips_pass_the_vision_tower_in_the_gradient_pass(base, clips):
    made = ready(base, quick())
    batch = batch_of(made, clips[:3])
    with watch_vision(made.checkpoint.family, made.wrapped.model) as calls:
        made.objective(batch)
    assert sum(calls) == batch["pixel_values_videos"].numel() > 0


@pytest.mark.parametrize(
    ("trains", "moving"),
    [
        (("llm",), {"llm"}),
        (("alarms",), {"rows"}),
        (("llm", "alarms"), {"llm", "rows"}),
        (("alarms", "heads"), {"rows", "head"}),
        (("llm", "alarms", "heads"), {"llm", "rows", "head"}),
    ],
)
def test_a_gradient_stands_on_the_named_parts_alone(base, clips, trains, moving):
    config = quick(trains=trains)
    made = ready(base, config)
    found = gradients(made, [batch_of(made, clips[:2])], config)
    kinds = {"rows" if "rows_AH" in n else "head" if "head_" in n else "llm" for n in found}
    assert kinds == moving
    assert set(made.parts) == set(trains)
    assert not any("vision_model" in name or "projector" in name for name in found)


@pytest.mark.parametrize("family", ["videollama3", "qwen2_5_vl", "qwen3_vl", "smolvlm2", "llava_onevision"])
def test_in_every_family_the_decoder_and_the_head_are_all_that_is_trained(tmp_path, clips, family):
    config = quick()
    made = ready(str(tiny_checkpoint(family, tmp_path / family, tied=False)), config)
    trained = {id(p) for p in made.parts["llm"]}
    names = {name for name, p in made.wrapped.model.named_parameters() if id(p) in trained}
    decoder = made.checkpoint.family.language_model(made.wrapped.model)
    assert trained == {id(p) for p in decoder.parameters()} | {id(made.wrapped.model.get_output_embeddings().weight)}
    assert not [name for name in names if "vision" in name or "visual" in name or "image" in name]
    apart = made.objective._no_split_modules  # what FSDP gathers by itself: with words alone the tower is never entered
    assert apart == [type(decoder.layers[0]).__name__]
    seen = made.checkpoint.family.vision_modules(made.wrapped.model)
    assert not [m for module in seen for m in module.modules() if type(m).__name__ in apart]
    found = gradients(made, [batch_of(made, clips[:2])], config)
    assert {id(p) for n, p in made.objective.named_parameters() if n in found} >= trained


@pytest.mark.parametrize("family", ["toy", "videollama3", "qwen3_vl"])
def test_recomputed_activations_give_the_same_gradients(tmp_path, base, clips, family):
    folder = base if family == "toy" else str(tiny_checkpoint(family, tmp_path / family, tied=True))
    found = []
    for recompute in (False, True):
        config = quick(gradient_checkpointing=recompute)
        made = ready(folder, config)
        passes = []
        made.checkpoint.family.language_model(made.wrapped.model).layers[0].mlp.register_forward_pre_hook(
            lambda *_, passes=passes: passes.append(1)
        )
        found.append(gradients(made, [batch_of(made, clips[:2])], config))
        assert len(passes) == 1 + recompute
    assert difference(*found) < 1e-6


def test_a_family_that_mixes_clips_and_words_is_cut_into_batches_at_will(tmp_path, examples):
    config = quick()
    made = ready(str(tiny_checkpoint("qwen3_vl", tmp_path / "qwen", tied=True)), config)
    rows = [next(row for row in examples if row.media), next(row for row in examples if not row.media)]
    whole = gradients(made, [batch_of(made, rows)], config)
    single = gradients(made, [batch_of(made, [row]) for row in rows], config)
    assert difference(whole, single) < 1e-5
