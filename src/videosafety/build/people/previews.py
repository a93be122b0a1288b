"""Previews of clips for people: a few small frames, made once and kept under the hash of the clip's bytes.

Files are decoded in processes that may die of them. What is kept is what pages show now: a preview that no page shows
any more, such as that of a clip somebody quarantined, is removed.

Example:
    >>> found = previews({"clip-4f": described}, root=Path("clips"), folder=Path("out/review/previews"),
    ...                  num_frames=8, max_side_px=192)                                      # doctest: +SKIP
    >>> found["clip-4f"].times
    'Frames at 0.0 s · 1.0 s'
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from videosafety.build.pool import run_isolated
from videosafety.build.records import Described
from videosafety.core.errors import RecordError, VideoSafetyError
from videosafety.core.jsonl import read_record
from videosafety.core.records import Record
from videosafety.core.store import storage_errors, write_json
from videosafety.html.media import strip
from videosafety.video.plan import Sampling
from videosafety.video.sample import load_picture, sample_clip


class Frame(Record):
    """A small picture as a data URI, its size, and whether enlarging keeps hard pixels."""

    uri: str = Field(pattern=r"^data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$")
    width_px: int = Field(ge=1)
    height_px: int = Field(ge=1)
    pixelated: bool


class Preview(Record):
    """What of a clip stands in a page: frames, when they are shown, and a note where there are none."""

    frames: tuple[Frame, ...] = ()
    times: str = ""
    note: str = ""


@dataclass(frozen=True)
class MakePreview:
    """Makes the preview of a clip. ``root`` is the folder of clips."""

    root: str
    num_frames: int
    max_side_px: int

    def __call__(self, described: Described) -> Preview:
        """The frames of a clip; a note where its file cannot be read or is another one now."""
        path, sha256 = Path(self.root) / described.clip.path, described.clip.sha256
        try:
            if described.facts.kind == "image":
                pixels, times = load_picture(path, max_side_px=self.max_side_px, sha256=sha256).pixels[None], ""
            else:
                sampling = Sampling(fps=1.0, max_frames=self.num_frames, max_side_px=self.max_side_px)
                clip = sample_clip(path, sampling=sampling, sha256=sha256)
                pixels = clip.frames
                times = "Frames at " + " · ".join(f"{time:.1f} s" for time in clip.timestamps_s)
        except VideoSafetyError as error:
            return Preview(note=f"No preview: {error.what}")
        frames = tuple(Frame(uri=str(one.uri), width_px=one.width_px, height_px=one.height_px, pixelated=one.pixelated)
                       for one in strip(pixels, max_side_px=self.max_side_px))  # fmt: skip
        return Preview(frames=frames, times=times)


def previews(
    clips: Mapping[str, Described],
    *,
    root: Path,
    folder: Path,
    num_frames: int,
    max_side_px: int,
    workers: int = 1,
    on_row: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Preview]:
    """The preview of each clip, by the clip's id; ``folder`` holds these afterwards, and no other.

    Raises:
        StorageError: a preview cannot be written or removed.
    """
    paths = {name: folder / f"{one.clip.sha256}-{num_frames}-{max_side_px}.json" for name, one in clips.items()}
    with storage_errors(folder):
        for path in set(folder.iterdir() if folder.is_dir() else ()) - set(paths.values()):
            path.unlink()
    found = {name: known for name, path in paths.items() if (known := _kept(path)) is not None}
    names = [name for name in clips if name not in found]
    make = MakePreview(str(root), num_frames, max_side_px)
    for index, made in run_isolated(make, [clips[name] for name in names], workers=workers):
        preview = made if isinstance(made, Preview) else Preview(note="No preview: its file crashes the decoder")
        found[names[index]] = preview
        if preview.frames:
            write_json(paths[names[index]], preview)
        on_row(len(found), len(clips))
    return found


def _kept(path: Path) -> Preview | None:
    """A preview that was made before; one that is damaged is made anew."""
    if not path.exists():
        return None
    try:
        return read_record(path, Preview)
    except RecordError:
        return None
