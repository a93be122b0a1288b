"""From a folder to clips that are kept: every planted fault ends in its state, and nothing is lost."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from videosafety.build.collect import collect
from videosafety.build.embed import NUM_BITS, hashes, static_score
from videosafety.build.filter import Filter
from videosafety.build.ledger import Ledger
from videosafety.build.near import near_pairs
from videosafety.build.records import Clip, Embedded, Facts
from videosafety.build.state import State
from videosafety.build.step import step_hash
from videosafety.build.store import MediaStore
from videosafety.core.errors import InputError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import clips
        from parts.clipset import TRUTH, build
    finally:
        sys.path.remove(str(BENCHMARKS))
    folder = tmp_path_factory.mktemp("clips")
    kinds = build(folder / "clips", num=36)
    with Ledger(folder / "ledger.sqlite") as ledger:
        found = clips.states(folder / "clips", ledger, workers=2)
        again = clips.states(folder / "clips", ledger, workers=2)
    assert again == found
    return kinds, TRUTH, found


def test_every_planted_fault_ends_in_its_state_and_nothing_is_lost(ended):
    kinds, truth, found = ended
    assert found.keys() == kinds.keys()
    expected = {path: truth[kind] for path, kind in kinds.items() if kind not in ("cut", "flipped")}
    assert {path: (found[path][0], found[path][1].split(":clip-")[0]) for path in expected} == expected


def test_what_is_cut_or_flipped_has_a_state_too(ended):
    kinds, _, found = ended
    assert {found[path][0] for path, kind in kinds.items() if kind in ("cut", "flipped")} <= set(State)


def test_collect_names_links_out_of_the_folder_and_declared_hashes(tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    (tmp_path / "secret.mp4").write_bytes(b"outside")
    (clips / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (clips / "a.mp4").write_bytes(b"inside")
    (clips / ".hidden").write_bytes(b"no clip")
    (clips / ".git").mkdir()
    (clips / ".git" / "a.mp4").write_bytes(b"inside too")
    (clips / "folder").symlink_to(tmp_path)
    found = {outcome.row: (outcome.state, outcome.reason) for outcome in collect(clips)}
    assert found == {
        ".git": (State.FILTERED, "path:hidden"),
        ".hidden": (State.FILTERED, "path:hidden"),
        "a.mp4": (State.OK, ""),
        "folder": (State.FILTERED, "path:linked_folder"),
        "link.mp4": (State.QUARANTINED, "path:outside"),
    }
    manifest = clips / "clips.jsonl"
    manifest.write_text('{"path": "a.mp4", "sha256": "' + "0" * 64 + '"}\n{"path": "gone.mp4"}\n')
    found = {outcome.row: outcome.reason for outcome in collect(manifest)}
    assert found == {"a.mp4": "media:changed", "gone.mp4": "media:missing"}


def test_names_that_are_no_text_and_links_to_themselves_end_like_other_files(tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "clips" / os.fsdecode(b"bad\xff\xfe.mp4")).write_bytes(b"x")
    os.mkfifo(clips / "pipe.mp4")
    (clips / "new\nline <script>.mp4").write_bytes(b"y")
    found = {outcome.row: (outcome.state, outcome.reason) for outcome in collect(clips)}
    assert found == {
        "bad\\xff\\xfe.mp4": (State.QUARANTINED, "path:not_text"),
        "loop.mp4": (State.FAILED, "media:unreadable"),
        "new\nline <script>.mp4": (State.OK, ""),
        "pipe.mp4": (State.QUARANTINED, "media:unreadable"),
    }


@pytest.mark.parametrize("where", ["none", "empty"])
def test_nothing_to_collect_is_said(tmp_path, where):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="clips"):
        list(collect(tmp_path / where))


def test_the_store_keeps_a_file_once_and_refuses_another(tmp_path):
    file = tmp_path / "A.MP4"
    file.write_bytes(b"bytes")
    sha256 = "277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9"
    store = MediaStore(tmp_path / "media")
    path = store.put(file, sha256=sha256)
    assert path == store.root / "27" / f"{sha256}.mp4"
    assert store.put(file, sha256=sha256).read_bytes() == b"bytes"
    file.write_bytes(b"edited in place")
    assert path.read_bytes() == b"bytes"
    path.write_bytes(b"damaged")
    file.write_bytes(b"bytes")
    assert store.put(file, sha256=sha256).read_bytes() == b"bytes"
    with pytest.raises(ValueError, match="changed"):
        store.put(file, sha256="0" * 64)
    assert [found.name for found in store.root.rglob("*.*")] == [path.name]


def embedded(name: str, frames: np.ndarray) -> Embedded:
    pairs = [hashes(frame) for frame in frames]
    clip = Clip(id=name, path=name, sha256="0" * 64, num_bytes=1, source="")
    facts = Facts(kind="video", codec="h264", width_px=64, height_px=64, fps=8.0, num_frames=8, duration_s=1.0,
                  has_audio=False)  # fmt: skip
    return Embedded(id=name, clip=clip, facts=facts, embedder="phash", static_score=1.0,
                    vectors=tuple(f"{a:016x}{b:016x}" for a, b in pairs))  # fmt: skip


def test_the_hash_of_a_mirrored_frame_is_the_mirrored_hash():
    rng = np.random.default_rng(0)
    frame = np.kron(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), dtype=np.uint8))
    plain, mirrored = hashes(frame)
    assert hashes(frame[:, ::-1]) == (mirrored, plain)
    assert (plain ^ mirrored).bit_count() > NUM_BITS // 4
    assert static_score([plain, plain]) == 0
    assert static_score([plain, mirrored]) > 0.25


def test_pairs_that_share_a_band_are_found_by_brute_force_too():
    """A crowd of equal frames does not hide a pair, and no pair is named twice."""
    rng = np.random.default_rng(1)
    grids = rng.integers(0, 256, (100, 4, 8, 8, 3), dtype=np.uint8)
    grids[:90, 0] = 30  # one black frame in common: a crowd
    grids[50] = grids[7]
    grids[60, 1:] = grids[8, 1:]
    clips = [embedded(f"c{i}", np.kron(grid, np.ones((1, 8, 8, 1), dtype=np.uint8))) for i, grid in enumerate(grids)]
    found = [(i, j) for i, j, _ in near_pairs([clip.vectors for clip in clips], below=0.1)]
    assert sorted(found) == [(7, 50), (8, 60)]


def test_a_filter_without_withdrawn_clips_has_the_hash_that_ledgers_know():
    """Else every folder of an earlier build would be filtered anew, and say so in its release."""
    known = "36849afbe3ebe4d959eee04d7d3290efc98b9a5acb1de11af1fb2aaad452cc9d"
    assert step_hash(Filter()) == step_hash(Filter(gone=())) == known
    assert step_hash(Filter(gone=(("clip-a", ("00",)),))) != known


def in_one_band(num):
    """So many clips of a frame, in the order of their codes, that share the first band of it and no other."""
    plain = [7 | (1 + i) << 16 | (1 + i) << 32 | (1 + i) << 48 for i in range(num)]
    mirrored = [sum((30_000 + i) << (16 * band) for band in range(4)) for i in range(num)]
    return [(f"{a:016x}{b:016x}",) for a, b in zip(plain, mirrored, strict=True)]


@pytest.mark.parametrize(("num", "reach"), [(64, 63), (65, 8), (200, 8)])
def test_in_a_crowd_clips_are_compared_with_their_neighbours_alone(num, reach):
    found = {(i, j) for i, j, _ in near_pairs(in_one_band(num), below=1.1)}
    assert found == {(i, j) for i in range(num) for j in range(i + 1, min(num, i + reach + 1))}
