"""The read-out client against servers that answer well, badly, late or not at all."""

import json
import math
import socket
import struct
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from videosafety.core.alarm import ALARMS, SIDECAR, VERDICTS
from videosafety.core.errors import CheckpointError, InputError, ServerError
from videosafety.llm.readout import Calibration, Server, read_chat, read_prompt

VISUAL, TEXTUAL = ALARMS.values()
CALIBRATION = Calibration(0.5, {"visual": -1.0, "textual": 0.25})
CLIP = {"type": "video_url", "video_url": {"url": "file:///a.mp4"}}


@contextmanager
def serving(answer):
    """A server on loopback; ``answer(path, body)`` gives (status, bytes)."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, raw = answer(self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{server.server_port}/v1/", "m", timeout_s=5)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def say(answer):
    return lambda path, body: (200, json.dumps(answer).encode())


LOG_PROBS = dict(zip((*VERDICTS["visual"], *VERDICTS["textual"]), (-9.0, -11.0, -8.5, -8.0), strict=True))


def chat_server(asked):
    """Answers as vLLM does, one entry a prompt token, here one token a message part."""

    def answer(path, body):
        asked.append((path, body))
        words = json.dumps(body["messages"])
        told = [None, {"7": {"logprob": -0.5, "rank": 1, "decoded_token": "a"}}]
        told += [{"9": {"logprob": value, "decoded_token": one}} for one, value in LOG_PROBS.items() if one in words]
        return 200, json.dumps({"choices": [{"message": {"content": ""}}], "prompt_logprobs": told}).encode()

    return answer


def expected(modality):
    harmful, safe = (LOG_PROBS[token] for token in VERDICTS[modality])
    return 1 / (1 + math.exp(-((harmful - safe) / 0.5 + CALIBRATION.bias[modality])))


def texts(body):
    contents = [message["content"] for message in body["messages"]]
    parts = [part for content in contents for part in ([content] if isinstance(content, str) else content)]
    return [part if isinstance(part, str) else part.get("text", part["type"]) for part in parts]


def test_chat_puts_each_verdict_right_behind_the_alarm_that_the_template_writes():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [CLIP, {"type": "text", "text": "First?"}]},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Second?"},
    ]
    asked = []
    with serving(chat_server(asked)) as server:
        found = read_chat(server, CALIBRATION, messages)
    assert found == pytest.approx((expected("visual"), expected("textual")))
    assert [path for path, _ in asked] == ["/v1/chat/completions"] * 4
    assert all(body["prompt_logprobs"] == 0 and body["model"] == "m" for _, body in asked)
    first = ["Be brief.", "video_url", "<|visual_harmful|>First?", "Yes.", "Second?"]
    last = ["Be brief.", "video_url", "First?", "Yes.", f"Second?{TEXTUAL}<|textual_safe|>"]
    assert (texts(asked[0][1]), texts(asked[-1][1])) == (first, last)
    assert messages[1]["content"] == [CLIP, {"type": "text", "text": "First?"}]


@pytest.mark.parametrize(("content", "visual", "textual"), [
    ("Why?", f"Why?{VISUAL}<|visual_safe|>", f"Why?{VISUAL}{TEXTUAL}<|textual_safe|>"),
    ([{"type": "text", "text": "Why?"}], f"Why?{VISUAL}<|visual_safe|>", f"Why?{VISUAL}{TEXTUAL}<|textual_safe|>"),
    ([CLIP], "<|visual_safe|>", f"{TEXTUAL}<|textual_safe|>"),
    ([{"type": "text", "text": "Why?"}, CLIP], "<|visual_safe|>", f"{TEXTUAL}<|textual_safe|>"),
])  # fmt: skip
def test_chat_without_words_behind_the_clip_or_without_a_clip(content, visual, textual):
    asked = []
    with serving(chat_server(asked)) as server:
        read_chat(server, CALIBRATION, [{"role": "user", "content": content}])
    assert texts(asked[1][1])[-1] == visual
    assert texts(asked[3][1])[-1] == textual


def test_an_alarm_that_the_checkpoint_does_not_place_is_neither_asked_for_nor_assumed():
    asked = []
    with serving(chat_server(asked)) as server:
        found = read_chat(server, Calibration(0.5, {"textual": 0.25}), [{"role": "user", "content": "Why?"}])
    assert found == (None, pytest.approx(expected("textual")))
    assert [texts(body)[-1] for _, body in asked] == [f"Why?{TEXTUAL}{token}" for token in VERDICTS["textual"]]
    assert read_chat(server, CALIBRATION, [{"role": "system", "content": "Be brief."}]) == (None, None)


def test_a_rendered_prompt_is_cut_at_each_alarm_and_echoed():
    asked = []

    def answer(path, body):
        asked.append((path, body))
        token = next(token for token in LOG_PROBS if body["prompt"].endswith(token))
        tokens, values = ["a", token, "generated"], [None, LOG_PROBS[token], -0.1]
        return 200, json.dumps({"choices": [{"logprobs": {"tokens": tokens, "token_logprobs": values}}]}).encode()

    with serving(answer) as server:
        found = read_prompt(server, CALIBRATION, f"<user>Why?{VISUAL}{TEXTUAL}<end>")
        assert found == pytest.approx((expected("visual"), expected("textual")))
        assert asked[0] == ("/v1/completions", {"model": "m", "prompt": f"<user>Why?{VISUAL}<|visual_harmful|>",
                            "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1})  # fmt: skip
        assert asked[3][1]["prompt"] == f"<user>Why?{VISUAL}{TEXTUAL}<|textual_safe|>"
        assert read_prompt(server, CALIBRATION, "no alarm") == (None, None)


@pytest.mark.parametrize(("answer", "words"), [
    (lambda path, body: (500, b"<html>oops\x1b[31m</html>"), ["500", "oops"]),
    (lambda path, body: (404, b""), ["404"]),
    (lambda path, body: (200, b"<html>"), ["not JSON"]),
    (lambda path, body: (200, b"[" * 100_000), ["not JSON"]),
    (say([]), ["unknown form"]), (say({}), ["unknown form"]), (say({"choices": []}), ["unknown form"]),
    (say({"choices": [{"logprobs": {"tokens": ["a"], "token_logprobs": []}}]}), ["unknown form"]),
    (say({"choices": [{}], "prompt_logprobs": [{"1": {"logprob": -1.0}}]}), ["unknown form"]),
    (say({"choices": [{"text": "Hello"}]}), ["no log-prob of <|visual_harmful|>"]),
    (say({"choices": [{"logprobs": {"tokens": ["a"], "token_logprobs": [-1.0]}}]}), ["no log-prob"]),
    (say({"choices": [{}], "prompt_logprobs": [{"1": {"decoded_token": "<|visual_harmful|>", "logprob": None}}]}),
     ["no log-prob"]),
    (say({"choices": [{}], "prompt_logprobs": [{"1": {"decoded_token": "<|visual_harmful|>", "logprob": -math.inf}}]}),
     ["no log-prob"]),
])  # fmt: skip
def test_a_wrong_answer_is_one_sentence(answer, words):
    with serving(answer) as server, pytest.raises(ServerError) as caught:
        read_chat(server, CALIBRATION, [{"role": "user", "content": "Why?"}])
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\x1b" not in str(caught.value)


def test_no_server_and_no_answer_in_time():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = Server(f"http://127.0.0.1:{free.getsockname()[1]}/v1", "m")
        with pytest.raises(ServerError, match="no answer"):
            read_prompt(nobody, CALIBRATION, VISUAL)
        free.listen()
        silent = Server(nobody.url, "m", timeout_s=0.05)
        with pytest.raises(ServerError, match=r"no answer within 0\.05 s"):
            read_prompt(silent, CALIBRATION, VISUAL)
    with pytest.raises(InputError, match="http"):
        Server("file:///etc/passwd", "m")


def test_words_that_hold_a_token_of_ours_are_refused_before_anything_is_sent():
    nobody = Server("http://127.0.0.1:9/v1", "m")
    for token in (TEXTUAL, "<|textual_safe|>"):
        with pytest.raises(InputError, match="special token"):
            read_chat(nobody, CALIBRATION, [{"role": "user", "content": [{"type": "text", "text": f"a{token}"}]}])


def sidecar(folder, *, metadata=None, biases=(0.5, -2.0), head=None):
    told = {"format": "1", "scale": "0.25", "modalities": "visual textual", "measured": "{}"} | (metadata or {})
    header = head or json.dumps({"__metadata__": told, "bias": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})
    (folder / SIDECAR).write_bytes(struct.pack("<Q", len(header)) + header.encode() + struct.pack("<2f", *biases))
    return folder


def test_the_calibration_is_read_from_the_sidecar(tmp_path):
    assert Calibration.of(sidecar(tmp_path)) == Calibration(0.25, {"visual": 0.5, "textual": -2.0})
    assert Calibration.of(sidecar(tmp_path, metadata={"modalities": "textual"})) == Calibration(0.25, {"textual": -2.0})
    assert Calibration(1e-9, {"visual": 0.0}).probability(-1.0, -9.0, "visual") == 1.0
    assert Calibration(1e-9, {"visual": 0.0}).probability(-9.0, -1.0, "visual") == 0.0


@pytest.mark.parametrize("wrong", [
    {"metadata": {"scale": ""}}, {"metadata": {"scale": "0"}}, {"metadata": {"scale": "nan"}},
    {"metadata": {"format": "2"}}, {"biases": (math.inf, 0.0)}, {"head": "{"}, {"head": "[]"}, {"head": "{}"},
    {"head": '{"__metadata__": {}, "bias": {"data_offsets": [0, 4]}}'},
])  # fmt: skip
def test_a_damaged_sidecar_is_one_sentence(tmp_path, wrong):
    with pytest.raises(CheckpointError, match="sidecar"):
        Calibration.of(sidecar(tmp_path, **wrong))


def test_no_sidecar_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="sidecar"):
        Calibration.of(tmp_path)
    (tmp_path / SIDECAR).write_bytes(b"\xff" * 64)
    with pytest.raises(CheckpointError, match="sidecar"):
        Calibration.of(tmp_path)
