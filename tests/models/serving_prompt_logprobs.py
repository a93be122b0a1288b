"""A small OpenAI-compatible server that returns prompt log-probs: stock transformers and the standard library only.

    python serving_prompt_logprobs.py FOLDER      prints its port, answers one request at a time until it is killed

``/v1/completions`` takes words and answers as ``echo`` with ``logprobs`` does; ``/v1/chat/completions`` takes words and
``data:`` pictures and answers with ``prompt_logprobs`` in vLLM's shape. Nothing of videosafety may be imported here.
"""

import base64
import io
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

torch.set_num_threads(1)
FOLDER = sys.argv[1]
MODEL = AutoModelForImageTextToText.from_pretrained(FOLDER).eval()
PROCESSOR = AutoProcessor.from_pretrained(FOLDER)


@torch.inference_mode()
def log_probs(text, images):
    """(token, id, log-prob) of each token of a prompt; the first has no log-prob."""
    inputs = PROCESSOR(text=[text], return_tensors="pt", **({"images": images} if images else {}))
    ids = inputs["input_ids"][0]
    predicted = MODEL(**inputs).logits[0, :-1].float().log_softmax(-1)
    values = predicted.gather(1, ids[1:, None])[:, 0].tolist()
    tokens = PROCESSOR.tokenizer.convert_ids_to_tokens(ids.tolist())
    return list(zip(tokens, ids.tolist(), [None, *values], strict=True))


def completion(body):
    assert body["echo"]
    told = log_probs(body["prompt"], [])
    logprobs = {"tokens": [token for token, _, _ in told], "token_logprobs": [value for _, _, value in told]}
    return {"object": "text_completion", "choices": [{"index": 0, "text": body["prompt"], "logprobs": logprobs}]}


def chat(body):
    images = []
    for message in body["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else []:
            if part["type"] == "image_url":
                raw = base64.b64decode(part.pop("image_url")["url"].partition(",")[2])
                images.append(Image.open(io.BytesIO(raw)).convert("RGB"))
                part["type"] = "image"
    text = PROCESSOR.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
    told = [None if value is None else {str(id_): {"logprob": value, "rank": 1, "decoded_token": token}}
            for token, id_, value in log_probs(text, images)]  # fmt: skip
    return {"object": "chat.completion", "choices": [{"index": 0, "message": {"content": ""}}], "prompt_logprobs": told}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {"/v1/completions": completion, "/v1/chat/completions": chat}[self.path](body)
        raw = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
sys.stdout.write(f"{server.server_port}\n")
sys.stdout.flush()
server.serve_forever()
