"""Writing: faithful at toy size, byte-identical, playable, whole or not there."""

import av
import numpy as np
import pytest
from clipmaker import cells
from PIL import Image

from videosafety.core.errors import InputError, StorageError
from videosafety.video.probe import probe
from videosafety.video.sample import Sampling, load_picture, sample_clip
from videosafety.video.write import write_mp4, write_png


@pytest.mark.parametrize(("height", "width"), [(32, 32), (56, 32), (33, 35)])
def test_flat_cells_come_back(tmp_path, height, width):
    frames = cells(8, height=height, width=width)
    write_mp4(tmp_path / "a.mp4", frames, fps=1)
    clip = sample_clip(tmp_path / "a.mp4")
    assert clip.frames.shape == frames.shape
    assert clip.timestamps_s == tuple(float(t) for t in range(8))
    error = np.abs(clip.frames.astype(int) - frames)
    assert error.mean() <= 2
    assert error.max() <= 16


def test_the_same_frames_give_the_same_bytes(tmp_path):
    frames = cells(8)
    for name in ("a", "b"):
        write_mp4(tmp_path / f"{name}.mp4", frames, fps=1)
        write_png(tmp_path / f"{name}.png", frames[0])
    for suffix in ("mp4", "png"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    write_mp4(tmp_path / "c.mp4", frames[::-1], fps=1)
    assert (tmp_path / "c.mp4").read_bytes() != (tmp_path / "a.mp4").read_bytes()
    assert (tmp_path / "a.mp4").stat().st_size < 10_000
    assert b"Lavf" not in (tmp_path / "a.mp4").read_bytes()  # the muxer's version is not in it


def test_what_browsers_play(tmp_path):
    write_mp4(tmp_path / "a.mp4", cells(4), fps=2.5)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (1, 1)
    info = probe(tmp_path / "a.mp4")
    assert (info.fps, info.duration_s, info.num_frames) == (2.5, 1.6, 4)


def test_frames_need_not_be_contiguous(tmp_path):
    frames = cells(4)
    write_mp4(tmp_path / "a.mp4", frames[:, ::-1, ::-1], fps=1)
    clip = sample_clip(tmp_path / "a.mp4", sampling=Sampling(fps=1))
    assert np.abs(clip.frames[:, ::-1, ::-1].astype(int) - frames).mean() <= 2


def test_png_is_exact(tmp_path):
    pixels = cells(1, height=7, width=5, cell=1)[0]
    write_png(tmp_path / "deep" / "a.png", pixels)
    assert np.array_equal(load_picture(tmp_path / "deep" / "a.png").pixels, pixels)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "deep" / "a.png")), pixels)


@pytest.mark.parametrize(
    ("frames", "options"),
    [
        (cells(1), {"fps": 1}),
        (cells(2).astype(np.float32), {"fps": 1}),
        (cells(2)[..., :2], {"fps": 1}),
        (cells(2)[0], {"fps": 1}),
        (cells(2), {"fps": 0}),
        (cells(2), {"fps": float("nan")}),
        (cells(2), {"fps": 1, "crf": 52}),
    ],
)
def test_refusals(tmp_path, frames, options):
    with pytest.raises(InputError) as caught:
        write_mp4(tmp_path / "a.mp4", frames, **options)
    assert str(tmp_path / "a.mp4") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_png_refusal_and_full_disk(tmp_path, monkeypatch):
    with pytest.raises(InputError):
        write_png(tmp_path / "a.png", cells(1))

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space"):
        write_mp4(tmp_path / "a.mp4", cells(2), fps=1)
    assert list(tmp_path.iterdir()) == []
