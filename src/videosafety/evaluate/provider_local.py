"""The Inspect provider ``videosafety/<checkpoint>``: any local checkpoint of a known family, batched, video included.

Inspect calls ``generate`` once per item, many at a time. Clips are decoded ahead by a few threads, bounded in bytes;
items that are ready are answered together in one padded batch, in a worker thread. What the model is shown travels in
the user message's metadata and not as ``ContentVideo``: Inspect 0.3.285 turns media files into base64 before a model
sees them, which holds every clip in memory several times and turns a vanished file into a crash of the sample.
A fault of one item's media is that item's fault, never the batch's.

Run:
    inspect eval videosafety/vse --model videosafety/DIR -T data=manifest.jsonl -M batch_size=8
"""

import gc
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import anyio
import anyio.to_thread
import torch
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from videosafety.core.errors import InputError, MediaError, VideoSafetyError
from videosafety.core.records import StopReason
from videosafety.evaluate.asking import PROVIDER, Said, Shows
from videosafety.models.checkpoint import load
from videosafety.models.family import Conversation, Message
from videosafety.models.generate import Generated, generate
from videosafety.video.cache import FrameCache
from videosafety.video.sample import Clip, FramePlan, Picture, load_picture, sample_clip

MAX_NEW_TOKENS = 768
NOT_GREEDY = ("temperature", "top_p", "top_k", "num_choices", "best_of", "stop_seqs", "frequency_penalty",
              "presence_penalty", "logit_bias", "response_schema")  # fmt: skip
READY_BYTES = 2**30  # of decoded clips held: no decoding starts above it, so it is passed by one clip a decoder
SETTLE_S = 0.02  # a batch that is not full waits this long for items that are about to arrive


@dataclass(eq=False)
class _Waiting:
    conversation: Conversation
    max_new_tokens: int
    num_bytes: int
    answer: Generated | None = None
    error: Exception | None = None


@dataclass
class _Traffic:
    """Who is where: calls that decode now, items that are ready, bytes of frames that are held."""

    decoding: int = 0
    ready: deque[_Waiting] = field(default_factory=deque)
    held_bytes: int = 0
    arrivals: int = 0


class LocalVideoModel(ModelAPI):
    """A checkpoint behind Inspect's model interface. Greedy; a config that would change an answer is refused."""

    takes_media_paths = True  # the solver asks this: media go by path in the metadata, not as base64

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - Inspect's own signature
        *,
        batch_size: int = 16,
        device: str | None = None,
        dtype: str = "auto",
        trust_remote_code: bool = False,
        decoders: int = 2,
        frame_cache: str | None = None,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        if batch_size < 1 or decoders < 1:
            raise InputError(f"batch_size is {batch_size} and decoders is {decoders}", fix="both must be 1 or more")
        self.batch_size, self.decoders = batch_size, decoders
        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.checkpoint = load(model_name, device=where, dtype=dtype, trust_remote_code=trust_remote_code)
        self.fingerprint = self.checkpoint.fingerprint
        self._cache = FrameCache(Path(frame_cache)) if frame_cache else None
        self._traffic = _Traffic()
        self._engine: anyio.Lock | None = None
        self._slots: anyio.Semaphore | None = None

    def max_connections(self) -> int:
        """Enough to fill one batch while the next is decoded."""
        return 2 * self.batch_size

    def max_tokens(self) -> int | None:
        """The decoding protocol's limit."""
        return MAX_NEW_TOKENS

    def close(self) -> None:
        """Let go of the weights."""
        del self.checkpoint
        gc.collect()

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """One answer. A media fault is an output with ``Said.fault`` and no exception."""
        given = [name for name in NOT_GREEDY if getattr(config, name) not in (None, 0)] + ["tools"] * bool(tools)
        if given:
            raise InputError(f"the local provider is greedy and takes no {', '.join(given)}", fix="leave it out")
        try:
            conversation, plan, num_bytes = await self._decoded(input)
        except InputError as error:
            fault = f"media:{error.fault}" if isinstance(error, MediaError) else "input:refused"
            detail = str(InputError(error.what, fix=error.fix))
            return self._output("", Said(stop_reason=StopReason.FAULT, fault=fault, detail=detail))
        waiting = _Waiting(conversation, config.max_tokens or MAX_NEW_TOKENS, num_bytes)
        answer = await self._answered(waiting)
        said = Said(stop_reason=answer.stop_reason, num_tokens=answer.num_tokens, plan=plan)
        return self._output(answer.text, said)

    def _output(self, text: str, said: Said) -> ModelOutput:
        reason: dict[StopReason, Literal["stop", "max_tokens", "unknown"]]
        reason = {StopReason.STOP: "stop", StopReason.LENGTH: "max_tokens", StopReason.FAULT: "unknown"}
        message = ChatMessageAssistant(content=text, model=self.model_name, source="generate")
        num = said.num_tokens or 0
        return ModelOutput(
            model=self.model_name,
            choices=[ChatCompletionChoice(message=message, stop_reason=reason[said.stop_reason])],
            usage=ModelUsage(output_tokens=num, total_tokens=num),
            metadata={PROVIDER: said.model_dump(mode="json")},
        )

    async def _decoded(self, messages: list[ChatMessage]) -> tuple[Conversation, FramePlan | None, int]:
        """The conversation with its media decoded, the frame plan, and the bytes of pixels that it holds."""
        traffic = self._traffic
        self._slots = self._slots or anyio.Semaphore(self.decoders)
        async with self._slots:
            while traffic.held_bytes >= READY_BYTES:  # asked with the slot in hand: else all callers pass at once
                await anyio.sleep(SETTLE_S)
            traffic.decoding += 1
            try:
                work = partial(conversation_of, messages, cache=self._cache)
                conversation, plan = await anyio.to_thread.run_sync(work)
                self.checkpoint.family.render(self.checkpoint.processor, conversation)  # refuses markup in the words
            finally:
                traffic.decoding -= 1
        return conversation, plan, sum(_num_bytes(part) for message in conversation for part in message.parts)

    async def _answered(self, waiting: _Waiting) -> Generated:
        """Wait for a batch that holds this item, and lead the next one if nobody has answered it by then."""
        traffic = self._traffic
        self._engine = self._engine or anyio.Lock()
        traffic.ready.append(waiting)
        traffic.held_bytes += waiting.num_bytes
        traffic.arrivals += 1
        async with self._engine:
            if waiting.answer is None and waiting.error is None:
                await self._lead()
        if waiting.error is not None:
            raise waiting.error
        assert waiting.answer is not None
        return waiting.answer

    async def _lead(self) -> None:
        """Fill a batch, answer it, hand out the answers. Items with another token limit wait for a batch of theirs."""
        traffic = self._traffic
        while len(traffic.ready) < self.batch_size:
            seen = traffic.arrivals
            await anyio.sleep(SETTLE_S)
            if not traffic.decoding and traffic.arrivals == seen:
                break
        limit = traffic.ready[0].max_new_tokens
        batch = [w for w in traffic.ready if w.max_new_tokens == limit][: self.batch_size]
        for waiting in batch:
            traffic.ready.remove(waiting)
        try:
            work = partial(generate, self.checkpoint, [w.conversation for w in batch], max_new_tokens=limit,
                           batch_size=self.batch_size)  # fmt: skip
            answers = await anyio.to_thread.run_sync(work)
            for waiting, answer in zip(batch, answers, strict=True):
                waiting.answer = answer
        except torch.OutOfMemoryError as error:
            what, fix = f"out of memory with {len(batch)} items at once", "lower the batch size or the number of frames"
            full = VideoSafetyError(what, where=self.model_name, fix=fix)
            full.__cause__ = error
            _fail(batch, full)
        except Exception as error:  # noqa: BLE001 - raised again by every item that waits for this batch
            _fail(batch, error)
        finally:
            traffic.held_bytes -= sum(w.num_bytes for w in batch)


def _fail(batch: list[_Waiting], error: Exception) -> None:
    for waiting in batch:
        waiting.error = error


def conversation_of(
    messages: list[ChatMessage], *, cache: FrameCache | None = None
) -> tuple[Conversation, FramePlan | None]:
    """Inspect's messages as a conversation with decoded media, and the frame plan of the clip.

    Raises:
        MediaError: the media file cannot be used.
    """
    turns: list[Message] = []
    plan: FramePlan | None = None
    for message in messages:
        if message.role == "tool":
            raise InputError("a tool message cannot be shown to a local checkpoint", fix="use a model that takes tools")
        parts: list[str | Clip | Picture] = [message.text]
        if (given := (message.metadata or {}).get(PROVIDER)) is not None:
            shown = _load(Shows.model_validate(given), cache=cache)
            plan = shown.plan
            parts.insert(0, shown)
        turns.append(Message(message.role, tuple(parts)))
    return tuple(turns), plan


def _load(shows: Shows, *, cache: FrameCache | None) -> Clip | Picture:
    if shows.kind == "image":
        return load_picture(shows.path, max_side_px=shows.sampling.max_side_px, sha256=shows.sha256)
    return sample_clip(shows.path, sampling=shows.sampling, cache=cache, sha256=shows.sha256)


def _num_bytes(part: str | Clip | Picture) -> int:
    if isinstance(part, str):
        return 0
    return int(part.frames.nbytes if isinstance(part, Clip) else part.pixels.nbytes)
