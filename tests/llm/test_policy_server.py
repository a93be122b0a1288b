"""The client of a served policy against answers that are right, wrong, hostile, late or not there."""

import json
import math
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from videosafety.core.errors import ServerError
from videosafety.llm import transport
from videosafety.llm.policy_server import Ask, ask, checksums, label, reload, set_label
from videosafety.llm.readout import Server
from videosafety.llm.transport import Missing, Unavailable, call

MESSAGES = [{"role": "user", "content": [{"type": "text", "text": "What is shown?"}]}]
REQUEST = Ask(
    "p7", MESSAGES, num=2, max_tokens=3, temperature=0.5, seed=11, stop="</textType>", ends=(5,), never=(8, 9)
)


@contextmanager
def serving(answer, *, timeout_s=5.0):
    """A server on loopback; ``answer(method, path, body)`` gives (status, bytes), or None to hang up."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def do_GET(self):
            self.answer(None)

        def answer(self, body):
            said = answer(self.command, self.path, body)
            if said is None:
                return
            self.send_response(said[0])
            self.send_header("Content-Length", str(said[2] if len(said) > 2 else len(said[1])))
            self.end_headers()
            for part in said[1] if isinstance(said[1], list) else [said[1]]:
                self.wfile.write(part)
                self.wfile.flush()
                time.sleep(0.05 if isinstance(said[1], list) else 0)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *args: None
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{server.server_port}/v1", "policy", timeout_s=timeout_s, key="k")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def choice(index=0, ids=(3, 4, 5), logprobs=(-0.5, -1.5, -0.25), reason="stop"):
    content = [{"token": f"token_id:{i}", "logprob": value, "top_logprobs": []}
               for i, value in zip(ids, logprobs, strict=False)]  # fmt: skip
    return {"index": index, "token_ids": list(ids), "logprobs": {"content": content}, "finish_reason": reason,
            "message": {"content": "hostile " * 10}}  # fmt: skip


def say(*choices, **other):
    told = {"prompt_token_ids": [1, 2], "choices": list(choices)} | other
    return lambda *_: (200, json.dumps(told).encode())


def test_everything_that_sampling_depends_on_is_said_and_choices_come_in_order():
    asked = []

    def answer(method, path, body):
        asked.append((method, path, body))
        return say(choice(1, ids=(7,), logprobs=(-2.0,), reason="length"), choice(0))()

    with serving(answer) as server:
        found = ask(server, REQUEST)
    assert found.prompt_ids == (1, 2)
    assert [(one.ids, one.logprobs, one.ended) for one in found.choices] == [
        ((3, 4, 5), (-0.5, -1.5, -0.25), True), ((7,), (-2.0,), False)]  # fmt: skip
    [(method, path, body)] = asked
    assert (method, path, body["model"], body["messages"]) == ("POST", "/v1/chat/completions", "policy", MESSAGES)
    assert body.items() >= {
        "n": 2, "seed": 11, "temperature": 0.5, "max_completion_tokens": 3, "top_p": 1.0, "top_k": -1, "min_p": 0.0,
        "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "logprobs": True,
        "return_token_ids": True, "include_stop_str_in_output": True, "skip_special_tokens": False,
    }.items()  # fmt: skip
    assert (body["stop"], body["stop_token_ids"]) == (["</textType>"], [5])
    assert body["logit_bias"] == {"8": -100.0, "9": -100.0}


def test_probable_tokens_are_told_by_id():
    told = choice(0)
    for entry in told["logprobs"]["content"]:
        entry["top_logprobs"] = [{"token": "token_id:3", "logprob": -0.5}, {"token": "token_id:9", "logprob": -3.0}]
    with serving(say(told)) as server:
        found = ask(server, Ask("p", MESSAGES, num=1, max_tokens=3, temperature=1.0, seed=0, top=2))
    assert found.choices[0].tops[0] == {3: -0.5, 9: -3.0}


two = choice(1)


@pytest.mark.parametrize(("answer", "words"), [
    (say(choice(0)), "1 choices came back and 2 were asked for"),
    (say(choice(0), two, choice(2)), "3 choices came back and 2 were asked for"),
    (say(choice(0), choice(0)), "2 choices came back and 2 were asked for"),
    (say(choice(0), two, prompt_token_ids=None), "no prompt token ids"),
    (say(choice(0), two, prompt_token_ids=[True]), "no prompt token ids"),
    (say(3), "no choices"), (lambda *_: (200, b"[]"), "no prompt token ids"), (lambda *_: (200, b""), "no prompt"),
    (lambda *_: (200, b"<html>\x1b[31m"), "not JSON"), (lambda *_: (200, b"[" * 100_000), "not JSON"),
    (say(choice(0) | {"logprobs": None}, two), "no log-probs"),
    (say(choice(0) | {"logprobs": {"content": [{"token": "a", "logprob": -1.0}] * 3}}, two), "no log-probs"),
    (say(choice(0) | {"token_ids": None}, two), "no token ids"),
    (say(choice(0) | {"token_ids": [3, 4, 6]}, two), "part at token 2"),
    (say(choice(0, ids=(3, 4, 5), logprobs=(-0.5, -1.0)), two), "part at token 2"),
    (say(choice(0, logprobs=(-0.5, math.nan, -1.0)), two), "log-prob of token 1 of a completion is nan"),
    (say(choice(0, logprobs=(-math.inf, -0.5, -1.0)), two), "log-prob of token 0 of a completion is -inf"),
    (say(choice(0, logprobs=(-9999.0, -0.5, -1.0)), two), "is -9999"),
    (say(choice(0, logprobs=(-0.5, -0.5, 7.5)), two), "is 7.5"),
    (say(choice(0, ids=(), logprobs=()), two), "0 tokens, asked for 1 to 3"),
    (say(choice(0, ids=(3,) * 4, logprobs=(-1.0,) * 4), two), "4 tokens, asked for 1 to 3"),
    (say(choice(0, ids=(3, 9, 5)), two), "token id 9, which may not be sampled"),
])  # fmt: skip
def test_a_wrong_answer_is_one_sentence_that_names_the_prompt_and_is_not_asked_for_again(answer, words):
    if isinstance(answer, tuple):
        answer = say(*answer)
    with serving(answer) as server, pytest.raises(ServerError) as caught:
        ask(server, REQUEST)
    assert not isinstance(caught.value, Unavailable)
    assert words in str(caught.value), caught.value
    assert "not JSON" in words or "p7" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_an_endless_answer_is_cut_and_a_dripping_one_is_late(monkeypatch):
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 2**16)
    text = json.dumps({"choices": [choice(0) | {"message": {"content": "a" * 2**20}}]}).encode()
    with serving(lambda *_: (200, text)) as server, pytest.raises(ServerError, match="longer than 65536 bytes"):
        ask(server, REQUEST)
    drip = (200, [b" "] * 20, 20)
    with serving(lambda *_: drip, timeout_s=0.3) as server, pytest.raises(Unavailable, match=r"within 0\.3 s"):
        ask(server, REQUEST)


@pytest.mark.parametrize(("answer", "words"), [
    (lambda *_: (500, b"<html>oops\x1b[31m"), "answered 500: <html>oops"), (lambda *_: (503, b""), "503"),
    (lambda *_: (429, b"busy"), "429"), (lambda *_: None, "no answer"),
    (lambda *_: (200, b'{"choices": [', 10_000), "no answer"),
    (say(choice(0, reason="abort"), two), "ended with 'abort'"),
    (say(choice(0, reason=None), two), "ended with 'None'"),
])  # fmt: skip
def test_what_may_pass_is_told_apart(answer, words):
    with serving(answer, timeout_s=1.0) as server, pytest.raises(Unavailable) as caught:
        ask(server, REQUEST)
    assert words in str(caught.value)
    with serving(lambda *_: (400, b"too long")) as server, pytest.raises(ServerError, match="400: too long") as refused:
        ask(server, REQUEST)
    assert not isinstance(refused.value, Unavailable)


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable, match=r"no answer.*start the server"):
            ask(Server(f"http://127.0.0.1:{free.getsockname()[1]}/v1", "m"), REQUEST)


def test_a_reload_names_the_folder_and_empties_the_caches():
    asked = []

    def answer(method, path, body):
        asked.append((method, path, body))
        return (404, b"") if path == "/reset_mm_cache" else (200, b"")

    with serving(answer) as server:
        reload(server, Path("shared/weights-3"))
    assert asked[0] == ("POST", "/collective_rpc",
                        {"method": "reload_weights", "kwargs": {"weights_path": "shared/weights-3"}})  # fmt: skip
    assert [path for _, path, _ in asked[1:]] == ["/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache"]
    with serving(lambda *_: (404, b"")) as server, pytest.raises(ServerError, match="VLLM_SERVER_DEV_MODE=1"):
        reload(server, Path("shared"))
    with (
        serving(lambda *_: (200, b'{"success": false}')) as server,
        pytest.raises(Unavailable, match="cache of prompts"),
    ):
        reload(server, Path("shared"))


def test_what_a_server_tells_of_its_weights_and_what_an_older_one_does_not():
    held = {}

    def answer(method, path, body):
        if path == "/update_weight_version":
            held["label"] = body["new_version"]
            return 200, b'{"success": true}'
        told = {"/weight_info": {"weight_version": held.get("label")}, "/weight_checker": {"checksums": {"a": "0f"}}}
        return 200, json.dumps(told[path]).encode()

    with serving(answer) as server:
        assert label(server) == "None"
        assert set_label(server, "3-ab")
        assert label(server) == "3-ab"
        assert checksums(server) == {"a": "0f"}
    with serving(lambda *_: (404, b"")) as server:
        assert (set_label(server, "3-ab"), label(server), checksums(server)) == (False, None, None)
        with pytest.raises(Missing):
            call(server, "/models", method="GET")
