"""An annotator of a recipe: which model, what it costs, how fast and how often it may be asked.

The model is ``http(s)://HOST/v1#NAME`` (any OpenAI-compatible server) or ``PROVIDER/MODEL`` as Inspect names it. A
server's key is read from ``VIDEOSAFETY_ANNOTATOR_API_KEY``, or from a variable that begins so where servers have
different keys; Inspect's providers read their own. Keys stand in no recipe, ledger, log or error.

What decides an answer is the annotator's ``identity``. The address of a server is no part of it, so that a server that
comes back elsewhere is not paid again; nor are prices, limits and patience.

Example:
    >>> AnnotatorConfig(model="http://127.0.0.1:8000/v1#vl-7b").label
    'vl-7b'
"""

import hashlib
from typing import Literal, Self

from pydantic import model_validator

from videosafety.core.errors import ServerError
from videosafety.core.recipe import Config, knob
from videosafety.core.store import canonical_json

KEY = "VIDEOSAFETY_ANNOTATOR_API_KEY"
WIRE_VERSION = 1  # goes up when the same request would be sent in another form
TOKENS_PER_MESSAGE = 256  # of the roles and separators that a server adds
MILLION = 1e6
DECIDES = ("name", "max_tokens", "temperature", "seed", "structured", "num_frames", "max_side_px")


class CallFault(ServerError):
    """A model gave no answer that can be used. ``reason`` is one word after its kind, for the row's state."""

    def __init__(self, what: str, *, reason: str, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what, where=where, fix=fix)
        self.reason = reason


class CostCap(CallFault):
    """The call was not sent: what it may cost does not fit under the cap."""


class InvalidAnswer(CallFault):
    """The model was heard twice, and both answers are no JSON object. Asking again gives the same two answers."""


class Unshown(CallFault):
    """The clip or picture could not be shown; ``reason`` is ``media:`` and the fault of the file."""


def reason_of(error: ServerError) -> str:
    """Why a call failed, for a row that FAILED by it: ``server:timeout``, ``cost:cap``, ``media:missing`` …"""
    return error.reason if isinstance(error, CallFault) else "server:rejected"


class AnnotatorConfig(Config):
    """One model that is asked about clips or for words."""

    model: str = knob(help="http(s)://HOST/v1#NAME, or PROVIDER/MODEL as Inspect names it")
    name: str | None = knob(None, help="in votes and tables; null: the last part of the model's name")
    usd_per_million_input: float | None = knob(None, unit="USD", help="price of a million prompt tokens", ge=0)
    usd_per_million_output: float | None = knob(None, unit="USD", help="price of a million answer tokens", ge=0)
    max_tokens: int = knob(1024, unit="tokens", help="longest answer, thoughts included", ge=1, le=1_000_000)
    temperature: float = knob(0.0, help="of sampling; 0 is greedy", ge=0, le=2)
    seed: int | None = knob(None, help="sent with each request; null: none is sent")
    structured: Literal["schema", "json", "prompt"] = knob(
        "schema", help="what makes the answer JSON: a JSON schema, a JSON mode, or only the words of the prompt"
    )
    key_env: str | None = knob(KEY, help="environment variable of the server's key; null: send none")
    num_frames: int = knob(16, unit="frames", help="of a clip, spread evenly from first to last", ge=1, le=1000)
    max_side_px: int = knob(512, unit="px", help="longer side of a frame as sent", ge=16, le=4096)
    tokens_per_frame: int = knob(1600, unit="tokens", help="the most that one frame can cost; a cap trusts it", ge=0)
    timeout_s: float = knob(120.0, unit="s", help="for one answer", gt=0)
    connections: int = knob(8, help="requests under way at once", ge=1, le=1000)
    requests_per_minute: float | None = knob(None, unit="1/min", help="requests begun; null: no limit", gt=0)
    tries: int = knob(4, help="times a server that answers with faults is asked", ge=1, le=100)
    patience_s: float = knob(600.0, unit="s", help="wait for a server that is away, or that says wait", ge=0)
    backoff_s: float = knob(0.5, unit="s", help="first wait before asking again; doubled each time", gt=0)

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        url, _, served = self.model.partition("#")
        if self.model.startswith(("http://", "https://")):
            if not served:
                raise ValueError(f"{url} names no model: write {url or 'http://HOST/v1'}#MODEL")
            if "@" in url or "?" in url:  # addresses are shown in errors
                raise ValueError("the address of the server holds a key or a query")
        elif "/" not in self.model:
            raise ValueError(f"{self.model!r} is no model: write PROVIDER/MODEL, or http://HOST/v1#MODEL")
        if self.key_env is not None and not self.key_env.startswith(KEY):  # a recipe cannot send other secrets away
            raise ValueError(f"the variable {self.key_env!r} does not begin with {KEY}")
        if (self.usd_per_million_input is None) != (self.usd_per_million_output is None):
            raise ValueError("give both prices, or none")
        if not 1 <= len(self.label) <= 200:
            raise ValueError("the name has 1 to 200 characters")
        return self

    @property
    def is_served(self) -> bool:
        """Whether the model is an address, and not one that Inspect knows."""
        return self.model.startswith(("http://", "https://"))

    @property
    def has_prices(self) -> bool:
        """Whether a cap on cost means anything: a free model says so with prices of 0."""
        return self.usd_per_million_input is not None

    @property
    def label(self) -> str:
        """The annotator's name in votes."""
        return self.model.rpartition("#")[2].rstrip("/").rpartition("/")[2] if self.name is None else self.name

    @property
    def identity(self) -> str:
        """Canonical JSON of all that decides an answer."""
        decides = {name: getattr(self, name) for name in DECIDES}
        model = self.model.partition("#")[2] if self.is_served else self.model
        return canonical_json(decides | {"model": model, "wire": WIRE_VERSION}).decode()

    @property
    def tag(self) -> str:
        """The name with a hash of the identity, at most 200 characters: who wrote a row, exactly and in short."""
        return f"{self.label[:180]}@{hashlib.sha256(self.identity.encode()).hexdigest()[:12]}"

    def shared_by(self, num: int) -> Self:
        """The same annotator for each of ``num`` processes that ask at once: the limits are theirs together.

        Each has one connection at least. Calls keep their keys.
        """
        per_minute = None if self.requests_per_minute is None else self.requests_per_minute / num
        limits = {"connections": max(1, self.connections // num), "requests_per_minute": per_minute}
        return self.model_copy(update=limits)

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """USD of a call; 0 without prices."""
        prices = (self.usd_per_million_input or 0.0, self.usd_per_million_output or 0.0)
        return (input_tokens * prices[0] + output_tokens * prices[1]) / MILLION

    def most_input_tokens(self, num_bytes: int, num_frames: int) -> int:
        """A bound on the tokens of a prompt: no tokenizer makes more of a text than its UTF-8 bytes."""
        return num_bytes + num_frames * self.tokens_per_frame + TOKENS_PER_MESSAGE
