"""probe: what a clip's file holds, or why it cannot be used. Each file is opened in a process that may die of it.

``partial`` is a file that begins to play and is cut off or damaged further on: it is kept apart, since a harm may lie
in what is lost.

Example:
    >>> Probe(root="clips")(clip)                                                            # doctest: +SKIP
    [Probed(id='clip-4f…', …)]
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from videosafety.build.embed import ended
from videosafety.build.records import Clip, Facts, Probed
from videosafety.build.state import State, Terminal
from videosafety.core.errors import MediaError, MediaFault
from videosafety.video.probe import plays, probe
from videosafety.video.sample import sample_clip


@dataclass(frozen=True)
class Probe:
    """The step. ``root`` is the folder of clips, and no part of what a row is."""

    root: str = field(compare=False)
    name: ClassVar[str] = "probe"
    version: ClassVar[int] = 2
    makes: ClassVar[type[Probed]] = Probed

    def __call__(self, clip: Clip) -> Sequence[Probed] | Terminal:
        """The clip with its facts. A picture stays a picture."""
        path = Path(self.root) / clip.path
        try:
            info = probe(path, with_sha256=True)
            if info.sha256 != clip.sha256:
                return Terminal(state=State.QUARANTINED, reason="media:changed")
            if info.kind == "video":
                sample_clip(path)
        except MediaError as error:
            if error.fault is MediaFault.CORRUPT and plays(path):
                return Terminal(state=State.PARTIAL, reason=f"media:{error.fault}")
            return ended(error)
        facts = Facts(kind=info.kind, codec=info.codec, width_px=info.width_px, height_px=info.height_px, fps=info.fps,
                      num_frames=info.num_frames, duration_s=info.duration_s, has_audio=info.has_audio)  # fmt: skip
        return [Probed(id=clip.id, clip=clip, facts=facts)]
