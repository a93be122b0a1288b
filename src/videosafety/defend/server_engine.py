"""Rollouts from an OpenAI-compatible server with weight reload (vLLM), behind the protocol of ``models/rollout.py``.

Each prompt is one request for all its completions. A clip is sent as the frames that were sampled, as PNG and with
their times, so nothing is sampled or lost again; the server's prompt token ids must equal ours. Log-probs are the
server's own, checked to be those of the distribution sampled from (``served_weights.py``). Only one clip's times can be
told in a request, so a prompt with two different clips needs the local engine.

A server that dies is asked again after each of ``waits_s``. Before every round its weights are checked, and given
again to one that restarted. Answers that came before the first fault of a round are kept, later ones are asked for
again. When waiting is over, ``generate`` raises; called again with the same prompts and seed, it asks only for what is
missing.

    VLLM_SERVER_DEV_MODE=1 vllm serve POLICY --logprobs-mode processed_logprobs --limit-mm-per-prompt '{"video": 1}'

Example:
    >>> engine = ServerEngine(weights)                                          # doctest: +SKIP
    >>> engine.refresh(0)                                                       # doctest: +SKIP
    >>> groups = engine.generate(prompts, Decoding(num_generations=6), seed=0)  # doctest: +SKIP
"""

import base64
import hashlib
import io
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from videosafety.core.errors import InputError, ServerError, VideoSafetyError
from videosafety.core.records import StopReason
from videosafety.core.store import storage_errors, take_lock
from videosafety.defend.lora import merged
from videosafety.defend.served_weights import ServedWeights, check_prompt
from videosafety.defend.stage import ServerConfig
from videosafety.llm.policy_server import Ask, ask
from videosafety.llm.readout import Server
from videosafety.llm.transport import Unavailable
from videosafety.models.checkpoint import Checkpoint, save_model
from videosafety.models.family import Conversation, media_of, metadata
from videosafety.models.fold import rows_in_place
from videosafety.models.rollout import Completion, Decoding, Prompt, end_ids, never_ids
from videosafety.models.wrapped import AlarmModel
from videosafety.video.plan import Clip, Frames, Picture

WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)  # about two minutes: a server that restarts has loaded its weights
FOLDER = "served_policy"  # in the folder that is shared with the server: nothing else is touched there
SEED_BYTES = 6  # so that the seed of each completion, the prompt's plus its index, fits 64 bits
Group = tuple[Completion, ...]
Key = tuple[str, int]  # a prompt's id, and how many with that id stand before it


class ServerEngine:
    """Samples from the server behind ``weights``; ``extra`` are further fields of every request."""

    def __init__(
        self,
        weights: ServedWeights,
        *,
        concurrency: int = 8,
        waits_s: Sequence[float] = WAITS_S,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.weights, self.checkpoint, self.server = weights, weights.checkpoint, weights.server
        self.concurrency, self.waits_s, self.extra = concurrency, tuple(waits_s), dict(extra or {})
        self.ends, self.never = sorted(end_ids(self.checkpoint)), never_ids(self.checkpoint)
        self._kept: dict[Key, Group] = {}
        self._sure: set[Key] = set()  # of the kept ones: from the policy's weights
        self._kept_for: object = None

    def refresh(self, version: int) -> None:
        """Hand the policy's weights to the server, and check that it serves them.

        Raises:
            ServerError: it cannot, or serves other weights.
            StorageError: the weights cannot be saved.
        """
        for last in self._tries():
            try:
                return self.weights.push(version)
            except Unavailable as error:
                if last:
                    raise self._gave_up(error, f"version {version} was not handed over") from error

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding, *, seed: int) -> list[Group]:
        """``num_generations`` completions of each prompt.

        Raises:
            InputError: a prompt cannot be told to a server.
            ServerError: the server stays away, or its answer is wrong; what was answered is kept for another call.
        """
        if self.weights.now is None:
            self.refresh(0)
        keyed = dict(zip(_keys(prompts), prompts, strict=True))
        self._keep_for((self.weights.now, seed, decoding, tuple(keyed)))
        for last in self._tries():
            try:
                self._sift(keyed, decoding)
                self._round({key: one for key, one in keyed.items() if key not in self._kept}, decoding, seed)
                self._sift(keyed, decoding)
                if len(self._kept) == len(keyed):
                    break
                raise Unavailable("it answered from other weights", where=self.server.url, fix="look at its log")
            except Unavailable as error:
                if last:
                    done = f"{len(self._kept)} of {len(keyed)} prompts are answered and kept"
                    raise self._gave_up(error, done) from error
        groups = [self._kept[key] for key in keyed]
        self._keep_for(None)
        return groups

    def _sift(self, prompts: Mapping[Key, Prompt], decoding: Decoding) -> None:
        """Forget what was answered from other weights since the last look; the server serves the policy's again."""
        if not self.weights.ensure():
            for key in set(self._kept) - self._sure:
                if not self.weights.is_own(prompts[key].encoded, self._kept[key][0], temperature=decoding.temperature):
                    del self._kept[key]
        self._sure = set(self._kept)

    def _tries(self) -> Iterator[bool]:
        """Once now, and once after each wait; True for the last."""
        for number, wait_s in enumerate((0.0, *self.waits_s)):
            time.sleep(wait_s)
            yield number == len(self.waits_s)

    def _keep_for(self, asked: object) -> None:
        if asked is None or asked != self._kept_for:
            self._kept, self._sure = {}, set()
        self._kept_for = asked

    def _gave_up(self, error: Unavailable, done: str) -> ServerError:
        what = f"the rollout server stays away after {len(self.waits_s) + 1} attempts: {error.what}; {done}"
        return ServerError(what, where=error.where, fix="start the server again, then resume the run")

    def _round(self, prompts: Mapping[Key, Prompt], decoding: Decoding, seed: int) -> None:
        """Ask for all of them; the first fault ends the round, and is raised once nothing is under way."""
        faults: list[VideoSafetyError] = []
        lock = threading.Lock()

        def one(key: Key, prompt: Prompt) -> None:
            if faults:
                return
            try:
                group = self._ask(key, prompt, decoding, seed)
            except VideoSafetyError as error:
                with lock:
                    faults.append(error)
                return
            with lock:
                if not faults:
                    self._kept[key] = group

        with ThreadPoolExecutor(self.concurrency) as pool:
            list(pool.map(one, prompts.keys(), prompts.values()))
        if faults:
            raise next((error for error in faults if not isinstance(error, Unavailable)), faults[0])

    def _ask(self, key: Key, prompt: Prompt, decoding: Decoding, seed: int) -> Group:
        number = hashlib.sha256(f"{seed} {key[1]} {prompt.id}".encode()).digest()[:SEED_BYTES]
        answer = ask(self.server, Ask(
            prompt.id, chat_messages(prompt.conversation), num=decoding.num_generations,
            max_tokens=decoding.max_new_tokens, temperature=decoding.temperature, seed=int.from_bytes(number),
            stop=decoding.stop, ends=self.ends, never=self.never, extra={**_times(prompt), **self.extra},
        ))  # fmt: skip
        check_prompt(prompt.id, prompt.encoded, answer.prompt_ids, server=self.server)
        size = len(self.checkpoint.tokenizer)
        strange = next((id_ for choice in answer.choices for id_ in choice.ids if id_ >= size), None)
        if strange is not None:
            raise ServerError(f"a completion holds the token id {strange}, the policy knows {size}",
                              where=f"{self.server.url} (prompt {prompt.id!r})",
                              fix="serve the policy's own checkpoint")  # fmt: skip
        decode = self.checkpoint.tokenizer.decode
        return tuple(
            Completion(choice.ids, choice.logprobs, decode(list(choice.ids), skip_special_tokens=True),
                       StopReason.STOP if choice.ended else StopReason.LENGTH)
            for choice in answer.choices
        )  # fmt: skip


@contextmanager
def connected(config: ServerConfig, wrapped: AlarmModel, checkpoint: Checkpoint) -> Iterator[ServerEngine]:
    """The engine of a recipe, while open; its folder of weights is this run's alone, and empty afterwards.

    Raises:
        InputError: the key is not set.
        StorageError: the folder cannot be written, or another run has it.
    """
    key = None if config.key_env is None else os.environ.get(config.key_env)
    if config.key_env is not None and not key:
        raise InputError(f"the environment variable {config.key_env} is not set", where="defend.grpo.server.key_env",
                         fix="set it to the server's key")  # fmt: skip
    server = Server(config.url, config.model, timeout_s=config.timeout_s, key=key)
    folder = Path(config.weights_dir).resolve() / FOLDER

    def save(to: Path) -> None:
        state = rows_in_place(wrapped, wrapped.model.state_dict())
        save_model(wrapped.model, checkpoint.processor, to, state=merged(wrapped.model, state))

    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    with lock:
        take_lock(lock.fileno(), folder)
        for left in folder.glob("*weights-*"):  # by a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        weights = ServedWeights(wrapped, checkpoint, server, folder=folder, save=save, tolerance=config.tolerance)
        try:
            yield ServerEngine(weights, concurrency=config.concurrency, waits_s=WAITS_S)
        finally:
            weights.remove()


def chat_messages(conversation: Conversation) -> list[dict[str, Any]]:
    """A conversation as OpenAI's messages: a clip as its frames, all media without loss."""
    return [{"role": message.role, "content": [_part(part) for part in message.parts]} for message in conversation]


def _part(part: str | Clip | Picture) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, Picture):
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_png(part.pixels)}"}}
    frames = ",".join(_png(frame) for frame in part.frames)
    return {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{frames}"}}


def _png(pixels: Frames) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


def _times(prompt: Prompt) -> dict[str, Any]:
    """What says that the frames are taken as they are, at their true times."""
    clips, _ = media_of(prompt.conversation)
    if not clips:
        return {}
    told = metadata(clips[0])
    if any(one.timestamps_s != clips[0].timestamps_s for one in clips):
        raise InputError("two clips with different times cannot be told to a server in one request",
                         where=f"prompt {prompt.id!r}", fix="use the local engine, or one clip a prompt")  # fmt: skip
    return {"media_io_kwargs": {"video": {
        "num_frames": -1, "fps": told.fps, "frames_indices": told.frames_indices, "do_sample_frames": False,
        "total_num_frames": told.total_num_frames, "duration": told.duration,
    }}}  # fmt: skip


def _keys(prompts: Sequence[Prompt]) -> list[Key]:
    seen: Counter[str] = Counter()
    keys = []
    for prompt in prompts:
        keys.append((prompt.id, seen[prompt.id]))
        seen[prompt.id] += 1
    return keys
