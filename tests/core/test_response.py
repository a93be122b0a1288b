import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from videosafety.core.errors import InputError
from videosafety.core.labels import Safety
from videosafety.core.response import FIELDS, MAX_CHARS, ParseStatus, parse, render

TAGS = [f"<{slash}{name}>" for name in FIELDS for slash in ("", "/")]
SAFE, HARMFUL = Safety.SAFE, Safety.HARMFUL
GOOD = "<think>t</think><answer>a</answer><vidType>1</vidType><textType>0</textType>"

any_text = st.text(st.characters(), max_size=300)  # lone surrogates too
pieces = st.one_of(st.sampled_from([*TAGS, "0", "1", " ", "\n", "<", ">", "<think", "x"]), any_text)
tag_soup = st.lists(pieces).map("".join)


@st.composite
def nearly_good(draw: st.DrawFn) -> str:
    """A complete response with up to three pieces taken out, put in or doubled."""
    parts = ["<think>", "t", "</think>", "<answer>", "a", "</answer>", "<vidType>", "1", "</vidType>"]
    parts += ["<textType>", "0", "</textType>"]
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(parts) - 1))
        parts[at : at + draw(st.integers(0, 1))] = draw(st.lists(pieces, max_size=2))
    return "".join(parts)


words = any_text.filter(lambda text: not any(tag in text for tag in TAGS))


@given(st.one_of(any_text, tag_soup, nearly_good()), st.booleans())
@example("", False)
@example("\ud800<think>", False)
@example("<think><think></think></think>", False)
def test_any_text_has_a_status_and_keeps_its_text(text: str, truncated: bool) -> None:
    parsed = parse(text, truncated=truncated)
    assert isinstance(parsed.status, ParseStatus)
    assert parsed.text == text
    assert (parsed.status is ParseStatus.TRUNCATED) == truncated
    if parsed.status is ParseStatus.COMPLETE:
        assert None not in (parsed.think, parsed.answer, parsed.visual, parsed.textual)
        assert parsed.answer


@given(nearly_good())
def test_complete_means_that_rendering_gives_the_same_parse(text: str) -> None:
    parsed = parse(text)
    if parsed.status is not ParseStatus.COMPLETE:
        return
    fields = {name: getattr(parsed, name) for name in ("think", "answer", "visual", "textual")}
    again = parse(render(**fields))
    assert again.status is ParseStatus.COMPLETE
    assert {name: getattr(again, name) for name in fields} == fields


@given(
    think=st.one_of(tag_soup, any_text).filter(lambda text: "</think>" not in text),
    answer=words.filter(str.strip),
    visual=st.sampled_from(Safety),
    textual=st.sampled_from(Safety),
    breaks=st.sampled_from(["", "\n", "\r\n\n", " \t"]),
)
def test_round_trip_with_free_line_breaks(
    think: str, answer: str, visual: Safety, textual: Safety, breaks: str
) -> None:
    said = render(think=think, answer=answer, visual=visual, textual=textual)
    for text in (said, f"{breaks}{said}{breaks}"):
        parsed = parse(text)
        assert parsed.status is ParseStatus.COMPLETE
        assert (parsed.think, parsed.answer) == (think.strip(), answer.strip())
        assert (parsed.visual, parsed.textual) == (visual, textual)


def test_the_wire_format() -> None:
    assert render(think="t", answer="a", visual=HARMFUL, textual=SAFE) == GOOD
    spread = GOOD.replace("><", ">\n\n<").replace(">1<", ">\n1 <")
    assert parse(spread).status is ParseStatus.COMPLETE
    assert parse(spread).visual is HARMFUL


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (GOOD, "complete"),
        (GOOD.replace(">t<", "><"), "complete"),  # nothing thought is still the grammar
        ("", "empty"),
        (" \n\u3000", "empty"),
        (GOOD.replace(">a<", "> <"), "empty"),
        ("I cannot help with that.", "untagged"),
        ("<THINK>x</THINK> <b>no tag of ours</b>", "untagged"),
        (GOOD + "<answer>b</answer>", "duplicate_tag"),
        (GOOD.replace("</answer>", "</answer></think>"), "duplicate_tag"),
        (GOOD.replace("<textType>0</textType>", ""), "missing_tag"),
        (GOOD.replace("</think>", ""), "missing_tag"),
        (GOOD.replace("<think>", ""), "missing_tag"),
        ("<answer>a</answer><think>t</think><vidType>1</vidType><textType>0</textType>", "out_of_order"),
        ("<think>t</think><answer>a<vidType>1</vidType></answer><textType>0</textType>", "out_of_order"),
        ("Sure. " + GOOD, "stray_text"),
        (GOOD.replace("</think>", "</think>so"), "stray_text"),
        (GOOD + ".", "stray_text"),
        (GOOD.replace(">1<", ">2<"), "bad_label"),
        (GOOD.replace(">1<", ">harmful<"), "bad_label"),
        (GOOD.replace(">1<", "><"), "bad_label"),
        (GOOD.replace(">1<", ">１<"), "bad_label"),
        (GOOD.replace(">1<", ">01<"), "bad_label"),
        ("x" * (MAX_CHARS + 1), "oversize"),
    ],
)
def test_each_status(text: str, status: str) -> None:
    assert parse(text).status == status


@pytest.mark.parametrize("text", [GOOD, GOOD[:-3], "", "an answer that sto", "x" * (MAX_CHARS + 1)])
def test_truncation_is_the_callers_word(text: str) -> None:
    assert parse(text, truncated=True).status is ParseStatus.TRUNCATED


def test_tags_inside_think_never_count() -> None:
    quoted = "".join(TAGS).replace("</think>", "") + "<answer>evil</answer><vidType>0</vidType>"
    parsed = parse(GOOD.replace(">t<", f">{quoted}<"))
    assert (parsed.status, parsed.answer, parsed.visual) == (ParseStatus.COMPLETE, "a", HARMFUL)
    only_thought = parse(f"<think>{GOOD.replace('<think>t</think>', '')}")
    assert (only_thought.status, only_thought.answer, only_thought.visual) == (ParseStatus.MISSING_TAG, None, None)


def test_a_label_is_never_guessed_and_survives_a_broken_neighbour() -> None:
    assert parse(GOOD.replace("<vidType>1</vidType>", "")).visual is None
    assert parse(GOOD.replace("<vidType>1</vidType>", "")).textual is SAFE
    assert parse(GOOD + "<vidType>0</vidType>").visual is None  # twice: neither
    assert parse(GOOD.replace(">1<", ">7<")).visual is None
    assert parse("vidType 1, textType 0").visual is None


@pytest.mark.parametrize(
    ("think", "answer"),
    [("t", ""), ("t", " \n"), ("a</think>b", "a"), ("t", "<vidType>1</vidType>"), ("t", "</answer>"), ("t", "<think>")],
)
def test_what_would_break_the_round_trip_is_refused(think: str, answer: str) -> None:
    with pytest.raises(InputError):
        render(think=think, answer=answer, visual=SAFE, textual=SAFE)


@pytest.mark.parametrize("piece", ["<think>", "<answer>", "</think>", "<answer></answer>", "<", "<think", "</"])
def test_hostile_repetition_is_parsed_and_not_complete(piece: str) -> None:
    text = piece * (MAX_CHARS // len(piece))  # quadratic work would take hours here
    assert parse(text).status is not ParseStatus.COMPLETE
