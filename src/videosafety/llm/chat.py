"""One chat request to an OpenAI-compatible server: messages in; an answer, a fault of the item or a fault of transport.

The answer is parsed strictly: what is no answer is never taken for an empty one. Three kinds of failure are kept apart.

* ``TooLong`` (an InputError): the server says that this prompt does not fit its context or its limit of bytes.
* ``TransportFault``: the model was not heard. ``passing`` when asking again may help: no connection, no answer in time,
  429, 5xx, an answer that is broken. ``content_filter`` is one that does not pass: what a filter beside the model holds
  back is neither an answer nor a refusal of the model. A refusal that the model itself words is an answer.
* ``ServerError``: the key, the address or the model's name is wrong, or the quota is used up; a person must mend it.

Example:
    >>> chat(Server("http://127.0.0.1:8000/v1", "NAME"), [{"role": "user", "content": "Hello?"}], max_tokens=8)
    ...                                                                         # doctest: +SKIP
    ChatAnswer(text='Hello.', cut=False, num_tokens=3)
"""

import http.client
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from videosafety.core.errors import InputError, ServerError
from videosafety.core.response import MAX_CHARS
from videosafety.llm.readout import Server
from videosafety.llm.transport import CallError, Garbled, Unavailable, call

ENDED = ("stop", "eos", "eos_token", "stop_sequence", "end_turn", "tool_calls", "function_call")
CUT = ("length", "max_tokens", "model_length")
FILTERED = "content_filter"
OUR_TAGS = re.compile(r"<(answer|vidType|textType)>")
TOO_LONG = re.compile(
    r"context[ _](length|window|size)|prompt is too long|longer than the (maximum )?model|too many (input )?tokens|"
    r"maximum (model|sequence|input) length|input length",
    re.IGNORECASE,
)
PAYMENT, TOO_LARGE, REQUEST_TIMEOUT, TOO_EARLY, NOT_IMPLEMENTED = 402, 413, 408, 425, 501
FIXES = {
    401: "give the right key in VIDEOSAFETY_OPENAI_API_KEY",
    403: "use a key that may use this model",
    404: "check the base URL (it ends in /v1) and the model's name",
    405: "check the base URL (it ends in /v1)",
    PAYMENT: "the account has no credit",
}


class TooLong(InputError):
    """The server cannot hold this prompt."""


class TransportFault(Exception):
    """The model was not heard. ``fault`` is one word, ``detail`` a sentence; ``passing``: asking again may help.

    ``since_s`` is when the item was first asked, on the caller's clock, for who decides on asking again.
    """

    def __init__(self, fault: str, detail: str, *, passing: bool, retry_after_s: float | None = None) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault, self.detail, self.passing, self.retry_after_s = fault, detail, passing, retry_after_s
        self.since_s: float | None = None


@dataclass(frozen=True)
class ChatAnswer:
    """What the model said, all that the caller receives; ``cut`` by the token limit; tokens as the server counts."""

    text: str
    cut: bool
    num_tokens: int | None


def chat(
    server: Server,
    messages: Sequence[Mapping[str, Any]],
    *,
    max_tokens: int,
    extra: Mapping[str, Any] | None = None,
    reasoning: bool = True,
) -> ChatAnswer:
    """Ask greedily, once. ``extra`` are further fields of the request; without ``reasoning`` only the answer counts.

    Raises:
        TooLong, TransportFault, ServerError: as above.
    """
    body = {"model": server.model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0}
    try:
        told = call(server, "/chat/completions", body | dict(extra or {}))
    except CallError as error:
        raise failure_of(error) from None
    if isinstance(told, dict) and "choices" not in told and told.get("error") is not None:
        failed = CallError("the server answered with an error", where=server.url)
        failed.said, failed.status = json.dumps(told), _status(told["error"])
        raise failure_of(failed)
    return _answer(told, reasoning=reasoning)


def failure_of(error: CallError) -> Exception:
    """What a failed call means for the item and for the run."""
    said, status = error.said, error.status
    if isinstance(error, Garbled):
        return TransportFault("bad_answer", error.what, passing=True)
    if status is None:
        late = isinstance(error, Unavailable) and error.late
        return TransportFault("timeout" if late else "connection", error.what, passing=True)
    if "insufficient_quota" in said:
        return ServerError("the quota of the key is used up", where=error.where, fix="raise it, or use another key")
    if http.client.BAD_REQUEST <= status < http.client.INTERNAL_SERVER_ERROR:
        if FILTERED in said:
            return TransportFault(FILTERED, "the server's filter took the prompt", passing=False)
        if status == TOO_LARGE or TOO_LONG.search(said):
            fix = "lower max_frames, max_side_px or max_new_tokens, or shorten the query"
            return TooLong(f"the server cannot hold the prompt ({_words(said)})", fix=fix)
    if status in FIXES or status < http.client.BAD_REQUEST:
        fix = FIXES.get(status, "give the address that the server redirects to")
        return ServerError(f"the server answered {status}: {_words(said)}", where=error.where, fix=fix)
    if status == http.client.TOO_MANY_REQUESTS:
        return TransportFault("rate_limited", error.what, passing=True, retry_after_s=error.retry_after_s)
    if status >= http.client.INTERNAL_SERVER_ERROR:
        return TransportFault("server_error", error.what, passing=status != NOT_IMPLEMENTED,
                              retry_after_s=error.retry_after_s)  # fmt: skip
    return TransportFault(f"http_{status}", error.what, passing=status in (REQUEST_TIMEOUT, TOO_EARLY))


def _words(said: str) -> str:
    """The message inside an error's body, as short as a sentence bears."""
    try:
        found = json.loads(said)
        found = found.get("error", found) if isinstance(found, dict) else found
        words = next((found[key] for key in ("message", "detail") if key in found), found)
    except (ValueError, TypeError, RecursionError):
        words = said
    return " ".join(str(words).split())[:200]


def _status(error: object) -> int:
    """The status inside an error that came with status 200; a server's own fault where it has none."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int) and http.client.BAD_REQUEST <= code < 600:
        return code
    return http.client.INTERNAL_SERVER_ERROR


def _answer(told: Any, *, reasoning: bool) -> ChatAnswer:
    """The first choice. Raises TransportFault ``bad_answer`` (it passes) or ``content_filter``."""
    try:
        choice = told["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        text = _text(message if reasoning else {"content": message["content"], "refusal": message.get("refusal")})
        usage = told.get("usage") or {}
        num = usage.get("completion_tokens")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise TransportFault("bad_answer", f"the answer has no text ({type(error).__name__})", passing=True) from None
    if reason == FILTERED:
        raise TransportFault(FILTERED, "the server's filter took the answer", passing=False)
    if reason not in ENDED + CUT:
        raise TransportFault("bad_answer", f"the answer ended with {str(reason)[:40]!r}", passing=True)
    if len(text) > MAX_CHARS:
        raise TransportFault("bad_answer", f"the answer has more than {MAX_CHARS} characters", passing=True)
    num_tokens = num if type(num) is int and num >= 0 else None
    return ChatAnswer(text.encode(errors="replace").decode(), reason in CUT, num_tokens)


def _text(message: Mapping[str, Any]) -> str:
    """All that the caller receives: what a server splits off as reasoning is put back in front.

    Between ``<think>`` tags where the rest has our other tags, so that the structured response is whole again.
    """
    content = message["content"]
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    if content is None:
        content = message.get("refusal") or ""
    reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
    if not isinstance(content, str) or not isinstance(reasoning, str):
        raise TypeError("not text")
    if not reasoning:
        return content
    return f"<think>{reasoning}</think>{content}" if OUR_TAGS.search(content) else f"{reasoning}\n\n{content}"
