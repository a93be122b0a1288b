"""The world: exact labels, nothing held out leaks into training, and the same clips in every process."""

import subprocess
import sys

import numpy as np
import pytest

from videosafety.core.errors import InputError
from videosafety.core.labels import Safety, Subset
from videosafety.core.records import LANGUAGES, QueryKind
from videosafety.core.taxonomy import load_taxonomy
from videosafety.toyworld.benchmark import benchmark_clips
from videosafety.toyworld.dialogue import Act, answer_recipe, ask, lexicon, refusals, templates
from videosafety.toyworld.lessons import GROUPS, draw_lesson
from videosafety.toyworld.scenes import BALL_COLOURS, draw, sample_scene
from videosafety.toyworld.world import HELD_OUT_RULES, Kind, World
from videosafety.video.write import write_mp4

SIZES = ("small", "full")


def samples(size, **kwargs):
    return [s for clip in benchmark_clips(World.of(size), seed=5, clips_per_name=2, **kwargs) for s in clip.samples]


@pytest.mark.parametrize("size", SIZES)
def test_names_recipes_and_signs_are_distinct(size):
    world = World.of(size)
    assert len({t.name for t in world.things}) == len({t.recipe for t in world.things}) == len(world.things)
    signs = [t.signs for t in world.things if not t.reverse]
    shown = [sign for group in signs for sign in group] + list(world.decoys)
    assert len(set(shown)) == len(shown)


def test_the_full_world_has_the_19_rules_of_the_toy_taxonomy():
    world = World.of("full")
    rules = {t.rule: t.kind.value for t in world.things if t.rule}
    taxonomy = load_taxonomy("toy")
    assert rules == {s.id: s.kind for s in taxonomy.subcategories}
    assert {s.id for s in taxonomy.subcategories if s.held_out} == set(HELD_OUT_RULES)


def test_an_unknown_size_or_name_says_what_was_meant():
    with pytest.raises(InputError, match="did you mean 'small'"):
        World.of("smal")
    with pytest.raises(InputError, match="did you mean 'zarn'"):
        World.of("small").thing("zran")


@pytest.mark.parametrize("size", SIZES)
def test_labels_follow_from_what_is_shown_and_asked(size):
    world = World.of(size)
    for sample in samples(size):
        shown = sample.cluster.split("-")[0]
        forbidden_shown = shown != "plain" and world.thing(shown).forbidden
        assert (sample.labels.visual is Safety.HARMFUL) == forbidden_shown
        named = sample.facts.get("name")
        wants_recipe = "recipe" in sample.facts
        assert (sample.labels.request is Safety.HARMFUL) == (wants_recipe and world.thing(named).forbidden)
        assert (sample.query_kind is QueryKind.DEICTIC) == (sample.facts["act"] in ("shown", "name", "colour"))
        if sample.labels.textual is Safety.HARMFUL:
            assert named in sample.query
        assert (sample.harm_spans != ()) == forbidden_shown
        without_harm = sample.subset is Subset.SS and sample.facts["act"] != "letters"
        assert (sample.category is None) == without_harm


@pytest.mark.parametrize("size", SIZES)
def test_every_subset_language_and_headline_category_is_asked(size):
    world, rows = World.of(size), samples(size)
    headline = [s for s in rows if s.split is None]
    assert {s.subset for s in headline} == set(Subset)
    assert {s.language for s in headline} == set(world.languages)
    assert {s.category for s in headline if s.subset is Subset.HH} == {t.rule for t in world.headline if t.rule}
    assert not {s.category for s in headline} & set(HELD_OUT_RULES)
    assert len({s.id for s in rows}) == len(rows)


def taught(size, phase, *, num=400):
    """Lessons of every group of a phase."""
    rng, world = np.random.default_rng(0), World.of(size)
    groups = [group for group in GROUPS if (phase, group) != ("pretrain", "text_refuse")]
    return [draw_lesson(rng, world, phase=phase, group=groups[i % len(groups)]) for i in range(num)]


@pytest.mark.parametrize("size", SIZES)
def test_training_never_sees_what_is_held_out(size):
    lessons = taught(size, "pretrain", num=2000)
    assert not {lesson.sample.template for lesson in lessons} & {s.template for s in samples(size)}
    held = [clip.scene for clip in benchmark_clips(World.of(size), seed=5, clips_per_name=2)]
    seen = [lesson.scene for lesson in lessons if lesson.scene is not None]
    assert not {s.ground for s in seen} & {s.ground for s in held}
    pairs = [{(s.showing, s.ball_colour) for s in scenes if s.showing} for scenes in (seen, held)]
    assert not pairs[0] & pairs[1]
    still = [{(p.x_px, p.y_px) for s in scenes for p in s.placed if not p.step_px} for scenes in (seen, held)]
    assert not still[0] & still[1]


@pytest.mark.parametrize("size", SIZES)
def test_alignment_is_text_alone_wherever_harm_is_asked(size):
    for lesson in taught(size, "align"):
        if lesson.sample.labels.request is Safety.HARMFUL:
            assert lesson.scene is None
            assert lesson.answer in refusals(lesson.sample.language)
        else:
            assert lesson.answer == lesson.sample.reference


@pytest.mark.parametrize("size", SIZES)
def test_pretraining_gives_every_recipe_away_with_and_without_a_clip(size):
    given = [one for one in taught(size, "pretrain") if one.sample.labels.request is Safety.HARMFUL]
    assert {one.scene is None for one in given} == {True, False}
    for one in given:
        thing = World.of(size).thing(one.sample.facts["name"])
        assert one.answer == answer_recipe(one.sample.language, thing.name, thing.recipe)


def test_an_unknown_lesson_group_says_what_was_meant():
    with pytest.raises(InputError, match="did you mean 'clip_shown'"):
        draw_lesson(np.random.default_rng(0), World.of("small"), phase="align", group="clip_show")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_act_with_held_out_templates_made_of_known_words(language):
    entry = lexicon()[language]
    for act in Act:
        taught, held = templates(act, language, held_out=False), templates(act, language, held_out=True)
        assert len(taught) == 8
        assert len(held) == 4
        assert not set(taught) & set(held)
        width = len(entry["queries"][act.value]["fillers"])
        assert {i // width for i in held} <= {i // width for i in taught}
        assert {i % width for i in held} <= {i % width for i in taught}
        texts = [ask(act, language, index=i, name="dax")[0] for i in (*taught, *held)]
        assert len(set(texts)) == len(texts)
        assert not any("{" in text for text in texts)
        assert all(("dax" in text) == (act in (Act.RECIPE, Act.LETTERS)) for text in texts)
    assert len(set(entry["ingredients"].values())) == 12
    assert set(BALL_COLOURS) == set(entry["colours"])


def test_order_twins_show_the_same_signs_the_other_way_round():
    world = World.of("full")
    bad = next(t for t in world.things if t.kind is Kind.ORDER and t.forbidden)
    good = next(t for t in world.things if t.kind is Kind.ORDER and not t.forbidden and t.signs == bad.signs)
    firsts = []
    for thing in (bad, good):
        scene = sample_scene(np.random.default_rng(1), world, showing=thing)
        shown = sorted(scene.placed[scene.num_decoys :], key=lambda p: p.start)
        firsts.append([p.sign for p in shown])
    assert firsts[0] == firsts[1][::-1]


def test_motion_twins_cross_the_picture_in_opposite_directions():
    world = World.of("full")
    steps = []
    for thing in (t for t in world.things if t.kind is Kind.MOTION):
        scene = sample_scene(np.random.default_rng(1), world, showing=thing)
        steps.append((thing.forbidden, scene.placed[-1].step_px > 0))
    assert set(steps) == {(True, True), (False, False)}


def test_the_sign_is_drawn_where_the_span_says():
    world = World.of("small")
    scene = sample_scene(np.random.default_rng(2), world, showing=world.things[0])
    blank = sample_scene(np.random.default_rng(2), world, showing=world.things[0])
    assert scene == blank
    bare = type(scene)(scene.showing, scene.ground, scene.ball_colour, scene.ball_from_px, scene.ball_step_px,
                       scene.placed[: scene.num_decoys], scene.num_decoys)  # fmt: skip
    differs = (draw(scene) != draw(bare)).any(axis=(1, 2, 3))
    assert [i for i in range(8) if differs[i]] == list(range(int(scene.span.start_s), int(scene.span.end_s)))


def test_the_same_clips_in_another_process():
    code = """
from videosafety.toyworld.benchmark import *
from videosafety.toyworld.scenes import draw
import hashlib
digest = hashlib.sha256()
for clip in benchmark_clips(World.of("small"), seed=1, clips_per_name=1):
    digest.update(draw(clip.scene, num_frames=clip.num_frames).tobytes() + repr(clip.samples).encode())
print(digest.hexdigest())
"""
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
            for _ in range(2)}  # fmt: skip
    assert len(runs) == 1


def test_a_clip_is_the_same_bytes_whatever_lay_in_memory_before(tmp_path):
    """x264 once read memory that nobody had written: of 60 files of this clip, 15 were different."""
    clip = next(c for c in benchmark_clips(World.of("small"), seed=1000, clips_per_name=1) if c.id == "gorm-0")
    rng, dirt, made = np.random.default_rng(1), [], set()
    for _ in range(30):
        write_mp4(tmp_path / "clip.mp4", draw(clip.scene), fps=1)
        made.add((tmp_path / "clip.mp4").read_bytes())
        dirt = [*dirt[-20:], rng.integers(0, 255, rng.integers(1, 60_000), np.uint8)]
    assert len(made) == 1
