"""Low-rank adapters: on the decoder alone, merged without a trace, the same model before and after."""

import importlib.util

import pytest
import torch
from stagekit import batch_of, gradients, quick, ready
from tinyfamilies import tiny_checkpoint

from videosafety.core.errors import DependencyError, InputError, RecipeError
from videosafety.defend.stage import LoraConfig, StageConfig

LORA = LoraConfig(rank=2, alpha=3.0)


@pytest.mark.parametrize("family", ["toy", "qwen3_vl", "smolvlm2"])
def test_merged_is_wrapped(tmp_path, base, clips, family):
    folder = base if family == "toy" else str(tiny_checkpoint(family, tmp_path / family, tied=True))
    config = quick(lora=LORA)
    made = ready(folder, config)
    batch = batch_of(made, clips[:2])
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "alarm_targets")}
    plain_keys = set(ready(folder, quick()).wrapped.model.state_dict())
    made.objective.eval()
    with torch.no_grad():
        at_first = made.wrapped(inputs)
        for parameter in made.parts["llm"]:
            parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
        wrapped = made.wrapped(inputs)
        made.merge()
        merged = made.wrapped(inputs)
        assert not torch.allclose(at_first, wrapped, atol=1e-2)
        torch.testing.assert_close(merged, wrapped, rtol=1e-5, atol=1e-5)
    assert set(made.wrapped.model.state_dict()) == plain_keys


def test_adapters_alarms_and_heads_are_trained_and_no_weight_below_them(base, clips):
    config = quick(lora=LORA)
    made = ready(base, config)
    found = gradients(made, [batch_of(made, clips[:2])], config)
    assert {"wrapped.rows_AH", "wrapped.head_weight_AH", "wrapped.head_bias_A"} < set(found)
    rest = {name for name in found if "rows_AH" not in name and "head_" not in name}
    assert len(rest) == 3 * 7 * 2  # layers, linear layers by default, A and B
    assert all("language_model" in name and "lora_" in name for name in rest)


def test_equal_seeds_begin_equally(base):
    one, other = (ready(base, quick(lora=LORA)).parts["llm"] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_layer_that_is_not_there_is_named_with_those_that_are(base):
    with pytest.raises(InputError, match=r"is called qproj.*use some of: .*q_proj"):
        ready(base, quick(lora=LoraConfig(targets=("qproj",))))


def test_without_peft_the_sentence_says_what_to_install(base, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "peft" else found(name, *a))
    with pytest.raises(DependencyError, match="low-rank adapters need the package peft; pip install peft"):
        ready(base, quick(lora=LORA))


def test_adapters_without_the_language_model_make_no_sense():
    with pytest.raises((RecipeError, ValueError), match="trains must name llm"):
        StageConfig.of("at_sft", trains=("alarms", "heads"), lora=LORA)
