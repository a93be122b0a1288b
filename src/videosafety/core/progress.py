"""The one progress bar: counts and time left, on stderr, and nothing where that is no terminal.

Example:
    >>> with progress_bar(None) as bar:
    ...     task = bar.add_task("drawing clips", total=3)
"""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def progress_bar(console: Console | None) -> Progress:
    """A bar with counts and time left, on stderr; nothing where that is no terminal."""
    console = console or Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("left"),
               TimeRemainingColumn())  # fmt: skip
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
