import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videosafety.core import jsonl
from videosafety.core.errors import RecordError
from videosafety.core.jsonl import canonical_json, collect_records, read_record, read_records
from videosafety.core.records import Response, Sample, Verdict

SAFE = {"visual": "safe", "textual": "safe", "request": "safe"}
ROW: dict[str, Any] = {"id": "a-0", "query": "What is shown?", "language": "en", "labels": SAFE}


def write(path: Path, *rows: dict[str, Any] | bytes) -> Path:
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows) + b"\n")
    return path


def fault(path: Path, kind: Any = Sample, **options: Any) -> str:
    with pytest.raises(RecordError) as caught:
        read_records(path, kind, **options)
    return str(caught.value)


def test_records_come_in_their_order_with_any_line_end(tmp_path: Path) -> None:
    rows = [ROW | {"id": f"a-{n}"} for n in (3, 1, 2)]
    path = write(tmp_path / "s", *rows)
    assert [sample.id for sample in read_records(path, Sample)] == ["a-3", "a-1", "a-2"]
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n").rstrip())
    assert len(read_records(path, Sample)) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"language": "eng"}, "record 'a-0': language is 'eng'; did you mean 'en'? known: ar, en, es"),
        ({"labels": SAFE | {"visual": "saef"}}, "record 'a-0': labels.visual is 'saef'; did you mean 'safe'?"),
        ({"qurey": "x"}, "record 'a-0': unknown field 'qurey'; did you mean 'query'?"),
        ({"labels": SAFE | {"textul": "safe"}}, "unknown field 'labels.textul'; did you mean 'textual'?"),
        ({"media": {"kind": "vidoe", "path": "a"}}, "media.kind is 'vidoe'; did you mean 'video'?"),
        ({"media": {"path": "a"}}, "media needs the field 'kind'"),
        ({"media": {"kind": "video", "path": "a", "sha": "b"}}, "unknown field 'media.video.sha'"),
        ({"labels": SAFE | {"textual": "harmful"}}, "labels: textual is harmful but request is safe"),
        ({"labels": SAFE | {"visual": "harmful"}}, "record 'a-0': visual is harmful but there is no media"),
        ({"harm_spans": [{"start_s": "1", "end_s": 2}]}, "harm_spans.0.start_s should be a valid number"),
        ({"harm_spans": [{"start_s": -1, "end_s": 2}]}, "0.start_s should be greater than or equal to 0 (is -1)"),
        ({"provenance": {"source": "x", "seed": "7"}}, "provenance.seed should be a valid integer"),
        ({"query": 3}, "query should be a valid string (is 3)"),
        ({"id": "a 0"}, "record 'a 0': id is 'a 0' and does not match"),
    ],
)
def test_a_wrong_value_is_one_clear_sentence(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    message = fault(write(tmp_path / "s.jsonl", ROW | {"id": "z"}, ROW | change))
    assert message.startswith(f"{tmp_path / 's.jsonl'}:2: ")
    assert said in message
    assert message.endswith("; mend this row")
    assert "\n" not in message


def test_the_text_of_a_query_is_never_quoted(tmp_path: Path) -> None:
    message = fault(write(tmp_path / "s", ROW | {"query": "secret" * 4000, "reference": ["secret"]}))
    assert "secret" not in message
    assert "query" in message


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "should be an object"),
        (b"null", "should be an object"),
        (b"", "nothing but white space"),
        (b"  ", "nothing but white space"),
        (b'{"id": "a", "id": "b"}', "the field 'id' stands twice"),
        (b'{"id": "\xff"}', "not UTF-8 (byte 9)"),
        (b'\xef\xbb\xbf{"id": "a"}', "byte order mark"),
        (b'{"id": NaN}', "NaN is not a number"),
        (b'{"id": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"id": "\\ud800"}', "the line is no JSON: unexpected end of hex escape"),
        (b'{"id": ' + b"9" * 5000 + b"}", ""),
    ],
)
def test_a_bad_line_is_one_clear_sentence(tmp_path: Path, line: bytes, said: str) -> None:
    message = fault(write(tmp_path / "s", ROW, line, ROW | {"id": "b"}))
    assert message.startswith(f"{tmp_path / 's'}:2: ")
    assert said in message


def test_all_bad_rows_are_listed_up_to_twenty(tmp_path: Path) -> None:
    bad = [ROW | {"id": f"b-{n}", "language": "xx"} for n in range(25)]
    message = fault(write(tmp_path / "s", ROW, *bad))
    lines = message.splitlines()
    assert lines[0] == f"{tmp_path / 's'}: 25 bad rows; mend these:"
    assert lines[1].startswith("  line 2: record 'b-0': language is 'xx'")
    assert lines[20].startswith("  line 21: record 'b-19'")
    assert lines[21:] == ["  and 5 more"]


def test_a_duplicate_names_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "s", ROW, ROW | {"id": "b"}, ROW)
    assert "s:3: id 'a-0' is already on line 1" in fault(path)
    assert len(read_records(path, Sample, unique=None)) == 3
    response = {"sample_id": "a", "model": "m", "text": "", "stop_reason": "stop"}
    path = write(tmp_path / "r", *(response | {"arm": arm} for arm in ("video", "text", "video")))
    assert "sample_id 'a', arm 'video' is already on line 1" in fault(path, Response, unique=("sample_id", "arm"))
    assert len(read_records(path, Response, unique=None)) == 3


def test_a_line_beyond_all_bounds_is_passed_over_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 2000)
    for size in (1989, 1990, 1991, 5_000_000):  # b'{"id": "' and b'"}' around
        line = b'{"id": "' + b"x" * size + b'"}'
        path = write(tmp_path / "s", ROW, line, ROW | {"id": "b", "language": "xx"})
        message = fault(path)
        assert ("longer than 2000 bytes" in message) == (len(line) > 2000)
        assert "line 3: record 'b'" in message  # the count of lines is not lost
    path.write_bytes(path.read_bytes()[:4_000_000])  # and without a newline at the end
    assert "s:2: longer than 2000 bytes" in fault(path)


def test_the_longest_response_fits_a_line() -> None:
    longest = Response(sample_id="a", arm="video", model="m", text="\x00" * 1_000_000, stop_reason="stop")
    assert len(canonical_json(longest)) < jsonl.MAX_LINE_BYTES


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    assert "holds no records; write one JSON object on each line" in fault(tmp_path / "empty")
    assert "no such file" in fault(tmp_path / "none")
    assert "is not an ordinary file" in fault(tmp_path)
    assert "is not an ordinary file" in fault(tmp_path / "pipe")  # and does not hang


def test_one_record_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    path.write_text('{\n "sample_id": "a", "arm": "video",\n "judge": "j", "outcome": "helpful"}\n')
    assert read_record(path, Verdict).outcome == "helpful"
    path.write_text(path.read_text().replace("helpful", "helpfull"))
    with pytest.raises(RecordError, match="outcome is 'helpfull'; did you mean 'helpful'"):
        read_record(path, Verdict)


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"{}", b"[1]", json.dumps(ROW).encode()]), max_size=5))
def test_any_bytes_are_records_or_one_record_error(lines: list[bytes]) -> None:
    said = ""
    try:
        records = collect_records(lines, Sample, unique="id", where="x")
    except RecordError as error:
        records, said = [], str(error)
    assert said.startswith("x:") if said else len(records) == len(lines)
