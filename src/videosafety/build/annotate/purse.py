"""The purse: what calls to models may cost together. No set of calls under way at once can pass the cap.

A call reserves the most that it can cost before it is sent, and settles what it did cost. One that does not fit waits
for reservations that are out, and is refused where none are out. A reservation is a bound only if its price and its
number of tokens are; a call that cost more than it reserved is counted in full, and the next ones have less.

On a cluster one actor holds a ``LocalPurse`` and each shard a small object with the same two methods that awaits the
actor's. A shard that dies with reservations out would hold the others up for ever: waiting ends after ``wait_s``.

Example:
    >>> purse = LocalPurse(cap_usd=1.0)
    >>> asyncio.run(purse.reserve(0.75)), asyncio.run(purse.settle(0.75, 0.5)), purse.spent
    (True, None, 0.5)
"""

import asyncio
import math
import threading
from typing import Protocol

NANO = 10**9  # amounts are whole billionths of a dollar: sums are exact


class Purse(Protocol):
    """Where calls get their money."""

    async def reserve(self, usd: float) -> bool:
        """Set aside the most that a call can cost; False: it does not fit, nothing is set aside, do not send it."""

    async def settle(self, reserved_usd: float, paid_usd: float) -> None:
        """Give a reservation back, and say what was paid; 0 for a call that cost nothing."""


class LocalPurse:
    """A purse in this process, for any number of threads and event loops.

    Args:
        cap_usd: what may be spent in all, USD; None: there is no cap.
        spent_usd: what was spent before, from the ledger.
        wait_s: how long a call waits for reservations that are out.
    """

    def __init__(self, cap_usd: float | None, *, spent_usd: float = 0.0, wait_s: float = 3600.0) -> None:
        self._cap = None if cap_usd is None else math.floor(cap_usd * NANO)
        self._spent, self._out, self._num_out = _nano(spent_usd), 0, 0
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def spent(self) -> float:
        """USD paid so far, that of earlier runs included."""
        return self._spent / NANO

    @property
    def reserved(self) -> float:
        """USD set aside for calls under way."""
        return self._out / NANO

    async def reserve(self, usd: float) -> bool:
        """As ``Purse.reserve``."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._wait_s
        while True:
            with self._lock:
                if self._cap is None or self._spent + self._out + _nano(usd) <= self._cap:
                    self._out += _nano(usd)
                    self._num_out += 1
                    return True
                if not self._num_out:
                    return False
                settled = loop.create_future()
                self._waiting.append(settled)
            try:
                await asyncio.wait_for(settled, until_s - loop.time())
            except TimeoutError:
                return False
            finally:
                with self._lock:
                    if settled in self._waiting:
                        self._waiting.remove(settled)

    async def settle(self, reserved_usd: float, paid_usd: float) -> None:
        """As ``Purse.settle``."""
        with self._lock:
            self._out -= _nano(reserved_usd)
            self._num_out -= 1
            self._spent += _nano(paid_usd)
            waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.get_loop().is_closed():
                one.get_loop().call_soon_threadsafe(_wake, one)


def _nano(usd: float) -> int:
    """Billionths of a dollar, rounded up."""
    return math.ceil(round(usd * NANO, 3))


def _wake(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)
