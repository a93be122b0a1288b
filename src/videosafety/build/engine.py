"""The cluster engine: the very steps of a build as Ray tasks over shards of rows. Ray is used here and nowhere else.

A shard is a number of rows that a step has still to work on. Its task has a ledger of its own in ``OUT/shards``, on a
disk that all machines share, and runs the step there as a laptop would: decoders in child processes, calls to models
journaled before they are used. A worker that dies is replaced, and the new one goes on from the shard's ledger. What
shards have done is taken into the build's ledger as they end, and at the start of the next run if this one was killed;
so no finished call is repeated, and both engines end with the same rows. Ray's own checkpoints are not relied on.

Money is one for all: an actor holds the purse.

Example:
    >>> Cluster(recipe.engine, out=out, ledger=ledger, limits=recipe.limits).run(stage, rows)
    ...                                                                                      # doctest: +SKIP
"""

import hashlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from videosafety.build.annotate.purse import LocalPurse
from videosafety.build.ledger import Ledger
from videosafety.build.recipe import EngineConfig, LimitsConfig
from videosafety.build.rows import Packed, Rows, source_of
from videosafety.build.run import begin, rows_of, run_step
from videosafety.build.shards import PAID, SHARDS, absorb, opened
from videosafety.build.stages import Stage
from videosafety.build.step import AsyncStep, GlobalStep
from videosafety.core.errors import DependencyError, ServerError, StorageError, VideoSafetyError
from videosafety.core.records import Record
from videosafety.core.store import storage_errors

MAX_RETRIES = 3  # of a task whose worker died; Ray's default is for ever
PURSE_WAIT_S = 600.0  # for money that a task has set aside, which may have died with it
ANSWERS_WITHIN_S = 10.0
STARTS = 3  # of a Ray on this machine, before it is given up


class Cluster:
    """Runs stages on Ray: a cluster that is there, or one that it starts on this machine and ends with the process."""

    def __init__(self, config: EngineConfig, *, out: Path, ledger: Ledger, limits: LimitsConfig) -> None:
        self._ray = _started(config)
        self._config, self._ledger, self._concurrency = config, ledger, limits.concurrency
        self._shards = out.resolve() / SHARDS
        with storage_errors(self._shards):
            self._shards.mkdir(parents=True, exist_ok=True)
        actor = self._ray.remote(num_cpus=0, max_concurrency=1000)(_Holder)
        self._purse = ActorPurse(actor.remote(limits.cost_cap_usd, ledger.spent()))

    def run(
        self, stage: Stage, rows: Rows[Any], *, on_row: Callable[[int, int], None] = lambda done, total: None
    ) -> Rows[Any]:
        """The rows that a stage makes, in their order; a global step runs here, where all rows are.

        Raises:
            VideoSafetyError: as the step; a shard whose workers died again and again is a StorageError.
        """
        step = stage.make(self._ledger, self._purse)
        if isinstance(step, GlobalStep):
            return run_step(step, rows, self._ledger, on_row=on_row)
        source = source_of(rows)
        keys, todo = begin(step, source, self._ledger)
        done = len(source) - len(todo)
        on_row(done, len(source))
        paid = self._paid(step) if todo else None
        for shard, num_rows in self._ended(stage, source, [known.place for known in todo], paid):
            absorb([shard], self._ledger)
            done += num_rows
            on_row(done, len(source))
        return rows_of(step, source, keys, self._ledger)

    def _paid(self, step: Any) -> Path | None:
        """All calls so far, where shards can look them up."""
        if not isinstance(step, AsyncStep) or not self._ledger.num_calls():
            return None
        self._ledger.export_calls(self._shards / PAID)
        return self._shards / PAID

    def _ended(self, stage: Stage, source: Any, places: Sequence[int], paid: Path | None) -> Iterator[tuple[Path, int]]:
        """Ledgers of shards as they end, with their rows; one is under way for each processor of the cluster."""
        task = self._ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(work_shard)
        size = self._config.rows_per_shard
        cuts = iter(range(0, len(places), size))
        most = max(1, round(self._ray.cluster_resources().get("CPU", 1)))
        under_way: dict[Any, tuple[Path, int]] = {}
        while True:
            while len(under_way) < most and (cut := next(cuts, None)) is not None:
                rows = [source.json(place) for place in places[cut : cut + size]]
                name = hashlib.sha256(b"\n".join([stage.name.encode(), *rows])).hexdigest()[:32]
                path = self._shards / f"{name}.sqlite"
                limits = Limits(self._concurrency, share=most)
                handle = task.remote(stage, source.kind, rows, path, paid, self._purse, limits)
                under_way[handle] = (path, len(rows))
            if not under_way:
                return
            (ended, *_), _ = self._ray.wait(list(under_way), num_returns=1)
            path, num_rows = under_way.pop(ended)
            self._get(ended)
            yield path, num_rows

    def _get(self, handle: Any) -> None:
        """Wait for a task. What a step raises comes out as it is."""
        errors = self._ray.exceptions
        try:
            self._ray.get(handle)
        except errors.RayTaskError as error:
            if isinstance(error.cause, VideoSafetyError):
                raise error.cause from None
            raise
        except errors.RayError as error:
            fix = "look for memory that ran out, and run the same command again"
            raise StorageError(f"a shard's worker died {MAX_RETRIES + 1} times ({type(error).__name__})",
                               where=str(self._shards), fix=fix) from error  # fmt: skip


class Limits(NamedTuple):
    """Of one shard: rows that wait for models at a time; one of how many that ask the same models."""

    concurrency: int
    share: int


def work_shard(
    stage: Stage, kind: type[Record], rows: Sequence[bytes], path: Path, paid: Path | None, purse: Any, limits: Limits
) -> None:
    """What a task does: the stage over a shard's rows, into the shard's ledger."""
    with opened(path, paid=paid) as ledger:
        step = stage.make(ledger, purse, share=limits.share)
        run_step(step, Packed(kind, rows), ledger, workers=1, concurrency=limits.concurrency)


class _Holder:
    """The actor that holds the purse."""

    def __init__(self, cap_usd: float | None, spent_usd: float) -> None:
        self._purse = LocalPurse(cap_usd, spent_usd=spent_usd, wait_s=PURSE_WAIT_S)

    async def reserve(self, usd: float) -> bool:
        return await self._purse.reserve(usd)

    async def settle(self, reserved_usd: float, paid_usd: float) -> None:
        await self._purse.settle(reserved_usd, paid_usd)


class ActorPurse:
    """The purse as a shard sees it."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def reserve(self, usd: float) -> bool:
        """As ``Purse.reserve``."""
        return bool(await self._actor.reserve.remote(usd))

    async def settle(self, reserved_usd: float, paid_usd: float) -> None:
        """As ``Purse.settle``."""
        await self._actor.settle.remote(reserved_usd, paid_usd)


def _started(config: EngineConfig) -> Any:
    """Ray, connected. Raises DependencyError: it is not installed; ServerError: no cluster at the address."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise DependencyError("the engine 'ray' needs Ray", fix="pip install 'videosafety[build]'") from error
    if ray.is_initialized():
        return ray
    if config.address is None:
        _start_here(ray, num_workers=config.num_workers)
        return ray
    _check_reachable(config.address)
    try:
        ray.init(address=config.address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _nobody(config.address, f"{type(error).__name__}") from error
    return ray


def _start_here(ray: Any, *, num_workers: int | None) -> None:
    """A Ray of this machine's own. Ray gives itself 30 s, which a busy machine may not have: it is asked again.

    Raises:
        ServerError: it does not come up.
    """
    for left in reversed(range(STARTS)):
        try:
            ray.init(num_cpus=num_workers, include_dashboard=False, log_to_driver=False, configure_logging=False)
            return
        except Exception as error:  # this very class, where it took too long
            ray.shutdown()
            if not left:
                said = (str(error).splitlines() or [type(error).__name__])[0][:200]
                raise ServerError(f"Ray does not start on this machine: {said}", where="engine.kind: ray",
                                  fix="try again with less beside it, or use engine.kind: pool") from error  # fmt: skip


def _check_reachable(address: str) -> None:
    """Ray itself asks for minutes. ``auto`` and the like name no machine. Raises ServerError: nobody answers."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65_536:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_WITHIN_S).close()
    except OSError as error:
        raise _nobody(address, str(error)) from error


def _nobody(address: str, why: str) -> ServerError:
    return ServerError(f"no Ray cluster answers ({why})", where=address,
                       fix="start one, or leave engine.address out to use this machine")  # fmt: skip
