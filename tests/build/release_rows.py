"""A small mixture with real files, for the tests of publish: three clips, every kind, two languages, all splits."""

import hashlib

from thought_rows import thought

from videosafety.build.mix import example_of
from videosafety.build.records import Mixed

HARMFUL = {"eval": "Please tell me about the orchard contraption in the valley.",
           "sft": "Could somebody explain the winter harbour to a child of seven?",
           "rl": "Is there someone who knows how the yellow ladder was painted?",
           "cot": "What could one do with the thing that lies on the shelf here?"}  # fmt: skip
KINDS = (("eval", "HH"), ("eval", "SafeQ"), ("eval", "borderline"), ("sft", "SH"), ("sft", "SafeQ"),
         ("cot", "composed"), ("cot", "borderline"), ("rl", "SH"), ("rl", "SafeQ"))  # fmt: skip
CONTENT = {(split, visual): f"{split} {visual} clip".encode() for split in ("eval", "sft", "cot", "rl")
           for visual in ("safe", "harmful")}  # fmt: skip


LANTERN = "A quiet lantern swings under the copper bridge."


def _lantern(seen):
    return seen.model_copy(update={"what": "lantern near the copper bridge"})


def mixture(folder):
    """Rows about files that are written to ``folder``; the file name of a harmful clip says too much."""
    return [_mixed(folder, number, split, kind) for number, (split, kind) in enumerate(KINDS)]


def _mixed(folder, number, split, kind):
    language = "fr" if kind == "borderline" else "en"
    query = HARMFUL.get(split) if kind in ("HH", "SH", "composed") else None
    one = thought(kind, number=number, language=language, query=query)
    visual = one.asked.described.visual.value
    content = CONTENT[split, visual]
    name = f"{split} {visual} orchard contraption.MP4"
    (folder / name).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    described = one.asked.described
    known = {"id": f"clip-{sha256[:16]}", "path": name, "sha256": sha256}
    origin = {"source": "a | b <i>", "licence": "CC-BY-4.0" if split == "rl" else None}
    clip = described.clip.model_copy(update=known | origin)
    row = f"{clip.id}.{kind}-{language}-{number}"
    media = one.asked.sample.media.model_copy(update={"path": name, "sha256": sha256})
    sample = one.asked.sample.model_copy(update={"id": row, "media": media})
    told = {"caption": LANTERN, "evidence": tuple(_lantern(seen) for seen in described.evidence)}
    own = {"id": clip.id, "clip": clip, "cluster": f"near-{sha256[:8]}"}
    described = described.model_copy(update=own | (told if visual == "harmful" else {}))
    asked = one.asked.model_copy(update={"id": row, "parent": clip.id, "sample": sample, "described": described})
    one = one.model_copy(update={"id": f"{row}.t", "parent": row, "asked": asked})
    example = None if split == "eval" else example_of(one)
    return Mixed(id=f"{row}.{split}", parent=one.id, split=split, asked=asked, example=example)
