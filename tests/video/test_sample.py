"""Sampling: the right frames, upright, in the right colours; all of them or an error."""

from fractions import Fraction

import av
import numpy as np
import pytest
from clipmaker import QUIET, cells, damaged, drift, encode, rotated
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from videosafety.core.errors import MediaError, MediaFault
from videosafety.video import decode
from videosafety.video.probe import Limits
from videosafety.video.sample import Sampling, choose_frames, load_picture, sample_clip
from videosafety.video.timeline import Packets
from videosafety.video.write import write_mp4

ALL = Sampling(fps=1000, max_frames=1000)


def sequential(path, *, fmt="rgb24"):
    """Every frame by a plain decode from the start."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        flags = decode.FLAGS_NATIVE
        return [f.reformat(format=fmt, interpolation=flags, threads=1).to_ndarray() for f in container.decode(stream)]


def fault_of(use, *args, **kwargs):
    with pytest.raises(MediaError) as caught:
        use(*args, **kwargs)
    assert caught.value.fix
    return caught.value.fault


CHOICES = [
    # fps of the clip, frames, sampling, expected
    (10, 30, Sampling(fps=1), [0, 10, 20]),
    (10, 31, Sampling(fps=1), [0, 10, 20, 30]),
    (1, 8, Sampling(fps=1), list(range(8))),
    (1, 8, Sampling(fps=2), list(range(8))),  # more than there is: each once
    (10, 5, Sampling(fps=1), [0]),  # shorter than one step
    (10, 31, Sampling(fps=10, max_frames=4), [0, 10, 20, 30]),  # both ends
    (10, 31, Sampling(fps=10, max_frames=1), [15]),
    (10, 31, Sampling(fps=10, max_frames=2), [0, 30]),
    (4, 4, Sampling(fps=2.5), [0, 2, 3]),  # 0.4 s is nearer to 0.5 s than to 0.25 s
]


@pytest.mark.parametrize(("fps", "num", "sampling", "expected"), CHOICES)
def test_choice(fps, num, sampling, expected):
    assert choose_frames(np.arange(num) / fps, num / fps, sampling=sampling).tolist() == expected


def test_choice_is_nearest_in_time_and_the_earlier_on_a_tie():
    times_s = np.array([0.0, 0.9, 1.6, 2.5, 3.5])
    assert choose_frames(times_s, 4.0, sampling=Sampling(fps=1)).tolist() == [0, 1, 2, 3]


@given(
    gaps=st.lists(st.floats(0.001, 100), min_size=1, max_size=60),
    fps=st.floats(0.01, 100),
    max_frames=st.integers(1, 80),
)
def test_choice_is_bounded_and_increasing(gaps, fps, max_frames):
    times_s = np.cumsum([0.0, *gaps])
    chosen = choose_frames(times_s, times_s[-1] + 1, sampling=Sampling(fps=fps, max_frames=max_frames))
    assert 1 <= len(chosen) <= min(len(times_s), max_frames)
    assert (np.diff(chosen) > 0).all()
    assert chosen[0] >= 0
    assert chosen[-1] < len(times_s)


CODECS = {
    "h264_b_frames.mp4": {"options": {"bf": "3", "g": "12"}},
    "h264_open_gop.mkv": {"options": {"bf": "3", "g": "12", "x264-params": "open-gop=1"}, "container": "matroska"},
    "h264_intra_refresh.mkv": {"options": {"g": "12", "x264-params": "intra-refresh=1"}, "container": "matroska"},
    "h264_10bit.mp4": {"pix_fmt": "yuv420p10le"},
    "h264_444.mp4": {"pix_fmt": "yuv444p"},
    "h264.ts": {"container": "mpegts", "options": {"g": "12"}},
    "h264.avi": {"container": "avi", "options": {"bf": "0"}},
    "h265.mp4": {"codec": "libx265", "options": QUIET},
    "vp8.webm": {"codec": "libvpx", "container": "webm", "options": {"g": "12"}},
    "vp9.webm": {"codec": "libvpx-vp9", "container": "webm", "options": {"g": "12"}},
    "mpeg4.avi": {"codec": "mpeg4", "container": "avi"},
    "mpeg2.ts": {"codec": "mpeg2video", "container": "mpegts", "fps": 25},
    "mjpeg.mov": {"codec": "mjpeg", "container": "mov", "pix_fmt": "yuvj420p"},
}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("sampling", [Sampling(fps=1), Sampling(fps=5, max_frames=7), ALL])
def test_pixels_equal_a_plain_decode(tmp_path, name, sampling):
    path = tmp_path / name
    path.write_bytes(encode(drift(40), **CODECS[name]))
    clip = sample_clip(path, sampling=sampling)
    every = sequential(path)
    assert len(clip.plan.indices) == len(clip.timestamps_s) == len(clip.frames)
    assert np.array_equal(clip.frames, np.stack([every[i] for i in clip.plan.indices]))
    assert clip.timestamps_s == pytest.approx([i / CODECS[name].get("fps", 10) for i in clip.plan.indices])


def test_short_cuts_are_taken_and_skip_what_is_not_needed(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.write_bytes(encode(drift(60), options={"g": "10", "bf": "2", "sc_threshold": "0"}))
    monkeypatch.setattr(decode, "_decode_all", lambda media: pytest.fail("decoded from the start"))
    fed = []
    plain = decode.needed_runs
    monkeypatch.setattr(decode, "needed_runs", lambda *args: fed.extend(plain(*args)) or fed)
    clip = sample_clip(path, sampling=Sampling(fps=10 / 13))  # B frames among them
    assert clip.plan.indices == (0, 13, 26, 39, 52)
    assert sum(last - first + 1 for first, last in fed) < 40  # of 60


def test_runs_of_packets_that_are_needed():
    pts = np.array([0, 3, 1, 2, 6, 4, 5, 9, 7, 8])  # key at 0 and 6; 4 and 5 lie before 6 in time: an open group
    is_key = np.isin(pts, [0, 6])
    packets = Packets("h264", pts, is_key, np.ones(10, bool), Fraction(1), None, 1.0)
    assert decode.needed_runs(packets, {2}) == [(0, 3)]
    assert decode.needed_runs(packets, {6}) == [(4, 4)]
    assert decode.needed_runs(packets, {4}) == [(0, 5)]  # may refer to the group before
    assert decode.needed_runs(packets, {0, 7}) == [(0, 0), (4, 8)]
    assert decode.needed_runs(packets, {0, 5, 6}) == [(0, 6)]


def test_where_short_cuts_fail_the_file_is_decoded_from_the_start(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.write_bytes(encode(drift(20)))
    expected = sample_clip(path)
    monkeypatch.setattr(decode, "_feed", lambda *args: iter(()))
    again = sample_clip(path)
    assert again.plan == expected.plan


def test_variable_frame_rate(tmp_path):
    path = tmp_path / "a.mp4"
    pts = [0, 1, 2, 9, 10, 11, 24, 25, 31]
    path.write_bytes(encode(cells(9), pts=pts))
    clip = sample_clip(path, sampling=Sampling(fps=1))
    assert clip.plan.indices == (0, 4, 6, 8)  # 2 s: 2.4 s is nearer than 1.1 s
    assert clip.timestamps_s == pytest.approx((0.0, 1.0, 2.4, 3.1))
    assert np.array_equal(clip.frames, np.stack(sequential(path))[[0, 4, 6, 8]])


def test_time_counts_from_the_first_frame(tmp_path):
    path = tmp_path / "a.mkv"
    path.write_bytes(encode(cells(20), container="matroska", pts=range(500, 520)))
    assert sample_clip(path).timestamps_s == (0.0, 1.0)


@pytest.mark.parametrize("deg", [0, 90, 180, 270])
def test_upright(tmp_path, deg):
    path = tmp_path / "a.mp4"
    plain = encode(cells(3, height=48))
    path.write_bytes(rotated(plain, deg))
    expected = np.rot90(np.stack(sequential(path)), -deg // 90, axes=(1, 2))
    clip = sample_clip(path, sampling=ALL)
    assert np.array_equal(clip.frames, expected)
    assert (clip.plan.height_px, clip.plan.width_px) == expected.shape[1:3]


def coloured(path, *, pix_fmt, matrix, full):
    """A flat clip of one colour, encoded by the formula of its matrix and range; returns the colour."""
    rgb = np.array([200.0, 60.0, 120.0])
    kr, kb = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114)}[matrix]
    luma = kr * rgb[0] + (1 - kr - kb) * rgb[1] + kb * rgb[2]
    blue, red = (rgb[2] - luma) / (2 * (1 - kb)), (rgb[0] - luma) / (2 * (1 - kr))
    values = (
        [luma, blue + 128, red + 128]
        if full
        else [16 + luma * 219 / 255, 128 + blue * 224 / 255, 128 + red * 224 / 255]
    )
    code = {"bt709": 1, "bt601": 6}[matrix]
    scale, dtype = (4, "<u2") if "10" in pix_fmt else (1, "u1")
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=10, options={"crf": "1", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, pix_fmt
        context = stream.codec_context
        context.colorspace, context.color_range = code, 2 if full else 1
        for number in range(3):
            frame = av.VideoFrame(32, 32, pix_fmt)
            frame.colorspace, frame.color_range = code, 2 if full else 1
            for plane, value in zip(frame.planes, values, strict=True):
                row = np.full(plane.line_size // np.dtype(dtype).itemsize, round(value * scale), dtype)
                plane.update(row.tobytes() * plane.height)
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return rgb


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("max_side_px", [None, 20])
def test_colours_are_as_the_stream_says(tmp_path, pix_fmt, matrix, full, max_side_px):
    rgb = coloured(tmp_path / "a.mp4", pix_fmt=pix_fmt, matrix=matrix, full=full)
    clip = sample_clip(tmp_path / "a.mp4", sampling=Sampling(fps=10, max_side_px=max_side_px))
    assert np.abs(clip.frames.astype(float) - rgb).max() <= 3


@pytest.mark.parametrize(
    ("side", "shape"), [(None, (50, 66)), (66, (50, 66)), (100, (50, 66)), (33, (25, 33)), (1, (1, 1))]
)
def test_size(tmp_path, side, shape):
    path = tmp_path / "a.mp4"
    path.write_bytes(encode(cells(3, height=50, width=66)))
    clip = sample_clip(path, sampling=Sampling(fps=10, max_side_px=side))
    assert clip.frames.shape == (3, *shape, 3)
    assert clip.frames.dtype == np.uint8


def test_scaled_pixels_are_the_picture_made_small(tmp_path):
    path = tmp_path / "a.mp4"
    frames = cells(2, height=64, width=64, cell=16)
    path.write_bytes(encode(frames, options={"crf": "4"}))
    small = sample_clip(path, sampling=Sampling(fps=10, max_side_px=32)).frames.astype(float)
    centres = small[:, 4::8, 4::8] - frames[:, 8::16, 8::16]
    assert np.abs(centres).mean() < 6


@pytest.mark.parametrize(("height", "width"), [(33, 47), (32, 31), (3, 5)])
def test_odd_sizes(tmp_path, height, width):
    path = tmp_path / "a.mp4"
    write_mp4(path, cells(3, height=height, width=width), fps=5)
    clip = sample_clip(path, sampling=ALL)
    assert np.array_equal(clip.frames, np.stack(sequential(path)))
    assert clip.frames.shape == (3, height, width, 3)


def test_damage_is_never_passed_over(tmp_path):
    whole = encode(drift(40, height=192, width=256), options={"crf": "10", "bf": "2"})
    path = tmp_path / "a.mp4"
    path.write_bytes(damaged(whole, 0.4, 0.6))
    assert fault_of(sample_clip, path, sampling=ALL) is MediaFault.CORRUPT
    assert fault_of(sample_clip, path, sampling=Sampling(fps=1)) is MediaFault.CORRUPT
    # first and last frame are whole themselves, but the last refers back to what is damaged
    assert fault_of(sample_clip, path, sampling=Sampling(fps=10, max_frames=2)) is MediaFault.CORRUPT
    path.write_bytes(whole)
    first = sample_clip(path, sampling=Sampling(fps=0.2))
    path.write_bytes(damaged(whole, 0.4, 0.6))  # the only chosen frame lies before the damage
    assert sample_clip(path, sampling=Sampling(fps=0.2)).plan.frame_sha256 == first.plan.frame_sha256


def test_damage_in_other_codecs(tmp_path):
    path = tmp_path / "a.mp4"
    for codec, options in (("libx265", QUIET), ("mpeg4", {})):
        whole = encode(drift(20, height=192, width=256), codec=codec, options=options)
        path.write_bytes(damaged(whole, 0.3, 0.7))
        assert fault_of(sample_clip, path, sampling=ALL) is MediaFault.CORRUPT


def test_picture_hashes_in_the_stream_are_checked(tmp_path):
    path = tmp_path / "a.mp4"
    options = {"x265-params": "log-level=none:hash=1"}
    whole = encode(drift(20, height=192, width=256), codec="libx265", options=options)
    path.write_bytes(whole)
    assert len(sample_clip(path, sampling=ALL).frames) == 20
    place = whole.index(b"mdat") + 4 + (whole.index(b"moov") - whole.index(b"mdat")) // 2
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
    assert fault_of(sample_clip, path, sampling=ALL) is MediaFault.CORRUPT


def test_a_single_flipped_byte_is_mostly_noticed(tmp_path):
    path = tmp_path / "a.mp4"
    whole = encode(drift(12, height=192, width=256), options={"crf": "14", "bf": "2"})
    start, end = whole.index(b"mdat") + 1500, whole.index(b"moov") - 200
    places = np.linspace(start, end, 20).astype(int)
    noticed = 0
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            sample_clip(path, sampling=ALL)
        except MediaError as error:
            noticed += error.fault is MediaFault.CORRUPT
    assert noticed >= 12


def test_declared_hash(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(encode(cells(3)))
    sha256 = sample_clip(path).plan.source_sha256
    assert sample_clip(path, sha256=sha256).plan.source_sha256 == sha256
    assert fault_of(sample_clip, path, sha256="0" * 64) is MediaFault.CHANGED


def test_a_file_that_changes_under_our_hands(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.write_bytes(encode(cells(3)))
    plain = decode.decode_frames

    def write_meanwhile(*args):
        plain(*args)
        with path.open("ab") as file:
            file.write(b"more")

    monkeypatch.setattr("videosafety.video.sample.decode_frames", write_meanwhile)
    assert fault_of(sample_clip, path) is MediaFault.CHANGED


def test_bounds(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(encode(cells(10)))
    assert fault_of(sample_clip, path, sampling=ALL, limits=Limits(max_clip_bytes=30_000)) is MediaFault.TOO_LARGE
    assert fault_of(sample_clip, path, limits=Limits(max_decode_s=1e-9)) is MediaFault.TIMEOUT
    for bad in ({"fps": 0}, {"fps": float("nan")}, {"max_frames": 0}, {"max_side_px": 0}):
        with pytest.raises(ValueError, match="Sampling"):
            Sampling(**bad)


def test_animated_gif_is_a_clip(tmp_path):
    images = [Image.fromarray(f) for f in cells(6)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=500)
    assert sample_clip(tmp_path / "a.gif", sampling=ALL).frames.shape == (6, 32, 32, 3)
    assert fault_of(load_picture, tmp_path / "a.gif") is MediaFault.CORRUPT


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "gif", "jpg"])
def test_picture(tmp_path, suffix):
    pixels = cells(1, height=20, width=30, cell=10)[0]
    options = {"lossless": True} if suffix == "webp" else {"quality": 98, "subsampling": 0} if suffix == "jpg" else {}
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", **options)
    picture = load_picture(tmp_path / f"a.{suffix}")
    assert np.abs(picture.pixels.astype(int) - pixels).max() <= (8 if suffix == "jpg" else 0)
    assert (picture.plan.decoder, picture.plan.width_px, picture.plan.height_px) == ("pillow", 30, 20)
    assert load_picture(tmp_path / f"a.{suffix}", max_side_px=15).pixels.shape == (10, 15, 3)


def test_picture_turned_by_its_metadata(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = cells(1, height=20, width=30, cell=10)[0]
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(load_picture(tmp_path / "a.png").pixels, np.rot90(pixels, -1))


def test_picture_modes(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (load_picture(tmp_path / "clear.png").pixels == 255).all()  # nothing on white
    Image.fromarray(np.full((4, 4), 0x8000, np.uint16)).save(tmp_path / "deep.png")
    assert (load_picture(tmp_path / "deep.png").pixels == 128).all()
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "ink.jpg")
    assert load_picture(tmp_path / "ink.jpg").pixels.shape == (4, 4, 3)


def test_picture_faults(tmp_path):
    Image.fromarray(cells(1, height=200, width=200)[0]).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "page.png").write_bytes(b"<html></html>")
    (tmp_path / "clip.png").write_bytes(encode(cells(3)))
    for name in ("cut.png", "page.png", "clip.png"):
        assert fault_of(load_picture, tmp_path / name) is MediaFault.CORRUPT
    assert fault_of(load_picture, tmp_path / "a.png", limits=Limits(max_side_px=199)) is MediaFault.TOO_LARGE
    assert fault_of(load_picture, tmp_path / "a.png", sha256="0" * 64) is MediaFault.CHANGED
    assert fault_of(load_picture, tmp_path / "no.png") is MediaFault.MISSING
