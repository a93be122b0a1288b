"""The toy base of every family: the real classes, learning from pixels, saved as an ordinary checkpoint."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from videosafety.chain import BASES, Chain
from videosafety.core.errors import InputError
from videosafety.models.checkpoint import load
from videosafety.models.family import Message, watch_vision
from videosafety.models.generate import generate
from videosafety.models.registry import FAMILIES as REAL
from videosafety.pipeline import Run, base_stage
from videosafety.settings import BaseStage, Recipe
from videosafety.toyworld.base import BaseConfig, PhaseConfig, Trainer, drawn_clip, one_thread, train_base
from videosafety.toyworld.base_families import FAMILIES
from videosafety.toyworld.base_model import ModelSize, tiny, tokenizer
from videosafety.toyworld.benchmark import benchmark_clips
from videosafety.toyworld.dialogue import corpus
from videosafety.toyworld.world import World

SIZE = ModelSize(vocab_size=700, hidden_size=32, num_layers=1, num_heads=2, vision_hidden_size=32)
ALL = pytest.mark.parametrize("name", FAMILIES)
OTHERS = [name for name in FAMILIES if name != "videollama3"]
WORLD = World.of("small")


def config(name: str) -> BaseConfig:
    return BaseConfig(
        family=name, model=SIZE, batch_size=4,
        pretrain=PhaseConfig(steps=3, learning_rate=3e-3, mixture={"clip_shown": 0.6, "text_recipe": 0.4}),
        align=PhaseConfig(steps=2, learning_rate=5e-4, mixture={"text_refuse": 0.5, "clip_colour": 0.5}),
    )  # fmt: skip


def shown(index: int = 0):
    clips = [clip for clip in benchmark_clips(WORLD, seed=3, clips_per_name=1) if clip.num_frames > 1]
    return drawn_clip(clips[index].scene)


def asked(index: int = 0):
    return (Message("user", (shown(index), "What is shown?")),)


@ALL
def test_a_base_is_a_checkpoint_of_its_family_that_answers_in_words(name, tmp_path):
    base = load(str(train_base(config(name), seed=1, out=tmp_path / "base")))
    assert base.family.name == name
    (said,) = generate(base, [asked()], max_new_tokens=4, batch_size=1)
    assert not set(said.text) & {"<", "|"}


@ALL
def test_a_seed_and_a_family_make_the_same_losses_and_the_vision_learns(name, tmp_path):
    with one_thread():
        one = Trainer(config(name), seed=1, state_file=tmp_path / "one")
        before = {key: value.detach().clone() for key, value in one.parameters.items()}
        with watch_vision(one.family, one.model) as calls:
            losses = one.run(lambda _: None, steps=2)
        again = Trainer(config(name), seed=1, state_file=tmp_path / "two").run(lambda _: None, steps=2)
        other = Trainer(config(name), seed=2, state_file=tmp_path / "three").run(lambda _: None, steps=2)
    assert losses == again
    assert losses != other
    assert sum(calls) > 0
    tower = [key for key in before if key.startswith(tuple(one.family.vision)) and before[key].dim() > 1]
    assert tower
    assert all(not torch.equal(before[key], one.parameters[key]) for key in tower)


@ALL
def test_a_clip_is_four_tokens_a_step_and_the_marks_beside_it_few(name):
    _, processor = tiny(WORLD, seed=0, size=SIZE, family=name)
    family = next(one for one in REAL.values() if one.name == name)
    encoded = family.encode(processor, asked())
    visual = encoded.input_ids == processor.tokenizer.convert_tokens_to_ids(processor.video_token)
    assert int(visual.sum()) == {"videollama3": 8 * 4, "qwen3_vl": 4 * 4, "llava_onevision": 8 * 4 + 1}[name]
    for mark in FAMILIES[name].written:
        assert len(processor.tokenizer(mark)["input_ids"]) <= 4, mark


@ALL
def test_another_clip_is_another_answer(name):
    model, processor = tiny(WORLD, seed=0, size=SIZE, family=name)
    family = next(one for one in REAL.values() if one.name == name)
    family.prepare(model)
    logits = []
    for index in (0, 5):
        row = family.encode(processor, asked(index))
        per_token = {key: value[None] for key, value in row.per_token.items()}
        with torch.inference_mode():
            logits.append(model(input_ids=row.input_ids[None], **per_token, **row.stacked).logits[0, -1])
    assert (logits[0] - logits[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", OTHERS)
def test_the_tokenizer_keeps_sentences_and_time_marks_whole(name):
    words = tokenizer(WORLD, family=name)
    texts = ["Grüße, Ωμέγα 🙂 <0x41>", "<3.7 seconds>", *FAMILIES[name].written]
    for language in WORLD.languages:
        texts += corpus(language, (WORLD.things[0].name,))
    for text in texts:
        assert words.decode(words(text)["input_ids"]) == text
    special = FAMILIES[name].special
    assert words.convert_tokens_to_ids(list(special)) == list(range(len(special)))


def test_recipes_know_the_same_families_and_an_unknown_one_is_named():
    with pytest.raises(InputError, match="did you mean 'qwen3_vl'"):
        tiny(WORLD, seed=0, size=SIZE, family="qwen3_vll")
    for name in FAMILIES:
        assert BaseStage(source="train", family=name).family == name


def test_the_default_family_leaves_a_run_its_old_name():
    assert "family" not in BaseStage().model_dump()
    other = BaseStage(source="train", family="qwen3_vl")
    assert other.model_dump()["family"] == "qwen3_vl"
    assert BaseStage.model_validate(other.model_dump()) == other


@pytest.mark.parametrize("name", FAMILIES)
def test_a_recipe_names_its_family_in_tables_and_finds_the_committed_base(name):
    recipe = Recipe(name="mine", seeds=(0,), base=BaseStage(family=name))
    chain = Chain("main", recipe, Path("run"))
    ending = "" if name == "videollama3" else f"-{name}"
    assert chain.model == f"toy-small{ending}"
    assert Path(chain.base(0)) == BASES / f"small{ending}"
    assert (BASES / f"small{ending}" / "model.safetensors").is_file()


def test_the_pipeline_trains_the_family_that_the_recipe_names(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("videosafety.toyworld.seeds.train_seeds", lambda config, **_: asked.append(config.family))
    base = BaseStage(source="train", family="qwen3_vl")
    base_stage(Run(Recipe(name="mine", seeds=(0,), base=base), tmp_path, Console(quiet=True), 1))
    assert asked == ["qwen3_vl"]
