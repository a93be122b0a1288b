"""Rows: what a model sees and what it is asked to say; a lost clip adds nothing and is never replaced."""

import math
from pathlib import Path

import pytest
import torch
from stagekit import batch_of, difference, gradients, quick, ready

from videosafety.core.errors import InputError
from videosafety.core.example import Example, Turn
from videosafety.core.labels import Safety
from videosafety.defend.rows import ALARM_TARGETS, FAULTS, Rows, targets_of
from videosafety.models.family import IGNORE, Message
from videosafety.models.generate import generate
from videosafety.video.sample import sample_clip

NAN = math.nan


def rows_of(made, examples, **change):
    return Rows(examples, checkpoint=made.checkpoint, **{"structured": False, **change})


@pytest.mark.parametrize(
    ("visual", "textual", "expected"),
    [
        (Safety.HARMFUL, Safety.SAFE, (1.0, 0.0)),
        (Safety.SAFE, Safety.HARMFUL, (0.0, 1.0)),
        (Safety.SAFE, None, (0.0, NAN)),
        (None, Safety.SAFE, (NAN, 0.0)),
        (None, None, (NAN, NAN)),
    ],
)
def test_a_label_that_nobody_gave_stays_unknown(clips, visual, textual, expected):
    row = clips[0].model_copy(update={"visual": visual, "textual": textual, "request": None, "answer": "I refuse."})
    assert targets_of(row) == pytest.approx(expected, nan_ok=True)


def test_without_anything_shown_the_visual_target_is_masked():
    row = Example(id="a", turns=(Turn(role="user", text="Hi."),), answer="Hi.", visual=Safety.SAFE, textual=Safety.SAFE)
    assert targets_of(row) == pytest.approx((NAN, 0.0), nan_ok=True)


def test_words_alone_carry_both_alarms(base, examples):
    made = ready(base, quick())
    words = [row for row in examples if not row.media][:2]
    ids = batch_of(made, words)["input_ids"]
    at = made.checkpoint.alarm.positions(ids)
    assert (at >= 0).all()
    assert (at[:, 0] < at[:, 1]).all()
    assert not made.wrapped.alarm_logits(torch.randn(*ids.shape, 128), ids).isnan().any()


def conversation(clip: Example, *, clip_in: int) -> Example:
    """Three questions; the clip is shown with the first or with the last one."""
    shown = clip.turns[0].media
    turns = tuple(
        Turn(role=role, text=text, media=shown if number == clip_in else ())
        for number, (role, text) in enumerate(
            [("user", "hello"), ("assistant", "yes"), ("user", "thank you"), ("assistant", "no"), ("user", "what ?")]
        )
    )
    return Example(id="talk", turns=turns, answer="yes", visual=Safety.SAFE, textual=Safety.SAFE)


@pytest.mark.parametrize("clip_in", [0, 2, 4])
def test_in_a_long_conversation_the_alarms_stand_where_generation_has_them(base, clips, clip_in):
    made = ready(base, quick())
    talk = conversation(clips[0], clip_in=clip_in)
    trained = rows_of(made, [talk])[0].encoded
    prompts = []
    made.wrapped.unwrap()
    made.wrapped.model.eval()
    hook = made.wrapped.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: prompts.append(kwargs["input_ids"].clone()), with_kwargs=True
    )
    shown = tuple(Message(t.role, (*(sample_clip(m.path) for m in t.media), t.text)) for t in talk.turns)
    [said] = generate(made.checkpoint, [shown], max_new_tokens=1)
    hook.remove()
    assert prompts[0][0].tolist() == trained.input_ids[: len(trained.input_ids) - trained.num_target].tolist()
    alarm = made.checkpoint.alarm
    counts = [(trained.input_ids == token).sum().item() for token in alarm.token_ids]
    assert counts == [1, 1]  # one of each, not one for each turn
    at = alarm.positions(trained.input_ids[None])[0]
    clip_end = int((trained.input_ids == made.wrapped.model.config.video_token_id).nonzero().max())
    words = made.checkpoint.tokenizer(talk.turns[-1].text, add_special_tokens=False)["input_ids"]
    assert clip_end < at[0] < at[1]
    assert trained.input_ids[at[1] - len(words) : at[1]].tolist() == words  # the textual one ends the last question
    assert said.alarm is not None
    assert None not in said.alarm


def lost(example: Example, path: str = "gone.mp4") -> Example:
    """The row with a clip that is not there."""
    [turn] = example.turns
    media = turn.media[0].model_copy(update={"path": path})
    return example.model_copy(update={"turns": (turn.model_copy(update={"media": (media,)}),)})


def test_a_lost_clip_is_named_and_its_row_says_nothing(base, clips):
    made = ready(base, quick())
    rows = rows_of(made, [clips[0], lost(clips[1]), clips[2]])
    batch = rows.collate([rows[i] for i in range(3)])
    [(id_, what)] = batch[FAULTS]
    assert (id_, what.split(":")[0]) == (clips[1].id, "missing")
    assert (batch["labels"][1] == IGNORE).all()
    assert batch[ALARM_TARGETS][1].isnan().all()
    assert len(batch["video_grid_thw"]) == 2  # no other clip stands in for it


def test_a_clip_that_changed_since_the_check_is_lost(base, clips, tmp_path):
    made = ready(base, quick())
    (tmp_path / "other.mp4").write_bytes(Path(clips[1].media[0].path).read_bytes())
    [row] = list(rows_of(made, [lost(clips[0], str(tmp_path / "other.mp4"))]))[:1]
    assert row.fault.startswith("changed")


def test_a_batch_with_a_lost_row_is_the_batch_without_it(base, clips):
    config = quick()
    made = ready(base, config)
    with_lost = gradients(made, [batch_of(made, [clips[0], lost(clips[1]), clips[2]])], config)
    without = gradients(made, [batch_of(made, [clips[0], clips[2]])], config)
    assert difference(without, with_lost) < 1e-5


def test_the_structured_answer_is_one_grammar_and_needs_its_labels(base, clips):
    made = ready(base, quick())
    row = clips[0]
    [trained] = list(rows_of(made, [row], structured=True))[:1]
    target = trained.encoded.input_ids[-trained.encoded.num_target :]
    told = made.checkpoint.tokenizer.decode(target, skip_special_tokens=True).replace(" ", "")
    assert told.startswith("<think>")
    assert f"<vidType>{int(row.visual is Safety.HARMFUL)}</vidType>" in told
    unlabelled = row.model_copy(update={"textual": None})
    with pytest.raises(InputError, match=f"{row.id}: a structured response needs textual"):
        rows_of(made, [unlabelled], structured=True)[0]
