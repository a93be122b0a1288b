"""The pace of requests: so many a minute, evenly, and none while a server has asked to wait.

Example:
    >>> pace = Pace(per_minute=60)
    >>> await pace.turn()  # the second turn comes a second after the first                  # doctest: +SKIP
"""

import asyncio
import time


class Pace:
    """When the next request may begin. For one event loop at a time."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap_s = 60.0 / per_minute if per_minute else 0.0
        self._next_s = self._paused_until_s = 0.0

    async def turn(self) -> None:
        """Wait for a turn; turns begin at least a gap apart, and not during a pause."""
        while True:
            now_s = time.monotonic()
            start_s = max(now_s, self._next_s, self._paused_until_s)
            self._next_s = start_s + self._gap_s
            await asyncio.sleep(start_s - now_s)
            if time.monotonic() >= self._paused_until_s:  # a pause may have begun meanwhile
                return

    def pause(self, seconds: float) -> None:
        """No request begins before then."""
        self._paused_until_s = max(self._paused_until_s, time.monotonic() + seconds)
