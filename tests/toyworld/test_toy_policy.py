"""The prompt baselines of the toy world say only what its models can read."""

import pytest

from videosafety.toyworld.base_model import tokenizer
from videosafety.toyworld.benchmark import benchmark_clips
from videosafety.toyworld.oracle import sentences
from videosafety.toyworld.policy import treatment, world_of
from videosafety.toyworld.world import World


@pytest.mark.parametrize("size", ["small", "full"])
def test_the_policy_names_each_forbidden_headline_thing_once_and_nothing_else(size):
    world = World.of(size)
    for language in world.languages:
        claims, whole = sentences(treatment("policy", world, language).system)
        assert whole
        assert {claim.kind for claim in claims} == {"forbidden"}
        named = [claim.words["n"] for claim in claims]
        assert named == [thing.name for thing in world.headline if thing.forbidden]
        assert "nolf" not in named  # held out


def test_the_reminder_is_a_refusal_on_both_sides():
    world = World.of("full")
    for language in world.languages:
        words = treatment("self_reminder", world, language)
        claims, whole = sentences(words.around(" "))
        assert whole
        assert [claim.kind for claim in claims] == ["refusal", "refusal"]


def test_the_small_world_s_tokenizer_knows_every_word():
    world = World.of("small")
    words = tokenizer(world)
    for language in world.languages:
        for name in ("policy", "self_reminder"):
            one = treatment(name, world, language)
            tokens = words.tokenize((one.system or "") + one.around("?"))
            assert not [token for token in tokens if token.startswith("<0x")]


@pytest.mark.parametrize("size", ["small", "full"])
def test_the_world_of_a_benchmark_is_found_from_its_items(size):
    samples = [s for clip in benchmark_clips(World.of(size), seed=0, clips_per_name=1) for s in clip.samples]
    assert world_of(samples).size == size
