"""Ledgers of shards: what the tasks of a cluster have done, taken into the build's ledger.

A task writes ``OUT/shards/HASH.sqlite``. It is taken in when the task ends; what a killed build left there is taken in
at the start of the next one, whatever engine that uses: the calls in it are paid.

Example:
    >>> absorb_shards(out, ledger)                                                           # doctest: +SKIP
"""

import time
from collections.abc import Sequence
from pathlib import Path

from videosafety.build.ledger import Ledger
from videosafety.core.errors import InputError, StorageError
from videosafety.core.store import storage_errors

SHARDS = "shards"
PAID = "paid.sqlite"  # all calls so far, where tasks look them up
LOCK_WAIT_S = 30.0  # for the worker of a killed run to let go of its shard


def absorb_shards(out: Path, ledger: Ledger) -> None:
    """Take in all that a killed build left behind. Raises StorageError: a worker of it still writes, or the disk."""
    absorb(sorted((out / SHARDS).glob("*.sqlite")), ledger)


def absorb(shards: Sequence[Path], ledger: Ledger) -> None:
    """Take these ledgers in, and take them away."""
    for path in shards:
        if path.name != PAID:
            try:
                opened(path).close()  # a worker that outlived its build still writes
            except InputError as error:
                raise InputError(
                    error.what, where=str(path), fix="delete this file; its calls are paid again"
                ) from error
            ledger.absorb(path)
        with storage_errors(path):
            for suffix in ("", "-wal", "-shm", ".lock"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)


def opened(path: Path, *, paid: Path | None = None) -> Ledger:
    """A shard's ledger, once whoever had it before is gone. Raises StorageError."""
    until = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return Ledger(path, paid=paid)
        except StorageError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
