import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
from data_fixtures import SECRET, read, record, refusal, row, tagged, talk
from hypothesis import given
from hypothesis import strategies as st

from videosafety.core.errors import RecipeError
from videosafety.core.labels import Safety
from videosafety.core.recipe import load_recipe
from videosafety.core.response import render
from videosafety.defend.data.conversation import example_of
from videosafety.defend.data.labelling import FLAT
from videosafety.defend.data.source import Source

SAFE, HARMFUL = Safety.SAFE, Safety.HARMFUL


def test_a_released_row_becomes_an_example(tmp_path: Path) -> None:
    [example] = read(tmp_path, row())
    assert example.id == "s:a"
    assert example.source == "s"
    assert [(turn.role, turn.text) for turn in example.turns] == [("user", f"{SECRET}?")]
    assert [(one.kind, one.path) for one in example.media] == [("video", str(tmp_path / "a.mp4"))]
    assert (example.answer, example.think, example.request) == (f"{SECRET}.", None, None)
    assert (example.visual, example.textual) == (HARMFUL, SAFE)


def test_rows_without_ids_are_named_by_their_number(tmp_path: Path) -> None:
    nameless = {key: value for key, value in row().items() if key != "id"}
    assert [one.id for one in read(tmp_path, nameless, row(id=7), nameless)] == ["s:row-1", "s:7", "s:row-3"]
    assert [one.id for one in read(tmp_path, row(), row(id="x/y z"), ids="row")] == ["s:row-1", "s:row-2"]


@pytest.mark.parametrize(
    ("question", "change", "text", "media"),
    [
        ("<video>\nWhat?", {"video": "a.mp4"}, "What?", ["video:a.mp4"]),
        ("What? <video>", {"video": "a.mp4"}, "What?", ["video:a.mp4"]),
        ("Is <image>\nlike <image>?", {"video": None, "image": ["b", "a"]}, "Is like ?", ["image:b", "image:a"]),
        ("<image><video><image>", {"image": ["1.png", "2.png"]}, "", ["image:1.png", "video:a.mp4", "image:2.png"]),
        ("  What?\n", {"video": None, "safety_labels": {"visual": 0, "textual": 0}}, "  What?\n", []),
    ],
)  # fmt: skip
def test_placeholders_become_media_of_their_turn(
    tmp_path: Path, question: str, change: dict[str, Any], text: str, media: list[str]
) -> None:
    [example] = read(tmp_path, row(conversations=talk(question, "A sign."), **change))
    assert example.turns[0].text == text
    assert [f"{one.kind}:{Path(one.path).name}" for one in example.turns[0].media] == media


def test_all_turns_before_the_last_answer_are_context(tmp_path: Path) -> None:
    first, last = talk("<image>1", "2"), talk("3 <image>", tagged())
    turns = [{"from": "system", "value": "0"}, *first, *last]
    [example] = read(tmp_path, row(conversations=turns, video=None, image=["1.png", "3.png"]))
    assert [(turn.role, turn.text) for turn in example.turns] == [
        ("system", "0"), ("user", "1"), ("assistant", "2"), ("user", "3")]  # fmt: skip
    assert [[Path(one.path).name for one in turn.media] for turn in example.turns] == [[], ["1.png"], [], ["3.png"]]
    assert (example.think, example.answer) == ("A sign.", "No.")


@pytest.mark.parametrize(
    "change",
    [
        {"safety_labels": {"visual": 1, "textual": 0}},
        {"safety_labels": {"visual": "harmful", "textual": "safe", "request": None}},
        {"safety_labels": {"visual": "1", "textual": "0"}, "labels": {"visual": "harmful"}},
        {"safety_labels": None, "labels": {"visual": 1, "textual": 0}},
        {"safety_labels": None, "visual_safety_label": 1, "textual_safety_label": 0},
        {"safety_labels": None, "visual_label": "harmful", "textual_label": 0, "request_label": None},
        {"safety_labels": {"visual": 1}, "textual_label": 0},
        {"safety_labels": None, "conversations": talk("<video>?", tagged(1, 0))},
    ],
)
def test_labels_are_read_from_every_documented_place(tmp_path: Path, change: dict[str, Any]) -> None:
    [example] = read(tmp_path, row(**change))
    assert (example.visual, example.textual) == (HARMFUL, SAFE)


def test_request_is_read_and_must_fit(tmp_path: Path) -> None:
    [example] = read(tmp_path, row(safety_labels={"visual": 1, "textual": 0, "request": 0}))
    assert example.request is SAFE
    message = refusal(tmp_path, row(safety_labels={"visual": 1, "textual": 1, "request": 0}))
    assert "textual is harmful but request is safe" in message
    assert "neither visual nor textual" in refusal(
        tmp_path, row(request_label=1, safety_labels={"visual": 0, "textual": 0})
    )


def test_the_opposite_polarity_turns_digits_and_never_words(tmp_path: Path) -> None:
    digits = row(safety_labels={"visual": 0}, textual_label="1", conversations=talk("<video>?", tagged(0, 1)))
    words = row(id="b", safety_labels={"visual": "harmful", "textual": "safe"})
    marked = row(id="c", safety_labels=None, conversations=talk("<video>?$0$1"))
    earlier = row(id="d", conversations=[*talk("<video>?", tagged(0, 1)), *talk("and?", "No.")],
                  safety_labels={"visual": 0, "textual": 1})  # fmt: skip
    found = read(tmp_path, digits, words, marked, earlier, harmful_is=0, legacy_labels=True)
    assert [(one.visual, one.textual) for one in found] == [(HARMFUL, SAFE)] * 4
    assert found[0].target(structured=True) == render(think="A sign.", answer="No.", visual=HARMFUL, textual=SAFE)
    assert found[3].turns[1].text == render(think="A sign.", answer="No.", visual=HARMFUL, textual=SAFE)


@pytest.mark.parametrize("value", [2, -1, 0.0, 1.0, True, False, "true", "unsafe", "Safe", "", [], {}, "1 ", "١"])
@pytest.mark.parametrize("key", ["safety_labels.visual", "textual_label"])
def test_a_label_outside_the_two_is_an_error(tmp_path: Path, value: object, key: str) -> None:
    change = {"safety_labels": {"visual": value, "textual": 0}} if "." in key else {key: value}
    message = refusal(tmp_path, row(id="z"), row(**change))
    assert message.startswith(f"{tmp_path / 'rows.jsonl'}:2: record 'a': {key} is ")
    assert "not one of 0, 1, safe, harmful" in message


def test_a_long_label_is_not_quoted(tmp_path: Path) -> None:
    assert "str of 24 characters" in refusal(tmp_path, row(textual_label=SECRET * 3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"safety_labels": None}, "no visual and no textual label; give it as safety_labels"),
        ({"safety_labels": {}}, "no visual and no textual label"),
        ({"safety_labels": {"visual": 1}}, "no textual label"),
        ({"safety_labels": {"textual": 1}}, "no visual label"),
        ({"safety_labels": None, "safety_lables": {"visual": 1}}, "('safety_lables' is no key that is read)"),
        ({"safety_labels": {"visul": 1}}, "unknown label safety_labels.'visul'; did you mean 'visual'?"),
        ({"safety_labels": [1, 0]}, "safety_labels should be an object"),
        ({"visual_label": 0}, "the visual label is harmful in safety_labels.visual but safe in visual_label"),
        ({"conversations": talk("<video>?", tagged(0, 0))}, "harmful in the row's fields but safe in <vidType>"),
        ({"conversations": talk("<video>?", tagged(1, 1))}, "safe in the row's fields but harmful in <textType>"),
    ],
)
def test_missing_and_contradicting_labels(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    assert said in refusal(tmp_path, row(**change))


def test_labels_are_never_inferred_from_words_nor_taken_for_safe(tmp_path: Path) -> None:
    """The released code searched the words for a verdict and called all others safe."""
    suggestive = talk("<video>Does the video show harmful content? The question violates a rule.", "It is harmless.")
    for conversations in (suggestive, talk()):
        bare = row(conversations=conversations, safety_labels=None)
        assert "no visual and no textual label" in refusal(tmp_path, bare)
        [masked] = read(tmp_path, bare, labels="none")
        assert (masked.visual, masked.textual, masked.request) == (None, None, None)


def test_a_source_says_what_its_rows_are(tmp_path: Path) -> None:
    bare = row(safety_labels=None)
    [safe] = read(tmp_path, bare, labels="safe")
    assert (safe.visual, safe.textual, safe.request) == (SAFE, SAFE, SAFE)
    assert "the visual label is harmful, but the source declares labels: safe" in refusal(
        tmp_path, row(), labels="safe"
    )
    [masked] = read(tmp_path, row(), labels="none")
    assert (masked.visual, masked.textual) == (None, None)
    assert "is 3 and not one of" in refusal(tmp_path, row(textual_label=3), labels="none")


def test_without_media_only_the_words_need_a_label(tmp_path: Path) -> None:
    text_only = row(video=None, conversations=talk("What?"), safety_labels={"textual": 1})
    [example] = read(tmp_path, text_only)
    assert (example.visual, example.textual) == (None, HARMFUL)
    assert "visual is harmful but there is no media" in refusal(
        tmp_path, text_only | {"safety_labels": {"visual": 1, "textual": 1}}
    )


def test_markers_in_the_words_are_refused_unless_asked_for(tmp_path: Path) -> None:
    """The released code packs labels into the words and later into the target tensor."""
    marked = row(safety_labels=None, conversations=talk("<video>\nWhat?$1$0"))
    message = refusal(tmp_path, row(id="z"), marked)
    assert message.startswith(f"{tmp_path / 'rows.jsonl'}:2: record 'a': message 1 carries labels as a $v$t marker")
    assert "legacy_labels: true" in message
    assert "legacy_labels" in refusal(tmp_path, row(conversations=talk("<video>?", "A sign.$1$0")), labels="none")
    [example] = read(tmp_path, marked, legacy_labels=True)
    assert (example.visual, example.textual, example.turns[0].text) == (HARMFUL, SAFE, "What?")
    assert "$" not in example.model_dump_json()


def test_markers_must_agree(tmp_path: Path) -> None:
    twice = talk("<video>?$1$0", "$1$0 A sign.")
    [example] = read(tmp_path, row(conversations=twice), legacy_labels=True)
    assert example.answer == "A sign."
    contradicting = row(conversations=talk("<video>?$1$1"))
    assert "safe in the row's fields but harmful in the marker of message 1" in refusal(
        tmp_path, contradicting, legacy_labels=True)  # fmt: skip


def test_prices_are_no_markers(tmp_path: Path) -> None:
    [example] = read(tmp_path, row(conversations=talk("<video>Is it $10, $20 or $0.50?")))
    assert "$10, $20 or $0.50" in example.turns[0].text


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("<think>a</think><answer>b</answer><vidType>1</vidType>", "missing_tag"),
        ("<answer>b</answer>", "missing_tag"),
        ("<think>a", "missing_tag"),
        (tagged() + "more", "stray_text"),
        (tagged(2, 0), "bad_label"),
        (tagged("harmful", 0), "bad_label"),
        (tagged(answer=" "), "empty"),
        (tagged() + "<answer>c</answer>", "duplicate_tag"),
        ("<vidType>1</vidType><textType>0</textType><think>a</think><answer>b</answer>", "out_of_order"),
        (" \n", "empty"),
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_a_target_that_breaks_the_grammar_is_named(tmp_path: Path, answer: str, status: str, last: bool) -> None:
    turns = talk("<video>?", answer) if last else [*talk("<video>?", answer), *talk("and?", "No.")]
    message = refusal(tmp_path, row(id="z"), row(conversations=turns))
    assert message.startswith(f"{tmp_path / 'rows.jsonl'}:2: record 'a': the answer in message 2 breaks")
    assert f"grammar: {status};" in message


def test_tags_inside_the_thinking_do_not_count(tmp_path: Path) -> None:
    answer = tagged(think="I close with <vidType>0</vidType>.")
    [example] = read(tmp_path, row(conversations=talk("<video>?", answer)))
    assert example.think == "I close with <vidType>0</vidType>."
    assert example.visual is HARMFUL


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"conversations": talk("no placeholder")}, "0 <video> placeholders for 1 video paths"),
        ({"conversations": talk("<video><video>")}, "2 <video> placeholders for 1 video paths"),
        ({"conversations": talk("<video><image>")}, "1 <image> placeholders for 0 image paths"),
        ({"video": None}, "1 <video> placeholders for 0 video paths"),
        ({"conversations": talk("<video>?", "see <video>")}, "message 2 holds media or a placeholder"),
        ({"conversations": talk()[:1]}, "does not end with an answer"),
        ({"conversations": talk()[1:]}, "do not take turns"),
        ({"conversations": [*talk(), *talk()[1:]]}, "do not take turns"),
        ({"conversations": [{"from": "system", "value": "x"}]}, "does not end with an answer"),
        ({"conversations": []}, "does not end with an answer"),
        ({"conversations": "x"}, "conversations should be a list"),
        ({"conversations": ["x"]}, "message 1 should be an object"),
        ({"conversations": None}, "it has none of these"),
        ({"messages": []}, "it has conversations and messages"),
        ({"conversations": [{"from": "humn", "value": "x"}]}, "message 1 is from 'humn'; did you mean 'human'?"),
        ({"conversations": [{"from": "human"}]}, "message 1 needs from and value"),
        ({"conversations": [{"from": "human", "value": 3}]}, "message 1 should hold text"),
        ({"conversations": [{**talk()[0], "tool_calls": [1]}]}, "holds the field 'tool_calls', which is not read"),
        ({"conversations": talk("<video>", ""), "video": "a.mp4"}, "message 2 breaks the response grammar: empty"),
        ({"conversations": [*talk(), *talk("  ", "x")]}, "message 3 is empty"),
        ({"video": [3]}, "video should be the path of a file"),
        ({"video": ""}, "video should be the path of a file"),
        ({"video": {"bytes": "x", "path": "a"}}, "video holds the media itself"),
        ({"video": "a" * 5000}, "should have at most 4096 characters"),
        ({"stream": True}, "stream asks for a part of a clip"),
        ({"start_time": 3.0}, "start_time asks for a part of a clip"),
        ({"id": ["a"]}, "id should be text or a whole number"),
        ({"id": True}, "id should be text or a whole number"),
        ({"id": "a b"}, "id is 'a b' and does not match"),
        ({"language": "eng"}, "language is 'eng'; did you mean 'en'?"),
        ({"conversations": talk("<video>" + SECRET * 20_000)}, "message 1: text string should have at most 100000"),
        ({"conversations": talk("<video>?", SECRET * 20_000)}, "message 2: text string should have at most 100000"),
        ({"conversations": talk("<video>?", "x" * 1_000_001)}, "grammar: oversize"),
    ],
)
def test_a_row_that_is_not_one_is_one_clear_sentence(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    message = refusal(tmp_path, row(id="z"), row(**change))
    assert message.startswith(f"{tmp_path / 'rows.jsonl'}:2: ")
    assert said in message
    assert "\n" not in message


def test_chat_messages_with_typed_parts(tmp_path: Path) -> None:
    part: dict[str, Any] = {"type": "text", "text": "What?", "video": None, "image": None, "path": None}
    for video, columns in (
        ({"type": "video", "video": "a.mp4"}, {}),
        ({"type": "video", "path": "a.mp4", "text": None}, {}),
        ({"type": "video"}, {"videos": ["a.mp4"]}),
        ({"type": "video", "video": {"path": "a.mp4", "bytes": None}}, {}),
    ):
        said = {"role": "assistant", "content": [{"type": "text", "text": "A sign."}]}
        asked = {"role": "user", "content": [video, part]}
        for key in ({"messages": [asked, said]}, {"prompt": [asked], "completion": [said]}):
            [example] = read(tmp_path, {**key, **columns, "visual_label": 0, "textual_label": 0})
            assert (example.turns[0].text, example.answer) == ("What?", "A sign.")
            assert [Path(one.path).name for one in example.media] == ["a.mp4"]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"type": "audio", "audio": "a"}, "neither text, nor video, nor image"),
        ({"type": "text"}, "neither text, nor video, nor image"),
        ("x", "neither text, nor video, nor image"),
        ({"type": "image", "url": "https://example.org/a.png"}, "names its image by URL"),
        ({"type": "image", "image": {"bytes": "x"}}, "message 1 holds the media itself"),
    ],
)
def test_parts_that_are_not_read(tmp_path: Path, part: object, said: str) -> None:
    messages = [{"role": "user", "content": [part]}, {"role": "assistant", "content": "x"}]
    assert said in refusal(tmp_path, {"messages": messages, "visual_label": 0, "textual_label": 0})


def test_unknown_keys_are_allowed_and_language_is_kept(tmp_path: Path) -> None:
    [example] = read(tmp_path, row(model="x", duration=3, language="zh"))
    assert example.language == "zh"


def test_the_row_is_left_as_it_was() -> None:
    given = row(conversations=talk("<video>?$1$0"))
    before = copy.deepcopy(given)
    example_of(given, row_id="r", legacy_labels=True, harmful_is=1)
    assert given == before


INNER_KEYS = ["from", "value", "role", "content", "type", "text", "video", "visual", "textual", "path", "bytes"]
KEYS = ["id", "video", "image", "messages", "prompt", "conversations", "language", "labels", "stream", *FLAT]
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["<video>", "gpt", "$1$0"])
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INNER_KEYS), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(KEYS), JSON), st.booleans())
def test_any_object_is_an_example_or_a_sentence(data: dict[str, Any], legacy: bool) -> None:
    for change in (data, row() | data):
        with contextlib.suppress(ValueError):  # nothing else may come out
            assert example_of(change, row_id="r", legacy_labels=legacy, harmful_is=1).answer


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("harmful_is: 2", "harmful_is"),
        ("harmful_is: true", "harmful_is"),
        ("labels: unsafe", "labels"),
        ("kind: records\nlegacy_labels: true", "legacy_labels has no meaning for kind records"),
        ("split: train", "split has no meaning for kind conversations"),
        ("limit: 0", "limit"),
        ("share: 0", "share"),
        ("share: 1.5", "share"),
        ("name: 'a b'", "the name should be"),
        ("legacy_lables: true", "did you mean 'legacy_labels'?"),
    ],
)
def test_a_source_with_a_bad_knob_is_refused(tmp_path: Path, change: str, said: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    lines = {"name": "a", "path": "x"} | {"kind": "conversations"}
    given = [f"{key}: {value}" for key, value in lines.items() if f"{key}:" not in change]
    recipe.write_text("\n".join([*given, change]) + "\n")
    with pytest.raises(RecipeError, match=said.replace("?", r"\?")):
        load_recipe(recipe, Source)


def test_our_records_are_held_to_their_source_too(tmp_path: Path) -> None:
    [example] = read(tmp_path, record(), kind="records")
    assert (example.id, example.visual) == ("s:a", HARMFUL)
    assert "no textual label" in refusal(tmp_path, record(textual=None), kind="records")
