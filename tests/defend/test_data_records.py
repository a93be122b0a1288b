import json
from pathlib import Path
from typing import Any

import pytest
from data_fixtures import SECRET, read, record, refusal, row, said, source, tagged, talk, write_rows
from hypothesis import given
from hypothesis import strategies as st

from videosafety.core.errors import RecordError
from videosafety.core.example import Example, Turn
from videosafety.core.labels import Safety
from videosafety.core.records import LANGUAGES, Image, Video
from videosafety.core.store import write_records
from videosafety.defend.data import raw
from videosafety.defend.data.mix import mix
from videosafety.defend.data.raw import Problems, read_rows
from videosafety.defend.data.source import Source, read_source

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<$"), min_size=1, max_size=20).filter(
    str.strip
)
LABEL = st.none() | st.sampled_from(Safety)
MEDIA = st.builds(Video, path=st.just("clips/a.mp4")) | st.builds(Image, path=st.just("b.png"))


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Any example of ours."""
    media = tuple(draw(st.lists(MEDIA, max_size=2)))
    turns = (Turn(role="system", text=draw(WORDS)), Turn(role="user", text=draw(WORDS), media=media))
    textual, visual = draw(LABEL), draw(LABEL if media else st.sampled_from([None, Safety.SAFE]))
    return Example(id=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@=+-]{0,20}", fullmatch=True)), turns=turns,
                   answer=draw(WORDS), think=draw(st.none() | WORDS), visual=visual, textual=textual,
                   language=draw(st.none() | st.sampled_from(LANGUAGES)))  # fmt: skip


@given(st.lists(examples(), min_size=1, max_size=4, unique_by=lambda one: one.id), st.booleans())
def test_records_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, given_: list[Example], array: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "round_trip.jsonl"
    write_records(path, given_)
    if array:
        path.write_bytes(b"[\n" + b",\n".join(path.read_bytes().splitlines()) + b"\n]\n")
    problems = Problems()
    masked = Source(name="s", path=str(path), labels="none")
    found = [one.example for one in read_source(masked, problems=problems)]
    assert problems.first == []
    for before, after in zip(given_, found, strict=True):
        kept = {"id": f"s:{before.id}", "source": "s", "visual": None, "textual": None, "turns": after.turns}
        assert after == before.model_copy(update=kept)
        assert [turn.text for turn in after.turns] == [turn.text for turn in before.turns]
        assert [one.path for one in after.media] == [str(path.parent / one.path) for one in before.media]


@given(examples())
def test_a_released_row_says_what_the_record_says(tmp_path_factory: pytest.TempPathFactory, one: Example) -> None:
    folder = tmp_path_factory.getbasetemp()
    marks = "".join(f"<{medium.kind}>" for medium in one.media)
    foreign = {
        "id": one.id, "language": one.language,
        "video": [medium.path for medium in one.media if medium.kind == "video"],
        "image": [medium.path for medium in one.media if medium.kind == "image"],
        "conversations": [{"from": "system", "value": one.turns[0].text},
                          {"from": "human", "value": marks + one.turns[1].text}, {"from": "gpt", "value": one.answer}],
        "safety_labels": {"visual": one.visual, "textual": one.textual},
    }  # fmt: skip
    write_rows(folder / "foreign.jsonl", foreign)
    problems = Problems()
    [read_] = read_source(source(folder / "foreign.jsonl", labels="none"), problems=problems)
    assert read_.example.turns[1].text.strip() == one.turns[1].text.strip()
    assert [medium.kind for medium in read_.example.media] == [medium.kind for medium in one.media]
    assert (read_.example.answer, read_.example.language) == (one.answer, one.language)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"{", "not valid JSON"),
        (b"", "nothing but white space"),
        (b"[]", "not a JSON object"),
        (b"3", "not a JSON object"),
        (b'{"id": "a", "id": "b"}', "the field 'id' stands twice"),
        (b'{"safety_labels": {"visual": 1, "visual": 0}}', "the field 'visual' stands twice"),
        (b'{"id": "\xff"}', "not UTF-8 (byte 9)"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        (b'{"id": "\\ud800", "turns": [], "answer": "x"}', ""),
    ],
)
@pytest.mark.parametrize("kind", ["records", "conversations"])
def test_a_line_that_is_no_row_is_named(tmp_path: Path, bad: bytes, said: str, kind: str) -> None:
    good = record(id="z") if kind == "records" else row(id="z")
    message = refusal(tmp_path, good, bad, kind=kind)
    assert message.startswith(f"{tmp_path / 'rows.jsonl'}:2: ")
    assert said in message
    assert len(message) < 500


def test_a_huge_line_is_passed_over_and_the_next_ones_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "MAX_LINE_BYTES", 1000)
    huge = json.dumps({"id": "x" * 5000}).encode()
    message = refusal(tmp_path, row(), huge, row(id="b"), row())
    assert "rows.jsonl:2: longer than 1000 bytes" in message
    assert "rows.jsonl:4: record 'a': this id is already on line 1" in message
    assert "2 faults" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"visual": "harmfull"}, "visual is 'harmfull'; did you mean 'harmful'?"),
        ({"visual": 1}, "visual is '1'; known: harmful, safe"),
        ({"visul": "safe"}, "unknown field 'visul'; did you mean 'visual'?"),
        ({"answer": " "}, "the answer is blank"),
        ({"answer": tagged()}, "its answer holds tags of the response grammar (complete)"),
        ({"answer": f"<answer>{SECRET}"}, "its answer holds tags of the response grammar (missing_tag)"),
        ({"think": "</think>"}, "its think holds the tag </think>"),
        ({"turns": []}, "turns"),
        ({"turns": [{"role": "assistant", "text": SECRET}]}, "the last turn is not the user's"),
        ({"turns": [{"role": "user", "text": SECRET}]}, "visual is harmful but there is no media"),
        ({"language": "xx"}, "language is 'xx'"),
        ({"textual": "harmful", "request": "safe"}, "textual is harmful but request is safe"),
        ({"visual": "safe", "request": "harmful"}, "request is harmful but neither"),
        ({"visual": None}, "no visual label"),
        ({"id": "x" * 199}, "its id is too long"),
    ],
)
def test_a_bad_record_is_one_clear_sentence(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    message = refusal(tmp_path, record(id="z"), record(**change), kind="records")
    assert message.startswith(f"{tmp_path / 'rows.jsonl'}:2: ")
    assert said in message


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("a\0.mp4", "control character"),
        ("a\n.mp4", "control character"),
        ("../a.mp4", "leaves its folder by '..'"),
        ("/x/../a.mp4", "leaves its folder by '..'"),
        ("https://example.org/a.mp4", "is a URL"),
        ("file:///a.mp4", "is a URL"),
        ("data:video/mp4;base64,AAAA", "is a URL"),
        ("a" * 300, "too long (300 characters)"),
        ("é" * 200, "too long (200 characters)"),
        ("a/" * 2040 + "a.mp4", "too long"),
    ],
)
@pytest.mark.parametrize("kind", ["records", "conversations"])
def test_a_media_path_that_leads_elsewhere_is_refused(tmp_path: Path, path: str, said: str, kind: str) -> None:
    turns = [{"role": "user", "text": SECRET, "media": [{"kind": "video", "path": path}]}]
    bad = record(turns=turns) if kind == "records" else row(video=[path])
    assert said in refusal(tmp_path, bad, kind=kind)


def test_media_start_from_the_files_folder_or_the_named_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [near] = read(tmp_path, row(video=["clips/a.mp4"]))
    assert near.media[0].path == str(tmp_path / "clips/a.mp4")
    [far] = read(tmp_path, row(video=["a.mp4"]), media_folder=str(tmp_path / "far"))
    assert far.media[0].path == str(tmp_path / "far/a.mp4")
    [absolute] = read(tmp_path, row(video=["/far/a.mp4"]))
    assert absolute.media[0].path == "/far/a.mp4"
    monkeypatch.chdir(tmp_path)
    [found] = read_source(source(Path("rows.jsonl")), problems=Problems())
    assert found.example.media[0].path == "/far/a.mp4"
    write_rows(tmp_path / "rows.jsonl", row())
    [found] = read_source(source(Path("rows.jsonl")), problems=Problems())
    assert found.example.media[0].path == str(tmp_path / "a.mp4")


def test_all_bad_rows_of_all_files_are_in_one_error_and_none_is_skipped(tmp_path: Path) -> None:
    """The released code replaced a row that failed by a random other one."""
    bad = [row(id=f"b{n}", conversations=talk(SECRET)) for n in range(15)]
    sources = [source(write_rows(tmp_path / f"{name}.jsonl", row(), *bad), name=name) for name in ("x", "y")]
    with pytest.raises(RecordError) as caught:
        mix(sources, seed=0)
    message = said(caught.value)
    assert message.startswith("30 faults in the training data; mend these rows:")
    assert len(message.splitlines()) == 1 + 20 + 1
    assert f"\n  {tmp_path / 'x.jsonl'}:2: record 'b0': 0 <video> placeholders for 1 video paths" in message
    assert f"\n  {tmp_path / 'x.jsonl'}:16: " in message
    assert f"\n  {tmp_path / 'y.jsonl'}:6: " in message
    assert message.endswith("\n  and 10 more")


@pytest.mark.parametrize("bad", ["row", "limit"])
def test_a_bad_row_counts_even_where_a_limit_would_leave_it_out(tmp_path: Path, bad: str) -> None:
    path = write_rows(tmp_path / "a.jsonl", *[row(id=f"r{n}") for n in range(20)], b"{")
    with pytest.raises(RecordError, match=r"a.jsonl:21: not valid JSON"):
        mix([source(path, limit=1 if bad == "limit" else None)], seed=0)


def test_an_array_is_read_with_the_lines_of_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = [row(), {"id": "b"}, row(id="c")]
    path.write_text(json.dumps(rows, indent=2))
    starts = [number for number, line in enumerate(path.read_text().splitlines(), start=1) if line == "  {"]
    assert [one.line for one in read_rows(path)] == starts
    path.write_text(" \n" + json.dumps(rows))
    assert [one.line for one in read_rows(path)] == [2, 2, 2]


@pytest.mark.parametrize(
    ("text", "lines", "fault"),
    [
        ('[{"id": 1},\n{"id": }]', [1, 2], "not valid JSON: Expecting value; what follows"),
        ('[{"id": 1}\n{"id": 2}]', [1, 1], "no comma or bracket"),
        ('[{"id": 1},\n{"id": 2}', [1, 2, 2], "no comma or bracket"),
        ('[{"id": 1},\n{"a": 1, "a": 2},\n3]', [1, 2, 3], "not a JSON object"),
        ('[{"id": 1},\n]', [1, 2], "not valid JSON"),
        ('[{"id": 1}]\n{}', [1, 1], "text after the end"),
        ('[{"id": 1},\n{"a": NaN}]', [1, 2], "NaN"),
        ("[" * 100_000, [1], "nested too deeply"),
        ("[", [1], "not valid JSON"),
    ],
)
def test_a_broken_array_says_where(tmp_path: Path, text: str, lines: list[int], fault: str) -> None:
    (tmp_path / "rows.json").write_text(text)
    found = list(read_rows(tmp_path / "rows.json"))
    assert [one.line for one in found] == lines
    assert fault in str(found[-1].fault)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"", "holds no rows"),
        (b"[ ]", "holds no rows"),
        (b'[{"id": "\xff"}]', "not UTF-8 (byte 10)"),
    ],
)
def test_a_file_that_cannot_be_read_at_all(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "rows.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordError) as caught:
        list(read_rows(path))
    assert said in str(caught.value)
    with pytest.raises(RecordError, match="ordinary file"):
        list(read_rows(tmp_path))


def test_a_byte_order_mark_and_an_oversized_array_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "byte order mark" in refusal(tmp_path, b"\xef\xbb\xbf" + json.dumps(row()).encode())
    monkeypatch.setattr(raw, "MAX_ARRAY_BYTES", 100)
    path = write_rows(tmp_path / "rows.json", [row()])
    with pytest.raises(RecordError, match="write JSON lines"):
        list(read_rows(path))
