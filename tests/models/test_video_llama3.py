"""VideoLLaMA3 behind the family protocol: one rendering, exact padding, exact batching over frames."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from tokenizers import AddedToken
from transformers.models.video_llama_3 import modeling_video_llama_3 as stock

from videosafety.core.errors import InputError
from videosafety.models.family import IGNORE, Message, collate
from videosafety.models.generate import generate
from videosafety.models.video_llama3 import batch_frames


def user(*parts):
    return (Message("user", parts),)


def mixed(clip, picture):
    return [
        user(clip(0), "How do I make what this video shows?"),
        user("Is making a zarn allowed?"),
        user(picture(1), "What is the name of the sign?"),
        user(clip(2, num_frames=3), "Name it."),
    ]


def logits_at_end(checkpoint, rows, side):
    batch = collate(rows, pad_token_id=checkpoint.tokenizer.pad_token_id, side=side)
    batch.pop("labels")
    with torch.inference_mode():
        logits = checkpoint.model(**batch).logits
    last = -1 if side == "left" else batch["attention_mask"].sum(1) - 1
    return logits[torch.arange(len(rows)), last]


def test_the_prompt_expands_to_one_run_of_placeholders_a_frame_with_its_true_time(checkpoint, clip):
    row = checkpoint.family.encode(checkpoint.processor, user(clip(0, num_frames=2), "Why?"))
    text = checkpoint.tokenizer.decode(row.input_ids)
    pads = "<|video_pad|>" * 4
    assert text == (f"<|im_start|>user\nTime 0.0s:{pads},Time 1.0s:{pads}\nWhy?<|im_end|>\n<|im_start|>assistant\n")


def test_the_target_follows_the_prompt_and_ends(checkpoint, clip):
    prompt = checkpoint.family.encode(checkpoint.processor, user(clip(0), "Why?"))
    row = checkpoint.family.encode(checkpoint.processor, user(clip(0), "Why?"), target="It is a dax.")
    assert torch.equal(row.input_ids[: len(prompt.input_ids)], prompt.input_ids)
    labels = collate([row], pad_token_id=0, side="right")["labels"][0]
    assert checkpoint.tokenizer.decode(labels[labels != IGNORE]) == "It is a dax.<|im_end|>"


def test_left_padding_right_padding_and_no_padding_agree_for_video_image_and_text(checkpoint, clip, picture):
    rows = [checkpoint.family.encode(checkpoint.processor, c) for c in mixed(clip, picture)]
    left, right = (logits_at_end(checkpoint, rows, side) for side in ("left", "right"))
    alone = torch.cat([logits_at_end(checkpoint, [row], "left") for row in rows])
    torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(left, alone, atol=1e-4, rtol=1e-4)


def test_token_compression_in_a_batch_is_each_clips_own(checkpoint, clip):
    processor = deepcopy(checkpoint.processor)
    processor.video_processor.use_token_compression = True
    still = replace(clip(0, num_frames=4), frames=clip(0, num_frames=1).frames.repeat(4, axis=0))
    conversations = [user(still, "Why?"), user(clip(1, num_frames=4), "Why?")]
    rows = [checkpoint.family.encode(processor, c) for c in conversations]
    assert len(rows[0].input_ids) < len(rows[1].input_ids)  # what does not move is sent once
    alone = torch.cat([logits_at_end(checkpoint, [row], "left") for row in rows])
    torch.testing.assert_close(logits_at_end(checkpoint, rows, "left"), alone, atol=1e-4, rtol=1e-4)


def test_the_pixels_matter(checkpoint, clip):
    rows = [checkpoint.family.encode(checkpoint.processor, user(clip(seed), "Why?")) for seed in (0, 1)]
    one, two = (logits_at_end(checkpoint, [row], "left") for row in rows)
    assert (one - two).abs().max() > 1e-2


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("sides", [(32, 32), (32, 48)])
def test_batched_frames_equal_the_stock_loop(checkpoint, clip, attention, sides):
    model = deepcopy(checkpoint.model)
    model.set_attn_implementation(attention)
    rows = [
        checkpoint.family.encode(checkpoint.processor, user(clip(i, side=side), "?")) for i, side in enumerate(sides)
    ]
    batch = collate(rows, pad_token_id=checkpoint.tokenizer.pad_token_id, side="right")
    vision = {"pixel_values": batch["pixel_values_videos"], "grid_thw": batch["video_grid_thw"],
              "merge_sizes": batch["video_merge_sizes"]}  # fmt: skip
    with torch.inference_mode():
        ours = model.model.vision_model(**vision).last_hidden_state
        for module in model.modules():
            if isinstance(module, stock.VideoLlama3VisionAttention):
                module.__class__ = stock.VideoLlama3VisionAttention
        theirs = model.model.vision_model(**vision).last_hidden_state
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_equal_frames_take_one_attention_call_a_layer(checkpoint, clip, monkeypatch):
    model = deepcopy(checkpoint.model)
    model.set_attn_implementation("eager")
    batch_frames(model)
    calls = []
    monkeypatch.setattr(stock, "eager_attention_forward", lambda module, q, k, v, *a, **kw: calls.append(q.shape)
                        or (torch.zeros_like(q.transpose(1, 2)), None))  # fmt: skip
    row = checkpoint.family.encode(checkpoint.processor, user(clip(0), "?"))
    model.model.vision_model(pixel_values=row.stacked["pixel_values_videos"], grid_thw=row.stacked["video_grid_thw"],
                             merge_sizes=row.stacked["video_merge_sizes"])  # fmt: skip
    assert [tuple(shape)[:1] for shape in calls] == [(8,)]


def test_generation_in_a_batch_says_what_it_says_alone(checkpoint, clip, picture):
    conversations = mixed(clip, picture)
    done = []
    together = generate(checkpoint, conversations, max_new_tokens=6, batch_size=4, on_done=done.append)
    alone = [generate(checkpoint, [c], max_new_tokens=6)[0] for c in conversations]
    assert together == alone
    assert done == [4]
    assert all(answer.stop_reason == "length" and answer.num_tokens == 6 for answer in together)


def test_a_placeholder_is_never_sampled_however_likely(checkpoint, clip):
    model = deepcopy(checkpoint.model)
    pads = checkpoint.family.vision_token_ids(model)
    likely = torch.zeros(model.config.text_config.vocab_size)
    likely[pads] = 1e6
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits + likely)
    sampled = []
    own = model.generate
    model.generate = lambda **kw: sampled.append(own(**kw)) or sampled[-1]
    asked = checkpoint.family.encode(checkpoint.processor, user(clip(0), "?"))
    generate(replace(checkpoint, model=model), [user(clip(0), "?")], max_new_tokens=3)
    said = sampled[0][0, len(asked.input_ids) :].tolist()
    assert said
    assert not set(said) & set(pads)


@pytest.mark.parametrize(
    "own", [{"repetition_penalty": 5.0}, {"no_repeat_ngram_size": 1}, {"do_sample": True, "num_beams": 3}]
)
def test_greedy_is_greedy_whatever_the_checkpoint_ships(checkpoint, own):
    plain = generate(checkpoint, [user("Is making a zarn allowed?")], max_new_tokens=12)
    model = deepcopy(checkpoint.model)
    model.generation_config.update(**own)
    shipped = deepcopy(model.generation_config)
    assert generate(replace(checkpoint, model=model), [user("Is making a zarn allowed?")], max_new_tokens=12) == plain
    assert model.generation_config == shipped


def test_an_end_token_of_the_checkpoint_ends_the_answer(checkpoint):
    model = deepcopy(checkpoint.model)
    first = 7
    likely = torch.zeros(model.config.text_config.vocab_size)
    likely[first] = 1e6
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits + likely)
    model.generation_config.eos_token_id = [first, model.generation_config.eos_token_id]
    [answer] = generate(replace(checkpoint, model=model), [user("?")], max_new_tokens=5)
    assert (answer.num_tokens, answer.stop_reason) == (1, "stop")


@pytest.mark.parametrize("token", ["<|video_pad|>", "<|im_end|>", "<|image_pad|>"])
def test_markup_in_the_words_is_refused(checkpoint, token):
    with pytest.raises(InputError, match="special token"):
        checkpoint.family.encode(checkpoint.processor, user(f"hello {token}"))


def test_a_special_token_that_the_tokenizer_names_nowhere_is_markup_too(checkpoint):
    processor = deepcopy(checkpoint.processor)
    processor.tokenizer.add_tokens([AddedToken("<|unlisted|>", special=True)])
    assert "<|unlisted|>" not in processor.tokenizer.all_special_tokens
    with pytest.raises(InputError, match="unlisted"):
        checkpoint.family.encode(processor, user("hello <|unlisted|>"))
