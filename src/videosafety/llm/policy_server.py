"""Sampling from a served policy, and giving the server new weights: the client half of stage 4's second engine.

Spoken as vLLM speaks it. What its sources and documentation of 2026 (v0.20 to v0.32) say; we ran no vLLM:
1. ``return_token_ids`` gives ``prompt_token_ids`` (media placeholders expanded) and each choice's ``token_ids``;
   ``n`` samples in one request, the seed of choice i is ``seed + i``; ``stop`` ends a completion behind the text.
2. Log-probs are *raw* by default, before temperature and ``logit_bias``: serve with ``--logprobs-mode
   processed_logprobs``. What a request leaves open comes from the checkpoint's generation config: send all of it.
3. A clip goes in as its frames, ``data:video/jpeg;base64,F1,F2,…`` (any still format), times in ``media_io_kwargs``;
   only the first ``num_frames`` = 32 are shown unless that is −1. VideoLLaMA3 is not among its models.
4. ``VLLM_SERVER_DEV_MODE=1`` opens ``/collective_rpc`` with ``reload_weights(weights_path)``, ``/reset_*_cache``,
   ``/pause``, ``/resume``, ``/sleep``, ``/wake_up``, ``/init_weight_transfer_engine``, ``/update_weights``, and in new
   versions ``/update_weight_version``, ``/weight_info`` (a label that the client sets) and ``/weight_checker``.
5. A reload keeps the caches of keys and of vision features, and was seen to return old weights (issue 32718): empty
   the caches, and check what is served.

Example:
    >>> answer = ask(server, Ask("q1", messages, num=6, max_tokens=64, temperature=1.0, seed=0))      # doctest: +SKIP
    >>> answer.choices[0].logprobs                                              # doctest: +SKIP
    (-0.41, -1.7, ...)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from videosafety.core.errors import ServerError
from videosafety.llm.readout import Server
from videosafety.llm.transport import Missing, Unavailable, call

NEVER_BIAS = -100.0  # the most that the protocol takes: e^(−100 / temperature) of a probability
LOWEST = -9999.0  # what vLLM writes for −inf
ROUNDING = 1e-3  # above 0 that a log-prob may be
PREFIX = "token_id:"
DEV_MODE = "start it with VLLM_SERVER_DEV_MODE=1"


@dataclass(frozen=True)
class Ask:
    """One prompt and how to sample it.

    ``ends``: ids that end a completion. ``never``: ids that it may not hold. ``top``: so many most probable tokens are
    told at each position. ``extra``: further fields of the request.
    """

    id: str
    messages: Sequence[Mapping[str, Any]]
    num: int
    max_tokens: int
    temperature: float
    seed: int
    stop: str | None = None
    ends: Sequence[int] = ()
    never: Sequence[int] = ()
    top: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """Sampled token ids, the log-prob that the server tells of each, and whether it ended by itself."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: bool
    tops: tuple[Mapping[int, float], ...] = ()


@dataclass(frozen=True)
class Answer:
    """The prompt's token ids as the server saw them, and ``num`` choices in order."""

    prompt_ids: tuple[int, ...]
    choices: tuple[Choice, ...]


def ask(server: Server, request: Ask) -> Answer:
    """Sample ``request.num`` completions of one prompt.

    Raises:
        Unavailable: no answer, or the server gave up on the request: asking again may help.
        ServerError: the answer misses ids or log-probs, or holds what was not asked for. Names the prompt.
    """
    where = f"{server.url} (prompt {request.id!r})"
    told = call(server, "/chat/completions", {"model": server.model, **_body(request)})
    try:
        prompt = _ids(told["prompt_token_ids"])
        choices = sorted(told["choices"], key=lambda one: int(one["index"]))
    except (KeyError, TypeError, ValueError) as error:
        what = f"the answer has no prompt token ids or no choices ({type(error).__name__})"
        fix = "use a server that knows return_token_ids, such as vLLM"
        raise ServerError(what, where=where, fix=fix) from error
    if [one["index"] for one in choices] != list(range(request.num)):
        raise ServerError(f"{len(choices)} choices came back and {request.num} were asked for", where=where,
                          fix="use a server that samples n choices")  # fmt: skip
    return Answer(prompt, tuple(_choice(one, request, where) for one in choices))


def _body(request: Ask) -> dict[str, Any]:
    """Every knob of sampling is said, so that none comes from a checkpoint's generation config."""
    stops = {"stop": [request.stop], "include_stop_str_in_output": True} if request.stop else {}
    return {
        "messages": list(request.messages), "n": request.num, "seed": request.seed, "temperature": request.temperature,
        "max_completion_tokens": request.max_tokens, "top_p": 1.0, "top_k": -1, "min_p": 0.0,
        "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "min_tokens": 0,
        "ignore_eos": False, "stop_token_ids": list(request.ends), "skip_special_tokens": False,
        "logit_bias": {str(id_): NEVER_BIAS for id_ in request.never}, "logprobs": True, "top_logprobs": request.top,
        "return_token_ids": True, "return_tokens_as_token_ids": True, **stops, **request.extra,
    }  # fmt: skip


def _choice(told: Any, request: Ask, where: str) -> Choice:
    reason = told.get("finish_reason") if isinstance(told, dict) else None
    if reason not in ("stop", "length"):
        raise Unavailable(f"a completion ended with {str(reason)[:40]!r}", where=where, fix="see the server's log")
    try:
        ids = _ids(told["token_ids"])
        entries = told["logprobs"]["content"]
        logprobs = tuple(float(one["logprob"]) for one in entries)
        named = tuple(_id(one["token"]) for one in entries)
        tops = tuple({_id(top["token"]): float(top["logprob"]) for top in one["top_logprobs"]}
                     for one in entries) if request.top else ()  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"a completion has no token ids or no log-probs ({type(error).__name__})"
        fix = "use a server that returns the token ids and log-probs of what it samples"
        raise ServerError(what, where=where, fix=fix) from error
    fault = _fault(ids, logprobs, named, request)
    if fault:
        raise ServerError(fault[0], where=where, fix=fault[1])
    return Choice(ids, logprobs, reason == "stop", tops)


def _fault(
    ids: tuple[int, ...], logprobs: tuple[float, ...], named: tuple[int, ...], request: Ask
) -> tuple[str, str] | None:
    """What is wrong with a completion, and what helps."""
    if ids != named:
        at = next((i for i, (a, b) in enumerate(zip(ids, named, strict=False)) if a != b), min(len(ids), len(named)))
        return f"token ids and log-probs of a completion part at token {at}", "report it to the server's makers"
    if not 0 < len(ids) <= request.max_tokens:
        return f"a completion has {len(ids)} tokens, asked for 1 to {request.max_tokens}", "see the server's log"
    bad = next((i for i, one in enumerate(logprobs) if not (math.isfinite(one) and LOWEST < one <= ROUNDING)), None)
    if bad is not None:
        fix = "serve in higher precision, with --logprobs-mode processed_logprobs"
        return f"the log-prob of token {bad} of a completion is {logprobs[bad]}", fix
    said = set(ids) & set(request.never)
    if said:
        return f"a completion holds the token id {min(said)}, which may not be sampled", "use a server with logit_bias"
    return None


def _ids(told: Any) -> tuple[int, ...]:
    if not isinstance(told, list) or not all(type(one) is int and one >= 0 for one in told):
        raise TypeError("not a list of token ids")
    return tuple(told)


def _id(token: str) -> int:
    if not token.startswith(PREFIX):
        raise ValueError("not a token id")
    return int(token.removeprefix(PREFIX))


def reload(server: Server, folder: Path) -> None:
    """Let the server read its weights from ``folder``, a path that it sees too, and forget what it cached of the old.

    Raises:
        ServerError: no such call, or it failed.
    """
    try:
        call(server, "//collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}})
        emptied = call(server, "//reset_prefix_cache")
    except Missing as error:
        raise ServerError("the server cannot reload weights", where=server.url, fix=DEV_MODE) from error
    if isinstance(emptied, dict) and emptied.get("success") is False:
        raise Unavailable("the server did not empty its cache of prompts", where=server.url,
                          fix="nothing else may use the server during training")  # fmt: skip
    for path in ("//reset_mm_cache", "//reset_encoder_cache"):
        try:
            call(server, path)
        except Missing:
            continue


def set_label(server: Server, label: str) -> bool:
    """Name the served weights; False where the server has no such call."""
    try:
        call(server, "//update_weight_version", {"new_version": label})
    except Missing:
        return False
    return True


def label(server: Server) -> str | None:
    """The name of the served weights: another one than was set after a restart."""
    try:
        told = call(server, "//weight_info", method="GET")
    except Missing:
        return None
    return str(told.get("weight_version")) if isinstance(told, dict) else None


def checksums(server: Server) -> Mapping[str, str] | None:
    """Hashes of the weights that the server holds; None where it has no such call."""
    try:
        told = call(server, "//weight_checker", {"action": "checksum"})
    except Missing:
        return None
    found = told.get("checksums") if isinstance(told, dict) else None
    return found if isinstance(found, dict) else None
