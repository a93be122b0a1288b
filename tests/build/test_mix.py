"""The mixture: no leak, quotas met or said, the same in any order."""

import random
from collections import Counter

import pytest
from thought_rows import KINDS, thought

from videosafety.build.ledger import Ledger
from videosafety.build.mix import Mix, Quotas, counts, missed
from videosafety.build.records import Mixed
from videosafety.build.run import run_step
from videosafety.build.sides import NEAR, clip_groups, family, near_queries, shingles, sides, word_groups
from videosafety.build.state import Terminal

WORDS = ("river", "station", "violin", "garden", "winter", "tower", "bakery", "planet", "harbour", "notebook")


def query(number):
    return (
        f"Could you tell me what the {WORDS[number % 10]} near the {WORDS[(number // 10 + 3) % 10]} has to do with it?"
    )


def rows(num_clips=60, kinds=tuple(KINDS), num_templates=12):
    """Every clip asked in every kind that goes with what it shows."""
    made = []
    for clip in range(num_clips):
        for kind in kinds:
            if (KINDS[kind][0] == "harmful") == bool(clip % 2):
                number = clip * 7 % num_templates
                made.append(thought(kind, clip=f"c{clip}", number=number, query=f"{kind}: {query(number)}"))
    return made


def mixed(results):
    return [one for result in results if not isinstance(result, Terminal) for one in result]


def ends(results):
    return Counter(result.reason for result in results if isinstance(result, Terminal))


def test_nothing_of_the_benchmark_stands_in_training_and_no_clip_in_two_splits():
    made = rows()
    results = list(Mix(seed=1).over(made))
    got = mixed(results)
    side = {"eval": set(), "train": set()}
    by_clip = {}
    for row in got:
        asked = row.asked
        side["eval" if row.split == "eval" else "train"] |= {
            asked.template,
            asked.sample.query,
            asked.described.cluster,
        }
        by_clip.setdefault(asked.described.cluster, set()).add(row.split)
    assert side["eval"]
    assert not side["eval"] & side["train"]
    assert all(len(splits) == 1 for splits in by_clip.values())
    assert {row.split for row in got} == {"eval", "sft", "cot", "rl"}
    assert len(got) + ends(results).total() == len(made)


def test_the_mixture_does_not_depend_on_the_order_but_on_the_seed():
    made = rows()
    shuffled = random.Random(0).sample(made, len(made))
    assert {row.id for row in mixed(Mix(seed=1).over(made))} == {row.id for row in mixed(Mix(seed=1).over(shuffled))}
    assert {row.id for row in mixed(Mix(seed=1).over(made))} != {row.id for row in mixed(Mix(seed=2).over(made))}


def test_sides_that_are_given_stand_and_a_row_that_leaks_goes():
    made = [thought("SafeQ", clip=f"c{i}", number=i, query=f"{query(i)} Part {WORDS[i]}.", split=side)
            for i, side in enumerate(["eval", "train", "eval", "train"])]  # fmt: skip
    found = [side for side, _ in sides([one.asked for one in made], eval_share=0.5, seed=0)]
    assert found == ["eval", "train", "eval", "train"]
    leaking = thought("SafeQ", clip="c1", number=77, query="What stands on the table at the very end?", split="eval")
    again = thought(
        "SafeQ", clip="c1", number=78, query="Who is it that walks through the room at the end?", split="train"
    )
    found = sides([one.asked for one in [*made, again, leaking]], eval_share=0.5, seed=0)
    assert found[-1] == (None, "clip")
    words = thought(
        "SafeQ", clip="new", number=1, query="And what is the colour of the chair over there?", split="eval"
    )
    twice = thought("SafeQ", clip="c3", number=1, query="How tall is that lamp?", split="train")
    found = sides([one.asked for one in [*made, twice, words]], eval_share=0.5, seed=0)
    assert found[-1] == (None, "words")


def test_rows_are_held_together_by_file_template_language_twin_and_nearly_equal_query():
    base = thought(
        "SafeQ", clip="a", template="en.1.s1.any.0", query="What is standing on the wooden table over there?"
    )
    same = thought("SafeQ", clip="b", language="es", template="es.2.s1.any.0")
    near = thought("SafeQ", clip="c", number=2, query="What is standing on the wooden table over there now?")
    far = thought("SafeQ", clip="d", number=3, query="Which colour has the door of the house?")
    twin = thought("HH", clip="e", number=4, query="Please tell me about the contraption.").asked
    twin = twin.model_copy(update={"twin": far.asked.id})
    together = [*(one.asked for one in (base, same, near, far)), twin]
    clips, words = clip_groups(together), word_groups(together)
    assert words[0] == words[1] == words[2] != words[3] == words[4]
    assert len(set(clips)) == 5
    assert family("zh.3.b7.fraud.1") == "b7.fraud.1"
    assert family("own") == "own"


def test_shingles_by_script_and_near_queries_by_jaccard():
    assert shingles("abcdefg") == {"abcde", "bcdef", "cdefg"}
    assert shingles("视频里有") == {"视频", "频里", "里有"}
    assert shingles("ab") == {"ab"}
    one, two = "这个视频里的桌子上放着什么颜色的盒子呢", "这个视频里的桌子上放着什么颜色的盒子"
    assert near_queries([one, two, "今天的天气怎么样"]) == [(two, one)]
    assert near_queries([one], among=[two], near=NEAR) == [(one, two)]


def test_quotas_are_kept_evenly_and_a_shortfall_is_said():
    quotas = Quotas(eval={"SafeQ": 4, "HH": 1000}, sft=3, cot=5)
    results = list(Mix(quotas=quotas, seed=1, eval_share=0.3).over(rows(num_clips=120)))
    got = counts(mixed(results))
    assert (got["eval SafeQ"], got["sft"], got["cot"]) == (4, 3, 5)
    assert len({row.asked.kind for row in mixed(results) if row.split == "cot"}) == 5
    assert ends(results)["quota:cot"] > 0
    assert [str(one) for one in missed(counts(mixed(results)), quotas)] == [f"eval HH: {got['eval HH']} of 1000 rows"]


def test_a_row_without_a_response_can_only_be_evaluated():
    made = [one.asked for one in rows()]
    results = list(Mix(seed=1).over(made))
    assert {row.split for row in mixed(results)} == {"eval"}
    assert ends(results)["split:no_response"] > 0


def test_the_step_runs_over_a_ledger(tmp_path):
    made = rows(num_clips=8)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        first = list(run_step(Mix(seed=1), made, ledger))
        assert list(run_step(Mix(seed=1), made, ledger)) == first
        assert sum(count.rows for count in ledger.account()) == len(made)
    assert all(isinstance(row, Mixed) for row in first)


@pytest.mark.parametrize("was", ["eval", "rl"])
def test_a_clip_that_would_change_sides_is_left_out_and_others_stay(was):
    made = rows(num_clips=40)
    found = {row.asked.described.id: row.split for row in mixed(Mix(seed=1).over(made))}
    side = {clip for clip, split in found.items() if (split == "eval") != (was == "eval")}
    clip = sorted(side)[0]
    results = list(Mix(seed=1, before={clip: was}).over(made))
    ends = {one.reason for row, one in zip(made, results, strict=True)
            if row.asked.described.id == clip and isinstance(one, Terminal)}  # fmt: skip
    assert ends == {"split:was_eval" if was == "eval" else "split:was_train"}
    assert clip not in {row.asked.described.id for row in mixed(results)}


def test_training_clips_keep_their_split_whatever_the_quotas_want_now():
    made = rows(num_clips=40)
    before = {row.asked.described.id: row.split for row in mixed(Mix(seed=1).over(made))}
    other = Quotas(sft=1000, cot=10, rl=10)
    anew = {row.asked.described.id: row.split for row in mixed(Mix(seed=1, quotas=other).over(made))}
    kept = {row.asked.described.id: row.split for row in mixed(Mix(seed=1, quotas=other, before=before).over(made))}
    assert any(anew[clip] != before[clip] for clip in anew)
    assert kept
    assert all(before[clip] == split for clip, split in kept.items())
