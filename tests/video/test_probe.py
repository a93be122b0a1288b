"""Probe: facts of good files, and for every bad one its fault and a sentence with the file and the fix."""

import os
import socket
import struct

import numpy as np
import pytest
from clipmaker import cells, drift, encode, patched, rotated, sound_only, zero_duration
from PIL import Image

from videosafety.core.errors import MediaError, MediaFault
from videosafety.video import source, timeline
from videosafety.video.probe import Limits, probe
from videosafety.video.sample import sample_clip

PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\ngood.mp4\n#EXT-X-ENDLIST\n"
CONCAT = b"ffconcat version 1.0\nfile 'good.mp4'\n"


@pytest.fixture(scope="module")
def good():
    return encode(cells(12))


def fault_of(path, *, limits=None, use=probe):
    """The fault, after checking the sentence: one line, the file, a fix."""
    with pytest.raises(MediaError) as caught:
        use(path, limits=limits or Limits())
    assert str(path) in str(caught.value)
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    return caught.value.fault


def test_facts(tmp_path, good):
    path = tmp_path / "good.mp4"
    path.write_bytes(encode(cells(12, height=48), with_audio=True))
    info = probe(path, with_sha256=True)
    assert (info.kind, info.codec, info.width_px, info.height_px) == ("video", "h264", 32, 48)
    assert (info.fps, info.num_frames, info.has_audio) == (10.0, 12, True)
    assert info.duration_s == pytest.approx(1.2)
    assert info.num_bytes == path.stat().st_size
    assert len(info.sha256) == 64
    path.write_bytes(good)
    assert probe(path).has_audio is False
    assert probe(path).sha256 is None


@pytest.mark.parametrize("deg", [0, 90, 180, 270])
def test_size_is_as_shown(tmp_path, deg):
    path = tmp_path / "a.mp4"
    path.write_bytes(rotated(encode(cells(3, height=48)), deg))
    info = probe(path)
    assert info.rotation_deg == deg
    assert (info.width_px, info.height_px) == ((48, 32) if deg % 180 else (32, 48))


def test_an_image_is_an_image_whatever_its_name(tmp_path):
    Image.new("RGB", (20, 10), "red").save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.mp4")
    info = probe(tmp_path / "a.mp4")
    assert (info.kind, info.codec, info.width_px, info.height_px) == ("image", "png", 20, 10)
    assert fault_of(tmp_path / "a.mp4", use=sample_clip) is MediaFault.SINGLE_FRAME


FAULTS = {
    "empty.mp4": (lambda good: b"", MediaFault.EMPTY),
    "page.mp4": (lambda good: b"<!DOCTYPE html><html><body>404</body></html>" * 40, MediaFault.CORRUPT),
    "no_index.mp4": (lambda good: good[: good.index(b"moov") + 60], MediaFault.CORRUPT),
    "header.mp4": (lambda good: bytes(b ^ 0x55 for b in good[:64]) + good[64:], MediaFault.CORRUPT),
    "playlist.m3u8": (lambda good: PLAYLIST, MediaFault.CORRUPT),
    "playlist.mp4": (lambda good: PLAYLIST, MediaFault.CORRUPT),
    "concat.mp4": (lambda good: CONCAT, MediaFault.CORRUPT),
    "sound.mp4": (lambda good: sound_only(), MediaFault.NO_VIDEO),
    "sound.mkv": (lambda good: sound_only("matroska"), MediaFault.NO_VIDEO),
    "one.mp4": (lambda good: encode(cells(1)), MediaFault.SINGLE_FRAME),
    "one.mkv": (lambda good: encode(cells(1), container="matroska"), MediaFault.SINGLE_FRAME),
    "one_vp8.webm": (lambda good: encode(cells(1), codec="libvpx", container="webm"), MediaFault.SINGLE_FRAME),
    "no_time.mp4": (zero_duration, MediaFault.NO_DURATION),
    "frames.mp4": (lambda good: patched(good, b"stts", 8, struct.pack(">I", 2**31 - 1)), MediaFault.TOO_LARGE),
    "times.mp4": (lambda good: patched(good, b"stts", 12, struct.pack(">I", 2**31 - 1)), MediaFault.TOO_LARGE),
    "table.mp4": (lambda good: patched(good, b"stsz", 8, struct.pack(">I", 2**31 - 1)), MediaFault.CORRUPT),
}


@pytest.mark.parametrize("use", [probe, sample_clip])
@pytest.mark.parametrize("name", FAULTS)
def test_faults(tmp_path, good, name, use, capfd):
    make, fault = FAULTS[name]
    (tmp_path / "good.mp4").write_bytes(good)
    (tmp_path / name).write_bytes(make(good))
    assert fault_of(tmp_path / name, use=use) is fault
    assert capfd.readouterr() == ("", "")  # FFmpeg is quiet


@pytest.mark.parametrize("container", ["mp4", "matroska", "flv"])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_a_file_that_is_cut_off_is_corrupt(tmp_path, container, share):
    whole = tmp_path / f"whole.{container}"
    muxer = {"movflags": "faststart"} if container == "mp4" else {}
    encode(drift(30), container=container, muxer=muxer, options={"bf": "2"}, file=str(whole))
    assert probe(whole).num_frames == 30
    cut = tmp_path / f"cut.{container}"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    assert fault_of(cut) is MediaFault.CORRUPT
    assert fault_of(cut, use=sample_clip) is MediaFault.CORRUPT


def test_fragmented_mp4_without_durations_in_its_header(tmp_path):
    (tmp_path / "a.mp4").write_bytes(encode(cells(12), muxer={"movflags": "frag_keyframe+empty_moov"}))
    assert probe(tmp_path / "a.mp4").duration_s == pytest.approx(1.2)


LIMITS_BROKEN = {
    "max_bytes": Limits(max_bytes=1000),
    "max_side_px": Limits(max_side_px=31),
    "max_pixels": Limits(max_pixels=32 * 32 - 1),
    "max_frames": Limits(max_frames=11),
    "max_duration_s": Limits(max_duration_s=1.1),
}


@pytest.mark.parametrize("container", ["mp4", "matroska"])
@pytest.mark.parametrize("name", LIMITS_BROKEN)
def test_limits_hold_before_anything_is_decoded(tmp_path, monkeypatch, name, container):
    path = tmp_path / "a"
    path.write_bytes(encode(cells(12), container=container))
    monkeypatch.setattr("videosafety.video.decode._decode_all", lambda media: pytest.fail("decoded"))
    monkeypatch.setattr("videosafety.video.decode._feed", lambda *args: pytest.fail("decoded"))
    for use in (probe, sample_clip):
        if (name, container) == ("max_pixels", "matroska"):  # FFmpeg's own bound may speak first
            assert fault_of(path, limits=LIMITS_BROKEN[name], use=use) in (MediaFault.TOO_LARGE, MediaFault.CORRUPT)
        else:
            assert fault_of(path, limits=LIMITS_BROKEN[name], use=use) is MediaFault.TOO_LARGE


def test_absurd_image_is_refused_before_decoding(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    import zlib

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(png)
    assert fault_of(tmp_path / "a.png") is MediaFault.TOO_LARGE


def test_missing(tmp_path):
    assert fault_of(tmp_path / "no.mp4") is MediaFault.MISSING
    (tmp_path / "file").write_bytes(b"x")
    assert fault_of(tmp_path / "file" / "no.mp4") is MediaFault.MISSING


@pytest.mark.parametrize("use", [probe, sample_clip])
def test_what_is_no_ordinary_file_is_never_opened(tmp_path, monkeypatch, use):
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "link.mp4").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(tmp_path)
        server.bind("s.mp4")
        monkeypatch.setattr(source.os, "open", lambda *args: pytest.fail("opened"))
        for path in (tmp_path, tmp_path / "fifo.mp4", tmp_path / "link.mp4", tmp_path / "s.mp4"):
            assert fault_of(path, use=use) is MediaFault.UNREADABLE


def test_no_permission(tmp_path, good, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(good)

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(source.os, "open", refuse)
    assert fault_of(tmp_path / "a.mp4") is MediaFault.UNREADABLE


def test_impossible_names(tmp_path):
    assert fault_of("x" * 5000) is MediaFault.UNREADABLE
    with pytest.raises(MediaError) as caught:
        probe("a\0b")
    assert caught.value.fault is MediaFault.UNREADABLE


@pytest.mark.parametrize(
    "name", ["concat:good.mp4|good.mp4", "file:good.mp4", "img%03d.png", "subfile,,start,0,end,0,,:x"]
)
def test_a_name_is_only_a_name(tmp_path, monkeypatch, good, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.mp4").write_bytes(good)
    Image.new("RGB", (8, 8)).save(tmp_path / "img001.png")
    assert fault_of(name) is MediaFault.MISSING
    (tmp_path / name).write_bytes(good)
    assert probe(name).num_frames == 12


def test_playlists_stay_shut_even_if_their_demuxers_were_let_in(tmp_path, monkeypatch, good):
    """The second lock: no protocol may be used from inside FFmpeg."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(source, "DEMUXERS", source.DEMUXERS + ",hls,concat,image2")
    (tmp_path / "good.mp4").write_bytes(good)
    (tmp_path / "a.m3u8").write_bytes(PLAYLIST)
    (tmp_path / "a.ffconcat").write_bytes(CONCAT)
    for name in ("a.m3u8", "a.ffconcat"):
        assert fault_of(name) is MediaFault.CORRUPT


def test_only_containers_are_read(tmp_path):
    (tmp_path / "a.h264").write_bytes(encode(cells(12), container="h264"))
    (tmp_path / "a.y4m").write_bytes(encode(cells(12), container="yuv4mpegpipe", codec="rawvideo"))
    for name in ("a.h264", "a.y4m"):
        assert fault_of(tmp_path / name) is MediaFault.CORRUPT


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.0)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.mp4"
        assert fault_of(url) is MediaFault.MISSING
        (tmp_path / "a.m3u8").write_bytes(PLAYLIST.replace(b"good.mp4", url.encode()))
        assert fault_of("a.m3u8") is MediaFault.CORRUPT
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_file_that_does_not_end_is_given_up(tmp_path, good):
    (tmp_path / "a.mp4").write_bytes(good)
    assert fault_of(tmp_path / "a.mp4", limits=Limits(max_decode_s=1e-9)) is MediaFault.TIMEOUT


def test_packets_that_never_end_are_counted(tmp_path, good, monkeypatch):
    """A header may be silent about the number of frames: the walk itself is bounded."""
    (tmp_path / "a.mkv").write_bytes(encode(cells(30), container="matroska"))
    assert fault_of(tmp_path / "a.mkv", limits=Limits(max_frames=20)) is MediaFault.TOO_LARGE


def test_nothing_is_left_open(tmp_path, good):
    (tmp_path / "a.mp4").write_bytes(good)
    (tmp_path / "bad.mp4").write_bytes(b"nothing" * 100)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        probe(tmp_path / "a.mp4")
        fault_of(tmp_path / "bad.mp4")
    assert len(os.listdir("/proc/self/fd")) == before


def test_ticks_without_time_are_ranked():
    packets = timeline.Packets("vp8", np.array([0, 0, 0]), *np.ones((2, 3), bool), 1, None, 3.0)
    assert not packets.are_frames
    assert timeline.rank_timeline(packets, 3).times_s.tolist() == [0, 1, 2]
