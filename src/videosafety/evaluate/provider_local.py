"""The Inspect provider ``videosafety/<checkpoint>``: any local checkpoint of a known family, batched, video included.

Inspect calls ``generate`` once per item, many at a time. Clips are decoded ahead by a few threads, bounded in bytes;
items that are ready are answered together in one padded batch, in a worker thread. What the model is shown travels in
the user message's metadata and not as ``ContentVideo``: Inspect 0.3.285 turns media files into base64 before a model
sees them, which holds every clip in memory several times and turns a vanished file into a crash of the sample.
A fault of one item's media is that item's fault, never the batch's; so is a prompt that the context cannot hold: it is
left out of its batch, and never cut.

Alarms are read from the same prefill. The visual alarm stands in text-only prompts too, where nothing has taught it to
mean anything: its score is None there.

Run:
    inspect eval videosafety/vse --model videosafety/DIR -T data=manifest.jsonl -M batch_size=8
"""

import gc
import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
import torch
from inspect_ai.model import (
    ChatMessage,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from videosafety.core.errors import InputError, MediaError, VideoSafetyError
from videosafety.core.records import StopReason
from videosafety.evaluate.asking import PROVIDER, Said, output_of
from videosafety.evaluate.showing import Shows, detail_of, media_fault, shown
from videosafety.models.checkpoint import load
from videosafety.models.family import Conversation, Encoded, Family, Message, media_of
from videosafety.models.generate import Generated, generate
from videosafety.models.memory import is_out_of_memory
from videosafety.video.cache import FrameCache
from videosafety.video.plan import Clip, FramePlan, Picture

MAX_NEW_TOKENS = 768
NOT_GREEDY = ("temperature", "top_p", "top_k", "num_choices", "best_of", "stop_seqs", "frequency_penalty",
              "presence_penalty", "logit_bias", "response_schema")  # fmt: skip
TOKEN_COMPRESSION = "use_token_compression"  # VideoLLaMA3's processor: frames that hardly change lose their tokens
READY_BYTES = 2**30  # of decoded clips held: no decoding starts above it, so it is passed by one clip a decoder
LOGIT_DECIMALS = 3  # of a recorded alarm: the rest depends on which items shared the batch
SETTLE_S = 0.02  # a batch that is not full waits this long for items that are about to arrive


class _TooLong(InputError):
    """A prompt with its answer is longer than the model's context."""


@dataclass(eq=False)
class _Waiting:
    conversation: Conversation
    max_new_tokens: int
    num_bytes: int
    token_compression: bool
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
        self.compresses_tokens = bool(getattr(self._video_processor, TOKEN_COMPRESSION, False))
        self.alarms: tuple[str, ...] = self.checkpoint.alarm.modalities if self.checkpoint.alarm is not None else ()
        self._cache = FrameCache(Path(frame_cache)) if frame_cache else None
        self._traffic = _Traffic()
        self._engine: anyio.Lock | None = None
        self._slots: anyio.Semaphore | None = None

    @property
    def _video_processor(self) -> object:
        return getattr(self.checkpoint.processor, "video_processor", None)

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
        """One answer. A fault of the item is an output with ``Said.fault`` and no exception."""
        given = [name for name in NOT_GREEDY if getattr(config, name) not in (None, 0)] + ["tools"] * bool(tools)
        if given:
            raise InputError(f"the local provider is greedy and takes no {', '.join(given)}", fix="leave it out")
        try:
            conversation, plan, num_bytes = await self._decoded(input)
            compress = all(shows.token_compression is not False for shows in filter(None, map(shows_of, input)))
            limit = config.max_tokens or MAX_NEW_TOKENS
            answer = await self._answered(_Waiting(conversation, limit, num_bytes, token_compression=compress))
        except InputError as error:
            return output_of(
                self.model_name, "", Said(stop_reason=StopReason.FAULT, fault=_fault(error), detail=detail_of(error))
            )
        said = Said(stop_reason=answer.stop_reason, num_tokens=answer.num_tokens, plan=plan,
                    alarm=_alarm(answer, conversation))  # fmt: skip
        return output_of(self.model_name, answer.text, said)

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
            await anyio.to_thread.run_sync(partial(self._answer, batch, limit))
        except Exception as error:  # noqa: BLE001 - raised again by every item that waits for this batch
            _fail(batch, self._out_of_memory(error, len(batch)) if is_out_of_memory(error) else error)
        finally:
            traffic.held_bytes -= sum(w.num_bytes for w in batch)

    def _answer(self, batch: list[_Waiting], max_new_tokens: int) -> None:
        """Answer all items of a batch that the context can hold; the others get their fault."""
        checkpoint, rows = self.checkpoint, dict[int, Encoded]()
        context = getattr(cast(Any, checkpoint.model.config).get_text_config(), "max_position_embeddings", None)
        for waiting in batch:
            try:
                with self._compression(waiting.token_compression):
                    row = checkpoint.family.encode(checkpoint.processor, waiting.conversation)
                if context is not None and len(row.input_ids) > context - max_new_tokens:
                    what = (f"the prompt has {len(row.input_ids)} tokens, and the model's context of {context} leaves"
                            f" {context - max_new_tokens} beside the answer")  # fmt: skip
                    raise _TooLong(what, fix="lower max_frames, max_side_px or max_new_tokens, or shorten the query")
                rows[id(waiting.conversation)] = row
            except InputError as error:
                waiting.error = error
        fitting = [w for w in batch if w.error is None]
        if fitting:
            family = cast(Family, _EncodedFamily(checkpoint.family, rows))
            answers = generate(replace(checkpoint, family=family), [w.conversation for w in fitting],
                               max_new_tokens=max_new_tokens, batch_size=self.batch_size)  # fmt: skip
            for waiting, answer in zip(fitting, answers, strict=True):
                waiting.answer = answer

    @contextmanager
    def _compression(self, wanted: bool) -> Iterator[None]:
        """Off where it is not wanted. One batch is encoded at a time, so nobody else sees the switch."""
        if wanted or not self.compresses_tokens:
            yield
            return
        setattr(self._video_processor, TOKEN_COMPRESSION, False)
        try:
            yield
        finally:
            setattr(self._video_processor, TOKEN_COMPRESSION, True)

    def _out_of_memory(self, error: Exception, num_items: int) -> VideoSafetyError:
        fix = "lower batch_size, max_frames or max_side_px"
        full = VideoSafetyError(f"out of memory with {num_items} items at once", where=self.model_name, fix=fix)
        full.__cause__ = error
        return full


class _EncodedFamily:
    """A family for one batch that is encoded already, so that generation does not do it again."""

    def __init__(self, family: Family, rows: dict[int, Encoded]) -> None:
        self._family, self._rows = family, rows

    def encode(self, processor: object, conversation: Conversation) -> Encoded:
        """The row of this very conversation, once."""
        return self._rows.pop(id(conversation))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)


def _fail(batch: list[_Waiting], error: Exception) -> None:
    for waiting in batch:
        waiting.error = error


def _fault(error: InputError) -> str:
    """Why an item was not answered, in one word after its kind."""
    if isinstance(error, MediaError):
        return media_fault(error)
    return "input:too_long" if isinstance(error, _TooLong) else "input:refused"


def _alarm(answer: Generated, conversation: Conversation) -> tuple[float | None, float | None] | None:
    """The scores as they are recorded: rounded, and none of the visual alarm where nothing is shown."""
    if answer.alarm is None:
        return None
    visual, textual = (None if p is None else _rounded(p) for p in answer.alarm)
    shown = visual if any(media_of(conversation)) else None
    return None if shown is None and textual is None else (shown, textual)


def _rounded(probability: float) -> float:
    """Rounded as a logit, so that scores near 0 and 1 keep their order."""
    if probability in (0.0, 1.0):
        return probability
    logit = round(math.log(probability / (1 - probability)), LOGIT_DECIMALS)
    return round(1 / (1 + math.exp(-logit)), 9)


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
        if (shows := shows_of(message)) is not None:
            media = shown(shows, cache=cache)
            plan = media.plan
            parts.insert(0, media)
        turns.append(Message(message.role, tuple(parts)))
    return tuple(turns), plan


def shows_of(message: ChatMessage) -> Shows | None:
    """What a message shows beside its words."""
    given = (message.metadata or {}).get(PROVIDER)
    return None if given is None else Shows.model_validate(given)


def _num_bytes(part: str | Clip | Picture) -> int:
    if isinstance(part, str):
        return 0
    return int(part.frames.nbytes if isinstance(part, Clip) else part.pixels.nbytes)
