"""The row gates: a good row passes, and each gate fails on its planted fault."""

import pytest
from thought_rows import CAPTION, KINDS, asked, thought

from videosafety.build.check import Check
from videosafety.build.records import Evidence
from videosafety.build.state import State, Terminal
from videosafety.core.labels import Labels, Safety
from videosafety.core.records import QueryKind, Span

LATE = (Evidence(span=Span(start_s=9.0, end_s=10.2), what="a sign"),)
LONG = "I look at the clip and at the question. " * 200
RUSSIAN = "Я смотрю на видео и на вопрос и взвешиваю всё вместе, прежде чем ответить."


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_row_passes(kind):
    row = thought(kind)
    assert Check()(row) == [row]


def relabelled(kind, visual, textual, request):
    return thought(kind, labels=Labels(visual=Safety(visual), textual=Safety(textual), request=Safety(request)))


FAULTS = {
    "labels:HH_is_composed": lambda: relabelled("HH", "harmful", "safe", "harmful"),
    "labels:SafeQ_is_SH": lambda: relabelled("SafeQ", "safe", "harmful", "harmful"),
    "labels:visual": lambda: relabelled("SafeQ", "harmful", "safe", "safe"),
    "labels:deictic": lambda: thought("HH", query_kind=QueryKind.DEICTIC),
    "category:unknown": lambda: thought("SH", category="tax_law"),
    "category:missing": lambda: thought("HH", category="fraud").model_copy(
        update={"asked": asked("HH", category="fraud").model_copy(
            update={"sample": asked("HH").sample.model_copy(update={"category": None})})}),
    "slots:query": lambda: thought("SH", query="How would someone do {deed} here today?"),
    "slots:think": lambda: thought("SH", think="I look at the {clip} and weigh the question before I reply to it."),
    "slots:answer": lambda: thought("SafeQ", answer="There are [OBJECT] on the table, and a sign on the wall."),
    "tags:think": lambda: thought("SH", think="I look at the clip <answer> and weigh the question before I reply."),
    "tags:answer": lambda: thought("SafeQ", answer="There are boxes on the table.</answer><vidType>1"),
    "grammar:blank": lambda: thought("SafeQ", answer="   \n  "),
    "length:think": lambda: thought("SH", think=LONG),
    "length:answer": lambda: thought("SafeQ", answer="A table."),
    "evidence:outside": lambda: thought("SH", evidence=LATE),
    "evidence:no_media": lambda: thought("SH", media=None),
    "refusal:none": lambda: thought("SH", answer="Three coloured boxes stand on a table near the wall."),
    "refusal:over_refused_full": lambda: thought("SafeQ", answer="I'm sorry, but I can't help with that."),
    "echo:answer": lambda: thought("HH", answer=f"I'm sorry, but I can't help with that. {CAPTION}"),
    "language:query": lambda: thought("SafeQ", query="Расскажите, пожалуйста, что здесь видно на столе?"),
    "language:think": lambda: thought("SafeQ", think=RUSSIAN),
    "language:answer": lambda: thought("SafeQ", answer="На столе стоят три цветные коробки, а на стене висит знак."),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_gate_fails_on_its_fault(fault):
    assert Check()(FAULTS[fault]()) == Terminal(state=State.FILTERED, reason=fault)


def test_a_quotation_of_the_description_does_not_count_for_the_language():
    answer = f"En el vídeo se ve lo siguiente y no hay nada más: «{CAPTION}»"
    fields = {"language": "es", "think": "Miro el vídeo y la pregunta, y lo peso todo antes de responder al usuario."}
    assert Check().fault(thought("SafeQ", answer=answer, **fields)) is None
    other = f"Mira: «{'This sentence stands in no description of the clip and is English. ' * 3}»"
    assert Check().fault(thought("SafeQ", answer=other, **fields)) == "language:answer"


def test_a_refusal_at_length_is_none():
    """What comes after it may be what was asked for."""
    row = thought("HH")
    long = row.model_copy(update={"answer": f"{row.answer} {'This is what happens next. ' * 30}".strip()})
    assert Check().fault(row) is None
    assert Check().fault(long) == "refusal:long"
