"""A stored group: the round trip is exact, and what does not belong together is refused."""

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from videosafety.core.group import Group
from videosafety.core.jsonl import read_records
from videosafety.core.labels import Labels
from videosafety.core.records import Response, Sample
from videosafety.core.store import write_records

SAMPLE = Sample(id="a", query="?", language="en", labels=Labels(visual="safe", textual="safe", request="safe"))
SAID = Response(sample_id="a", arm="train", model="m", text="सैंड 沙", stop_reason="stop")
GIVEN: dict[str, Any] = {
    "step": 3, "sample": SAMPLE, "responses": (SAID, SAID), "scores": ({"format": 1.0, "rouge": None}, {}),
    "rewards": (1.5, None), "advantages": (0.7, 0.0),
}  # fmt: skip


def test_round_trip(tmp_path: Path) -> None:
    groups = [Group(**GIVEN), Group(**{**GIVEN, "step": 4})]
    write_records(tmp_path / "rollouts.jsonl", groups)
    assert read_records(tmp_path / "rollouts.jsonl", Group, unique=None) == groups


@pytest.mark.parametrize("wrong", [
    {"advantages": (0.7,)}, {"scores": ({},)}, {"rewards": (1.0, 2.0, 3.0)}, {"step": -1},
    {"responses": (), "scores": (), "rewards": (), "advantages": ()},
    {"responses": (SAID, SAID.model_copy(update={"sample_id": "b"}))},
    {"advantages": (math.nan, 0.0)}, {"rewards": (math.inf, None)}, {"other": 1},
])  # fmt: skip
def test_what_does_not_belong_together_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Group(**{**GIVEN, **wrong})
