"""An annotator on loopback in a process of its own that knows nothing of videosafety, and its handle.

    python annotator_server.py PORT LOG KIND...

A question is known by the hash of its model, words and pictures. What it meets follows from that hash and from the
kinds of trouble that the server was started with: ``slow``, ``busy`` (429 with Retry-After for every fifth request),
``refuse`` and ``invalid`` (a tenth each), ``outside`` (evidence after the end), ``untold`` (no usage), ``echo`` (says
the key back), ``noschema`` (400 to a response_format), ``late`` (never answers), ``half`` (each question is first
answered by a broken body, and charged) and ``die=N`` (SIGKILL to itself in place of the N-th answer). Each request is a
line of LOG; a line with ``usd`` is what the server charges.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

USD_INPUT, USD_OUTPUT = 2.0, 10.0  # a million tokens
TOKENS_PER_PICTURE = 85


class AnnotatorServer:
    """A running process; ``start`` after ``kill`` uses the same port."""

    def __init__(self, log: Path, *kinds: str):
        self.log, self.port = log, 0
        self.start(*kinds)

    def start(self, *kinds):
        command = [sys.executable, __file__, str(self.port), str(self.log), *kinds]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def start_again_when_dead(self, *kinds, after_s=0.3):
        def wait():
            self.process.wait(timeout=60)
            time.sleep(after_s)
            self.start(*kinds)

        threading.Thread(target=wait, daemon=True).start()

    def model(self, name):
        return f"http://127.0.0.1:{self.port}/v1#{name}"

    def lines(self, what="asked"):
        found = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return [line for line in found if what in line]

    def charged(self):
        return sum(line["usd"] for line in self.lines("usd"))

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=60)


def price(num_input, num_output):
    return (num_input * USD_INPUT + num_output * USD_OUTPUT) / 1e6


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = body["messages"][0]["content"]
        words = "\n".join(part["text"] for part in parts if part["type"] == "text")
        pictures = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        question = hashlib.sha256(repr([body["model"], words, pictures]).encode()).hexdigest()
        server = self.server
        with server.lock:
            server.count += 1
            server.under_way += 1
            number, seen = server.count, server.seen[question]
            server.seen[question] += 1
            server.log(asked=question, under_way=server.under_way, model=body["model"], fields=sorted(body),
                       pictures=len(pictures))  # fmt: skip
        try:
            self.meet(body, words, pictures, question, number, seen)
        finally:
            with server.lock:
                server.under_way -= 1

    def meet(self, body, words, pictures, question, number, seen):
        kinds = self.server.kinds
        if "slow" in kinds:
            time.sleep(0.01)
        if "late" in kinds:
            time.sleep(3600)
        if "wrong_key" in kinds:
            return self.say(401, {"error": {"message": f"wrong key {self.headers['Authorization']}"}})
        if "noschema" in kinds and "response_format" in body:
            return self.say(400, {"error": {"message": "response_format is not supported"}})
        if "500" in kinds:
            return self.say(500, {"error": {"message": "out of order"}})
        if "wait" in kinds:
            return self.say(429, {"error": {"message": "slow down"}}, **{"Retry-After": "3600"})
        if "filtered_prompt" in kinds:
            return self.say(400, {"error": {"code": "content_filter", "message": "the prompt was filtered"}})
        if "busy" in kinds and number % 5 == 0:
            return self.say(429, {"error": {"message": "slow down"}}, **{"Retry-After": "0"})
        told, refusal = self.answer(body, words, pictures, question), None
        if "refuse_always" in kinds or ("refuse" in kinds and int(question[0:2], 16) < 26):
            told, refusal = "", "I will not do that."
        elif "words" in kinds:
            told = "I'm sorry, but I can't help with that."
        elif "invalid_always" in kinds or ("invalid" in kinds and int(question[2:4], 16) < 26):
            told = "Here you are: " + told[: len(told) // 2]
        num_input, num_output = len(words) // 4 + TOKENS_PER_PICTURE * len(pictures), max(1, len(told) // 4)
        if "half" in kinds and (seen == 0 or "half_always" in kinds):
            with self.server.lock:
                self.server.log(lost=question, usd=price(num_input, num_output))
            return self.say(200, {"choices": []}, more=900)
        message = {"role": "assistant", "content": told, "refusal": refusal}
        reason = "content_filter" if "filter" in kinds else "length" if "cut" in kinds else "stop"
        answer = {"choices": [{"index": 0, "finish_reason": reason, "message": message}]}
        if "untold" not in kinds:
            answer["usage"] = {"prompt_tokens": num_input, "completion_tokens": num_output}
        with self.server.lock:
            if self.server.die and self.server.answers + 1 == self.server.die:
                os.kill(os.getpid(), signal.SIGKILL)
            self.server.answers += 1
            self.server.log(answered=question, usd=price(num_input, num_output))
            self.say(200, answer)

    def answer(self, body, words, pictures, question):
        """A description by what the pictures are, on which models mostly agree; other words get a caption alone."""
        if "echo" in self.server.kinds:
            return json.dumps({"caption": f"I saw {self.headers['Authorization']}"})
        if "`visual`" not in words:
            return json.dumps({"caption": f"answer {question[:8]}"})
        shown = int(hashlib.sha256("".join(pictures).encode()).hexdigest()[:8], 16)
        own = int(question[8:12], 16)
        harmful = (shown % 2 == 0) != (own % 8 == 0)
        category = f"rule_{shown % 3 + 1:02}" if own % 5 else "rule_09"
        end = 99.0 if "outside" in self.server.kinds and "broke this rule" not in words else 0.2
        end = 99.0 if "outside_always" in self.server.kinds else end
        moment = {"span": {"start_s": 0.0, "end_s": end}, "what": "a shape\u202e\x07 moves"}
        return json.dumps({
            "caption": f"Shapes {shown}\x1b[31m move\nabout.",
            "visual": "harmful" if harmful else "safe",
            "category": category if harmful else None,
            "evidence": [moment] if len(pictures) > 1 else [],
        })  # fmt: skip

    def say(self, status, answer, more=0, **headers):
        raw = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw) + more))
        self.end_headers()
        self.wfile.write(raw)
        self.wfile.flush()

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port, log, kinds):
        super().__init__(("127.0.0.1", port), Handler)
        self.path, self.kinds = Path(log), kinds
        self.die = next((int(kind[4:]) for kind in kinds if kind.startswith("die=")), 0)
        self.lock, self.count, self.answers, self.under_way, self.seen = threading.Lock(), 0, 0, 0, Counter()

    def log(self, **line):
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    server = Server(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
