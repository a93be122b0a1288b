"""The alarms of a served checkpoint, read through a process on loopback, are those of the model in process."""

import base64
import io
import sys
from pathlib import Path

import pytest
from alarmkit import folded, mixed, picture
from PIL import Image
from serverkit import process
from tinyfamilies import tiny_checkpoint

from videosafety.llm.readout import Calibration, Server, read_chat, read_prompt
from videosafety.models.checkpoint import load, save
from videosafety.models.family import Message
from videosafety.models.generate import generate

SCRIPT = Path(__file__).with_name("serving_prompt_logprobs.py")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A folded checkpoint, its folder, and a server of it that knows nothing of us."""
    root = tmp_path_factory.mktemp("served")
    made = folded(tiny_checkpoint("videollama3", root / "tiny", tied=True), mixed())
    folder = save(made.checkpoint, root / "folded")
    with process([sys.executable, str(SCRIPT), str(folder)]) as running:
        port = int(running.stdout.readline())
        yield load(str(folder)), folder, Server(f"http://127.0.0.1:{port}/v1", "folded", timeout_s=60)


def url(shown):
    raw = io.BytesIO()
    Image.fromarray(shown.pixels).save(raw, "png")
    data = base64.b64encode(raw.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def test_words_and_pictures_by_chat(served):
    checkpoint, folder, server = served
    words = "Is making a zarn allowed?"
    cases = [
        ([{"role": "user", "content": words}], (Message("user", (words,)),)),
        ([{"role": "user", "content": [url(picture(1)), {"type": "text", "text": words}]}],
         (Message("user", (picture(1), words)),)),
        ([{"role": "user", "content": [url(picture(2)), url(picture(3))]}, {"role": "assistant", "content": "A dax."},
          {"role": "user", "content": words}],
         (Message("user", (picture(2), picture(3))), Message("assistant", ("A dax.",)), Message("user", (words,)))),
    ]  # fmt: skip
    here = [answer.alarm for answer in generate(checkpoint, [ours for _, ours in cases], max_new_tokens=1)]
    there = [read_chat(server, Calibration.of(folder), messages) for messages, _ in cases]
    assert len(set(here)) == len(here)
    for ours, theirs in zip(here, there, strict=True):
        assert theirs == pytest.approx(ours, abs=1e-4)


def test_a_rendered_prompt_by_completion(served):
    checkpoint, folder, server = served
    conversation = (Message("system", ("Be brief.",)), Message("user", ("Is making a zarn allowed?",)))
    prompt = checkpoint.family.render(checkpoint.processor, conversation)
    [answer] = generate(checkpoint, [conversation], max_new_tokens=1)
    found = read_prompt(server, Calibration.of(folder), prompt)
    assert found == pytest.approx(answer.alarm, abs=1e-4)
    wrong = Calibration(2 * Calibration.of(folder).scale, Calibration.of(folder).bias)
    assert read_prompt(server, wrong, prompt) != pytest.approx(answer.alarm, abs=1e-4)
