"""A server process on loopback that really samples from a tiny checkpoint and speaks vLLM's calls, and its handle.

    python policyserver.py FOLDER      keeps a stock model in memory and forks a serving process for each line on stdin

The fork is what a test kills: one that starts anew has the weights of FOLDER again, at once and on the same port. The
serving half imports nothing of videosafety. ``POST /test`` changes what the server does wrong, ``GET /test`` counts.
"""

import base64
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODEL = PROCESSOR = None
SUPPRESSED = -100.0


class PolicyServer:
    """A running process; ``url`` up to ``/v1``."""

    def __init__(self, folder):
        quiet = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.process = subprocess.Popen([sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, text=True,
                                        stdout=subprocess.PIPE, env=quiet | {"HF_HUB_OFFLINE": "1"})  # fmt: skip
        self.port = 0
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self):
        """Fork a serving process, with the weights of the start."""
        self.process.stdin.write(f"{self.port}\n")
        self.process.stdin.flush()
        self.pid, self.port = map(int, self.process.stdout.readline().split())
        assert self.port, "the server did not start"

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    def set(self, **modes):
        self._call(json.dumps(modes).encode())

    def state(self):
        return self._call(None)

    def _call(self, data):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/test", data=data, timeout=60) as answer:
            return json.loads(answer.read())

    def close(self):
        self.kill()
        self.process.kill()
        self.process.wait(timeout=60)
        self.process.stdin.close()
        self.process.stdout.close()


class Served:
    """Stock model, state and modes of the serving process."""

    def __init__(self):
        self.lock = threading.Lock()
        self.modes, self.asked, self.label, self.calls = {}, [], None, []

    def chat(self, body):
        import torch

        self.asked.append(body["messages"][-1]["content"][-1].get("text"))
        if self.modes.get("kill_at") == len(self.asked):
            os.kill(os.getpid(), signal.SIGKILL)
        with self.lock, torch.inference_mode():
            inputs = encode(body, self.modes)
            choices = sample(body, inputs, self.modes)
        prompt = inputs["input_ids"][0].tolist()
        return {"object": "chat.completion", "model": body["model"], "prompt_token_ids": prompt, "choices": choices}

    def collective_rpc(self, body):
        import torch
        from safetensors.torch import load_file

        assert body["method"] == "reload_weights"
        if not self.modes.get("ignore_reload"):
            files = sorted(Path(body["kwargs"]["weights_path"]).glob("model*.safetensors"))
            found = type(MODEL).from_pretrained(files[0].parent).state_dict()
            assert all(load_file(file) for file in files)
            with self.lock, torch.no_grad():
                for name, tensor in MODEL.state_dict().items():
                    tensor.copy_(found[name])
        return {"results": [None]}

    def checksums(self):
        hashed = {name: hashlib.sha256(t.numpy().tobytes()).hexdigest() for name, t in MODEL.state_dict().items()}
        return {"checksums": hashed}


def encode(body, modes):
    images, videos = [], []
    for message in body["messages"]:
        for part in message["content"]:
            if part["type"] == "image_url":
                images.append(still(part.pop("image_url")["url"].partition(",")[2]))
                part["type"] = "image"
            elif part["type"] == "video_url":
                head, *frames = part.pop("video_url")["url"].split(",")
                assert head == "data:video/jpeg;base64"
                videos.append([still(frame) for frame in frames])
                part["type"] = "video"
    text = PROCESSOR.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
    media = {"images": images} if images else {}
    if videos:
        media |= clips(videos, body["media_io_kwargs"]["video"], modes)
    return PROCESSOR(text=[text], return_tensors="pt", **media)


def clips(videos, told, modes):
    import numpy as np
    from transformers.video_utils import VideoMetadata

    assert (told["num_frames"], told["do_sample_frames"]) == (-1, False)
    if modes.get("sample_again"):
        videos = [frames[::2] for frames in videos]
        told = told | {"frames_indices": told["frames_indices"][::2]}
    about = VideoMetadata(total_num_frames=told["total_num_frames"], fps=told["fps"], duration=told["duration"],
                          frames_indices=told["frames_indices"])  # fmt: skip
    stacks = [np.stack([np.asarray(frame) for frame in frames]) for frames in videos]
    return {"videos": stacks, "video_metadata": [about] * len(stacks), "do_sample_frames": False}


def still(encoded):
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")


def sample(body, inputs, modes):
    """n choices, one forward pass a token over all of them."""
    import torch

    num, start = body["n"], inputs["input_ids"].shape[1]
    batch = {name: torch.cat([tensor] * num) for name, tensor in inputs.items()}
    generators = [torch.Generator().manual_seed(body["seed"] + i) for i in range(num)]
    choices = [{"index": i, "token_ids": [], "logprobs": {"content": []}, "finish_reason": None} for i in range(num)]
    while any(one["finish_reason"] is None for one in choices):
        logits = MODEL(**batch).logits[:, -1].float()
        biased = logits.clone()
        for id_, bias in body["logit_bias"].items():
            biased[:, int(id_)] += bias
        logp = (biased / body["temperature"]).log_softmax(-1)
        told = logits.log_softmax(-1) if modes.get("raw") else logp
        told = told.round(decimals=modes.get("digits", 9))
        told = (told + modes.get("noise", 0.0) * torch.randn_like(told)).clamp(max=0.0)
        ids = torch.stack([row.exp().multinomial(1, generator=g) for row, g in zip(logp, generators, strict=True)])
        for choice, id_, row in zip(choices, ids[:, 0].tolist(), told, strict=True):
            if choice["finish_reason"] is None:
                extend(choice, id_, row, body)
        batch["input_ids"] = torch.cat([batch["input_ids"], ids], dim=1)
        for name in ("attention_mask", "mm_token_type_ids"):
            if name in batch:
                fill = torch.full_like(ids, 1 if name == "attention_mask" else 0)
                batch[name] = torch.cat([batch[name], fill], dim=1)
        assert batch["input_ids"].shape[1] <= start + body["max_completion_tokens"]
    return choices


def extend(choice, id_, told, body):
    top = told.topk(body["top_logprobs"]) if body["top_logprobs"] else ([], [])
    tops = [{"token": f"token_id:{int(i)}", "logprob": float(v)} for v, i in zip(*top, strict=True)]
    choice["token_ids"].append(id_)
    entry = {"token": f"token_id:{id_}", "logprob": float(told[id_]), "top_logprobs": tops}
    choice["logprobs"]["content"].append(entry)
    text = PROCESSOR.tokenizer.decode(choice["token_ids"])
    if id_ in body["stop_token_ids"] or any(stop in text for stop in body.get("stop", [])):
        choice["finish_reason"] = "stop"
    elif len(choice["token_ids"]) == body["max_completion_tokens"]:
        choice["finish_reason"] = "length"
    choice["message"] = {"role": "assistant", "content": text}


def handler(served):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/test":
                self.say(200, {"asked": served.asked, "calls": served.calls})
            elif self.path == "/weight_info" and served.modes.get("labels"):
                self.say(200, {"weight_version": served.label})
            else:
                self.say(404, {})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
            if self.path == "/test":
                served.modes = body
                served.asked = []
                return self.say(200, {})
            served.calls.append(self.path)
            if self.path == "/v1/chat/completions":
                if served.modes.get("delay_s"):
                    time.sleep(served.modes["delay_s"])
                return self.say(200, served.chat(body))
            if self.path == "/collective_rpc" and not served.modes.get("no_dev_mode"):
                return self.say(200, served.collective_rpc(body))
            if self.path == "/update_weight_version" and served.modes.get("labels"):
                served.label = body["new_version"]
                return self.say(200, {"success": True})
            if self.path == "/weight_checker" and served.modes.get("checksums"):
                return self.say(200, served.checksums())
            if self.path in ("/reset_prefix_cache", "/reset_mm_cache"):
                return self.say(200, None)
            return self.say(404, {"detail": "Not Found"})

        def say(self, status, answer):
            raw = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *args):
            pass

    return Handler


def serve(port):
    for _ in range(500):
        try:
            server = ThreadingHTTPServer(("127.0.0.1", port), handler(Served()))
            break
        except OSError:  # the one before is still ending
            time.sleep(0.02)
    sys.stdout.write(f"{os.getpid()} {server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


def main(folder):
    global MODEL, PROCESSOR
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    torch.set_num_threads(1)
    MODEL = AutoModelForImageTextToText.from_pretrained(folder).eval()
    PROCESSOR = AutoProcessor.from_pretrained(folder)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    children = []
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                serve(int(line))
            finally:
                os.write(1, b"0 0\n")  # the test waits for a line
                os._exit(1)
        children.append(child)
    for child in children:
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main(sys.argv[1])
