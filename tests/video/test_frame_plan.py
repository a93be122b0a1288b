"""The plan names pixels: the same in every process, another one for every difference that matters."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from clipmaker import cells, drift, encode
from pydantic import ValidationError

from videosafety.core.store import canonical_json
from videosafety.video.plan import FramePlan, Sampling, frame_hashes
from videosafety.video.sample import sample_clip

SCRIPT = """
import sys
from videosafety.core.store import canonical_json
from videosafety.video.sample import Sampling, sample_clip
plan = sample_clip(sys.argv[1], sampling=Sampling(fps=3, max_side_px=50)).plan
sys.stdout.buffer.write(canonical_json(plan))
"""


def test_the_same_plan_in_every_process(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(encode(drift(30), options={"bf": "2"}))
    here = canonical_json(sample_clip(path, sampling=Sampling(fps=3, max_side_px=50)).plan)
    moved = tmp_path / "elsewhere.mp4"
    moved.write_bytes(path.read_bytes())
    for name in (path, moved):
        there = subprocess.run([sys.executable, "-c", SCRIPT, name], capture_output=True, check=True).stdout
        assert there == here


def test_hashes_are_of_the_raw_pixels(tmp_path):
    (tmp_path / "a.mp4").write_bytes(encode(cells(3)))
    clip = sample_clip(tmp_path / "a.mp4", sampling=Sampling(fps=10))
    assert clip.plan.frame_sha256 == tuple(hashlib.sha256(f.tobytes()).hexdigest() for f in clip.frames)
    assert frame_hashes(clip.frames[:, ::-1]) != clip.plan.frame_sha256
    assert clip.plan.source_bytes == (tmp_path / "a.mp4").stat().st_size
    assert clip.plan.source_sha256 == hashlib.sha256((tmp_path / "a.mp4").read_bytes()).hexdigest()
    assert clip.frames.flags.writeable
    assert clip.frames.flags.c_contiguous


def test_digest(tmp_path):
    (tmp_path / "a.mp4").write_bytes(encode(cells(20)))
    one = sample_clip(tmp_path / "a.mp4").plan
    assert FramePlan.model_validate_json(canonical_json(one)).digest == one.digest
    others = [sample_clip(tmp_path / "a.mp4", sampling=s).plan for s in (Sampling(fps=2), Sampling(max_side_px=16))]
    assert len({plan.digest for plan in (one, *others)}) == 3


def test_a_plan_is_consistent(tmp_path):
    (tmp_path / "a.mp4").write_bytes(encode(cells(3)))
    plan = sample_clip(tmp_path / "a.mp4").plan.model_dump()
    with pytest.raises(ValidationError, match="differ in length"):
        FramePlan(**{**plan, "indices": (0, 1)})
    with pytest.raises(ValidationError):
        FramePlan(**{**plan, "path": "a.mp4"})
    assert np.isfinite(plan["timestamps_s"]).all()
