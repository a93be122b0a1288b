"""Asking a model for one JSON object: an OpenAI-compatible server or any Inspect model behind one small interface.

What comes back is all that was said and what it used, also where it is a refusal, was cut off or is no JSON: it is paid
for, and who asked decides. Nothing here asks again. What went wrong is told apart by what helps and by what it costs:

* ``Unheard``: no answer. ``passing`` as in ``chat``; ``in_doubt`` when the model may have answered and be paid for it
  (a request went out whole, and no answer or a broken one came back).
* ``TooLong`` (an InputError): the prompt does not fit the model.
* ``ServerError``: the key, the address, the model's name or the structured output is wrong; a person must mend it.

Example:
    >>> model = ServedModel(Server("http://127.0.0.1:8000/v1", "NAME"))                       # doctest: +SKIP
    >>> (await model.say(Request(messages, schema=schema, form="schema", max_tokens=64))).text  # doctest: +SKIP
    '{"caption": "A red sign."}'
"""

import asyncio
import http.client
import re
import threading
import urllib.error
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from videosafety.core.errors import InputError, ServerError
from videosafety.core.response import MAX_CHARS
from videosafety.llm.chat import CUT, ENDED, FILTERED, TransportFault, failure_of
from videosafety.llm.readout import Server
from videosafety.llm.transport import CallError, Garbled, call

if TYPE_CHECKING:
    from inspect_ai.model import ChatMessage, GenerateConfig, Model, ModelOutput

Form = Literal["schema", "json", "prompt"]
REFUSES_FORM = re.compile(
    r"response_format|json_schema|json_object|structured|guided|grammar|\bschema\b", re.IGNORECASE
)
UNAUTHORISED = (401, 403)
LATE_S = 30.0  # an Inspect provider that is silent for this much longer than its own limit is given up
MAX_TOLD = 10**8  # tokens of one call that a server is believed
DEEPEST = 8  # errors behind an error that are looked at


class Unheard(TransportFault):
    """No answer; ``in_doubt``: the model may have given one, and it may be paid for."""

    in_doubt = False


@dataclass(frozen=True)
class Request:
    """One question. ``messages`` are OpenAI's; ``form`` says how the server is held to the schema, if at all."""

    messages: Sequence[Mapping[str, Any]]
    schema: Mapping[str, Any]
    form: Form
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None


@dataclass(frozen=True)
class Said:
    """What a model said. ``refused``: by its own refusal field or a filter's hand; tokens are None where untold."""

    text: str
    refused: bool = False
    cut: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None


class StructuredModel(Protocol):
    """A model that can be asked."""

    async def say(self, request: Request) -> Said:
        """One answer, asked once. Raises Unheard, TooLong, ServerError."""


class ServedModel:
    """An OpenAI-compatible server; ``key_name`` is where its key is set, for the error of a wrong one."""

    def __init__(self, server: Server, *, key_name: str = "the server's key") -> None:
        self._server, self._key_name = server, key_name

    async def say(self, request: Request) -> Said:
        """As ``StructuredModel.say``; as many at once as are asked for."""
        return await _in_thread(lambda: self._say(request))

    def _say(self, request: Request) -> Said:
        body: dict[str, Any] = {
            "model": self._server.model,
            "messages": list(request.messages),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
        }
        if request.seed is not None:
            body["seed"] = request.seed
        if request.form == "schema":
            held = {"name": "answer", "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": held}
        elif request.form == "json":
            body["response_format"] = {"type": "json_object"}
        try:
            told = call(self._server, "/chat/completions", body)
        except CallError as error:
            if FILTERED in error.said and error.status is not None and error.status < http.client.INTERNAL_SERVER_ERROR:
                return Said("", refused=True, input_tokens=0, output_tokens=0)
            raise self._fault(error, request.form) from None
        if isinstance(told, dict) and told.get("error") is not None and "choices" not in told:
            raise _unheard("server_error", "the server answered with an error", in_doubt=False)
        return said_of(told)

    def _fault(self, error: CallError, form: Form) -> Exception:
        """What a failed call means."""
        where, status = error.where, error.status
        if status in UNAUTHORISED:
            return ServerError(f"the server refuses the key ({status})", where=where,
                               fix=f"set the right one in {self._key_name}")  # fmt: skip
        bad = status in (http.client.BAD_REQUEST, http.client.UNPROCESSABLE_ENTITY)
        if bad and form != "prompt" and REFUSES_FORM.search(error.said):
            other = "structured: json, or structured: prompt" if form == "schema" else "structured: prompt"
            return ServerError(f"the server does not take structured: {form} ({status})", where=where,
                               fix=f"set {other}")  # fmt: skip
        found = failure_of(error)
        if not isinstance(found, TransportFault):
            return found
        sent = not isinstance(error.__cause__, urllib.error.URLError)  # that one is raised before the request is out
        unheard = Unheard(found.fault, found.detail, passing=found.passing, retry_after_s=found.retry_after_s)
        unheard.in_doubt = isinstance(error, Garbled) or (status is None and sent)
        return unheard


def said_of(told: Any) -> Said:
    """The first choice of an answer in OpenAI's form. Raises Unheard: it has none, or one without words."""
    try:
        choice = told["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        content, refusal = message.get("content"), message.get("refusal")
        if isinstance(content, list):
            content = "".join(part["text"] for part in content if part.get("type") == "text")
        usage = told.get("usage") or {}
        num_input, num_output = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _unheard("bad_answer", f"the answer has no text ({type(error).__name__})", in_doubt=True) from None
    if reason not in (*ENDED, *CUT, FILTERED) or not isinstance(content, str | None):
        raise _unheard("bad_answer", f"the answer ended with {str(reason)[:40]!r}", in_doubt=True)
    refused = reason == FILTERED or (isinstance(refusal, str) and bool(refusal.strip()))
    cut = reason in CUT or len(content or "") > MAX_CHARS
    return Said(_bounded(content or ""), refused, cut, num_input, num_output)


async def _in_thread(work: Callable[[], Said]) -> Said:
    """What ``work`` returns or raises, done in a thread that no exit of the process waits for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Said | None] = loop.create_future()

    def settle(said: Said | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(said)
        else:
            done.set_exception(error)

    def run() -> None:
        said: Said | None = None
        raised: BaseException | None = None
        try:
            said = work()
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            raised = error
        with suppress(RuntimeError):  # nobody waits any more: the loop is closed
            loop.call_soon_threadsafe(settle, said, raised)

    threading.Thread(target=run, name="annotator", daemon=True).start()
    said = await done
    assert said is not None
    return said


def _count(told: object) -> int | None:
    """A number of tokens, as a server tells it; None where it tells none that can be."""
    return told if type(told) is int and 0 <= told <= MAX_TOLD else None


class InspectModel:
    """Any model that Inspect knows, asked once a call; ``given`` replaces the model of this name."""

    def __init__(self, name: str, *, connections: int, timeout_s: float, given: "Model | None" = None) -> None:
        self.name, self._connections, self._timeout_s, self._given = name, connections, timeout_s, given
        self._loaded: tuple[asyncio.AbstractEventLoop, Model] | None = None

    async def say(self, request: Request) -> Said:
        """As ``StructuredModel.say``. Raises also InputError: Inspect does not know the model."""
        model, turns = self._model(), [_turn(message) for message in request.messages]
        wait_s = self._timeout_s + LATE_S
        try:
            output = await asyncio.wait_for(model.generate(turns, config=self._config(request)), timeout=wait_s)
        except Exception as error:  # a provider may fail in any way
            raise _inspect_fault(error, model, self.name) from error
        return _inspect_said(output)

    def _config(self, request: Request) -> "GenerateConfig":
        from inspect_ai.model import GenerateConfig, ResponseSchema
        from inspect_ai.util import JSONSchema

        schema = None
        if request.form == "schema":
            inlined = JSONSchema.model_validate(inline(request.schema))
            schema = ResponseSchema(name="answer", json_schema=inlined)
        return GenerateConfig(max_tokens=request.max_tokens, temperature=request.temperature, seed=request.seed,
                              response_schema=schema, max_retries=0, attempt_timeout=max(1, round(self._timeout_s)),
                              max_connections=self._connections)  # fmt: skip

    def _model(self) -> "Model":
        """The model, made anew for each event loop: a provider's connections belong to one."""
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        if self._loaded is None or self._loaded[0] is not loop:
            from inspect_ai.model import get_model

            try:
                self._loaded = loop, get_model(self.name, memoize=False)
            except Exception as error:
                said = f"the annotator does not load ({type(error).__name__})"
                fix = "give a model that Inspect knows, with its package and key"
                raise ServerError(said, where=self.name, fix=fix) from error
        return self._loaded[1]


def inline(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON schema with every local ``$ref`` replaced by what it names; for readers that do not follow references.

    Raises:
        InputError: a reference that leads elsewhere, or back to itself.
    """
    named = schema.get("$defs", {})

    def resolved(part: Any, depth: int) -> Any:
        if depth > 50:
            raise InputError("a schema that refers to itself cannot be inlined", fix="use a flat one")
        if isinstance(part, list):
            return [resolved(one, depth + 1) for one in part]
        if not isinstance(part, Mapping):
            return part
        if "$ref" in part:
            name = str(part["$ref"]).removeprefix("#/$defs/")
            if name not in named:
                raise InputError(f"the schema's reference {part['$ref']!r} leads nowhere", fix="use local references")
            rest = {key: value for key, value in part.items() if key != "$ref"}
            return resolved({**named[name], **rest}, depth + 1)
        return {key: resolved(value, depth + 1) for key, value in part.items() if key != "$defs"}

    found: dict[str, Any] = resolved(schema, 0)
    return found


def _turn(message: Mapping[str, Any]) -> "ChatMessage":
    """An OpenAI message as Inspect's."""
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser, ContentImage, ContentText

    content = message["content"]
    if message["role"] == "system":
        return ChatMessageSystem(content=content)
    parts: list[dict[str, Any]] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return ChatMessageUser(content=[
        ContentText(text=part["text"]) if part["type"] == "text" else ContentImage(image=part["image_url"]["url"])
        for part in parts
    ])  # fmt: skip


def _inspect_said(output: "ModelOutput") -> Said:
    usage = output.usage
    num_input = None if usage is None else sum(
        one or 0 for one in (usage.input_tokens, usage.input_tokens_cache_read, usage.input_tokens_cache_write)
    )  # fmt: skip
    num_output = None if usage is None else usage.output_tokens
    if output.stop_reason == FILTERED:
        return Said("", refused=True, input_tokens=num_input, output_tokens=num_output)
    if output.error or output.empty:
        raise _unheard("bad_answer", "the provider gave no answer", in_doubt=True)
    cut = output.stop_reason in ("max_tokens", "model_length") or len(output.completion) > MAX_CHARS
    return Said(_bounded(output.completion), False, cut, num_input, num_output)


def _inspect_fault(error: BaseException, model: "Model", name: str) -> Exception:
    """What a provider raised, itself or behind Inspect's retries."""
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and len(seen) < DEEPEST:
        seen.append(one)
        one = one.__cause__ or one.__context__
    raised = [one for one in seen if isinstance(one, Exception)]
    if any(model.api.is_auth_failure(one) for one in raised):
        return ServerError("the provider refuses the key", where=name, fix="set the provider's key")
    names = [type(one).__name__.lower() for one in seen]
    words = {"timeout": "timeout", "ratelimit": "rate_limited", "connect": "connection"}
    fault = next((word for sign, word in words.items() if any(sign in name for name in names)), "server_error")
    decisions = [model.api.should_retry(one) for one in raised]
    passing = fault != "server_error" or any(getattr(one, "retry", one) for one in decisions)
    after = next((found for one in decisions if (found := getattr(one, "retry_after", None)) is not None), None)
    unheard = Unheard(fault, f"the provider failed ({type(error).__name__})", passing=passing, retry_after_s=after)
    unheard.in_doubt = fault in ("timeout", "connection")
    return unheard


def _unheard(fault: str, detail: str, *, in_doubt: bool) -> Unheard:
    found = Unheard(fault, detail, passing=True)
    found.in_doubt = in_doubt
    return found


def _bounded(text: str) -> str:
    """At most as much as a record holds, and whole characters."""
    return text[:MAX_CHARS].encode(errors="replace").decode()
