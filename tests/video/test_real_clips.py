"""Every real clip: the facts, read off once, and pixels equal to a plain decode of the same frames."""

import av
import numpy as np
import pytest

from videosafety.video.decode import FLAGS_NATIVE
from videosafety.video.probe import probe
from videosafety.video.sample import Sampling, sample_clip

GOLDEN = {
    # codec, width, height, fps, frames, duration in s, sound, indices at 1 fps
    "av1.mkv": ("av1", 640, 360, 25.0, 125, 5.0, False, range(0, 125, 25)),
    "bt709_full_range.mp4": ("h264", 1280, 720, 30.0, 30, 1.0, False, [0]),
    "bunny_h264_640x360.mp4": ("h264", 640, 360, 25.0, 132, 5.28, True, range(0, 132, 25)),
    "clip_10s.mp4": ("h264", 854, 480, 24.0, 240, 10.0, False, range(0, 240, 24)),
    "clip_a.mp4": ("h264", 640, 360, 24.0, 282, 11.75, True, range(0, 282, 24)),
    "clip_b.mp4": ("h264", 480, 640, 24.0, 556, 23.1667, True, range(0, 556, 24)),
    "clip_c.mp4": ("h264", 362, 640, 24.0, 1190, 49.5833, True, range(0, 1190, 24)),
    "h264_10bit.mp4": ("h264", 200, 200, 30.0, 30, 1.0, False, [0]),
    "h265.mp4": ("hevc", 128, 128, 10.0, 10, 1.0, False, [0]),
    "nasa.mp4": ("h264", 320, 180, 25.0, 325, 13.0, True, range(0, 325, 25)),
    "sample.mp4": ("h264", 192, 144, 30.0, 290, 9.6667, True, range(0, 290, 30)),
    "tiny.mp4": ("h264", 320, 180, 2.0, 7, 3.5, False, range(0, 7, 2)),
    "tiny_66x50.mov": ("h264", 66, 50, 60.0, 82, 1.3667, False, [0, 60]),  # an edit list hides 5 of 87
}


def plain_decode(path, indices):
    wanted, found = set(indices), []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                rgb = frame.reformat(format="rgb24", interpolation=FLAGS_NATIVE, threads=1)
                found.append(rgb.to_ndarray())
            if number == max(wanted):
                break
    return np.stack(found)


def test_every_clip_is_known(real_data):
    assert {p.name for p in (real_data / "videos").iterdir()} == set(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_facts(real_data, name):
    codec, width, height, fps, num_frames, duration_s, has_audio, _ = GOLDEN[name]
    info = probe(real_data / "videos" / name)
    assert (info.kind, info.codec, info.width_px, info.height_px) == ("video", codec, width, height)
    assert (info.num_frames, info.has_audio, info.rotation_deg) == (num_frames, has_audio, 0)
    assert info.fps == pytest.approx(fps)
    assert info.duration_s == pytest.approx(duration_s, abs=1e-3)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(fps=3.3, max_frames=7)], ids=["1fps", "spread"])
@pytest.mark.parametrize("name", GOLDEN)
def test_pixels_equal_a_plain_decode(real_data, name, sampling):
    path = real_data / "videos" / name
    clip = sample_clip(path, sampling=sampling)
    if sampling == Sampling():
        assert clip.plan.indices == tuple(GOLDEN[name][-1])
    assert np.array_equal(clip.frames, plain_decode(path, clip.plan.indices))
