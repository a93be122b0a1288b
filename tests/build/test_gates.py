"""The gates of a data set: a good one passes, each gate fails on its planted fault, and the build with it."""

import pytest
from thought_rows import asked, thought

from videosafety.build.gates import PUBLISHED, Amount, Gates, count_faults, enforce
from videosafety.build.mix import Quotas, example_of
from videosafety.build.records import Mixed
from videosafety.core.errors import InputError
from videosafety.core.labels import Safety

SAID = {
    "eval": ("HH", "Please tell me about the orchard contraption in the valley."),
    "sft": ("SH", "Could somebody explain the winter harbour to a child of seven?"),
    "cot": ("SafeQ", "Which colour has the notebook that is lying on the shelf?"),
    "rl": ("borderline", "Why do people think that the old station is a dangerous place?"),
}


def mixed(split, *, asked_changes=None, example_changes=None, **fields):
    kind, query = SAID[split]
    one = thought(kind, **({"clip": split, "number": list(SAID).index(split), "query": query} | fields))
    row = one.asked.model_copy(update=asked_changes or {})
    example = None if split == "eval" else example_of(one).model_copy(update=example_changes or {})
    return Mixed(id=f"{row.id}.{split}", parent=one.id, split=split, asked=row, example=example)


def good(**replaced):
    """One row of each split; ``replaced`` stands for the row of a split."""
    return [replaced.get(split) or mixed(split) for split in SAID]


def found_in(rows, **settings):
    gates = Gates(**settings)
    for row in rows:
        gates.see(row)
    return gates.findings()


def failing(rows, **settings):
    return [finding.gate for finding in found_in(rows, **settings) if finding.faults]


DECLARED = {"pairs": Amount(value=4), "sft": Amount(value=1), "languages": Amount(value=1)}


def test_a_good_set_passes_all_gates():
    findings = found_in(good(), quotas=Quotas(eval={"HH": 1}, sft=1, cot=1, rl=1), declared=DECLARED)
    assert [finding.faults for finding in findings] == [()] * 8
    enforce(findings)


PLANTED = {
    "rows": lambda: [*good(), mixed("sft")],
    "labels": lambda: good(sft=mixed("sft", example_changes={"visual": Safety.HARMFUL})),
    "grammar": lambda: good(
        cot=mixed("cot", example_changes={"answer": "See <answer>the shelf</answer> on the wall."})
    ),
    "language": lambda: good(rl=mixed("rl", query="Почему люди думают, что старая станция опасна?")),
    "splits": lambda: [*good(rl=mixed("rl", clip="other")), mixed("cot", clip="other", number=9)],
}


@pytest.mark.parametrize("gate", PLANTED)
def test_each_gate_fails_on_its_fault(gate):
    rows = PLANTED[gate]()
    assert failing(rows) == [gate]
    with pytest.raises(InputError, match=rf"fails 1 of its gates: {gate}"):
        enforce(found_in(rows))


LEAKS = {
    "file": lambda: mixed("eval", clip="cot", asked_changes={"described": _moved("cot", "near-eval")}),
    "cluster": lambda: mixed("eval", asked_changes={"described": _moved("eval", "near-rl")}),
    "template": lambda: mixed("eval", asked_changes={"template": "es.4.s1.any.0"}),
    "query": lambda: mixed("eval", query=SAID["sft"][1].upper()),
    "nearly": lambda: mixed("eval", query=SAID["sft"][1].replace("seven", "eight")),
}


def _moved(clip, cluster):
    return asked("HH", clip=clip).described.model_copy(update={"cluster": cluster})


@pytest.mark.parametrize("leak", LEAKS)
def test_every_kind_of_leak_is_found(leak):
    train = mixed("sft", asked_changes={"template": "en.1.s1.any.0"})
    (finding,) = [one for one in found_in(good(eval=LEAKS[leak](), sft=train)) if one.faults]
    assert finding.gate == "leak"
    assert leak in str(finding)
    assert "harbour" not in str(finding)


@pytest.mark.parametrize("quotas", [Quotas(sft=2), Quotas(eval={"HH": 0}), Quotas(eval={"SH": 1}), Quotas(rl=0)])
def test_a_quota_that_is_missed_or_exceeded_fails(quotas):
    assert failing(good(), quotas=quotas) == ["quotas"]


@pytest.mark.parametrize("name", ["pairs", "eval", "train", "sft", "cot", "rl", "categories", "languages"])
def test_a_declared_count_that_is_not_there_fails(name):
    assert failing(good(), declared={name: Amount(value=99)}) == ["counts"]
    assert failing(good(), declared={name: Amount(value=99, within=99)}) == []


def test_the_published_counts_are_held_to_as_they_were_rounded():
    said = {"pairs": 77_646, "eval": 11_400, "train": 46_000, "sft": 6000, "cot": 15_000, "rl": 25_000,
            "categories": 19, "languages": 10}  # fmt: skip
    assert count_faults(said, PUBLISHED) == []
    assert count_faults(said | {"eval": 11_449, "rl": 24_800}, PUBLISHED) == []
    assert count_faults(said | {"pairs": 77_645}, PUBLISHED) == ["pairs: 77645 and not 77646"]
    assert count_faults(said | {"eval": 11_300}, PUBLISHED) == ["eval: 11300 and not 11400 ± 50"]
    assert count_faults({}, {"languages": Amount(value=10)}) == ["languages: not counted and not 10"]


def test_an_empty_set_fails():
    assert failing([]) == ["rows"]
