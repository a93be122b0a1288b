"""Known files and their copies are quarantined, nothing else is, and no list is misread or told of."""

import numpy as np
import pytest
from thought_rows import asked

from videosafety.build.embed import hashes
from videosafety.build.records import Embedded
from videosafety.build.screen import Quarantine, QuarantineLooks, read_list
from videosafety.build.state import State, Terminal
from videosafety.build.step import step_hash
from videosafety.core.errors import InputError, RecordError

RANDOM = np.random.default_rng(7)
SCENE = np.kron(RANDOM.integers(0, 256, (6, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8)
OTHER = np.kron(RANDOM.integers(0, 256, (6, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8)


def listed(folder, *lines):
    path = folder / "known.txt"
    path.write_text("# known\n" + "\n".join(lines) + "\n")
    return path


def clip(name="a"):
    return asked(clip=name).described.clip


def embedded(*frames, embedder="phash"):
    vectors = tuple(f"{plain:016x}{mirrored:016x}" for plain, mirrored in map(hashes, frames))
    facts = asked().described.facts
    return Embedded(id="clip-a", clip=clip(), facts=facts, embedder=embedder, static_score=0.5, vectors=vectors)


def test_a_listed_file_is_quarantined_and_another_goes_on(tmp_path):
    step = Quarantine.of(listed(tmp_path, clip("a").sha256.upper() + "  # a"))
    assert step(clip("a")) == Terminal(state=State.QUARANTINED, reason="hash_list:sha256")
    assert step(clip("b")) == [clip("b")]


def test_a_changed_list_is_another_step_and_its_place_is_not(tmp_path):
    first = Quarantine.of(listed(tmp_path, "a" * 64))
    (tmp_path / "moved").mkdir()
    assert step_hash(Quarantine.of(listed(tmp_path / "moved", "a" * 64))) == step_hash(first)
    assert step_hash(Quarantine.of(listed(tmp_path, "b" * 64))) != step_hash(first)
    with pytest.raises(InputError, match="has changed"):
        first(clip())


def test_copies_of_a_listed_frame_are_quarantined(tmp_path):
    step = QuarantineLooks.of(listed(tmp_path, f"phash:{hashes(SCENE)[0]:016x}"))
    noisy = np.clip(SCENE.astype(int) + RANDOM.integers(-6, 7, SCENE.shape), 0, 255).astype(np.uint8)
    for copy in (SCENE, noisy, SCENE[:, ::-1]):
        assert step(embedded(OTHER, copy)) == Terminal(state=State.QUARANTINED, reason="hash_list:looks")
    assert step(embedded(OTHER)) == [embedded(OTHER)]
    black = embedded(np.zeros_like(SCENE))
    assert QuarantineLooks.of(listed(tmp_path, "phash:0000000000000003"))(black) == [black]


def test_frames_cannot_be_compared_by_another_embedder(tmp_path):
    one = embedded(OTHER, embedder="dinov2")
    assert QuarantineLooks.of(listed(tmp_path, "a" * 64))(one) == [one]
    with pytest.raises(InputError, match="cannot be compared with dinov2"):
        QuarantineLooks.of(listed(tmp_path, f"phash:{hashes(SCENE)[0]:016x}"))(one)


@pytest.mark.parametrize(
    ("line", "said"),
    [("a" * 63, "known.txt:2: is no hash"), ("phash:12", "is no hash"), ("", "lists no hash"),
     ("phash:" + "f" * 16, "no frame's"), ("phash:" + "0" * 16, "no frame's")],
)  # fmt: skip
def test_a_line_that_is_no_hash_is_named_by_its_number_alone(tmp_path, line, said):
    with pytest.raises(InputError) as caught:
        read_list(listed(tmp_path, line))
    assert said in str(caught.value)
    assert not line or line not in str(caught.value)


def test_a_list_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="no such file"):
        Quarantine.of(tmp_path / "none.txt")
