"""The cache: nothing is decoded twice, nothing damaged is used, nothing grows without bound."""

import multiprocessing
import os
import time

import numpy as np
import pytest
from clipmaker import cells, encode

from videosafety.core.errors import InputError, StorageError
from videosafety.video import sample
from videosafety.video.cache import FrameCache
from videosafety.video.plan import Clip
from videosafety.video.sample import Sampling, sample_clip

ENTRY_BYTES = 32 * 32 * 3  # at least, for one frame


@pytest.fixture
def path(tmp_path):
    (tmp_path / "a.mp4").write_bytes(encode(cells(20)))
    return tmp_path / "a.mp4"


@pytest.fixture
def cache(tmp_path):
    return FrameCache(tmp_path / "cache")


@pytest.fixture
def decodes(monkeypatch):
    """Counts decodes."""
    count = []
    plain = sample.decode_frames
    monkeypatch.setattr(sample, "decode_frames", lambda *args: (count.append(1), plain(*args))[1])
    return count


def entries(cache):
    return sorted(cache.folder.iterdir())


def test_second_epoch_decodes_nothing(path, cache, decodes):
    first, second = (sample_clip(path, cache=cache) for _ in range(2))
    assert len(decodes) == 1
    assert (cache.num_hits, cache.num_misses) == (1, 1)
    assert np.array_equal(first.frames, second.frames)
    assert second.frames.flags.writeable
    assert (second.plan, second.timestamps_s) == (first.plan, first.timestamps_s)


def test_the_key_is_bytes_and_sampling_and_never_the_name(path, cache, decodes):
    sample_clip(path, cache=cache)
    other = path.with_name("other.mp4")
    path.rename(other)
    sample_clip(other, cache=cache)
    assert len(decodes) == 1
    sample_clip(other, cache=cache, sampling=Sampling(max_side_px=16))
    assert len(decodes) == 2
    other.write_bytes(encode(cells(20, seed=1)))
    sample_clip(other, cache=cache)
    assert len(decodes) == 3


def test_another_decoder_is_another_entry(path, cache, decodes, monkeypatch):
    sample_clip(path, cache=cache)
    for module in ("cache", "sample"):
        monkeypatch.setattr(f"videosafety.video.{module}.pyav_version", lambda: "another")
    sample_clip(path, cache=cache)
    assert len(decodes) == 2


def test_a_damaged_entry_is_decoded_again(path, cache, decodes):
    whole = sample_clip(path, cache=cache)
    entry = entries(cache)[0]
    raw = entry.read_bytes()
    spoilt = [raw[: len(raw) // 2], raw + b"x", b"", b"junk"]
    for place in (0, 30, 60, 200, len(raw) // 2, len(raw) - 1):  # magic, hash, length, plan, pixels
        spoilt.append(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
    for number, bad in enumerate(spoilt, start=2):
        entry.write_bytes(bad)
        assert np.array_equal(sample_clip(path, cache=cache).frames, whole.frames)
        assert len(decodes) == number
        assert entry.read_bytes() == raw


def test_an_entry_under_a_wrong_name_is_not_used(path, cache, decodes):
    sample_clip(path, cache=cache)
    first = entries(cache)[0]
    sample_clip(path, cache=cache, sampling=Sampling(fps=2))
    second = next(e for e in entries(cache) if e != first)
    first.write_bytes(second.read_bytes())
    assert len(sample_clip(path, cache=cache).frames) == 2
    assert len(decodes) == 3


def test_bounded_and_the_longest_unused_goes_first(path, tmp_path, decodes):
    cache = FrameCache(tmp_path / "small", max_bytes=3 * (2 * ENTRY_BYTES + 2000))
    samplings = [Sampling(fps=1 - n / 1000) for n in range(4)]
    for number, sampling in enumerate(samplings[:3]):
        sample_clip(path, cache=cache, sampling=sampling)
        for entry in entries(cache):  # one second apart, whatever the clock's grain
            os.utime(entry, (entry.stat().st_atime - 1, entry.stat().st_mtime - 1))
        assert len(entries(cache)) == number + 1
    sample_clip(path, cache=cache, sampling=samplings[0])  # used again
    sample_clip(path, cache=cache, sampling=samplings[3])
    assert sum(e.stat().st_size for e in entries(cache)) <= cache.max_bytes
    assert len(decodes) == 4
    sample_clip(path, cache=cache, sampling=samplings[0])
    assert len(decodes) == 4  # still there
    sample_clip(path, cache=cache, sampling=samplings[1])
    assert len(decodes) == 5  # gone


def test_an_entry_larger_than_the_cache_is_not_kept(path, tmp_path):
    cache = FrameCache(tmp_path / "tiny", max_bytes=100)
    sample_clip(path, cache=cache)
    assert entries(cache) == []


def test_what_a_dead_process_left_is_swept(path, cache):
    for name, age_s in (("old.tmp", 7200), ("new.tmp", 0)):
        (cache.folder / name).write_bytes(b"half")
        os.utime(cache.folder / name, (time.time() - age_s,) * 2)
    sample_clip(path, cache=cache)
    assert {e.name for e in entries(cache) if e.suffix == ".tmp"} == {"new.tmp"}


def _work(job):
    path, folder, seed = job
    cache = FrameCache(folder, max_bytes=40_000)
    order = np.random.default_rng(seed).integers(0, 6, 25)
    return [sample_clip(path, cache=cache, sampling=Sampling(fps=1 + n)).plan.digest for n in order], order.tolist()


def test_many_processes_share_a_folder(path, tmp_path):
    jobs = [(path, tmp_path / "shared", seed) for seed in range(3)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.map(_work, jobs)
    expected = {n: sample_clip(path, sampling=Sampling(fps=1 + n)).plan.digest for n in range(6)}
    for digests, order in results:
        assert digests == [expected[n] for n in order]


def test_refusals(path, tmp_path, cache):
    with pytest.raises(InputError, match="frame plan"):
        cache.put(Clip(np.zeros((1, 2, 2, 3), np.uint8), (0.0,)))
    with pytest.raises(InputError, match="max_bytes"):
        FrameCache(tmp_path / "x", max_bytes=-1)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        FrameCache(tmp_path / "file")


def test_a_full_disk_is_said(path, cache, monkeypatch):
    def full(*args):
        raise StorageError("cannot be written: No space left on device", where="x", fix="free some space")

    monkeypatch.setattr("videosafety.video.cache.write_bytes", full)
    with pytest.raises(StorageError, match="No space"):
        sample_clip(path, cache=cache)
