"""The caller: asks one annotator, keeps every answer that was paid for, and never asks the same thing twice.

A call is named by the hash of what decides its answer: the model and its parameters, the prompt, the schema, the bytes
of the clip and how frames are taken from it. An answer is in the ledger before anybody reads it, also a refusal or one
that is no JSON, so ``kill -9`` and the same build again repeat no finished call. Rows that ask the same at the same
time share one call.

An answer that is no JSON object is asked for once more, with its fault; the second such answer is ``InvalidAnswer``. A
model that refuses, by its own field, by a filter's hand or in plain words, is ``Refused``. Requests under way, requests
a minute, ``Retry-After`` and the purse bound how fast and how far this goes. A call is sent only with its highest cost
set aside. Where an answer was lost on the way (a server died, or took too long) the model may have been paid: the
ledger then has that highest cost under a key of its own.

Example:
    >>> caller = Caller(config, ledger=ledger, purse=purse, step="describe", root=clips)     # doctest: +SKIP
    >>> await caller.ask("What is shown?", Caption.model_json_schema(), media=video)         # doctest: +SKIP
    {'caption': 'A red sign.'}
"""

import asyncio
import hashlib
import json
import math
import os
import random
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from videosafety.build.annotate.annotator import AnnotatorConfig, CallFault, CostCap, InvalidAnswer, Unshown
from videosafety.build.annotate.frames import CrashedError, frames_of
from videosafety.build.annotate.pace import Pace
from videosafety.build.annotate.purse import Purse
from videosafety.build.ledger import Call
from videosafety.build.think import Refused
from videosafety.core.errors import InputError, MediaError, ServerError
from videosafety.core.jsonl import canonical_json, parse_json
from videosafety.core.records import LANGUAGES, Image, Video
from videosafety.core.store import sha256_file
from videosafety.judges.refusal import Refusal, find_refusal
from videosafety.llm.readout import Server
from videosafety.llm.structured import InspectModel, Request, Said, ServedModel, StructuredModel, Unheard
from videosafety.video.parts import Part

LONGEST_WAIT_S = 30.0
WAITED_FOR = frozenset({"connection", "rate_limited"})  # bounded by patience and not by tries
MAX_FAULT_CHARS = 300  # of what was wrong with an answer, as it is told to the model
_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCED = re.compile(r"\A```(?:json|JSON)?[ \t]*\n(.*?)\n?[ \t]*```\Z", re.DOTALL)


MAX_MORE = 1000.0
LOST = canonical_json({"lost": "no answer"}).decode()


class Calls(Protocol):
    """What of a ledger a caller needs."""

    def call(self, key: str) -> Call | None:
        """The finished call of this key."""

    def keep_call(self, call: Call, *, instead_of: str | None = None) -> None:
        """Write a call in place of another; it is on the disk when this returns."""

    def forget_call(self, key: str) -> None:
        """Take a call back."""


class Caller:
    """A ``think.Client`` over one annotator.

    Args:
        config: which model, and its limits.
        ledger: where finished calls are.
        purse: where the money comes from; shared by all callers of a build.
        step: for whom, in the ledger.
        root: the folder that media paths are relative to.
        model: in place of the one that the config names.
    """

    def __init__(self, config: AnnotatorConfig, *, ledger: Calls, purse: Purse, step: str, root: Path,
                 model: StructuredModel | None = None) -> None:  # fmt: skip
        self.config, self.step, self.root = config, step, root
        self.broken: ServerError | None = None  # what a person must mend; nothing is sent once it is known
        self._ledger, self._purse, self._model = ledger, purse, model or model_of(config)
        self._pace = Pace(config.requests_per_minute)
        self._more = 1.0  # how much more a prompt cost than its bound, at most: bounds that follow are raised by it
        self._silent_s: float | None = None  # since when no call was answered: after patience_s no call waits
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots = asyncio.Semaphore(config.connections)
        self._under_way: dict[str, asyncio.Task[Said]] = {}

    async def ask(self, prompt: str, schema: dict[str, Any], *, media: Video | Image | None) -> dict[str, Any]:
        """The JSON object that the model answers with; whether it fits the schema is for who asks.

        Raises:
            Refused: the model does not work on this.
            CallFault: a ServerError with a ``reason``; CostCap, InvalidAnswer and Unshown among them.
            ServerError: the key, the address or a setting is wrong; every later call raises it too, unsent.
        """
        fault = ""
        for _ in range(2):
            again = f"\n\nYour last answer could not be used: {fault}. Answer anew." if fault else ""
            said = await self._said(prompt + again, schema, media)
            if said.refused:
                raise Refused(self.config.label)
            try:
                return object_of(said)
            except ValueError as error:
                if not said.cut and refuses(said.text):
                    raise Refused(self.config.label) from None
                fault = str(error)[:MAX_FAULT_CHARS]
        raise InvalidAnswer(f"two answers that are no JSON object ({fault})", reason="answer:invalid",
                            where=self.config.label, fix="use another annotator or `structured`")  # fmt: skip

    async def _said(self, prompt: str, schema: dict[str, Any], media: Video | Image | None) -> Said:
        """What was said, from the ledger, from a call under way, or from a new one."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # each step of a build runs in its own
            self._loop, self._under_way = loop, {}
            self._slots = asyncio.Semaphore(self.config.connections)
        key = self.key_of(prompt, schema, media)
        if (kept := self._ledger.call(key)) is not None:
            return Said(**json.loads(kept.answer))
        if (task := self._under_way.get(key)) is None:
            task = self._under_way[key] = loop.create_task(self._asked(key, prompt, schema, media))
            task.add_done_callback(partial(self._forget, key))
        return await asyncio.shield(task)

    def _forget(self, key: str, task: "asyncio.Task[Said]") -> None:
        if self._under_way.get(key) is task:
            del self._under_way[key]

    def key_of(self, prompt: str, schema: Mapping[str, Any], media: Video | Image | None) -> str:
        """64 hex digits over all that decides an answer.

        The decoder's version is not among it: an update of it would buy all answers again for the same frames.
        """
        shown = None if media is None else [media.kind, self._sha256(media)]
        asked = [self.config.identity, prompt, schema, shown]
        return hashlib.sha256(canonical_json(asked)).hexdigest()

    def _sha256(self, media: Video | Image) -> str:
        try:
            return media.sha256 or sha256_file(self.root / media.path)
        except InputError as error:
            raise Unshown(error.what, reason="media:missing", where=media.path, fix=error.fix) from error

    async def _asked(self, key: str, prompt: str, schema: dict[str, Any], media: Video | Image | None) -> Said:
        """Ask until there is an answer, or no hope of one."""
        shown = [] if media is None else await self._shown(media)
        words = (f"{prompt}\n\nAnswer with one JSON object of this JSON schema and with nothing else:\n"
                 f"{json.dumps(schema, ensure_ascii=False)}")  # fmt: skip
        config = self.config
        request = Request([{"role": "user", "content": [*shown, {"type": "text", "text": words}]}], schema,
                          config.structured, config.max_tokens, config.temperature, config.seed)  # fmt: skip
        num_faults, retries, since_s = 0, 0, math.inf
        while True:
            try:
                return await self._sent(key, request, retries)
            except InputError as error:
                raise CallFault(error.what, reason="input:too_long", where=config.label, fix=error.fix) from error
            except Unheard as error:
                waits = error.fault in WAITED_FOR and not error.in_doubt  # for a server that is away, or says wait
                num_faults += not waits
                doubled = min(LONGEST_WAIT_S, config.backoff_s * 2.0 ** min(retries, 20)) * random.uniform(0.5, 1.0)
                wait_s = max(error.retry_after_s or 0.0, doubled)
                now_s = time.monotonic()
                self._silent_s = now_s if self._silent_s is None else self._silent_s
                since_s = min(since_s, now_s, self._silent_s)
                late = now_s + wait_s - since_s > config.patience_s
                if not error.passing or num_faults >= config.tries or (waits and late):
                    raise CallFault(f"the model was not heard: {error.detail}", reason=f"server:{error.fault}",
                                    where=config.label, fix="run the build again later") from error  # fmt: skip
                self._pace.pause(error.retry_after_s or 0.0)
            retries += 1
            await asyncio.sleep(wait_s)

    async def _sent(self, key: str, request: Request, retries: int) -> Said:
        """Send a request once, with its highest cost set aside, and write what comes back before it is read."""
        async with self._slots:
            if self.broken is not None:
                raise self.broken
            more, most_tokens = self._more, self._most_tokens(request)
            most = self.config.cost(most_tokens, self.config.max_tokens)
            if not await self._purse.reserve(most):
                raise CostCap(f"a call of up to {most:.4f} USD does not fit under the cap", reason="cost:cap",
                              where=self.config.label, fix="raise the cap and run the build again")  # fmt: skip
            paid, lost = 0.0, ""
            try:
                await self._pace.turn()
                lost = self._keep_lost(key, most, retries)
                began_s, paid = time.monotonic(), most  # from here on, until we know better
                said = await self._model.say(request)
                self._silent_s = None
                if said.input_tokens is not None and said.output_tokens is not None:
                    paid = self.config.cost(said.input_tokens, said.output_tokens)
                self._keep(key, said, paid, time.monotonic() - began_s, retries, instead_of=lost)
                self._learn(said, most_tokens, more)
                return said
            except BaseException as error:
                self.broken = error if isinstance(error, ServerError) else self.broken
                if is_free(error):
                    paid = 0.0
                    self._ledger.forget_call(lost)
                raise
            finally:
                await self._purse.settle(most, paid)

    def _keep(
        self, key: str, said: Said, cost: float, latency_s: float, retries: int, *, instead_of: str
    ) -> None:  # fmt: skip
        answer = canonical_json(asdict(said)).decode()
        self._ledger.keep_call(Call(key, self.step, self.config.label, answer, cost, latency_s, retries,
                                    said.input_tokens, said.output_tokens), instead_of=instead_of)  # fmt: skip

    def _keep_lost(self, key: str, most: float, retries: int) -> str:
        """Write, before it is sent, that a call may be paid whose answer nobody will have; its key.

        The answer takes its place. What a killed build had under way stays, at its highest cost: the cap still holds.
        """
        lost = f"{key}:lost:{secrets.token_hex(8)}"
        if most:
            self._ledger.keep_call(Call(lost, self.step, self.config.label, LOST, most, 0.0, retries))
        return lost

    def _most_tokens(self, request: Request) -> int:
        parts = request.messages[0]["content"]
        num_bytes = sum(len(part["text"].encode()) for part in parts if part["type"] == "text")
        num_bytes += len(json.dumps(request.schema)) if request.form == "schema" else 0  # a server may put it in
        num_frames = sum(part["type"] != "text" for part in parts)
        return int(self._more * self.config.most_input_tokens(num_bytes, num_frames)) + 1

    def _learn(self, said: Said, most_tokens: int, more: float) -> None:
        """A prompt over its bound says that ``tokens_per_frame`` is too low: the bounds that follow are raised.

        ``more`` is how much the bound itself was raised when the call was sent: many are under way at a time.
        """
        if said.input_tokens is not None and said.input_tokens > most_tokens:
            self._more = min(MAX_MORE, max(self._more, more * said.input_tokens / most_tokens))

    async def _shown(self, media: Video | Image) -> list[Part]:
        """The frames as content parts. Raises Unshown."""
        try:
            return list(await asyncio.to_thread(
                frames_of, str(self.root / media.path), kind=media.kind, sha256=media.sha256,
                num_frames=self.config.num_frames, max_side_px=self.config.max_side_px,
            ))  # fmt: skip
        except MediaError as error:
            raise Unshown(error.what, reason=f"media:{error.fault}", where=media.path, fix=error.fix) from error
        except CrashedError as error:
            raise Unshown("kills the decoder", reason=f"crash:{error}"[:200], where=media.path,
                          fix="leave it out") from error  # fmt: skip


def is_free(error: BaseException) -> bool:
    """Whether a call that ended like this surely cost nothing."""
    return isinstance(error, ServerError | InputError) or (isinstance(error, Unheard) and not error.in_doubt)


def model_of(config: AnnotatorConfig) -> StructuredModel:
    """The model that a config names; connects to nothing yet."""
    if not config.is_served:
        return InspectModel(config.model, connections=config.connections, timeout_s=config.timeout_s)
    url, _, served = config.model.partition("#")
    name = config.key_env
    key = None if name is None else os.environ.get(name) or None
    return ServedModel(Server(url, served, timeout_s=config.timeout_s, key=key), key_name=name or "key_env")


def object_of(said: Said) -> dict[str, Any]:
    """The one JSON object that an answer is; thoughts before it and a code fence around it are allowed.

    Raises:
        ValueError: it is none; says why.
    """
    if said.cut:
        raise ValueError("it was cut off at the limit of tokens; be shorter")
    text = _THOUGHTS.sub("", said.text).strip()
    if fenced := _FENCED.match(text):
        text = fenced[1].strip()
    if not text:
        raise ValueError("it is empty")
    found = parse_json(text)
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def refuses(text: str) -> bool:
    """Whether plain words are a full refusal, in any of our languages."""
    said = _THOUGHTS.sub("", text).strip()
    return any(find_refusal(said, language=language) is Refusal.FULL for language in LANGUAGES)
