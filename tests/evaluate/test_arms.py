import pytest
from evalkit import COMPOSED, HH, SAFE, row

from videosafety.core.errors import InputError
from videosafety.core.labels import Labels, Safety
from videosafety.core.records import Image, QueryKind, Span, Video
from videosafety.evaluate.arms import ARMS, get
from videosafety.video.plan import Sampling

SAMPLING = Sampling(fps=2.0)
CLIP = Video(path="a.mp4")


def test_text_arm_drops_the_clip_and_all_that_only_the_clip_made_true() -> None:
    sample = row("a", media=CLIP, labels=HH, harm_spans=(Span(start_s=0, end_s=1),))
    shown = get("text").show(sample, SAMPLING)
    assert shown is not None
    assert (shown.sample.media, shown.sample.harm_spans) == (None, ())
    assert shown.sample.labels == Labels(visual=Safety.SAFE, textual=Safety.HARMFUL, request=Safety.HARMFUL)
    assert (shown.sample.id, shown.sample.query, shown.sample.language) == (sample.id, sample.query, sample.language)


def test_text_arm_of_a_harmful_clip_with_a_safe_question_has_nothing_to_defend() -> None:
    safe_with_clip = Labels(visual=Safety.HARMFUL, textual=Safety.SAFE, request=Safety.SAFE)
    shown = get("text").show(row("a", media=CLIP, labels=safe_with_clip), SAMPLING)
    assert shown is not None
    assert shown.sample.labels == SAFE


@pytest.mark.parametrize(("labels", "kind"), [(COMPOSED, QueryKind.EXPLICIT), (SAFE, QueryKind.DEICTIC)])
def test_text_arm_does_not_apply_where_the_words_need_the_clip(labels: Labels, kind: QueryKind) -> None:
    assert get("text").show(row("a", media=CLIP, labels=labels, query_kind=kind), SAMPLING) is None


def test_text_arm_applies_to_borderline_questions() -> None:
    assert get("text").show(row("a", media=CLIP, query_kind=QueryKind.BORDERLINE), SAMPLING) is not None


def test_video_arm_shows_the_item_unchanged_and_a_picture_as_a_picture() -> None:
    for media in (CLIP, Image(path="a.png")):
        shown = get("video").show(row("a", media=media), SAMPLING)
        assert shown is not None
        assert (shown.sample.media, shown.sampling) == (media, SAMPLING)
    assert get("video").show(row("a"), SAMPLING) is None


def test_arms_never_return_labels_that_the_record_would_refuse() -> None:
    for arm in ARMS.values():
        for labels in (HH, SAFE, COMPOSED):
            shown = arm.show(row("a", media=CLIP, labels=labels), SAMPLING)
            if shown is not None:
                assert type(shown.sample).model_validate(shown.sample.model_dump()) == shown.sample


def test_unknown_arm_names_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown arm 'vidoe'; did you mean 'video'"):
        get("vidoe")
