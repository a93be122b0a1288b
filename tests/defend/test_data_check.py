import builtins
import logging
from pathlib import Path
from typing import Any

import pytest
from data_fixtures import SECRET, clip, picture, record, row, said, source, tagged, talk, write_rows

from videosafety.core.errors import InputError, RecordError
from videosafety.core.example import Example, Turn
from videosafety.core.labels import Safety
from videosafety.core.records import Image, Video
from videosafety.core.store import sha256_file
from videosafety.defend.data.check import check_examples, check_sources, demands
from videosafety.defend.data.mix import mix
from videosafety.defend.data.raw import Place
from videosafety.defend.stage import StageConfig


def example(id: str = "a", media: tuple[Video | Image, ...] = (), **change: Any) -> Example:
    turns = (Turn(role="user", text=f"{SECRET}?", media=media),)
    fields: dict[str, Any] = {"answer": "No.", "think": "x", "visual": Safety.SAFE, "textual": Safety.SAFE}
    return Example(id=id, turns=turns, **fields | change)


def faults(examples: list[Example], **options: Any) -> str:
    with pytest.raises(RecordError) as caught:
        check_examples(examples, **{"demand": "thinking"} | options)
    return said(caught.value)


def test_good_data_is_summed_up(tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4")
    picture(tmp_path / "b.png")
    safety = write_rows(
        tmp_path / "x.jsonl",
        row(conversations=talk("<video>?", tagged())),
        row(id="b", language="zh", safety_labels={"visual": 1, "textual": 1}),
        row(id="c", video=None, conversations=talk("?"), safety_labels={"textual": 1}),
    )
    general = write_rows(tmp_path / "y.jsonl", row(video=None, image="b.png", conversations=talk("<image>?")))
    mixture, summary = check_sources(
        [source(safety, name="x"), source(general, name="y", labels="none")], seed=0, demand="labels"
    )
    assert len(mixture.examples) == summary.num_examples == 4
    assert summary.num_by_source == {"x": 3, "y": 1}
    assert summary.num_by_labels == {"HS": 1, "HH": 1, "-H": 1, "--": 1}
    assert summary.num_by_language == {"none": 3, "zh": 1}
    assert (summary.num_with_media, summary.num_without_media, summary.num_media_files) == (3, 1, 2)
    assert (summary.num_visual_masked, summary.num_textual_masked, summary.num_with_thinking) == (2, 1, 1)


def test_everything_wrong_is_in_one_error_with_its_line(tmp_path: Path) -> None:
    clip(tmp_path / "good.mp4")
    picture(tmp_path / "b.png")
    (tmp_path / "broken.mp4").write_bytes(b"no media at all")
    (tmp_path / "empty.mp4").write_bytes(b"")
    target = talk("<video>?", tagged())
    path = write_rows(
        tmp_path / "x.jsonl",
        row(id="0", video="good.mp4", conversations=target),
        row(id="1", video="missing.mp4", conversations=target),
        row(id="2", video="broken.mp4", conversations=target),
        row(id="3", video="empty.mp4", conversations=target),
        row(id="4", video="b.png", conversations=target),
        row(id="5", video="good.mp4"),
        row(id="0", video="good.mp4", conversations=target),
        b"{",
    )
    with pytest.raises(RecordError) as caught:
        check_sources([source(path)], seed=0, demand="thinking")
    message = said(caught.value)
    assert message.startswith("7 faults in the training data")
    for line, words in {
        2: "(missing)", 3: "(corrupt)", 4: "(empty)", 5: "is listed as a video but is an image", 6: "needs think",
        7: "already on line 1", 8: "not valid JSON",
    }.items():  # fmt: skip
        [named] = [one for one in message.splitlines() if one.strip().startswith(f"{path}:{line}:")]
        assert words in named
    with pytest.raises(RecordError, match="2 faults"):
        check_sources([source(path)], seed=0, demand="any", with_media=False)


def test_a_file_that_changed_is_found(tmp_path: Path) -> None:
    digest = sha256_file(clip(tmp_path / "a.mp4"))
    good = example(media=(Video(path="a.mp4", sha256=digest),))
    assert check_examples([good], demand="thinking", folder=tmp_path).num_media_files == 1
    other = example(media=(Video(path="a.mp4", sha256="0" * 64),))
    assert "its SHA-256 differs" in faults([other], folder=tmp_path)


@pytest.mark.parametrize(
    ("demand", "change", "missing"),
    [
        ("thinking", {"think": None}, "needs think, which"),
        ("thinking", {"think": " "}, "needs think, which"),
        ("thinking", {"visual": None}, "needs visual, which"),
        ("thinking", {"textual": None, "think": None}, "needs textual and think, which"),
        ("reward", {"request": None}, "needs request, which"),
        ("reward", {"visual": None}, "needs visual, which"),
        ("reward", {"textual": None, "language": None}, "needs textual and language, which"),
    ],
)
def test_a_demand_on_every_row(demand: str, change: dict[str, Any], missing: str) -> None:
    whole: dict[str, Any] = {"request": Safety.SAFE, "language": "en"}
    bad = example(**{**whole, **change})
    assert missing in faults([example("b", **whole), bad], demand=demand)
    for other in ("any", "labels"):
        assert check_examples([example("b"), bad], demand=other).num_examples == 2


def test_rows_that_meet_the_demand_of_a_reward_are_samples() -> None:
    good = example(request=Safety.SAFE, language="en", think=None)
    assert check_examples([good], demand="reward").num_examples == 1
    assert good.sample().reference == good.answer


@pytest.mark.parametrize(("configs", "demand"), [
    ([], "any"),
    ([StageConfig.of("alarm_init")], "any"),
    ([StageConfig.of("at_sft")], "labels"),
    ([StageConfig.of("at_sft", modalities=())], "any"),
    ([StageConfig.of("at_sft", lambda_visual=0.0, modalities=("visual",))], "any"),
    ([StageConfig.of("at_sft", lambda_visual=0.0)], "labels"),
    ([StageConfig.of("alarm_init", lambda_textual=0.1)], "labels"),
    ([StageConfig.of("cot")], "thinking"),
    ([StageConfig.of("cot", structured=False)], "any"),
    ([StageConfig.of("at_sft", structured=True)], "thinking"),
    ([StageConfig.of("alarm_init"), StageConfig.of("at_sft")], "labels"),
    ([StageConfig.of("alarm_init", structured=True), StageConfig.of("at_sft")], "thinking"),
])  # fmt: skip
def test_what_rows_need_follows_the_knobs_and_not_the_name(configs: list[StageConfig], demand: str) -> None:
    assert demands(*configs) == demand


def test_labels_are_needed_somewhere_where_alarms_learn() -> None:
    bare = example(visual=None, textual=None)
    with pytest.raises(InputError, match="no example has a label"):
        check_examples([bare], demand="labels")
    assert check_examples([bare, example("b", visual=None)], demand="labels").num_by_labels == {"--": 1, "-S": 1}
    assert check_examples([bare], demand="any").num_textual_masked == 1
    with pytest.raises(InputError, match="nothing to train on"):
        check_examples([], demand="any")


def test_ids_that_stand_twice_and_tags_in_fields() -> None:
    assert "examples:2: record 'a': this id is already at examples:1" in faults([example(), example()])
    places = [Place("x.jsonl", 7), Place("x.jsonl", 3)]
    message = faults([example("a"), example("b", answer="x</answer>")], places=places)
    assert message.startswith("x.jsonl:3: record 'b': its answer holds tags of the response grammar (missing_tag)")
    assert "</think>" in faults([example(think="</think>")])
    assert check_examples([example(think="<answer> is a tag")], demand="thinking").num_with_thinking == 1


def test_faults_are_bounded_and_counted() -> None:
    message = faults([example(f"r{number}", think=None) for number in range(1000)])
    assert message.startswith("1000 faults")
    assert message.endswith("and 980 more")
    assert len(message) < 5000


def test_a_shared_file_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from videosafety.defend.data import media

    clip(tmp_path / "a.mp4")
    seen: list[object] = []
    real = media.probe
    monkeypatch.setattr(media, "probe", lambda path, **options: (seen.append(path), real(path, **options))[1])
    examples = [example(f"r{n}", media=(Video(path="a.mp4"),)) for n in range(5)]
    check_examples(examples, demand="thinking", folder=tmp_path)
    assert len(seen) == 1


def test_nothing_harmful_is_printed_or_logged(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The released code printed harmful text."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(builtins, "print", lambda *_, **__: pytest.fail("something was printed"))
    clip(tmp_path / "a.mp4")
    good = write_rows(tmp_path / "x.jsonl", row(), row(id="b", safety_labels={"visual": 0, "textual": 0}))
    check_sources([source(good)], seed=0, demand="labels")
    bad = [
        row(id="c", textual_label=SECRET * 9), row(id="d", conversations=talk(SECRET, f"<think>{SECRET}")),
        row(id="e", conversations=[{"from": SECRET * 9, "value": SECRET}]), row(id="f", safety_labels=SECRET),
        f'{{"id": "g", "conversations": "{SECRET}'.encode(),
        row(id="h", conversations=[{"from": "human", "value": SECRET, SECRET * 9: 1}]),
    ]  # fmt: skip
    with pytest.raises(RecordError) as caught:
        check_sources([source(write_rows(tmp_path / "y.jsonl", *bad))], seed=0, demand="thinking")
    assert said(caught.value).startswith("6 faults")
    assert capsys.readouterr() == ("", "")
    assert SECRET not in caplog.text


def test_labels_are_fields_of_their_own_from_file_to_example(tmp_path: Path) -> None:
    """The released code packs labels and positions into the target; here they never enter any text."""
    given = row(conversations=talk("<video>?$1$1", "No."), safety_labels=None)
    [found] = mix([source(write_rows(tmp_path / "x.jsonl", given), legacy_labels=True)], seed=0).examples
    assert (found.visual, found.textual) == (Safety.HARMFUL, Safety.HARMFUL)
    assert found.target(structured=False) == "No."
    assert [turn.text for turn in found.turns] == ["?"]


def test_our_records_pass_as_they_are(tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4")
    path = write_rows(tmp_path / "x.jsonl", record(), record("b", textual="harmful", think="x"))
    _, summary = check_sources([source(path, kind="records")], seed=0, demand="any")
    assert summary.num_by_labels == {"HS": 1, "HH": 1}
