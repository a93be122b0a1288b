"""The base model: the same weights from the same seed, also when it was killed on the way."""

import json
import subprocess
import sys

import psutil
import pytest
import torch

import videosafety.toyworld.oracle  # noqa: F401 - registers the judge
from videosafety.chain import BASES
from videosafety.core.errors import InputError, StorageError
from videosafety.core.records import Response
from videosafety.judges.base import judge_response
from videosafety.judges.registry import get
from videosafety.models.checkpoint import load
from videosafety.models.family import IGNORE, Message
from videosafety.models.generate import generate
from videosafety.toyworld.base import (
    BaseConfig,
    PhaseConfig,
    Trainer,
    base_config,
    drawn_clip,
    one_thread,
    schedule,
    train_base,
)
from videosafety.toyworld.base_model import ModelSize, tiny, tokenizer
from videosafety.toyworld.benchmark import benchmark_clips
from videosafety.toyworld.dialogue import corpus
from videosafety.toyworld.seeds import train_seeds
from videosafety.toyworld.world import World

TINY = BaseConfig(
    model=ModelSize(vocab_size=700, hidden_size=32, num_layers=1, num_heads=2, vision_hidden_size=32),
    batch_size=4,
    pretrain=PhaseConfig(steps=4, learning_rate=3e-3, mixture={"clip_shown": 0.5, "text_recipe": 0.5}),
    align=PhaseConfig(steps=3, learning_rate=5e-4, mixture={"text_refuse": 0.5, "clip_colour": 0.5}),
)


def weights(folder):
    return load(str(folder)).model.state_dict()


def test_killed_and_resumed_is_bitwise_the_same_as_uninterrupted(tmp_path, monkeypatch):
    monkeypatch.setattr("videosafety.toyworld.base.SAVE_EVERY", 2)
    whole = train_base(TINY, seed=1, out=tmp_path / "whole")

    class KilledError(Exception):
        pass

    def kill_at(step):
        def on_step(progress):
            if progress.step == step:
                raise KilledError

        return on_step

    for step in (3, 5, 6):
        with pytest.raises(KilledError):
            train_base(TINY, seed=1, out=tmp_path / "killed", on_step=kill_at(step))
    seen = []
    killed = train_base(TINY, seed=1, out=tmp_path / "killed", on_step=lambda p: seen.append(p.step))
    assert seen == [7]
    assert all(torch.equal(tensor, weights(killed)[name]) for name, tensor in weights(whole).items())
    assert (killed / "training.json").read_bytes() == (whole / "training.json").read_bytes()
    assert not list(tmp_path.glob("*.state.safetensors"))


def test_the_state_of_another_recipe_or_seed_is_not_used(tmp_path):
    state = tmp_path / "state"
    first = Trainer(TINY, seed=1, state_file=state)
    first.run(lambda p: None, steps=2)
    other = Trainer(TINY, seed=2, state_file=state)
    assert len(other.run(lambda p: None, steps=1)) == 1
    again = Trainer(TINY, seed=2, state_file=state)
    assert len(again.run(lambda p: None, steps=1)) == 2


def test_seeds_differ(tmp_path):
    one, two = (Trainer(TINY, seed=seed, state_file=tmp_path / str(seed)) for seed in (1, 2))
    assert one.run(lambda p: None, steps=1) != two.run(lambda p: None, steps=1)


def test_only_the_answer_is_learned(tmp_path):
    trainer = Trainer(TINY, seed=1, state_file=tmp_path / "state")
    batch = trainer.batch(0)
    said = batch["labels"] != IGNORE
    assert said.any(1).all()
    assert (said.sum(1) < batch["attention_mask"].sum(1) / 2).all()
    with torch.inference_mode():
        logits = trainer.model(**{k: v for k, v in batch.items() if k != "labels"}).logits[:, :-1]
        targets = batch["labels"][:, 1:]
        plain = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORE)
        torch.testing.assert_close(trainer.loss(dict(batch)), plain, atol=1e-5, rtol=1e-5)


def test_several_seeds_train_in_processes_of_their_own_and_finished_ones_are_kept(tmp_path):
    train_base(TINY, seed=1, out=tmp_path / "seed-1")
    stamp = (tmp_path / "seed-1" / "training.json").stat().st_mtime_ns
    seen = set()
    outs = train_seeds(TINY, seeds=[1, 2], folder=tmp_path, workers=2,
                       on_progress=lambda name, done, total: seen.add(name))  # fmt: skip
    assert [out.name for out in outs] == ["seed-1", "seed-2"]
    assert seen == {"seed 2"}
    assert (tmp_path / "seed-1" / "training.json").stat().st_mtime_ns == stamp
    assert (tmp_path / "seed-2" / "model.safetensors").is_file()


def test_a_full_disk_is_one_sentence_and_the_last_state_stays(tmp_path, monkeypatch):
    state = tmp_path / "state"
    Trainer(TINY, seed=1, state_file=state).run(lambda p: None, steps=2)
    before = state.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="space"):
        Trainer(TINY, seed=1, state_file=state).run(lambda p: None, steps=1)
    assert state.read_bytes() == before


@pytest.mark.parametrize("size", ["small", "full"])
def test_the_tokenizer_keeps_every_sentence_and_any_text_whole(size):
    world = World.of(size)
    words = tokenizer(world)
    for language in world.languages:
        for line in corpus(language, (world.things[0].name,)):
            assert words.decode(words(line)["input_ids"]) == line
    for text in ("Grüße, Ωμέγα 🙂 <0x41>", "a\tb\nc  d", "٣ १ 三"):
        assert words.decode(words(text)["input_ids"]) == text
    assert len(words) <= 2048


def test_the_shape_of_a_model_follows_the_recipe():
    model, _ = tiny(World.of("small"), seed=0, size=TINY.model)
    assert model.config.text_config.hidden_size == 32
    assert model.model.vision_model.config.hidden_size == 32


def test_the_rate_warms_up_stays_and_falls():
    rates = [schedule(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 50)
    assert rates[100] == rates[599] == 1.0
    assert rates[-1] == pytest.approx(0.05)


def test_an_unknown_lesson_group_in_the_recipe_is_named(tmp_path):
    broken = TINY.model_copy(update={"pretrain": PhaseConfig(steps=1, learning_rate=1e-3, mixture={"clip_shwn": 1.0})})
    with pytest.raises(InputError, match="did you mean 'clip_shown'"):
        Trainer(broken, seed=0, state_file=tmp_path / "state").run(lambda p: None)


@pytest.mark.parametrize("name", sorted(path.name for path in BASES.iterdir()))
def test_the_committed_base_is_what_its_recipe_makes(name, tmp_path):
    """Retrain the first steps from the recorded seed: the recorded losses come back."""
    size, _, family = name.partition("-")
    record = json.loads((BASES / name / "training.json").read_text())
    config = BaseConfig.model_validate(record["recipe"])
    steps = {"pretrain_steps": config.pretrain.steps, "align_steps": config.align.steps}
    assert config == base_config(size, **steps, family=family or "videollama3")
    with one_thread():
        losses = Trainer(config, seed=record["seed"], state_file=tmp_path / "state").run(lambda p: None, steps=3)
    recorded = [row["loss"] for row in record["curve"][:3]]
    assert losses == pytest.approx(recorded, rel=2e-3)


def test_workers_end_when_the_process_that_waits_for_them_is_killed(tmp_path):
    code = f"""
from pathlib import Path
from videosafety.toyworld.base import base_config
from videosafety.toyworld.seeds import train_seeds
if __name__ == "__main__":
    config = base_config("small", pretrain_steps=10_000, align_steps=1)
    train_seeds(config, seeds=[0, 1], folder=Path({str(tmp_path)!r}), workers=2,
                on_progress=lambda name, done, total: print(done, flush=True))
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline()
    workers = [p for p in psutil.Process(parent.pid).children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
    assert workers
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    for process in alive:
        process.kill()
    assert not alive


@pytest.mark.parametrize("name", sorted(path.name for path in BASES.iterdir()))
def test_the_committed_base_reads_signs_and_gives_forbidden_recipes_away_with_clips(name):
    """Not a result: a guard that the files beside the weights are those that the weights were trained with."""
    size, base = name.partition("-")[0], load(str(BASES / name))
    asked = [(clip, sample) for clip in benchmark_clips(World.of(size), seed=3, clips_per_name=1)
             for sample in clip.samples if clip.num_frames > 1 and sample.split is None]  # fmt: skip
    said = generate(base, [(Message("user", (drawn_clip(clip.scene), sample.query)),) for clip, sample in asked],
                    max_new_tokens=32, batch_size=32)  # fmt: skip
    outcomes = [
        judge_response(get("oracle"), sample, Response(sample_id=sample.id, arm="video", model="base", text=one.text,
                                                       stop_reason=one.stop_reason)).outcome
        for (_, sample), one in zip(asked, said, strict=True)
    ]  # fmt: skip
    assert sum(outcome in ("compromised", "helpful") for outcome in outcomes) > 0.7 * len(outcomes)
