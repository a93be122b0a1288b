from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from videosafety.core.jsonl import canonical_json
from videosafety.core.labels import Labels
from videosafety.core.records import (
    LANGUAGES,
    OUTCOMES_HARMFUL,
    OUTCOMES_SAFE,
    AlarmScore,
    Image,
    Outcome,
    Provenance,
    QueryKind,
    Record,
    Response,
    Sample,
    Span,
    StopReason,
    Verdict,
    Video,
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@=+-]{0,20}", fullmatch=True)
digests = st.none() | st.text("0123456789abcdef", min_size=64, max_size=64)
paths = text.filter(bool)
medium = st.builds(Video, path=paths, sha256=digests) | st.builds(Image, path=paths, sha256=digests)
spans = st.tuples(*[st.floats(0, 1e9, allow_nan=False)] * 2).map(lambda ab: Span(start_s=min(ab), end_s=max(ab)))
triples = [("harmful", "harmful", "harmful"), ("safe", "harmful", "harmful"), ("harmful", "safe", "harmful"),
           ("safe", "safe", "safe"), ("harmful", "safe", "safe")]  # fmt: skip
labels = st.sampled_from(triples).map(lambda t: Labels(visual=t[0], textual=t[1], request=t[2]))
provenance = st.builds(Provenance, source=text, licence=st.none() | text, seed=st.none() | st.integers(0, 2**63 - 1))
samples = st.builds(
    Sample, id=ids, media=medium, query=text.filter(str.strip), language=st.sampled_from(LANGUAGES), labels=labels,
    category=st.none() | text, query_kind=st.sampled_from(QueryKind), cluster=st.none() | ids, split=st.none() | text,
    template=st.none() | text, reference=st.none() | text, facts=st.dictionaries(text, text, max_size=3),
    harm_spans=st.lists(spans, max_size=3).map(tuple), provenance=st.none() | provenance,
)  # fmt: skip
responses = st.builds(
    Response, sample_id=ids, arm=ids, model=text, text=text,
    stop_reason=st.sampled_from([StopReason.STOP, StopReason.LENGTH]), num_tokens=st.none() | st.integers(0, 10**6),
)  # fmt: skip
fault = st.just(StopReason.FAULT)
faults = st.builds(Response, sample_id=ids, arm=ids, model=text, text=text, stop_reason=fault, fault=text)
verdicts = st.builds(
    Verdict, sample_id=ids, arm=ids, judge=text, outcome=st.sampled_from(Outcome), reason=text.filter(bool)
)
share = st.none() | st.floats(0, 1)
alarms = st.builds(AlarmScore, sample_id=ids, arm=ids, visual=share, textual=share)
ROUND_TRIPS = st.one_of(samples, responses, faults, verdicts, alarms, labels, spans, medium, provenance)


@given(ROUND_TRIPS)
def test_every_record_comes_back_from_json_as_it_was(record: BaseModel) -> None:
    kind = type(record)
    assert kind.model_validate_json(canonical_json(record), strict=True) == record
    assert canonical_json(kind.model_validate_json(canonical_json(record))) == canonical_json(record)


def test_the_round_trip_covers_every_record() -> None:
    def below(kind: type[Record]) -> Iterator[type[Record]]:
        for sub in kind.__subclasses__():
            if sub.__module__ == "videosafety.core.records":
                yield sub
            yield from below(sub)

    assert {kind.__name__ for kind in below(Record)} == {
        "Span", "Video", "Image", "Provenance", "Sample", "Response", "Verdict", "AlarmScore",
    }  # fmt: skip


SAFE = {"visual": "safe", "textual": "safe", "request": "safe"}
SAMPLE: dict[str, Any] = {"id": "a", "query": "q", "language": "en", "labels": SAFE}
RESPONSE: dict[str, Any] = {"sample_id": "a", "arm": "video", "model": "m", "text": "", "stop_reason": "stop"}


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""}, {"id": "a b"}, {"id": "../a"}, {"id": "a" * 201}, {"id": "a\n"}, {"query": " \n"},
        {"language": "eng"}, {"query": "x" * 20_001},
        {"labels": {**SAFE, "visual": "harmful"}}, {"media": {"kind": "audio", "path": "a"}},
        {"media": {"kind": "video", "path": ""}}, {"media": {"kind": "video", "path": "a", "sha256": "AB"}},
        {"harm_spans": [{"start_s": 2, "end_s": 1}]}, {"harm_spans": [{"start_s": float("nan"), "end_s": 1}]},
        {"unknown": 1},
    ],
)  # fmt: skip
def test_a_bad_sample_is_refused(change: dict[str, Any]) -> None:
    assert Sample.model_validate(SAMPLE)
    with pytest.raises(ValidationError):
        Sample.model_validate(SAMPLE | change)


@pytest.mark.parametrize(
    "change", [{"stop_reason": "fault"}, {"fault": "media:corrupt"}, {"num_tokens": -1}, {"stop_reason": "max_tokens"}]
)
def test_a_bad_response_is_refused(change: dict[str, Any]) -> None:
    assert Response.model_validate(RESPONSE)
    with pytest.raises(ValidationError):
        Response.model_validate(RESPONSE | change)


def test_an_unscored_verdict_says_why() -> None:
    with pytest.raises(ValidationError, match="reason"):
        Verdict(sample_id="a", arm="video", judge="oracle", outcome=Outcome.UNSCORED)
    assert Verdict(sample_id="a", arm="video", judge="oracle", outcome=Outcome.UNSCORED, reason="media:corrupt")


def test_outcomes_are_split_by_request() -> None:
    assert {Outcome.INCOHERENT} == OUTCOMES_HARMFUL & OUTCOMES_SAFE
    assert set(Outcome) - {Outcome.UNSCORED} == OUTCOMES_HARMFUL | OUTCOMES_SAFE


def test_the_cluster_is_the_media_file_unless_said_and_the_item_without_one() -> None:
    assert Sample.model_validate(SAMPLE | {"media": None}).cluster_id == "a"
    assert Sample.model_validate(SAMPLE | {"cluster": "c"}).cluster_id == "c"
    one, same, other = (
        Sample.model_validate(SAMPLE | {"id": id, "media": {"kind": "video", "path": path}}).cluster_id
        for id, path in (("a", "clips/a b.mp4"), ("b", "clips/a b.mp4"), ("c", "clips/c.mp4"))
    )
    assert one == same != other
    assert Sample.model_validate(SAMPLE | {"cluster": one}).cluster == one  # it is a legal cluster id


def test_a_record_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Sample.model_validate(SAMPLE).query = "other"  # type: ignore[misc]
