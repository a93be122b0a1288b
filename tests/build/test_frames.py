"""Frames for annotators come from a process that may die of a file."""

import os
import signal
import time

import numpy as np
import pytest

from videosafety.build import pool
from videosafety.build.annotate import frames
from videosafety.build.annotate.annotator import AnnotatorConfig, Unshown
from videosafety.build.annotate.caller import Caller
from videosafety.build.annotate.purse import LocalPurse
from videosafety.build.ledger import Ledger
from videosafety.build.pool import Crash, Isolated
from videosafety.core.errors import MediaError
from videosafety.core.records import Video
from videosafety.llm.structured import Said
from videosafety.video.write import write_mp4


def fragile(row):
    if row == "dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    if row == "hangs":
        time.sleep(60)
    if row == "raises":
        raise ValueError("raised")
    return row, os.getpid()


def test_a_worker_is_asked_again_and_replaced_when_it_dies(monkeypatch):
    ask = Isolated(fragile, timeout_s=20.0)
    (_, first), (_, second) = ask("a"), ask("b")
    assert first == second != os.getpid()
    assert ask("dies") == Crash("killed by SIGSEGV")
    assert ask("c")[1] != first
    with pytest.raises(ValueError, match="raised"):
        ask("raises")
    os.kill(ask("d")[1], signal.SIGKILL)
    time.sleep(0.1)
    assert ask("e")[0] == "e"
    monkeypatch.setattr(pool, "_sent", lambda worker, row: False)
    assert ask("f") == Crash("no worker stays alive")
    monkeypatch.undo()
    assert Isolated(fragile, timeout_s=0.2)("hangs") == Crash("took 0.2 s")


def test_a_clip_has_its_times_and_a_broken_one_its_fault(tmp_path):
    write_mp4(tmp_path / "a.mp4", np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), dtype=np.uint8), fps=4)
    (tmp_path / "b.mp4").write_text("no clip")
    wanted = {"kind": "video", "sha256": None, "num_frames": 3, "max_side_px": 32}
    found = frames.frames_of(str(tmp_path / "a.mp4"), **wanted)
    assert [part["type"] for part in found] == ["text", "image_url"] * 3
    with pytest.raises(MediaError):
        frames.frames_of(str(tmp_path / "b.mp4"), **wanted)


class Never:
    async def say(self, request):
        return Said("{}", input_tokens=1, output_tokens=1)


def test_a_file_that_kills_the_decoder_is_not_shown(tmp_path, monkeypatch):
    import asyncio

    monkeypatch.setattr(frames, "_isolated", lambda wanted: Crash("killed by SIGSEGV"))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        caller = Caller(AnnotatorConfig(model="a/b"), ledger=ledger, purse=LocalPurse(None), step="describe",
                        root=tmp_path, model=Never())  # fmt: skip
        with pytest.raises(Unshown) as error:
            asyncio.run(caller.ask("what?", {}, media=Video(path="x.mp4", sha256="0" * 64)))
    assert error.value.reason == "crash:killed by SIGSEGV"
