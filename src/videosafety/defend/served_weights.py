"""Give the rollout server the policy's weights, and know that it serves them.

A server may answer a reload with 200 and keep what it had, come back from a crash with its first weights, or report
log-probs of another distribution; training would go on and learn from the wrong samples. A label that the client sets
says that nothing restarted, not what is served. So a fixed prompt is asked before and after each reload and before each
batch of rollouts, and the answer is compared with what the policy itself says to the same tokens:

* log-probs farther from the policy's than ``tolerance``: other weights. Close to those before temperature: the server
  reports raw ones, which cannot be corrected from the sampled token alone;
* the same numbers as before the reload, where the policy's own moved by more than ``MOVED``: not reloaded;
* nearer to an older version of the policy than to this one: stale;
* hashes of the weights, where the server tells them, that a reload did not change; a label that is not ours.

What no check sees is a staleness that changes the probe's log-probs by less than the server's own rounding.

Example:
    >>> weights = ServedWeights(wrapped, checkpoint, server, folder=shared, save=save)       # doctest: +SKIP
    >>> weights.push(1)                                                         # doctest: +SKIP
"""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from videosafety.core.errors import ServerError
from videosafety.llm.policy_server import Answer, Ask, ask, checksums, label, reload, set_label
from videosafety.llm.readout import Server
from videosafety.models.checkpoint import Checkpoint, fingerprint
from videosafety.models.family import Encoded, Message, collate
from videosafety.models.logprobs import Head
from videosafety.models.rollout import Completion, never_ids
from videosafety.models.wrapped import AlarmModel

PROBE = "Describe what you see in a few words."
PROBE_ID = "probe"
NUM, LENGTH, TOP = 4, 8, 20  # completions, their tokens, and how many probable first tokens are compared
TEMPERATURE = 2.0  # far from 1, so that raw log-probs show
MOVED = 1e-3  # mean change of the policy's log-probs above which a server's must change too
NEARER = 0.5  # of the distance to this version, within which an older one is nearer
Tops = Mapping[int, float]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Version:
    """Weights that were handed over: their label, the folder, and the policy's (V,) log-probs of the first token."""

    label: str
    folder: Path
    logp_V: Tensor

    @property
    def fingerprint(self) -> str:
        """Of the folder."""
        return self.label.partition("-")[2]


class ServedWeights:
    """The weights behind a server. ``save`` writes the policy as an ordinary checkpoint to a folder that both see."""

    def __init__(
        self,
        wrapped: AlarmModel,
        checkpoint: Checkpoint,
        server: Server,
        *,
        folder: Path,
        save: Callable[[Path], object],
        tolerance: float = 0.1,
    ) -> None:
        self.wrapped, self.checkpoint, self.server = wrapped, checkpoint, server
        self.folder, self.save, self.tolerance = folder, save, tolerance
        self.never = never_ids(checkpoint)
        self.now: Version | None = None
        self._seen: list[Version] = []  # the first, and the last after whose reload the server answered otherwise
        self._labelled = False
        encoded = checkpoint.family.encode(checkpoint.processor, (Message("user", (PROBE,)),))
        self._prompt = encoded

    def push(self, version: int) -> None:
        """Save the policy, let the server load it, check that it did, and remove the files of the version before.

        Raises:
            ServerError: the server cannot reload, or serves other weights afterwards; Unavailable: ask again.
            StorageError: the weights cannot be saved.
        """
        folder = self.folder / f"weights-{version}"
        self.save(folder)
        new = Version(f"{version}-{fingerprint(folder)}", folder, self._first())
        old = self.now
        if old is None or old.fingerprint == new.fingerprint:
            self._load(new)
            self._seen = self._seen or [new]
        else:
            hashes, before = checksums(self.server), self._probe().choices[0].tops[0]
            after = self._load(new, before=before)
            if hashes is not None and checksums(self.server) == hashes:
                raise self._fault(new, "the hashes of its weights are those of before")
            if after != before:
                self._seen = [self._seen[0], new]
        if old is not None and old.folder != folder:
            shutil.rmtree(old.folder, ignore_errors=True)
        self.now = new

    def remove(self) -> None:
        """Take away the files of the last version: nobody will ask this server again."""
        if self.now is not None:
            shutil.rmtree(self.now.folder, ignore_errors=True)
            self.now = None

    def ensure(self) -> bool:
        """Check that the server still serves this version; give it again to one that restarted. True: it did serve it.

        Raises:
            ServerError: it still serves other weights.
        """
        assert self.now is not None
        why = self._other_label(self.now) or self._other(self.now, self._probe(), before=None)
        if why:
            log.warning("the rollout server lost version %s (%s): it loads it again", self.now.label, why)
            self._load(self.now)
        return not why

    def is_own(self, encoded: Encoded, completion: Completion, *, temperature: float) -> bool:
        """Whether the log-probs that were told of a completion are the policy's own; those of no token are."""
        if not completion.ids:
            return True
        (logp_CV,) = self._logp([completion.ids], temperature, self.never, prompt=encoded)
        own_C = logp_CV[:-1].gather(1, torch.tensor(completion.ids)[:, None])[:, 0]
        return float((own_C - torch.tensor(completion.logprobs)).abs().mean()) <= self.tolerance

    def _load(self, version: Version, *, before: Tops | None = None) -> Tops:
        reload(self.server, version.folder)
        self._labelled = set_label(self.server, version.label)
        answer = self._probe()
        why = self._other_label(version) or self._other(version, answer, before=before)
        if why:
            raise self._fault(version, why)
        return answer.choices[0].tops[0]

    def _fault(self, version: Version, why: str) -> ServerError:
        fix = (f"check that the server sees {version.folder} and serves {self.checkpoint.family.name} in the policy's "
               f"precision; then run again")  # fmt: skip
        return ServerError(f"after a reload the server does not serve version {version.label}: {why}",
                           where=self.server.url, fix=fix)  # fmt: skip

    def _other_label(self, version: Version) -> str | None:
        found = label(self.server) if self._labelled else version.label
        return None if found == version.label else f"it calls its weights {str(found)[:80]!r}"

    def _other(self, version: Version, answer: Answer, *, before: Tops | None) -> str | None:
        """Why these are not the weights of ``version``, whose policy is the one in memory; None where they are."""
        gap, raw = self._gap(answer, TEMPERATURE, self.never), self._gap(answer, 1.0, ())
        if gap > self.tolerance:
            if raw < gap / 2:
                raise ServerError("the server reports log-probs before temperature", where=self.server.url,
                                  fix="start it with --logprobs-mode processed_logprobs")  # fmt: skip
            return f"its log-probs are {gap:.3g} from the policy's on average, {self.tolerance:g} is allowed"
        tops, own = answer.choices[0].tops[0], _distance(answer.choices[0].tops[0], version.logp_V)
        if before == tops and _distance(tops, version.logp_V, self._seen[-1].logp_V) > MOVED:
            return "it answers the probe to the last digit as before"
        for old in self._seen:
            known_apart = _distance(tops, version.logp_V, old.logp_V) > MOVED
            if known_apart and _distance(tops, old.logp_V) < NEARER * own:
                return f"its answer is that of version {old.label}"
        return None

    def _probe(self) -> Answer:
        content = [{"type": "text", "text": PROBE}]
        answer = ask(self.server, Ask(
            PROBE_ID, [{"role": "user", "content": content}], num=NUM, max_tokens=LENGTH, temperature=TEMPERATURE,
            seed=0, never=self.never, top=TOP,
        ))  # fmt: skip
        check_prompt(PROBE_ID, self._prompt, answer.prompt_ids, server=self.server)
        return answer

    def _first(self) -> Tensor:
        """(V,) the policy's log-probs of the probe's first token."""
        return self._logp([()], TEMPERATURE, self.never)[0][-1]

    def _gap(self, answer: Answer, temperature: float, never: Sequence[int]) -> float:
        """Mean distance of the server's log-probs from the policy's, over all tokens of the probe."""
        said = [choice.ids for choice in answer.choices]
        told = torch.tensor([one for choice in answer.choices for one in choice.logprobs])
        own = [logp_CV[:-1].gather(1, torch.tensor(ids)[:, None])[:, 0]
               for logp_CV, ids in zip(self._logp(said, temperature, never), said, strict=True)]  # fmt: skip
        return float((torch.cat(own) - told).abs().mean())

    @torch.no_grad()
    def _logp(
        self, said: Sequence[Sequence[int]], temperature: float, never: Sequence[int], *, prompt: Encoded | None = None
    ) -> list[Tensor]:
        """(C + 1, V) for each completion of the probe, or of a prompt: before its first token, and behind each."""
        model, tokenizer, asked = self.wrapped.model, self.checkpoint.tokenizer, prompt or self._prompt
        rows = [_extended(asked, ids) for ids in said]
        batch = collate(rows, pad_token_id=tokenizer.pad_token_id, side="right")
        inputs = {name: tensor.to(model.device) for name, tensor in batch.items() if name != "labels"}
        training = model.training
        model.eval()
        try:
            hidden_BTH = self.wrapped(inputs)
        finally:
            model.train(training)
        head, first = Head(self.wrapped, never=never, temperature=temperature), len(asked.input_ids) - 1
        return [head(hidden_TH[first : first + len(ids) + 1]).log_softmax(dim=-1).cpu()
                for hidden_TH, ids in zip(hidden_BTH, said, strict=True)]  # fmt: skip


def check_prompt(prompt_id: str, encoded: Encoded, told: Sequence[int], *, server: Server) -> None:
    """The server must have been shown the token ids that the policy is trained on.

    Equal ids mean equal words, times and numbers of visual tokens. Pixels cannot be compared through a server: frames
    are sent without loss, and ``sampling_gap`` of the training log shows a server that changes them.

    Raises:
        ServerError: naming the prompt and the first position that differs.
    """
    own = encoded.input_ids.tolist()
    if own == list(told):
        return
    at = next((i for i, (a, b) in enumerate(zip(own, told, strict=False)) if a != b), min(len(own), len(told)))
    sides = " and ".join(f"{name} {ids[at] if at < len(ids) else 'the end'}" for name, ids in
                         (("the policy's", own), ("the server's", list(told))))  # fmt: skip
    what = f"the prompt's token ids differ first at position {at} ({sides}; {len(own)} and {len(told)} ids)"
    fix = "serve the policy's own checkpoint and chat template, and let the server sample no frames"
    raise ServerError(what, where=f"{server.url} (prompt {prompt_id!r})", fix=fix)


def _extended(encoded: Encoded, ids: Sequence[int]) -> Encoded:
    more = torch.tensor(list(ids), dtype=torch.long)
    per_token = {name: torch.cat([values, torch.zeros_like(more)]) for name, values in encoded.per_token.items()}
    return Encoded(torch.cat([encoded.input_ids, more]), per_token=per_token, stacked=encoded.stacked)


def _distance(tops: Tops, logp_V: Tensor, other_V: Tensor | None = None) -> float:
    """Mean distance over the told tokens of (V,) log-probs from the told ones, or from ``other_V``."""
    ids = torch.tensor(list(tops))
    other = torch.tensor(list(tops.values())) if other_V is None else other_V[ids]
    apart = (logp_V[ids] - other).abs()
    known = apart[apart.isfinite()]
    return float(known.mean()) if len(known) else 0.0
