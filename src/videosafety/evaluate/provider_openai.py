"""The Inspect provider ``videosafety-openai/<model>``: any OpenAI-compatible chat server, video included.

Inspect passes video to Google alone, so what an item shows travels in the user message's metadata and becomes content
parts here (``wire.py``). Inspect keeps the limits: connections, retries and back-off go through its hooks, and nothing
below it asks again. It would ask for ever by default, so asking ends when an item, or the server as a whole, has not
been heard for ``patience_s``; then the item is a fault of transport, UNSCORED, and the next run asks it again.

The address is ``-M base_url=`` or ``VIDEOSAFETY_OPENAI_BASE_URL``, the key is ``VIDEOSAFETY_OPENAI_API_KEY`` and goes
nowhere but into the header of a request: no request is logged, and what a server says is recorded without it. The
address is no part of the evaluation's identity: a server that comes back elsewhere is the same server.

Run:
    videosafety evaluate --model videosafety-openai/NAME --model-arg base_url=http://127.0.0.1:8000/v1 --data …
"""

import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from inspect_ai.model import (
    ChatMessage,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    RetryDecision,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from videosafety.core.errors import InputError, MediaError
from videosafety.core.records import StopReason
from videosafety.evaluate.asking import PROVIDER, Said, output_of
from videosafety.evaluate.keep import key_of
from videosafety.evaluate.showing import Shows, detail_of, media_fault
from videosafety.evaluate.wire import TooMuch, Wire
from videosafety.llm.chat import TooLong, TransportFault, chat
from videosafety.llm.readout import Server
from videosafety.video.parts import Part
from videosafety.video.plan import FramePlan

BASE_URL, API_KEY = "VIDEOSAFETY_OPENAI_BASE_URL", "VIDEOSAFETY_OPENAI_API_KEY"
MAX_NEW_TOKENS = 768
LONGEST_WAIT_S = 60.0  # between two attempts, unless the server asks for more
FIXED = ("top_p", "top_k", "num_choices", "best_of", "stop_seqs", "frequency_penalty", "presence_penalty", "logit_bias",
         "response_schema", "temperature")  # fmt: skip


class ServedVideoModel(ModelAPI):
    """A served model behind Inspect's model interface. Greedy, as the decoding protocol says."""

    takes_media_paths = True  # the solver asks this: media go by path in the metadata, not as base64
    alarms: tuple[str, ...] = ()  # a chat server tells no hidden state; llm/readout.py reads alarms where it can

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - Inspect's own signature
        *,
        connections: int = 8,
        timeout_s: float = 600.0,
        patience_s: float = 600.0,
        backoff_s: float = 1.0,
        extra: str | dict[str, Any] | None = None,
        **wire: Any,
    ) -> None:
        """``extra``: further fields of every request, as JSON. ``wire``: the fields of ``Wire``."""
        super().__init__(model_name, base_url, api_key, [API_KEY], config)
        for name, value in {"connections": connections, "timeout_s": timeout_s}.items():
            if not value > 0:
                raise InputError(f"{name} is {value}", fix="give a number above 0")
        known = Wire.__dataclass_fields__
        if unknown := sorted(set(wire) - set(known)):
            raise InputError(f"unknown setting {unknown[0]!r}", fix=f"known: {', '.join(known)}")
        self.wire, self.extra = Wire(**wire), _fields(extra)
        url = base_url or os.environ.get(BASE_URL, "")
        if not url:
            raise InputError("no address of the server is given", fix=f"set {BASE_URL}, or give base_url")
        self.server = Server(url, model_name, timeout_s, api_key or os.environ.get(API_KEY) or None)
        self.sent = self.wire.told() | self.extra  # how the model was asked, for the record
        self.fingerprint = key_of(model=model_name, sent=self.sent)
        self.connections, self.patience_s, self.backoff_s = int(connections), patience_s, backoff_s
        self._asked_s: dict[str | None, float] = {}  # message id -> when it was first asked
        self._silent_s: float | None = None  # since when no request was answered
        self._slots: anyio.Semaphore | None = None
        self._limits: tuple[anyio.CapacityLimiter, anyio.CapacityLimiter] | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def max_connections(self) -> int:
        """How many requests are under way at once."""
        return self.connections

    def connection_key(self) -> str:
        """One pool of connections for each server and model."""
        return f"{self.server.url} {self.model_name}"

    def max_tokens(self) -> int | None:
        """The decoding protocol's limit."""
        return MAX_NEW_TOKENS

    def close(self) -> None:
        """Remove files that went to the server by path."""
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def should_retry(self, ex: BaseException) -> bool | RetryDecision:
        """Whether Inspect asks the item again: the fault may pass, and patience is not at its end."""
        if not isinstance(ex, TransportFault) or not ex.passing:
            return RetryDecision.no()
        now = time.monotonic()
        since_s = min(now if s is None else s for s in (ex.since_s, self._silent_s))
        if now - since_s >= self.patience_s:
            return RetryDecision.no()
        if ex.fault == "rate_limited":
            return RetryDecision.rate_limit(retry_after=ex.retry_after_s)
        return RetryDecision.transient(retry_after=ex.retry_after_s)

    def retry_wait(self) -> Any:
        """Seconds until the next attempt: doubled each time, spread at random, never less than the server asks for."""

        def wait(state: Any) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            asked_for: float = getattr(error, "retry_after_s", None) or 0.0
            doubled: float = min(LONGEST_WAIT_S, self.backoff_s * 2.0 ** min(state.attempt_number - 1, 20))
            return max(min(asked_for, self.patience_s), doubled * random.uniform(0.5, 1.0))

        return wait

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """One answer, asked once. A fault of the item is an output with ``Said.fault`` and no exception.

        Raises:
            TransportFault: the model was not heard; Inspect asks again as ``should_retry`` says.
            ServerError: key, address or model name are wrong.
        """
        given = [name for name in FIXED if getattr(config, name) not in (None, 0)] + ["tools"] * bool(tools)
        if given:
            raise InputError(f"this provider is greedy and takes no {', '.join(given)}", fix="leave it out")
        self._slots = self._slots or anyio.Semaphore(self.connections)
        async with self._slots:  # Inspect may let more in, and each holds its clip
            item, now = input[-1].id, time.monotonic()
            since_s = self._asked_s.setdefault(item, now)
            try:
                said, text = await self._asked(input, config.max_tokens or MAX_NEW_TOKENS)
            except InputError as error:
                said, text = Said(stop_reason=StopReason.FAULT, fault=_fault(error), detail=detail_of(error)), ""
            except TransportFault as error:
                error.since_s = since_s
                self._silent_s = now if self._silent_s is None else self._silent_s
                raise
        self._asked_s.pop(item, None)
        return output_of(self.model_name, text, said)

    async def _asked(self, messages: list[ChatMessage], max_tokens: int) -> tuple[Said, str]:
        """Build the request in one of two threads (decoding), wait for the answer in one of as many as connections."""
        if self._limits is None:
            self._limits = anyio.CapacityLimiter(2), anyio.CapacityLimiter(self.connections)
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="videosafety-", ignore_cleanup_errors=True)
        decoding, waiting = self._limits
        build: Callable[[], tuple[list[Part], FramePlan | None]] = partial(
            request_of, messages, wire=self.wire, scratch=Path(self._scratch.name)
        )
        request, plan = await anyio.to_thread.run_sync(build, limiter=decoding)
        ask = partial(chat, self.server, request, max_tokens=max_tokens, extra=self.extra)
        answer = await anyio.to_thread.run_sync(ask, limiter=waiting, abandon_on_cancel=True)
        self._silent_s = None
        stop_reason = StopReason.LENGTH if answer.cut else StopReason.STOP
        return Said(stop_reason=stop_reason, num_tokens=answer.num_tokens, plan=plan), answer.text


def request_of(messages: list[ChatMessage], *, wire: Wire, scratch: Path) -> tuple[list[Part], FramePlan | None]:
    """Inspect's messages as OpenAI's, media before the words they belong to, and the frame plan of the clip.

    Raises:
        MediaError, TooMuch: the media cannot be used or sent.
    """
    turns, plan = list[Part](), None
    for message in messages:
        if message.role == "tool":
            raise InputError("a tool message cannot be sent to this provider", fix="use a model that takes tools")
        content: str | list[Part] = message.text
        if (given := (message.metadata or {}).get(PROVIDER)) is not None:
            shown, plan = wire.parts(Shows.model_validate(given), scratch)
            content = [*shown, {"type": "text", "text": message.text}]
        turns.append({"role": message.role, "content": content})
    return turns, plan


def _fields(extra: str | dict[str, Any] | None) -> dict[str, Any]:
    try:
        found = json.loads(extra) if isinstance(extra, str) else extra or {}
    except ValueError as error:
        raise InputError("extra is not JSON", fix='give an object, such as {"seed": 0}') from error
    if not isinstance(found, dict):
        raise InputError("extra is not a JSON object", fix='give an object, such as {"seed": 0}')
    return found


def _fault(error: InputError) -> str:
    """Why an item was not answered, in one word after its kind."""
    if isinstance(error, MediaError):
        return media_fault(error)
    if isinstance(error, TooLong):
        return "input:too_long"
    return "input:too_large" if isinstance(error, TooMuch) else "input:refused"
