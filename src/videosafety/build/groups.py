"""groups: union-find. What is joined, directly or over others, is one group, which is called by its smallest member.

Example:
    >>> groups = Groups[str]()
    >>> groups.join("b", "c")
    >>> groups.join("c", "a")
    >>> groups.of("b"), groups.of("d")
    ('a', 'd')
"""

from typing import Any, Generic, TypeVar

M = TypeVar("M", bound=Any)  # members can be compared


class Groups(Generic[M]):
    """Groups of what was joined; a member that never was is alone, and takes no memory."""

    def __init__(self) -> None:
        self._parent: dict[M, M] = {}

    def of(self, member: M) -> M:
        """The group of a member."""
        path = []
        while (parent := self._parent.get(member, member)) != member:
            path.append(member)
            member = parent
        for one in path:
            self._parent[one] = member
        return member

    def join(self, first: M, second: M) -> None:
        """Make two groups one."""
        low, high = sorted((self.of(first), self.of(second)))
        if low != high:
            self._parent[high] = low
