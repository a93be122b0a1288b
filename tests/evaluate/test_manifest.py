import os
from pathlib import Path

import pytest
from evalkit import COMPOSED, HH, SAFE, benchmark, manifest, row, write_clip, write_picture

from videosafety.core.errors import InputError, MediaFault, RecordError
from videosafety.core.records import Image, QueryKind, Sample, Span, Video
from videosafety.core.store import sha256_file
from videosafety.evaluate import manifest as module
from videosafety.evaluate.manifest import load_benchmark, survey

CLIP = Video(path="a.mp4")


@pytest.mark.parametrize(
    ("sample", "fault"),
    [
        (row("x", media=CLIP, labels=HH, category="rule_1"), "unknown category 'rule_1'; did you mean 'rule_"),
        (row("x", media=Video(path="http://host/a.mp4")), "is a URL; download the file"),
        (row("x", media=Video(path="data:video/mp4;base64,AA")), "is a URL"),
        (row("x", media=Video(path="../a.mp4")), "leaves the manifest's folder by '..'"),
        (row("x", media=Video(path="clips/../../a.mp4")), "leaves the manifest's folder by '..'"),
        (row("x", media=Video(path="/no/such/a.mp4")), "the absolute media path does not exist"),
        (row("x", media=Video(path="a\0.mp4")), "NUL character"),
        (row("x", query_kind=QueryKind.DEICTIC), "deictic but there is no media"),
        (row("x", harm_spans=(Span(start_s=0, end_s=1),)), "harm_spans are given but there is no media"),
    ],
)
def test_bad_row_is_named_with_line_id_and_fix(tmp_path: Path, sample: Sample, fault: str) -> None:
    path = manifest(tmp_path, [row("ok"), sample])
    with pytest.raises(RecordError) as caught:
        load_benchmark(path, taxonomy="toy")
    assert "line 2: record 'x'" in str(caught.value)
    assert fault in str(caught.value)
    assert caught.value.exit_code == 2


def test_every_bad_row_is_listed_at_once(tmp_path: Path) -> None:
    bad = [row(f"x{i}", media=Video(path=f"../{i}.mp4")) for i in range(5)]
    with pytest.raises(RecordError) as caught:
        load_benchmark(manifest(tmp_path, [row("ok"), *bad]), taxonomy="toy")
    assert all(f"line {i + 2}: record 'x{i}'" in str(caught.value) for i in range(5))
    assert "'ok'" not in str(caught.value)


def test_duplicate_ids_and_unknown_labels_stop_everything(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="'a' is already on line 1"):
        load_benchmark(manifest(tmp_path, [row("a"), row("b"), row("a")]), taxonomy="toy")
    text = manifest(tmp_path, [row("a"), row("b")]).read_text()
    for old, new, said in (('"request":"safe"', '"request":"saef"', "did you mean 'safe'"),
                           ('"language":"en"', '"language":"eng"', "known: ar, en")):  # fmt: skip
        (tmp_path / "manifest.jsonl").write_text(text.replace(old, new))
        with pytest.raises(RecordError, match=said):
            load_benchmark(tmp_path / "manifest.jsonl", taxonomy="toy")


def test_rows_that_disagree_about_a_file(tmp_path: Path) -> None:
    rows = [row("a", media=Video(path="f")), row("b", media=Image(path="f"))]
    with pytest.raises(RecordError, match="line 2: record 'b': calls the file a image, but line 1 calls it a video"):
        load_benchmark(manifest(tmp_path, rows), taxonomy="toy")
    rows = [row("a", media=Video(path="f", sha256="0" * 64)), row("b", media=Video(path="f", sha256="1" * 64))]
    with pytest.raises(RecordError, match="declares another sha256 for the file than line 1"):
        load_benchmark(manifest(tmp_path, rows), taxonomy="toy")


def test_limit_keeps_the_first_rows_and_refuses_nothing_at_all(tmp_path: Path) -> None:
    path = manifest(tmp_path, [row("c"), row("a"), row("b")])
    assert [s.id for s in load_benchmark(path, limit=2).samples] == ["c", "a"]
    with pytest.raises(InputError, match="a limit of 0 leaves nothing to do"):
        load_benchmark(path, limit=0)


def test_hash_follows_the_rows_and_not_the_folder(tmp_path: Path) -> None:
    one = load_benchmark(manifest(tmp_path / "one", [row("a")]))
    other = load_benchmark(manifest(tmp_path / "other", [row("a")]))
    changed = load_benchmark(manifest(tmp_path / "changed", [row("a", query="else")]))
    assert one.sha256 == other.sha256 != changed.sha256


def test_every_damaged_file_is_found_with_its_fault_and_the_rest_is_ok(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4")
    (tmp_path / "link.mp4").symlink_to(whole)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(os.urandom(4000))
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "folder.mp4").mkdir()
    write_picture(tmp_path / "still.png")
    expected = {
        "whole": (Video(path="whole.mp4", sha256=sha256_file(whole)), None),
        "absolute": (Video(path=str(whole)), None),
        "link": (Video(path="link.mp4"), None),
        "still": (Image(path="still.png"), None),
        "missing": (Video(path="missing.mp4"), MediaFault.MISSING),
        "empty": (Video(path="empty.mp4"), MediaFault.EMPTY),
        "noise": (Video(path="noise.mp4"), MediaFault.CORRUPT),
        "cut": (Video(path="cut.mp4"), MediaFault.CORRUPT),
        "folder": (Video(path="folder.mp4"), MediaFault.UNREADABLE),
        "still-as-video": (Video(path="./still.png"), MediaFault.SINGLE_FRAME),
        "video-as-image": (Image(path="./whole.mp4"), MediaFault.CORRUPT),
        "changed": (Video(path="./link.mp4", sha256="0" * 64), MediaFault.CHANGED),
    }
    samples = [row(id, media=media) for id, (media, _) in expected.items()]
    states = survey(benchmark(tmp_path, [*samples, row("words")]))
    assert {id: state.fault for id, state in states.items()} == {id: fault for id, (_, fault) in expected.items()}
    for id, state in states.items():
        if state.fault is not None:
            media = expected[id][0]
            assert state.detail is not None
            assert state.detail.startswith(f"{media.path}: ")
            assert "; " in state.detail  # the fix
            assert str(tmp_path) not in state.detail
        else:
            assert (state.state, state.detail) == ("ok", None)


def test_a_file_that_many_items_share_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "a.mp4")
    looked, probe = [], module.probe
    monkeypatch.setattr(module, "probe", lambda path, **kw: (looked.append(path), probe(path, **kw))[1])
    states = survey(benchmark(tmp_path, [row(f"i{i}", media=CLIP, labels=SAFE) for i in range(9)]))
    assert len(states) == 9
    assert looked == [tmp_path / "a.mp4"]


def test_nothing_usable_is_an_error_but_words_alone_are_something(tmp_path: Path) -> None:
    gone = row("a", media=CLIP, labels=COMPOSED)
    with pytest.raises(InputError, match=r"no item can be used: all 1 .*a\.mp4.*check the media folder"):
        survey(benchmark(tmp_path, [gone]))
    assert survey(benchmark(tmp_path, [gone, row("words")]))["a"].fault is MediaFault.MISSING
