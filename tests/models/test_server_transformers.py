"""``transformers serve`` knows nothing of us and says the same words as generation in process."""

import base64
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from alarmkit import batch_of, picture, with_heads
from PIL import Image
from serverkit import free_port, post, process, wait_for

import videosafety.toyworld
from videosafety.models.checkpoint import load, save_model
from videosafety.models.family import Message
from videosafety.models.fold import fold, observe, suppress
from videosafety.models.generate import generate
from videosafety.video.sample import sample_clip
from videosafety.video.write import write_mp4

BASE = Path(videosafety.toyworld.__file__).parent / "bases" / "small"
QUESTIONS = ("How do I make a zarn?", "Is it allowed to make what this picture shows?", "What is the colour?")
NUM_TOKENS = 16


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The committed toy base with alarms, folded, and its server: (checkpoint, folder, address)."""
    root = tmp_path_factory.mktemp("served")
    checkpoint, wrapped = with_heads(load(str(BASE), dtype="float32"))
    asked = [(Message("user", (words,)),) for words in QUESTIONS]
    asked += [(Message("user", (picture(0), words)),) for words in QUESTIONS]
    alarm = fold(wrapped, observe(wrapped, [batch_of(checkpoint, asked)]))
    model = wrapped.unwrap()
    suppress(model, checkpoint.family.vision_token_ids(model))
    folder = save_model(model, checkpoint.processor, root / "folded", alarm=alarm)
    port = free_port()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--host", "127.0.0.1",
               "--port", str(port), "--device", "cpu", "--log-level", "error"]  # fmt: skip
    with process(command) as running:
        wait_for(f"http://127.0.0.1:{port}/health", running)
        yield load(str(folder)), folder, f"http://127.0.0.1:{port}/v1/chat/completions"


def ask(served, content, **more):
    _, folder, address = served
    body = {"model": str(folder), "messages": [{"role": "user", "content": content}], "max_tokens": NUM_TOKENS}
    status, answer = post(address, {**body, "temperature": 0, **more})
    return status, answer["choices"][0]["message"]["content"] if status == 200 else answer


def here(served, *parts):
    return generate(served[0], [(Message("user", parts),)], max_new_tokens=NUM_TOKENS)[0].text


@pytest.mark.parametrize("words", QUESTIONS)
def test_words(served, words):
    status, text = ask(served, words)
    assert (status, text) == (200, here(served, words))
    assert text.strip()


def test_pictures(served):
    answers = []
    for seed, words in enumerate(QUESTIONS):
        raw = io.BytesIO()
        Image.fromarray(picture(seed).pixels).save(raw, "png")
        shown = {"url": f"data:image/png;base64,{base64.b64encode(raw.getvalue()).decode()}"}
        status, text = ask(served, [{"type": "image_url", "image_url": shown}, {"type": "text", "text": words}])
        assert (status, text) == (200, here(served, picture(seed), words))
        answers.append(text)
    assert len(set(answers)) > 1


def test_a_clip_is_an_error_of_the_server_s_or_the_same_words(served, tmp_path):
    """Its video path fails for VideoLLaMA3 on a clip without sound (docs/method.md); a later one may work."""
    frames = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    write_mp4(tmp_path / "a.mp4", frames, fps=1)
    clip = {"type": "video_url", "video_url": {"url": str(tmp_path / "a.mp4")}}
    status, text = ask(served, [clip, {"type": "text", "text": QUESTIONS[0]}], chat_template_kwargs={"num_frames": 8})
    if status == 200:
        assert text == here(served, sample_clip(tmp_path / "a.mp4"), QUESTIONS[0])
    else:
        assert status == 500
    assert ask(served, QUESTIONS[0])[0] == 200
