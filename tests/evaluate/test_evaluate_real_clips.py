"""Real clips of many codecs and containers, and damaged ones among them, through the real provider to a folder."""

from pathlib import Path

from evalkit import HH, manifest, row

from videosafety.core.jsonl import read_records
from videosafety.core.records import Response, Video
from videosafety.evaluate.folder import ShownItem, exit_code, scored_items
from videosafety.evaluate.manifest import MediaState
from videosafety.evaluate.run import evaluate
from videosafety.evaluate.tasks import Decoding


def test_real_clips_and_damaged_ones_to_a_folder(real_data: Path, tmp_path: Path, checkpoint: Path) -> None:
    clips = sorted((real_data / "videos").iterdir())
    data = tmp_path / "data"
    data.mkdir()
    for clip in clips:
        (data / clip.name).symlink_to(clip)
    whole = next(clip for clip in clips if clip.name == "clip_10s.mp4").read_bytes()
    (data / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (data / "empty.mp4").touch()
    damaged = {"cut.mp4": "corrupt", "empty.mp4": "empty", "gone.mp4": "missing"}
    samples = [row(name, media=Video(path=name), labels=HH) for name in [*(clip.name for clip in clips), *damaged]]
    out = evaluate(str(checkpoint), manifest(data, samples), out=tmp_path / "run" / "evaluations" / "base",
                   decoding=Decoding(max_frames=3, max_side_px=48, max_new_tokens=3))  # fmt: skip
    states = read_records(out / "media.jsonl", MediaState, unique="sample_id")
    assert {s.sample_id: str(s.fault) for s in states if s.state != "ok"} == damaged
    assert len(clips) > 10
    said = read_records(out / "responses.jsonl", Response, unique=("sample_id", "arm"))
    assert len(said) == 2 * len(samples)
    assert {r.sample_id for r in said if r.fault} == set(damaged)
    plans = read_records(out / "plans.jsonl", ShownItem, unique=("sample_id", "arm"))
    seen = {p.sample_id: p.plan for p in plans if p.arm == "video" and p.sample_id not in damaged}
    assert all(plan is not None and max(plan.width_px, plan.height_px) <= 48 for plan in seen.values())
    assert len(scored_items(out)) == 2 * len(samples)
    assert exit_code([out]) == 2
