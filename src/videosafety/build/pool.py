"""Worker processes that may die: a row that crashes a decoder costs that row and nothing else.

Each worker holds one row at a time, so the parent knows which row a dead worker died on; the worker is replaced and
the others go on. A row that takes too long is ended the same way. A worker whose parent was killed ends itself. Workers
import the script that was started: one without ``if __name__ == "__main__":`` is told so.

Example:
    >>> for index, result in run_isolated(probe, paths, workers=2):                          # doctest: +SKIP
    ...     states[index] = "quarantined" if isinstance(result, Crash) else result
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import current_process, get_context
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from videosafety.core.errors import InputError

T = TypeVar("T")
R = TypeVar("R")
KILLED = ("killed by SIGKILL", "killed by SIGTERM")  # by somebody, or for want of memory: no fault of the row
NO_GUARD = 78  # exit code; its parent says the sentence
SINGLE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Crash:
    """A worker died on this row (``killed by SIGSEGV``, ``exit code 3``), or was ended after ``timeout_s``."""

    how: str


@dataclass(eq=False)
class _Worker:
    process: Any
    line: Connection
    index: int | None = None
    began: float = 0.0


def run_isolated(
    work: Callable[[T], R], rows: Sequence[T], *, workers: int, timeout_s: float = 600.0
) -> Iterator[tuple[int, R | Crash]]:
    """``work`` on every row in spawned processes; yields (index of the row, its result) in the order they are done.

    Args:
        work: picklable; it runs with one thread. What it raises comes out here, and ends the others.
        rows: picklable.
        workers: processes at a time.
        timeout_s: a row that takes longer is a Crash.

    Raises:
        InputError: a worker does not start.
    """
    left, pool = list(range(len(rows)))[::-1], list[_Worker]()

    def start() -> _Worker:
        return _started(work)

    try:
        pool += [start() for _ in range(min(workers, len(rows)))]
        while pool:
            ready = wait([worker.line for worker in pool], timeout=min(timeout_s, 1.0))
            for worker in list(pool):
                if worker.line in ready:
                    result = _received(worker)
                elif worker.index is not None and time.monotonic() - worker.began > timeout_s:
                    result = Crash(f"took more than {timeout_s:g} s")
                else:
                    continue
                index = worker.index
                if isinstance(result, _Raised):
                    raise result.error
                if isinstance(result, Crash):
                    if index is None:
                        raise _not_started(result)
                    _end(worker)
                    pool.remove(worker)
                    pool += [start()] if left else []
                elif left:
                    worker.index, worker.began = left.pop(), time.monotonic()
                    if not _sent(worker, rows[worker.index]):
                        left.append(worker.index)
                        _end(worker)
                        pool.remove(worker)
                        pool += [start()]
                else:
                    _end(worker)
                    pool.remove(worker)
                if index is not None:
                    yield index, result
    finally:
        for worker in pool:
            _end(worker)


class Isolated:
    """One worker that is asked again and again, from any thread; after a row that kills it comes a new one.

    Example:
        >>> decoded = Isolated(decode)("a.mp4")                                              # doctest: +SKIP
    """

    def __init__(self, work: Callable[[Any], Any], *, timeout_s: float = 600.0) -> None:
        self._work, self._timeout_s = work, timeout_s
        self._worker: _Worker | None = None
        self._lock = threading.Lock()

    def __call__(self, row: Any) -> Any:
        """What ``work`` makes of a row, or a Crash; what it raises comes out here."""
        with self._lock:
            for _ in range(2):  # a worker may have died since its last row
                worker = self._worker = self._worker or _ready(_started(self._work))
                if _sent(worker, row):
                    break
                self._stop()
            else:
                return Crash("no worker stays alive")
            result = _received(worker) if worker.line.poll(self._timeout_s) else Crash(f"took {self._timeout_s:g} s")
            if isinstance(result, Crash):
                self._stop()
        if isinstance(result, _Raised):
            raise result.error
        return result

    def _stop(self) -> None:
        if self._worker is not None:
            _end(self._worker)
            self._worker = None


def _started(work: Callable[[Any], Any]) -> _Worker:
    refuse_in_worker()
    context = get_context("spawn")
    os.environ.update({name: os.environ.get(name, value) for name, value in SINGLE_THREAD.items()})
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _ready(worker: _Worker) -> _Worker:
    """A worker that has said that it is there. Raises InputError: it did not start."""
    said = _received(worker)
    if isinstance(said, Crash):
        raise _not_started(said)
    return worker


def _not_started(crash: Crash) -> InputError:
    guard = 'call this below `if __name__ == "__main__":` in your script, since every worker imports the script anew'
    fix = guard if crash.how.startswith("exit code") else "free some memory and run it again"
    return InputError(f"a worker process did not start ({crash.how})", fix=fix)


def refuse_in_worker() -> None:
    """End a worker that is still importing its script, which has no guard and would start workers of its own."""
    if getattr(current_process(), "_inheriting", False):  # as multiprocessing itself tells
        sys.exit(NO_GUARD)


@dataclass(frozen=True)
class _Raised:
    error: BaseException


def _received(worker: _Worker) -> Any:
    """What a worker says; a Crash where it died."""
    try:
        return worker.line.recv()
    except (EOFError, OSError):  # dead, or dead in the middle of a result
        worker.process.join()
        code = worker.process.exitcode
        return Crash(
            f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        )


def _sent(worker: _Worker, row: Any) -> bool:
    """Whether a row could be sent: a worker may have died since it gave its last result."""
    try:
        worker.line.send(row)
    except OSError:
        return False
    return True


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.line.close()


def _serve(line: Connection, work: Callable[[Any], Any]) -> None:
    """A worker: a row in, its result out, until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent takes it, and ends us
    line.send(None)  # ready: what a row may take counts from here
    while True:
        try:
            row = line.recv()
        except EOFError:
            return
        try:
            result = work(row)
        except Exception as error:  # noqa: BLE001 - raised again in the parent
            line.send(_Raised(error))
            continue
        line.send(result)
