"""The chat template places the alarms: same words otherwise, in every family, and off again byte for byte."""

import re
from copy import deepcopy

import pytest
from alarmkit import batch_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tinyfamilies import LLAVA, QWEN, SMOLVLM
from transformers.utils.chat_template_utils import render_jinja_template

from videosafety.core.alarm import ALARMS, MODALITIES
from videosafety.core.errors import InputError
from videosafety.models.alarm import set_template
from videosafety.models.family import Message
from videosafety.models.placement import place, placed, remove
from videosafety.toyworld.base_model import TEMPLATE

VISUAL, TEXTUAL = ALARMS.values()
MACRO = (
    "{%- macro words(content) -%}{%- if content is string -%}{{ content }}{%- else -%}{%- for part in content -%}"
    "{%- if part.type == 'video' -%}<|video_pad|>{%- elif part.type == 'image' -%}<|image_pad|>"
    "{%- elif part.type == 'text' -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endif -%}{%- endmacro -%}\n"
    "{%- for m in messages -%}[{{ m.role }}]{{ words(m.content or '') }}[/]\n{%- endfor -%}"
    "{%- if add_generation_prompt -%}[assistant]{%- endif -%}"
)
OWN_MESSAGES = (
    "{%- if messages[0]['role'] == 'system' -%}SYSTEM {{ messages[0]['content'] is string }}\n"
    "{%- set messages = messages[1:] -%}{%- endif -%}\n" + TEMPLATE
)
STRINGS = {  # templates that also take words without parts
    "videollama3": TEMPLATE, "qwen": QWEN, "macro": MACRO, "own messages": OWN_MESSAGES,
    "blank before": "  \n\t" + TEMPLATE, "indented": "   {%- if true %}\n  x{% endif %}\n" + TEMPLATE,
    "indented, kept": "   {% if true %}\n  x{% endif %}\n" + TEMPLATE, "lines after": TEMPLATE + "\n\n  ",
}  # fmt: skip
TYPED = STRINGS | {"smolvlm": SMOLVLM, "llava": LLAVA}
MARKS = re.compile(r"<\|(?:video|image)_pad\|>|<(?:video|image)>")


def render(template, messages, *, speak=True):
    return render_jinja_template([messages], chat_template=template, add_generation_prompt=speak)[0][0]


def bare(text):
    return text.replace(VISUAL, "").replace(TEXTUAL, "")


def turn(role, *parts):
    return {"role": role, "content": [{"type": "text", "text": p} if p not in ("image", "video") else {"type": p}
                                      for p in parts]}  # fmt: skip


words = st.text(max_size=8).filter(lambda text: text not in ("image", "video")) | st.sampled_from(
    ["{{ messages }}", "{% endfor %}", "{#- videosafety alarms end #}\n", " What? ", "\n"]
)
roles = st.sampled_from(["user", "assistant", "system", "tool"])
typed_turns = st.builds(lambda role, parts: turn(role, *parts), roles,
                        st.lists(words | st.sampled_from(["image", "video"]), min_size=1, max_size=4))  # fmt: skip
string_turns = st.builds(lambda role, text: {"role": role, "content": text}, roles, words)


@pytest.mark.parametrize("name", STRINGS)
@given(messages=st.lists(typed_turns | string_turns, min_size=1, max_size=5), speak=st.booleans())
def test_without_the_alarms_a_prompt_is_the_family_s_own(name, messages, speak):
    own, ours = (render(t, messages, speak=speak) for t in (STRINGS[name], place(STRINGS[name], MODALITIES)))
    assert bare(ours) == own
    has_user = any(m["role"] == "user" for m in messages)
    assert ours.count(TEXTUAL) == has_user
    assert ours.count(VISUAL) == (has_user or bool(MARKS.search(own)))


@pytest.mark.parametrize("name", ["smolvlm", "llava"])
@given(messages=st.lists(typed_turns, min_size=1, max_size=5), speak=st.booleans())
def test_templates_that_take_parts_only(name, messages, speak):
    """LLaVA-OneVision's writes a line break before each part of words: an alarm without words beside it brings one."""
    own, ours = (render(t, messages, speak=speak) for t in (TYPED[name], place(TYPED[name], MODALITIES)))
    assert ours.count(TEXTUAL) == any(m["role"] == "user" for m in messages)
    if name == "llava":
        assert bare(ours).replace("\n", "") == own.replace("\n", "")
    else:
        assert bare(ours) == own


@pytest.mark.parametrize("name", TYPED)
@pytest.mark.parametrize("parts", [("video", "What?"), ("video", "image", "What?"), ("What?",), ("image", "A", "B")])
def test_with_words_beside_the_alarms_every_family_keeps_its_bytes(name, parts):
    messages = [turn("system", "Be brief."), turn("user", *parts)]
    assert bare(render(place(TYPED[name], MODALITIES), messages)) == render(TYPED[name], messages)


@pytest.mark.parametrize("name", TYPED)
def test_the_visual_alarm_follows_the_last_vision_and_the_textual_one_ends_the_last_user_turn(name):
    messages = [
        turn("user", "video", "First?"), turn("assistant", "A dax."), turn("user", "video", "image", "Second?", "More"),
        turn("assistant", "Yes."), turn("user", "Third?"), turn("assistant", "Maybe"),
    ]  # fmt: skip
    text = render(place(TYPED[name], MODALITIES), messages)
    assert text.count(VISUAL) == text.count(TEXTUAL) == 1
    last = list(MARKS.finditer(text))[-1].end()
    between = text[last : text.index(VISUAL)]
    assert re.fullmatch(r"(<\|vision_end\|>)?\s*", between)
    assert text[text.index(VISUAL) + len(VISUAL) :].startswith("Second?")
    assert text[: text.index(TEXTUAL)].endswith("Third?")


@pytest.mark.parametrize(("messages", "expected"), [
    ([turn("user", "Why?")], f"Why?{VISUAL}{TEXTUAL}"),
    ([{"role": "user", "content": "Why?"}], f"Why?{VISUAL}{TEXTUAL}"),
    ([{"role": "user", "content": ""}], f"{VISUAL}{TEXTUAL}"),
    ([turn("user", "video")], f"<|video_pad|>\n{VISUAL}{TEXTUAL}"),
    ([turn("user", "Why?", "video")], f"Why?<|video_pad|>\n{VISUAL}{TEXTUAL}"),
    ([turn("user", "video", "image")], f"<|video_pad|>\n<|image_pad|>\n{VISUAL}{TEXTUAL}"),
    ([{"role": "user", "content": [{"type": "video", "text": None}, {"type": "text", "text": "Why?", "video": None}]}],
     f"<|video_pad|>\n{VISUAL}Why?{TEXTUAL}"),
])  # fmt: skip
def test_what_a_user_turn_becomes(messages, expected):
    assert render(place(TEMPLATE, MODALITIES), messages, speak=False) == f"<|im_start|>user\n{expected}<|im_end|>\n"


def test_without_a_user_turn_only_what_is_shown_gets_its_alarm():
    text = render(place(TEMPLATE, MODALITIES), [turn("system", "Be brief."), turn("tool", "video", "seen")])
    assert text.count(VISUAL) == 1
    assert f"<|video_pad|>\n{VISUAL}seen" in text
    assert TEXTUAL not in text
    assert VISUAL not in render(place(TEMPLATE, MODALITIES), [turn("system", "Be brief.")])


def test_a_tool_call_without_content_is_left_alone():
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    messages = [turn("user", "Why?"), call, {"role": "tool", "content": "42"}]
    assert bare(render(place(MACRO, MODALITIES), messages)) == render(MACRO, messages)


@pytest.mark.parametrize("chosen", [("visual",), ("textual",), ()])
def test_one_alarm_alone(chosen):
    template = place(TEMPLATE, chosen)
    assert placed(template) == chosen
    for messages in ([turn("user", "video", "Why?")], [turn("user", "Why?")]):
        text = render(template, messages)
        assert {m: text.count(token) for m, token in ALARMS.items()} == {m: int(m in chosen) for m in MODALITIES}
        assert bare(text) == render(TEMPLATE, messages)


@pytest.mark.parametrize("name", TYPED)
def test_placing_is_idempotent_and_removing_restores_every_byte(name):
    own = TYPED[name]
    ours = place(own, MODALITIES)
    assert place(ours, MODALITIES) == ours
    assert place(place(own, ("visual",)), MODALITIES) == ours
    assert remove(ours) == own
    assert remove(own) == own
    assert placed(ours) == MODALITIES
    assert placed(own) == ()


@given(own=st.text(alphabet=" \n\t{}%#-ab", max_size=30))
def test_removing_restores_any_template(own):
    assert remove(place(own, MODALITIES)) == own


@pytest.fixture(scope="module")
def placing(any_family):
    """A processor of every family that places both alarms."""
    processor = deepcopy(any_family.processor)
    processor.tokenizer.add_tokens(list(ALARMS.values()), special_tokens=True)
    set_template(processor, MODALITIES)
    return processor


def test_a_user_of_the_stock_processor_gets_the_prompt_that_was_trained(any_family, placing, picture):
    shown = picture(3)
    shown_part = {"type": "image", "image": Image.fromarray(shown.pixels)}
    parts = [shown_part, {"type": "text", "text": "Is it {{ allowed }}?"}]
    stock = [turn("system", "Be brief."), {"role": "user", "content": parts}]
    ids = placing.apply_chat_template(stock, add_generation_prompt=True, tokenize=True, return_dict=True,
                                      return_tensors="pt")["input_ids"][0]  # fmt: skip
    ours = (Message("system", ("Be brief.",)), Message("user", (shown, "Is it {{ allowed }}?")))
    assert ids.tolist() == any_family.family.encode(placing, ours).input_ids.tolist()
    assert all(ids.tolist().count(placing.tokenizer.convert_tokens_to_ids(token)) == 1 for token in ALARMS.values())


def test_an_answer_that_was_begun_is_continued_behind_the_same_prompt(any_family, placing):
    messages = [turn("user", "Is it allowed?"), turn("assistant", "Making it is")]
    whole = placing.apply_chat_template(messages[:1], add_generation_prompt=True)
    begun = placing.apply_chat_template(messages, continue_final_message=True)
    assert re.fullmatch(re.escape(whole.rstrip()) + r"\s?Making it is", begun)
    own = any_family.processor.apply_chat_template(messages, continue_final_message=True)
    assert bare(begun) == own


def test_a_clip_goes_through_transformers_own_call_with_its_alarm_but_for_smolvlm(any_family, placing):
    """SmolVLM's stock processor takes a template of its own for clips: pass it ``chat_template`` (docs/method.md)."""
    messages = [turn("user", "video", "Why?")]
    known = 0 if any_family.family.name == "smolvlm2" else 1
    assert placing.apply_chat_template(messages).count(VISUAL) == known
    assert placing.apply_chat_template(messages, chat_template=placing.chat_template).count(VISUAL) == 1


def test_words_that_hold_an_alarm_are_refused(any_family, placing):
    for token in ALARMS.values():
        with pytest.raises(InputError, match=re.escape(token)):
            any_family.family.render(placing, (Message("user", (f"Why {token}?",)),))


def test_alarms_are_one_token_each_whatever_stands_beside_them(any_family, placing):
    tokenizer = placing.tokenizer
    wanted = tokenizer.convert_tokens_to_ids(list(ALARMS.values()))
    for left, right in (("", ""), (" ", " "), ("a", "b"), ("\n", "\n"), ("你", "们")):
        ids = tokenizer(f"{left}{VISUAL}{TEXTUAL}{right}", add_special_tokens=False)["input_ids"]
        assert [i for i in ids if i in wanted] == wanted


def test_batches_with_alarms_keep_their_positions_under_either_padding(any_family, placing, clip):
    checkpoint = deepcopy(any_family)
    object.__setattr__(checkpoint, "processor", placing)
    conversations = [(Message("user", (clip(0), "Why?")),), (Message("user", ("Is it allowed, and why is it?",)),)]
    for side in ("left", "right"):
        batch = batch_of(checkpoint, conversations, side)
        for token in placing.tokenizer.convert_tokens_to_ids(list(ALARMS.values())):
            assert (batch["input_ids"] == token).sum(1).tolist() == [1, 1]
