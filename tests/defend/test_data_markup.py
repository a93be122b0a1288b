import shutil
from pathlib import Path

import pytest
from stagekit import SMALL, quick

from videosafety.core.alarm import TOKENS
from videosafety.core.errors import CheckpointError, InputError, RecordError
from videosafety.core.example import Example, Turn
from videosafety.core.labels import Safety
from videosafety.defend.data.check import check_examples
from videosafety.defend.data.markup import Markup, markup_fault, markup_of
from videosafety.defend.rows import Rows
from videosafety.defend.sft import train_stage
from videosafety.models.checkpoint import load


def example(*turns: str, answer: str = "Yes.", think: str | None = None) -> Example:
    asked = tuple(Turn(role="assistant" if n % 2 else "user", text=text) for n, text in enumerate(turns or ("So?",)))
    return Example(id="a", turns=asked, answer=answer, think=think, visual=Safety.SAFE, textual=Safety.SAFE)


@pytest.fixture(scope="module")
def markup() -> Markup:
    return markup_of(str(SMALL))


def test_a_base_without_alarms_counts_theirs_too(markup: Markup) -> None:
    assert {*TOKENS, "<|im_start|>", "<|im_end|>"} < set(markup.tokens)
    assert not {"", " ", "yes"} & set(markup.tokens)


@pytest.mark.parametrize(("row", "fault"), [
    (example("<|im_end|>"), "turn 1 holds <|im_end|>"),
    (example("a", "b<|im_start|>", "c"), "turn 2 holds <|im_start|>"),
    (example(answer="it is<|im_end|>so"), "its answer holds <|im_end|>"),
    (example(answer=TOKENS[0]), f"its answer holds {TOKENS[0]}"),
    (example(answer=TOKENS[5]), f"its answer holds {TOKENS[5]}"),
    (example(think="x <|im_end|> <|im_end|>"), "its think holds <|im_end|>:"),
    (example(TOKENS[1], answer="<|im_end|>"), f"turn 1 holds {TOKENS[1]}; its answer holds <|im_end|>:"),
])  # fmt: skip
def test_each_field_is_searched(markup: Markup, row: Example, fault: str) -> None:
    assert (markup_fault(row, markup) or "").startswith(fault)
    with pytest.raises(RecordError, match="special tokens of the model"):
        check_examples([row], demand="any", markup=markup)
    assert check_examples([row], demand="any").num_examples == 1


def test_words_and_our_own_tags_are_no_fault_of_this_kind(markup: Markup) -> None:
    assert markup_fault(example("a < b | c > d <im_end>", think="<answer>"), markup) is None
    tags = Markup(("</think>", "<answer>"))  # of a tokenizer that has them as tokens
    assert markup_fault(example(answer="<answer>", think="</think>"), tags) is None
    assert markup_fault(example("<answer>"), tags) is not None
    with pytest.raises(RecordError) as caught:
        check_examples([example(answer="<answer>")], demand="any", markup=tags)
    assert "faults" not in str(caught.value)  # one, not the same twice


def test_a_longer_token_is_named_whole() -> None:
    assert Markup(("<end>", "<end>>")).found("<end>> <end> <end>>") == ["<end>>", "<end>"]


def test_what_is_found_is_what_would_stop_or_spoil_the_run(markup: Markup) -> None:
    """Without the check: an error at the row, an answer that ends half way."""
    checkpoint = load(str(SMALL))
    rows = Rows([example(token) for token in markup.tokens if token not in TOKENS], checkpoint=checkpoint,
                structured=False)  # fmt: skip
    for number in range(len(rows)):
        with pytest.raises(InputError, match="special token"):
            rows[number]
    [row] = [Rows([example(answer="so<|im_end|>so")], checkpoint=checkpoint, structured=False)[0]]
    assert row.encoded.input_ids[-row.encoded.num_target :].tolist().count(checkpoint.tokenizer.eos_token_id) == 2


def test_a_checkpoint_of_a_stage_has_the_same_markup(tmp_path: Path, markup: Markup) -> None:
    made = train_stage("alarm_init", quick("alarm_init", max_steps=1), [example()] * 4, base=str(SMALL),
                       out=tmp_path / "stage")  # fmt: skip
    assert markup_of(str(made.folder)) == markup


def test_a_base_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        markup_of(str(tmp_path / "none"))
    shutil.copytree(SMALL, tmp_path / "base", ignore=shutil.ignore_patterns("token*", "proc*", "pre*"))
    with pytest.raises(CheckpointError, match="the processor cannot be read"):
        markup_of(str(tmp_path / "base"))


def test_no_weights_are_fetched_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: dict[str, object] = {}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda path, **given: asked.update(given) or str(SMALL))
    markup_of("someone/model")
    assert asked["ignore_patterns"] == "*.safetensors"
    load("someone/model")
    assert asked["ignore_patterns"] is None
