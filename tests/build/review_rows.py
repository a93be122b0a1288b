"""Clips, responses and verdicts for the tests of the review: pictures that are made of noise, and one moving clip."""

import functools
import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from thought_rows import asked, thought

from videosafety.build.people.people import ClipVerdict, People, RowVerdict, digest_of
from videosafety.build.people.queue import ReviewConfig
from videosafety.build.people.review import write_review
from videosafety.build.records import Clip, Described, Facts, Thought
from videosafety.core.labels import Safety
from videosafety.core.taxonomy import load_taxonomy

CLIPS = ("a", "b", "c", "d")
SIZE_PX = 40


@functools.cache
def picture(name: str) -> bytes:
    """A coloured picture as PNG; another name, other colours."""
    dice = np.random.default_rng(int.from_bytes(name.encode(), "big"))
    pixels = np.repeat(np.repeat(dice.integers(0, 256, (5, 5, 3), dtype=np.uint8), 8, axis=0), 8, axis=1)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()


def picture_clip(name: str, **fields: Any) -> Described:
    """A described picture, with its true hash."""
    sha256 = hashlib.sha256(picture(name)).hexdigest()
    clip = Clip(id=f"clip-{sha256[:16]}", path=f"{name}.png", sha256=sha256, num_bytes=1, source="test")
    facts = Facts(kind="image", codec="png", width_px=SIZE_PX, height_px=SIZE_PX, num_frames=1, duration_s=0,
                  has_audio=False)  # fmt: skip
    shared = {"id": clip.id, "clip": clip, "facts": facts, "cluster": f"near-{clip.id}"}
    return asked("SH").described.model_copy(update=shared | fields)


def asked_of(described: Described, kind: str = "SH", **fields: Any) -> Thought:
    """A response about a clip."""
    one = thought(kind, **fields)
    row = f"{described.id}.{kind}-en-0"
    about = one.asked.model_copy(update={"id": row, "parent": described.id, "described": described})
    return one.model_copy(update={"id": f"{row}.t", "parent": row, "asked": about})


def on_clip(annotator: str, says: str, *, item: str = "clip-a", category: str = "fraud") -> ClipVerdict:
    """A verdict: safe, harmful, exclude or quarantine."""
    label = says in ("safe", "harmful")
    return ClipVerdict(item=item, annotator=annotator, seconds=1.0, action="label" if label else says,
                       visual=Safety(says) if label else None,
                       category=category if says == "harmful" else None)  # fmt: skip


def on_row(annotator: str, action: str, *, row: Thought | None = None, seen: str | None = None) -> RowVerdict:
    """A verdict on a response."""
    row = row or thought()
    return RowVerdict(item=row.id, clip=row.asked.described.id, annotator=annotator, seconds=1.0, action=action,
                      seen=seen or digest_of(row), reasons=("answer",) if action == "reject" else ())  # fmt: skip


def build_of(
    root: Path,
    *,
    described: list[Described],
    thoughts: list[Thought],
    people: People | None = None,
    config: ReviewConfig | None = None,
    workers: int = 1,
) -> list[Path]:
    """The pages of these rows, their pictures beside them."""
    folder = root / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    for row in described:
        if row.facts.kind == "image":
            (folder / row.clip.path).write_bytes(picture(row.clip.path.removesuffix(".png")))
    return write_review(
        root / "out", described=described, thoughts=thoughts, people=people or People(), clips=folder, name="test",
        config=config or ReviewConfig(row_share=1.0), taxonomy=load_taxonomy("vse"), workers=workers,
    )  # fmt: skip
