"""Server processes on loopback for the tests: start one, wait until it answers, end it.

Example:
    >>> with process([sys.executable, "server.py"]) as server:                  # doctest: +SKIP
    ...     port = int(server.stdout.readline())
"""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

START_S = 240  # how long a server may take to start on a busy machine


@contextmanager
def process(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with the block; nothing of the test run's Python path reaches it."""
    quiet = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=quiet | {"HF_HUB_OFFLINE": "1"})
    try:
        yield running
    finally:
        running.terminate()
        running.wait(timeout=START_S)
        assert running.stdout is not None
        running.stdout.close()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, running: subprocess.Popen[str]) -> None:
    """Until a GET of ``url`` is answered with 200."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        assert running.poll() is None, "the server ended by itself"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no answer from {url}")


def post(url: str, body: Any) -> tuple[int, Any]:
    """Status and JSON (or text) of an answer."""
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=START_S) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
