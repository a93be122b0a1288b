"""A disk that takes no more bytes ends a stage in one sentence; with space made, the same call goes on.

A full disk cannot be had without root, a limit on file size can: the kernel cuts a write off in the same way, and
safetensors and torch.save meet it in the same place. /dev/full is a device that is always full.
"""

import errno
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from stagekit import bytes_of, quick

from videosafety.core.errors import StorageError
from videosafety.core.example import Example, Turn
from videosafety.core.store import storage_errors
from videosafety.defend import resume
from videosafety.defend.resume import COMPLETE, FAULT_ROWS
from videosafety.defend.sft import train_stage

MIB = 2**20
OPTIMIZER, WEIGHTS = 4 * MIB, 2 * MIB  # cut off here: the toy's optimizer state has 5.6 MiB, its weights 2.8 MiB


def limit(num_bytes: int) -> None:
    """No file may grow over this from now on. Python ignores the signal, so the write fails."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.fixture(autouse=True)
def unlimited() -> Iterator[Callable[[], None]]:
    """Makes space again; so does the end of a test."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)

    def back() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)

    yield back
    back()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize(("num_bytes", "reason"), [(WEIGHTS, "File too large"), (OPTIMIZER, "a file was cut off")])
def test_a_checkpoint_that_is_cut_off_leaves_the_one_before(base, clips, tmp_path, unlimited, num_bytes, reason):
    config, rows, out = quick(max_steps=3, save_steps=1), clips[:4], tmp_path / "full"
    first = tmp_path / "full.work" / "checkpoint-1"
    before: dict[str, bytes] = {}

    def on_step(step: int, total: int, loss: float) -> None:
        if step == 2:
            before.update(contents(first))
            limit(num_bytes)

    with pytest.raises(StorageError, match=f"full.work: cannot be written: {reason}") as caught:
        train_stage("at_sft", config, rows, base=base, out=out, on_step=on_step)
    unlimited()
    assert "ulimit -f" in str(caught.value)
    assert contents(first) == before
    assert COMPLETE in before
    steps: list[int] = []
    train_stage("at_sft", config, rows, base=base, out=out, on_step=lambda *at: steps.append(at[0]))
    assert steps == [2, 3]
    train_stage("at_sft", config, rows, base=base, out=tmp_path / "straight")
    assert bytes_of(out) == bytes_of(tmp_path / "straight")


@pytest.mark.parametrize("what", ["weights", "curves"])
def test_a_stage_whose_result_is_cut_off_is_saved_without_training_again(base, clips, out, unlimited, what):
    config = quick("alarm_init", trains=("alarms",), max_steps=2, save_steps=1)  # its checkpoints are small
    loggers = out.with_name(f"{out.name}.work") / "runs"

    def on_step(step: int, total: int, loss: float) -> None:
        if step == 2:
            loggers.mkdir(exist_ok=True)
            (loggers / "events").write_bytes(bytes(5 * MIB))
            limit(WEIGHTS if what == "weights" else OPTIMIZER)

    with pytest.raises(StorageError, match="cannot be written: File too large"):
        train_stage("alarm_init", config, clips[:4], base=base, out=out, on_step=on_step)
    unlimited()
    assert not out.exists()
    steps: list[int] = []
    made = train_stage("alarm_init", config, clips[:4], base=base, out=out, on_step=lambda *at: steps.append(at[0]))
    assert steps == []
    assert made.info["num_steps"] == 2
    assert [folder.name for folder in out.parent.iterdir()] == [out.name]


def test_a_full_device_under_torch() -> None:
    with pytest.raises(StorageError, match="/dev/full: cannot be written: a file was cut off"), \
            storage_errors("/dev/full"):  # fmt: skip
        torch.save({"a": torch.zeros(10_000)}, "/dev/full")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_checkpoint_in_shards(tmp_path: Path) -> None:
    """torch raises an error of its own around the real one, and it is no Exception."""
    from torch.distributed import checkpoint

    limit(MIB)
    with pytest.raises(StorageError, match="cannot be written"), storage_errors(tmp_path):
        checkpoint.save({"a": torch.zeros(MIB)}, checkpoint_id=tmp_path / "shards", no_dist=True)


@pytest.mark.parametrize("error", [
    RuntimeError("shapes do not fit"), ValueError("[Errno 99999]"), KeyboardInterrupt(), torch.OutOfMemoryError("x"),
])  # fmt: skip
def test_what_is_no_refusal_stays_what_it_is(error: Any) -> None:
    with pytest.raises(type(error)) as caught, storage_errors("x"):
        raise error
    assert caught.value is error


def test_a_quota_is_named() -> None:
    from safetensors import SafetensorError

    with pytest.raises(StorageError, match="Disk quota exceeded; your quota is used up"), storage_errors("x"):
        raise SafetensorError("Error while serializing: I/O error: Disk quota exceeded (os error 122)")


def test_a_refusal_while_a_checkpoint_is_flushed(base, clips, out, monkeypatch):
    """Quotas and network disks may refuse only then."""

    def refuse(path: Path) -> None:
        raise OSError(errno.EDQUOT, "refused")

    monkeypatch.setattr(resume, "sync", refuse)
    with pytest.raises(StorageError, match="cannot be written: Disk quota exceeded"):
        train_stage("at_sft", quick(max_steps=2, save_steps=1), clips[:4], base=base, out=out)
    assert not list(out.parent.glob(f"*/*/{COMPLETE}"))


def test_a_list_of_lost_rows_that_cannot_be_written(base, clips, out, tmp_path):
    lost = [one.model_copy(update={"turns": (moved(one, tmp_path / f"{one.id}.mp4"),)}) for one in clips[:4]]
    work = out.with_name(f"{out.name}.work")

    def on_step(step: int, total: int, loss: float) -> None:
        if step == 1:
            (work / FAULT_ROWS).symlink_to("/dev/full")
            for one in lost:
                Path(one.media[0].path).unlink()

    config = quick(max_steps=6, max_fault_share=1.0)
    with pytest.raises(StorageError, match=f"{FAULT_ROWS}: cannot be written: No space left on device"):
        train_stage("at_sft", config, lost, base=base, out=out, on_step=on_step)


def moved(one: Example, path: Path) -> Turn:
    """The row's only turn with its medium copied to another place."""
    path = path.with_suffix(Path(one.media[0].path).suffix)
    shutil.copyfile(one.media[0].path, path)
    medium = one.media[0].model_copy(update={"path": str(path)})
    return one.turns[-1].model_copy(update={"media": (medium,)})
