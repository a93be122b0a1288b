"""keep: copy every clip into the folder of the build by its hash, so that what was built does not hang on a folder that
somebody tidies or edits. Or link it, which takes no room and leaves it open to edits.

Example:
    >>> Keep(clips="clips", root="runs/build/store")(clip)[0].path                           # doctest: +SKIP
    'media/4f/4f1c….mp4'
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from videosafety.build.records import Clip
from videosafety.build.state import State, Terminal
from videosafety.build.store import MEDIA, MediaStore
from videosafety.core.errors import RecordError


@dataclass(frozen=True)
class Keep:
    """The step. ``clips`` is where a clip lies, ``root`` the folder that it is kept in, under ``media``."""

    clips: str = field(compare=False)
    root: str = field(compare=False)
    links: bool = field(default=False, compare=False)
    name: ClassVar[str] = "keep"
    version: ClassVar[int] = 1
    makes: ClassVar[type[Clip]] = Clip

    def __call__(self, clip: Clip) -> Sequence[Clip] | Terminal:
        """The clip with its path from ``root``. Raises StorageError: the disk refuses."""
        try:
            kept = MediaStore(Path(self.root) / MEDIA, links=self.links).put(
                Path(self.clips) / clip.path, sha256=clip.sha256
            )
        except RecordError:
            return Terminal(state=State.FAILED, reason="media:missing")
        except ValueError:
            return Terminal(state=State.QUARANTINED, reason="media:changed")
        path = kept.relative_to(self.root).as_posix()
        return [clip.model_copy(update={"path": path, "found_as": clip.path})]
