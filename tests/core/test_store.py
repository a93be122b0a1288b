import errno
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from videosafety import __version__
from videosafety.core import store
from videosafety.core.errors import InputError, RecordError, StorageError
from videosafety.core.records import Record, Span, Verdict
from videosafety.core.store import (
    Journal,
    Manifest,
    read_json,
    sha256_file,
    verify_manifest,
    write_bytes,
    write_json,
    write_manifest,
    write_records,
    write_text,
)


class Item(Record):
    id: str
    text: str = ""


ITEMS = [Item(id=f"i{n}", text="é" * n) for n in range(5)]

PRELUDE = """
import os, resource, signal, sys
from pathlib import Path
from videosafety.core.errors import VideoSafetyError
from videosafety.core.records import Record
from videosafety.core.store import Journal, write_bytes
class Item(Record):
    id: str
    text: str = ""
path = Path(sys.argv[1])
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def child(code: str, path: Path) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-c", PRELUDE + code, str(path)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def append(path: Path, *items: Item) -> None:
    with Journal(path) as journal:
        journal.append(*items)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Atomic writes


def test_a_write_makes_the_folder_and_leaves_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.bin"
    write_bytes(path, b"old")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["x.bin"]
    write_text(path, "é\n")
    assert path.read_bytes() == b"\xc3\xa9\n"


def test_a_written_file_has_the_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_bytes(tmp_path / "x", b"")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_folder_or_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(StorageError, match="is not an ordinary file"):
            write_bytes(path, b"x")


def test_equal_data_gives_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": [1, 2.5, None], "a": "é\u2028"})
    write_json(tmp_path / "b", {"a": "é\u2028", "b": (1, 2.5, None)})
    assert (tmp_path / "a").read_bytes() == '{"a":"é\u2028","b":[1,2.5,null]}\n'.encode()
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    write_records(tmp_path / "r", ITEMS)
    write_records(tmp_path / "s", iter(ITEMS))
    assert sha256_file(tmp_path / "r") == sha256_file(tmp_path / "s")


@pytest.mark.parametrize("data", [{"a": float("nan")}, [float("inf")], {"a": "\ud800"}])
def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(tmp_path: Path, data: object) -> None:
    write_text(tmp_path / "x", "old")
    with pytest.raises(InputError, match="cannot be written as JSON"):
        write_json(tmp_path / "x", data)
    assert (tmp_path / "x").read_text() == "old"


def test_a_fault_while_records_are_made_leaves_the_old_file(tmp_path: Path) -> None:
    def records() -> Iterator[Item]:
        yield ITEMS[0]
        raise KeyboardInterrupt

    write_text(tmp_path / "x", "old")
    with pytest.raises(KeyboardInterrupt):
        write_records(tmp_path / "x", records())
    assert (tmp_path / "x").read_text() == "old"
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "may write to"),
        (errno.EROFS, "may write to"),
        (errno.EIO, "check the path and the disk"),
    ],
)
def test_a_refusing_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, fix: str) -> None:
    def refuse(_fd: int) -> None:
        raise OSError(code, os.strerror(code))

    write_text(tmp_path / "x", "old")
    monkeypatch.setattr(store.os, "fsync", refuse)
    with pytest.raises(StorageError) as caught:
        write_text(tmp_path / "x", "new")
    assert str(caught.value).startswith(f"{tmp_path / 'x'}: cannot be written: {os.strerror(code)}; ")
    assert fix in str(caught.value)
    assert (tmp_path / "x").read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_impossible_places_are_storage_errors(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "x", tmp_path / ("n" * 300)):
        with pytest.raises(StorageError):
            write_bytes(path, b"x")
        with pytest.raises(StorageError):
            append(path, ITEMS[0])


FULL = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    {write}
except VideoSafetyError as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x", b"old")
    said, _ = child(FULL.format(write="write_bytes(path, bytes(1_000_000))"), tmp_path / "x").communicate()
    assert said.startswith(f"StorageError {tmp_path / 'x'}: cannot be written: ")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert names(tmp_path) == ["x"]


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "j"
    append(path, *ITEMS)
    before = path.read_bytes()
    write = "Journal(path).append(Item(id='a', text='x'*90_000), Item(id='b', text='x'*90_000))"
    said, _ = child(FULL.format(write=write), path).communicate()
    assert said.startswith(f"StorageError {path}: cannot be written: ")
    assert path.read_bytes() == before
    append(path, ITEMS[0])
    assert Journal(path).read(Item) == [*ITEMS, ITEMS[0]]


def test_a_process_killed_before_the_rename_leaves_the_old_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x", b"old")
    with child("os.fsync = die\nwrite_bytes(path, bytes(1_000_000))", tmp_path / "x") as process:
        assert process.wait() == -signal.SIGKILL
    assert (tmp_path / "x").read_bytes() == b"old"


def test_a_process_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_bytes(path, b"a" * 500_000)
    endless = "while True:\n    for letter in (b'b', b'a'):\n        write_bytes(path, letter * 500_000)"
    for _ in range(4):
        last = path.stat().st_mtime_ns
        with child(endless, path) as process:
            while path.stat().st_mtime_ns == last:  # until it is writing
                assert process.poll() is None
            process.kill()
        assert path.read_bytes() in (b"a" * 500_000, b"b" * 500_000)


# Journal


def test_a_journal_gives_back_what_was_appended(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "j.jsonl"
    assert Journal(path).read(Item) == []
    with Journal(path) as journal:
        assert journal.read(Item) == []
        journal.append(ITEMS[0])
        journal.append()
        journal.append(*ITEMS[1:])
        assert journal.read(Item) == ITEMS
    write_records(tmp_path / "same", ITEMS)
    assert path.read_bytes() == (tmp_path / "same").read_bytes()


def test_a_torn_last_line_is_dropped_at_every_cut_and_repaired(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write_records(path, ITEMS)
    whole = path.read_bytes()
    starts = [0, *(at + 1 for at, byte in enumerate(whole) if byte == ord("\n"))]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = sum(start <= cut for start in starts) - 1
        assert Journal(path).read(Item) == ITEMS[:kept]
        assert path.stat().st_size == cut  # reading changes nothing
        append(path, *ITEMS[kept:])
        assert path.read_bytes() == whole


def test_a_long_torn_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "j"
    for before in (b"", b'{"id":"a","text":""}\n'):
        path.write_bytes(before + b"x" * 200_000)
        with Journal(path):
            assert path.read_bytes() == before


def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write_records(path, ITEMS)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1][:7] + b"\n", *lines[2:]]))
    with pytest.raises(RecordError) as caught:
        Journal(path).read(Item)
    assert caught.value.where == f"{path}:2"
    with pytest.raises(RecordError, match="cannot be read"):
        Journal(tmp_path).read(Item)


def test_a_process_killed_inside_a_write_loses_only_that_line(tmp_path: Path) -> None:
    path = tmp_path / "j"
    code = """
journal = Journal(path)
journal.append(Item(id="a"), Item(id="b"))
write = os.write
def half(fd, data):
    write(fd, data[: len(data) // 2])
    die()
os.write = half
journal.append(Item(id="c", text="lost"))
"""
    with child(code, path) as process:
        assert process.wait() == -signal.SIGKILL
    assert not path.read_bytes().endswith(b"\n")
    assert [item.id for item in Journal(path).read(Item)] == ["a", "b"]
    append(path, Item(id="c"))
    assert [item.id for item in Journal(path).read(Item)] == ["a", "b", "c"]


def test_a_process_killed_at_any_moment_leaves_a_prefix(tmp_path: Path) -> None:
    path = tmp_path / "j"
    endless = """
n = len(Journal(path).read(Item))
with Journal(path) as journal:
    while True:
        journal.append(*(Item(id=str(n + k), text="x" * 20_000) for k in range(10)))
        n += 10
"""
    for _ in range(3):
        size = path.stat().st_size if path.exists() else 0
        with child(endless, path) as process:
            while not path.exists() or path.stat().st_size < size + 400_000:
                assert process.poll() is None
            process.kill()
        found = [item.id for item in Journal(path).read(Item)]
        assert found == [str(n) for n in range(len(found))]
        assert found


def test_two_processes_cannot_write_one_journal(tmp_path: Path) -> None:
    path = tmp_path / "j"
    holding = "journal = Journal(path)\njournal.append(Item(id='a'))\nprint('held', flush=True)\nsys.stdin.read()"
    argv = [sys.executable, "-c", PRELUDE + holding, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match="another process is writing"):
            append(path, ITEMS[0])
        assert [item.id for item in Journal(path).read(Item)] == ["a"]  # reading needs no lock
        process.kill()
    append(path, ITEMS[0])  # a dead process holds no lock


def test_one_process_cannot_write_it_twice_either(tmp_path: Path) -> None:
    with Journal(tmp_path / "j"), pytest.raises(StorageError, match="another process is writing"):
        append(tmp_path / "j", ITEMS[0])
    append(tmp_path / "j", ITEMS[0])


# Manifests and hashes


def test_a_manifest_round_trip(tmp_path: Path) -> None:
    write_records(tmp_path / "clips" / "a.jsonl", ITEMS)
    written = write_manifest(tmp_path, name="toy", seed=7, num_records=5, files=["clips/a.jsonl"])
    digest = hashlib.sha256((tmp_path / "clips" / "a.jsonl").read_bytes()).hexdigest()
    assert written.files == {"clips/a.jsonl": digest}
    assert (written.created_by, written.seed) == (f"videosafety {__version__}", 7)
    assert verify_manifest(tmp_path) == written
    before = (tmp_path / "manifest.json").read_bytes()
    write_manifest(tmp_path, name="toy", seed=7, num_records=5, files=["clips/a.jsonl"])
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_a_changed_or_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_text(tmp_path / name, name)
    write_manifest(tmp_path, name="toy", seed=None, num_records=0, files=["a", "b"])
    write_text(tmp_path / "b", "changed")
    with pytest.raises(RecordError, match="is not the file that the manifest names") as caught:
        verify_manifest(tmp_path)
    assert caught.value.where == str(tmp_path / "b")
    (tmp_path / "b").unlink()
    with pytest.raises(RecordError, match="no such file"):
        verify_manifest(tmp_path)


@pytest.mark.parametrize(
    "change", [{"files": {"../x": "0" * 64}}, {"files": {"/x": "0" * 64}}, {"files": {"x": "0"}}, {"num_records": -1}]
)
def test_a_bad_manifest_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    good = {"name": "toy", "created_by": "x", "seed": None, "num_records": 0, "files": {}}
    write_json(tmp_path / "manifest.json", good)
    assert verify_manifest(tmp_path) == Manifest.model_validate(good)
    write_json(tmp_path / "manifest.json", good | change)
    with pytest.raises(RecordError) as caught:
        verify_manifest(tmp_path)
    assert caught.value.where == str(tmp_path / "manifest.json")


def test_no_record_holds_a_set(tmp_path: Path) -> None:
    """A set has no order, so its bytes would differ between processes."""
    for kind in (Span, Verdict, Manifest):
        assert "set" not in str([field.annotation for field in kind.model_fields.values()])


def test_read_json_names_file_and_fault(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    cases = {
        b'{"a": 1,\n "b" 2}': "line 2, column 6",
        b'{"a": 1, "a": 2}': "the field 'a' stands twice",
        b"[NaN]": "NaN is not a number",
        b"\xff": "not UTF-8 (byte 1)",
        b"": "not valid JSON",
        b"[" * 100_000: "nested too deeply",
        b"1" * 10_000: "limit",
    }
    for raw, said in cases.items():
        path.write_bytes(raw)
        with pytest.raises(RecordError) as caught:
            read_json(path)
        assert said in str(caught.value)
        assert caught.value.where == str(path)
    path.write_bytes(b' {"a": [1]}\n')
    assert read_json(path) == json.loads(path.read_text())
