"""The contract of a model family, over every family: one rendering, exact batches, true times, pixels that arrive."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from tinyfamilies import FAMILY_NAMES, tiny_checkpoint
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE

from videosafety.core.errors import CheckpointError, InputError, MediaError, MediaFault
from videosafety.models.checkpoint import load, save
from videosafety.models.family import (
    IGNORE,
    MAX_ASPECT,
    Message,
    cat_padded,
    collate,
    media_arguments,
    template_messages,
    watch_vision,
)
from videosafety.models.generate import generate
from videosafety.models.placement import MODALITIES, place
from videosafety.models.registry import FAMILIES, family_of
from videosafety.video.plan import Clip, Picture

VIDEO_PIXELS = ("pixel_values_videos", "pixel_values")  # SmolVLM sees frames as pictures
END = dict.fromkeys(FAMILY_NAMES, "<|im_end|>") | {"smolvlm2": "<end_of_utterance>"}


def user(*parts):
    return (Message("user", parts),)


def still(height, width):
    return Picture(np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8))


def mixed(clip, picture):
    """Clips of several lengths and sizes, no media at all, several media in one turn, several turns."""
    return [
        user(clip(0), "How do I make what this video shows?"),
        user("Is making a zarn allowed?"),
        user(still(40, 70), "What is the name of the sign?"),
        user(clip(2, num_frames=3, side=48), "Name it."),
        user(clip(3, num_frames=1), picture(4), clip(5, num_frames=5), still(64, 32), "Which is it?"),
        (
            Message("system", ("Be brief.",)),
            Message("user", (clip(6, num_frames=2), "What is this?")),
            Message("assistant", ("A dax.",)),
            Message("user", (picture(7), clip(8, num_frames=4), "And this?")),
        ),
    ]


def encoded(checkpoint, conversations, target=None):
    return [checkpoint.family.encode(checkpoint.processor, one, target=target) for one in conversations]


def batch_of(checkpoint, rows, side="right"):
    return collate(rows, pad_token_id=checkpoint.tokenizer.pad_token_id, side=side)


@torch.inference_mode()
def logits_of(checkpoint, rows, side="right"):
    """The logits at each row's own tokens."""
    batch = batch_of(checkpoint, rows, side)
    batch.pop("labels")
    logits = checkpoint.model(**batch).logits
    return [one[mask.bool()] for one, mask in zip(logits, batch["attention_mask"], strict=True)]


def pixels_of(row):
    return next(row.stacked[name] for name in VIDEO_PIXELS if name in row.stacked)


def test_every_family_is_registered_and_has_a_tiny_checkpoint(any_family):
    assert sorted(family.name for family in FAMILIES.values()) == sorted(FAMILY_NAMES)
    assert type(any_family.model) is any_family.family.model_class
    assert family_of(any_family.model.config.model_type, where="x") is any_family.family


def test_an_unknown_family_is_refused_with_the_nearest_name():
    with pytest.raises(CheckpointError, match=r"no family for model_type 'qwen3_vk' \(did you mean 'qwen3_vl'"):
        family_of("qwen3_vk", where="somewhere")


def test_a_mixed_batch_gives_every_row_the_logits_it_has_alone_on_either_side(any_family, clip, picture):
    rows = encoded(any_family, mixed(clip, picture))
    alone = [logits_of(any_family, [row])[0] for row in rows]
    for side in ("left", "right"):
        for together, expected in zip(logits_of(any_family, rows, side), alone, strict=True):
            torch.testing.assert_close(together, expected, atol=1e-4, rtol=1e-4)


def test_generation_in_a_batch_says_what_it_says_alone(any_family, clip, picture):
    conversations = mixed(clip, picture)
    together = generate(any_family, conversations, max_new_tokens=4, batch_size=len(conversations))
    assert together == [generate(any_family, [one], max_new_tokens=4)[0] for one in conversations]


def test_every_clip_and_picture_counts(any_family, clip, picture):
    [row] = encoded(any_family, [user(clip(0), picture(1), clip(2), "Why?")])
    before = logits_of(any_family, [row])[0][-1]
    for parts in [(clip(9), picture(1), clip(2)), (clip(0), picture(9), clip(2)), (clip(0), picture(1), clip(9))]:
        [other] = encoded(any_family, [user(*parts, "Why?")])
        assert (logits_of(any_family, [other])[0][-1] - before).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["clip", "picture"])
def test_media_reach_their_own_placeholders_in_the_order_shown(any_family, clip, picture, kind):
    """Nothing before the second medium can know it; the same place knows the first."""
    pads = torch.tensor(any_family.family.vision_token_ids(any_family.model))
    first, other = (clip(0), clip(9)) if kind == "clip" else (picture(0), picture(9))
    [alone, *rows] = encoded(any_family, [user(first), *(user(*two) for two in ((first, clip(1)), (first, clip(2)),
                                                                               (other, clip(1))))])  # fmt: skip
    num_first = int(torch.isin(alone.input_ids, pads).sum())
    end = int(torch.isin(rows[0].input_ids, pads).nonzero()[num_first - 1])
    same, changed = ([logits_of(any_family, [rows[i]])[0][: end + 1] for i in pair] for pair in ((0, 1), (0, 2)))
    torch.testing.assert_close(*same, atol=1e-5, rtol=1e-5)
    assert (changed[0] - changed[1])[-1].abs().max() > 1e-3


def test_the_labels_are_the_answer_and_its_end_and_nothing_else(any_family, clip, picture):
    prompts, rows = (encoded(any_family, mixed(clip, picture), target) for target in (None, "It is a dax."))
    for side in ("left", "right"):
        batch = batch_of(any_family, rows, side)
        for prompt, row, labels, ids in zip(prompts, rows, batch["labels"], batch["input_ids"], strict=True):
            assert torch.equal(row.input_ids[: len(prompt.input_ids)], prompt.input_ids)
            learnt = labels != IGNORE
            assert torch.equal(labels[learnt], row.input_ids[-row.num_target :])
            assert torch.equal(ids[learnt], labels[learnt])
            assert len(row.input_ids) == len(prompt.input_ids) + row.num_target
            said = any_family.tokenizer.decode(labels[learnt])
            assert said.lstrip(" ") == f"It is a dax.{END[any_family.family.name]}"


def test_an_answer_ends_as_the_chat_template_ends_it_whatever_the_tokenizer_calls_its_end(any_family):
    processor = deepcopy(any_family.processor)
    processor.tokenizer.eos_token = "<|endoftext|>"
    expected = processor.tokenizer.convert_tokens_to_ids(END[any_family.family.name])
    assert any_family.family.eos(processor) == expected
    assert any_family.family.encode(processor, user("Why?"), target="Yes.").input_ids[-1] == expected


def test_a_template_that_ends_answers_with_no_token_falls_back_to_the_tokenizers_end(any_family):
    processor = deepcopy(any_family.processor)
    processor.tokenizer.eos_token = "<|endoftext|>"
    processor.chat_template = "{# video #}{% for m in messages %}{{ m.content[0].text }}\n{% endfor %}"
    assert any_family.family.eos(processor) == processor.tokenizer.eos_token_id


@pytest.mark.parametrize("any_family", [name for name in FAMILY_NAMES if name != "llava_onevision"], indirect=True)
def test_prompt_and_answer_are_the_history_of_the_next_turn(any_family):
    """LLaVA-OneVision's template writes a blank more in a history than in a prompt."""
    conversation = user("Is making a zarn allowed?")
    row = any_family.family.encode(any_family.processor, conversation, target="Yes, it is.")
    told = template_messages((*conversation, Message("assistant", ("Yes, it is.",))))
    history = any_family.processor.apply_chat_template(told, tokenize=False)
    assert torch.equal(
        torch.tensor(any_family.tokenizer(history.rstrip("\n"), add_special_tokens=False)["input_ids"]), row.input_ids
    )


def test_rendering_is_the_processors_own_chat_template(any_family, clip, picture):
    for conversation in mixed(clip, picture):
        expected = any_family.processor.apply_chat_template(
            template_messages(conversation), chat_template=any_family.processor.chat_template, tokenize=False,
            add_generation_prompt=True,
        )  # fmt: skip
        assert any_family.family.render(any_family.processor, conversation) == expected


@pytest.mark.parametrize("num_frames", [8, 5])
def test_ids_and_pixels_are_those_of_the_stock_processor(any_family, clip, picture, num_frames):
    for clips, pictures in ([clip(0, num_frames=num_frames)], []), ([], [picture(1)]):
        conversation = user(*clips, *pictures, "Why?")
        [row] = encoded(any_family, [conversation])
        expected = any_family.processor(text=[any_family.family.render(any_family.processor, conversation)],
                                        return_tensors="pt", **media_arguments(clips, pictures))  # fmt: skip
        assert torch.equal(row.input_ids, expected["input_ids"][0])
        theirs = next(expected[name] for name in VIDEO_PIXELS if name in expected)
        assert torch.equal(pixels_of(row).flatten(), theirs.flatten())


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_short_and_odd_clips_work(any_family, clip, num_frames):
    [row] = encoded(any_family, [user(clip(0, num_frames=num_frames), "Why?")])
    assert logits_of(any_family, [row])[0].isfinite().all()


def test_frames_are_neither_dropped_nor_sampled_again(any_family, clip):
    per_step = 2 if any_family.family.name.startswith("qwen") else 1
    [row] = encoded(any_family, [user(clip(0, num_frames=40), "Why?")])
    placeholders = torch.isin(row.input_ids, torch.tensor(any_family.family.vision_token_ids(any_family.model)))
    newline = any_family.family.name == "llava_onevision"
    assert placeholders.sum() == 40 // per_step * 4 + newline


def test_the_vision_tower_sees_every_pixel(any_family, clip, picture):
    [row] = encoded(any_family, [user(clip(0), "Why?")])
    with watch_vision(any_family.family, any_family.model) as calls:
        logits_of(any_family, [row])
        assert sum(calls) == pixels_of(row).numel()
        generate(any_family, [user(clip(0), "Why?")], max_new_tokens=3)
        assert sum(calls) == 2 * pixels_of(row).numel()
    logits_of(any_family, [row])
    assert sum(calls) == 2 * pixels_of(row).numel()  # no longer watched
    with watch_vision(any_family.family, any_family.model) as calls:
        logits_of(any_family, encoded(any_family, [user("Why?")]))
    assert calls == []


def test_a_frozen_tower_lets_gradients_of_a_video_batch_reach_the_language_model(any_family, clip, picture):
    model = deepcopy(any_family.model)
    vision = [p for module in any_family.family.vision_modules(model) for p in module.parameters()]
    for parameter in vision:
        parameter.requires_grad_(False)
    batch = batch_of(any_family, encoded(any_family, mixed(clip, picture), target="It is a dax."))
    with watch_vision(any_family.family, model) as calls:
        model(**batch).loss.backward()
    assert sum(calls) > 0
    assert all(parameter.grad is None for parameter in vision)
    decoder = any_family.family.language_model(model)
    grads = [parameter.grad for parameter in decoder.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
    assert sum(grad.abs().sum() for grad in grads) > 0


def test_vision_and_language_are_all_of_the_model(any_family):
    model = any_family.model
    decoder = any_family.family.language_model(model)
    assert model.get_input_embeddings() in list(decoder.modules())
    halves = [*any_family.family.vision_modules(model), decoder, model.get_output_embeddings()]
    known = {id(parameter) for half in halves for parameter in half.parameters()}
    rest = [name for name, parameter in model.named_parameters() if id(parameter) not in known]
    assert rest == (["model.image_newline"] if any_family.family.name == "llava_onevision" else [])
    assert len(known) == sum(len(list(half.parameters())) for half in halves)


def test_no_placeholder_is_ever_sampled_however_likely(any_family, clip):
    model = deepcopy(any_family.model)
    pads = any_family.family.vision_token_ids(model)
    asked = any_family.family.encode(any_family.processor, user(clip(0), "Why?"))
    assert asked.input_ids.mode().values in pads
    likely = torch.zeros(model.config.text_config.vocab_size)
    likely[pads] = 1e6
    model.get_output_embeddings().register_forward_hook(lambda module, inputs, logits: logits + likely)
    sampled, own = [], model.generate
    model.generate = lambda **kw: sampled.append(own(**kw)) or sampled[-1]
    generate(replace(any_family, model=model), [user(clip(0), "Why?")], max_new_tokens=3)
    said = sampled[0][0, len(asked.input_ids) :].tolist()
    assert said
    assert not set(said) & set(pads)


def test_words_cannot_hold_markup_or_placeholders(any_family):
    for token in (any_family.processor.image_token, any_family.processor.video_token, END[any_family.family.name]):
        with pytest.raises(InputError, match="special token"):
            any_family.family.encode(any_family.processor, user(f"hello {token}"))


def test_a_template_that_shows_no_clips_is_refused(any_family, clip):
    processor = deepcopy(any_family.processor)
    processor.chat_template = "{# video #}{% for m in messages %}{{ m.role }}{% endfor %}"
    with pytest.raises(CheckpointError, match="shows 0 of 1 videos"):
        any_family.family.render(processor, user(clip(0), "Why?"))


@pytest.mark.parametrize("sides", [(MAX_ASPECT * 2, 2), (2, MAX_ASPECT * 2)])
def test_strips_up_to_the_limit_are_seen_and_beyond_it_are_a_fault_of_the_item(any_family, sides):
    height, width = sides
    frames = np.zeros((2, height, width, 3), np.uint8)
    rows = encoded(any_family, [user(Clip(frames, (0.0, 1.0)), "?"), user(Picture(frames[0]), "?")])
    assert all(one.isfinite().all() for one in logits_of(any_family, rows))
    longer = frames.repeat(2, axis=1 if height > width else 2)
    for part in (Clip(longer, (0.0, 1.0)), Picture(longer[0])):
        with pytest.raises(MediaError) as caught:
            any_family.family.render(any_family.processor, user(part, "?"))
        assert caught.value.fault is MediaFault.TOO_LARGE


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_what_is_saved_loads_with_the_stock_classes_and_nothing_of_ours(name, tied, tmp_path, clip):
    checkpoint = load(str(tiny_checkpoint(name, tmp_path / "made", tied=tied, seed=1)))
    again = save(checkpoint, tmp_path / "saved")
    model = AutoModelForImageTextToText.from_pretrained(again).eval()
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    assert {type(m).__module__.split(".")[0] for m in model.modules()} <= {"torch", "transformers"}
    conversation = user(clip(0), "Why?")
    text = AutoProcessor.from_pretrained(again).apply_chat_template(
        template_messages(conversation), add_generation_prompt=True, tokenize=False
    )
    if name != "smolvlm2":  # its stock processor takes a template of its own for clips
        assert text == checkpoint.family.render(checkpoint.processor, conversation)
    [row] = encoded(checkpoint, [conversation])
    batch = batch_of(checkpoint, [row])
    batch.pop("labels")
    with torch.inference_mode():
        torch.testing.assert_close(model(**batch).logits[0], logits_of(checkpoint, [row])[0], atol=1e-5, rtol=1e-5)


def test_the_same_seed_makes_the_same_checkpoint_and_another_seed_another(tmp_path):
    made = [load(str(tiny_checkpoint("qwen3_vl", tmp_path / str(i), tied=False, seed=i % 2))) for i in range(3)]
    assert made[0].fingerprint == made[2].fingerprint != made[1].fingerprint


@pytest.mark.parametrize("any_family", ["qwen2_5_vl"], indirect=True)
@pytest.mark.parametrize(("num_frames", "step_s"), [(8, 1.0), (5, 0.5), (2, 3.0)])
def test_qwen2_5_gets_the_true_rate(any_family, clip, num_frames, step_s):
    timed = replace(clip(0, num_frames=num_frames), timestamps_s=tuple(step_s * i for i in range(num_frames)))
    [row] = encoded(any_family, [user(timed, "Why?")])
    assert row.stacked["second_per_grid_ts"].tolist() == [pytest.approx(2 * step_s, rel=1e-3)]
    assert row.stacked["video_grid_thw"][0, 0] == -(-num_frames // 2)
    positions, _ = any_family.model.model.get_rope_index(
        row.input_ids[None], row.per_token["mm_token_type_ids"][None], video_grid_thw=row.stacked["video_grid_thw"],
        second_per_grid_ts=row.stacked["second_per_grid_ts"],
    )  # fmt: skip
    times = positions[0, 0][row.per_token["mm_token_type_ids"] == 2].unique().diff()
    assert all(abs(time - 2 * step_s * 4) <= 1 for time in times)  # the model's clock ticks four times a second


@pytest.mark.parametrize("any_family", ["qwen3_vl"], indirect=True)
@pytest.mark.parametrize(
    ("times_s", "written"),
    [((0.0, 1.0, 2.5, 4.5), ["0.5", "3.5"]), ((0.0, 1.0, 3.0), ["0.5", "3.0"]), ((0.0,), ["0.0"])],
)
def test_qwen3_prints_the_true_times_of_each_pair(any_family, clip, times_s, written):
    given = replace(clip(0, num_frames=len(times_s)), timestamps_s=times_s)
    text = any_family.tokenizer.decode(encoded(any_family, [user(given, "Why?")])[0].input_ids)
    frame = "<|vision_start|>" + "<|video_pad|>" * 4 + "<|vision_end|>"
    assert "".join(f"<{time} seconds>{frame}" for time in written) in text
    assert given.timestamps_s == times_s


@pytest.mark.parametrize("any_family", ["smolvlm2"], indirect=True)
def test_smolvlm_tells_each_clips_own_length_and_times(any_family, clip):
    later = replace(clip(1, num_frames=2), timestamps_s=(0.0, 62.0))
    [row] = encoded(any_family, [user(clip(0, num_frames=3), later, "Why?")])
    text = any_family.tokenizer.decode(row.input_ids)
    assert "series of three frames from a 0:00:03" in text
    assert "series of two frames from a 0:02:04" in text
    assert [text.count(f"Frame from {time}:") for time in ("00:00", "00:01", "00:02", "01:02")] == [2, 1, 1, 1]


@pytest.mark.parametrize("any_family", ["smolvlm2"], indirect=True)
def test_smolvlm_with_a_template_that_knows_no_clips_takes_the_stock_one_and_keeps_alarms(any_family, clip):
    processor = deepcopy(any_family.processor)
    own = processor.chat_template.replace("{% elif part.type == 'video' %}<video>", "")
    processor.chat_template = own
    asked = user(clip(0), "Why?")
    stock = processor.apply_chat_template(template_messages(asked), tokenize=False, add_generation_prompt=True)
    assert any_family.family.template(processor) == DEFAULT_CHAT_TEMPLATE
    assert any_family.family.render(processor, asked) == stock
    for template in (own, any_family.processor.chat_template):
        processor.chat_template = place(template, MODALITIES)
        rendered = any_family.family.render(processor, asked)
        assert "<video><|visual_alarm|>Why?<|textual_alarm|><end_of_utterance>" in rendered


def test_alarms_in_the_template_change_nothing_about_how_an_answer_ends(any_family):
    processor = deepcopy(any_family.processor)
    processor.chat_template = place(processor.chat_template, MODALITIES)
    plain, alarmed = (
        any_family.family.encode(p, user("Why?"), target="Yes.") for p in (any_family.processor, processor)
    )
    assert torch.equal(plain.input_ids[-plain.num_target :], alarmed.input_ids[-alarmed.num_target :])


@pytest.mark.parametrize("any_family", ["llava_onevision"], indirect=True)
def test_llava_pads_clips_with_what_cannot_be_mistaken_for_a_frame(any_family, clip):
    black = Clip(np.zeros((3, 32, 32, 3), np.uint8), (0.0, 1.0, 2.0))
    rows = encoded(any_family, [user(black, "Why?"), user(clip(0, num_frames=5), "Why?")])
    pixels = batch_of(any_family, rows)["pixel_values_videos"]
    assert pixels.shape[:2] == (2, 5)
    assert pixels[0, 3:].isnan().all()
    assert not pixels[0, :3].isnan().any()
    with watch_vision(any_family.family, any_family.model) as calls:
        logits_of(any_family, rows)
    assert sum(calls) == sum(pixels_of(row).numel() for row in rows)


@pytest.mark.parametrize("any_family", ["llava_onevision"], indirect=True)
def test_llava_shows_a_lone_picture_with_its_tiles_and_several_whole(any_family):
    one, two = encoded(any_family, [user(still(64, 64), "?"), user(still(64, 64), still(32, 64), "?")])
    assert (one.stacked["pixel_values"].shape[1], two.stacked["pixel_values"].shape[1]) == (5, 1)
    assert two.input_ids.eq(any_family.model.config.image_token_id).sum() == 2 * (16 + 1)


def test_rows_of_unequal_shape_are_padded_at_their_end():
    out = cat_padded([torch.ones(1, 2), torch.ones(2, 3)])
    assert torch.equal(out.nan_to_num(-1), torch.tensor([[1.0, 1, -1], [1, 1, 1], [1, 1, 1]]))
    assert torch.equal(cat_padded([torch.ones(1, 1).long(), torch.ones(1, 2).long()]), torch.tensor([[1, 0], [1, 1]]))
