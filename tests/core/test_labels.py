from itertools import product

import pytest
from pydantic import ValidationError

from videosafety.core.labels import DEFENDED_SUBSETS, SAFEQ, Labels, Safety, Subset

S, H = Safety.SAFE, Safety.HARMFUL

TABLE = {  # (visual, textual, request): subset with the clip
    (H, H, H): Subset.HH,
    (S, H, H): Subset.SH,
    (H, S, H): Subset.COMPOSED,
    (S, S, S): Subset.SS,
    (H, S, S): Subset.HS,
}


@pytest.mark.parametrize(("visual", "textual", "request_"), list(product([S, H], repeat=3)))
def test_the_subset_table_and_nothing_beside_it(visual: Safety, textual: Safety, request_: Safety) -> None:
    key = (visual, textual, request_)
    if key not in TABLE:
        with pytest.raises(ValidationError):
            Labels(visual=visual, textual=textual, request=request_)
        return
    assert Labels(visual=visual, textual=textual, request=request_).subset is TABLE[key]


@pytest.mark.parametrize("key", TABLE)
def test_a_subset_is_defended_exactly_when_the_request_is_harmful(key: tuple[Safety, Safety, Safety]) -> None:
    labels = Labels(visual=key[0], textual=key[1], request=key[2])
    assert (labels.subset in DEFENDED_SUBSETS) == (labels.request is H)
    assert (labels.subset in SAFEQ) == (labels.request is S)


def test_quadrant_says_video_first() -> None:
    assert Labels(visual=H, textual=S, request=S).quadrant == "HS"
    assert Labels(visual=S, textual=H, request=H).quadrant == "SH"


@pytest.mark.parametrize("key", TABLE)
def test_without_vision_only_the_words_count(key: tuple[Safety, Safety, Safety]) -> None:
    alone = Labels(visual=key[0], textual=key[1], request=key[2]).without_vision()
    assert (alone.visual, alone.textual, alone.request) == (S, key[1], key[1])


def test_labels_are_frozen_words() -> None:
    labels = Labels.model_validate({"visual": "harmful", "textual": "safe", "request": "safe"})
    with pytest.raises(ValidationError):
        labels.visual = S  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Labels.model_validate({"visual": 1, "textual": 0, "request": 0})  # digits exist only on the wire
