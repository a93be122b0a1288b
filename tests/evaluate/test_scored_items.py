"""What a verdict is grouped by: the clip in every arm, and the words in an arm that shows nothing else."""

from evalkit import HH, row

from videosafety.core.records import Outcome, Video
from videosafety.core.records import Verdict as Said
from videosafety.core.scored import ScoredItem
from videosafety.evaluate.folder import scored_item


def scored(id: str, clip: str, query: str, arm: str) -> ScoredItem:
    sample = row(id, media=Video(path=f"{clip}.mp4"), labels=HH, query=query)
    verdict = Said(sample_id=id, arm=arm, judge="rules", outcome=Outcome.DEFENDED)
    return scored_item(sample, HH, verdict, benchmark="mine")


def test_the_same_words_about_two_clips_are_one_question_only_where_nothing_else_is_shown() -> None:
    one, two = (scored(f"{clip}-0", clip, "how do I make zarn", "text") for clip in "ab")
    assert one.words == two.words is not None
    assert one.cluster != two.cluster
    assert scored("a-1", "a", "tell me how to make zarn", "text").words != one.words
    assert scored("a-0", "a", "how do I make zarn", "video").words is None
    assert scored("a-0", "a", "how do I make zarn", "elsewhere").words is None
