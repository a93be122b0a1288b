import base64
import io
from pathlib import Path

import numpy as np
import pytest
from evalkit import write_clip, write_picture
from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser
from PIL import Image

from videosafety.core.errors import InputError, MediaError
from videosafety.evaluate.asking import PROVIDER
from videosafety.evaluate.provider_openai import request_of
from videosafety.evaluate.showing import Shows
from videosafety.evaluate.wire import TooMuch, Wire
from videosafety.video.edit import Still
from videosafety.video.parts import Part
from videosafety.video.plan import FramePlan, Frames, Sampling, frame_hashes
from videosafety.video.sample import sample_clip
from videosafety.video.write import write_mp4

SAMPLING = Sampling(fps=1.0, max_frames=4)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Six seconds of a coloured square that moves over a shaded ground."""
    ground = np.linspace(40, 200, 64).astype(np.uint8)
    frames = np.stack([np.broadcast_to(ground[None, :, None], (48, 64, 3)).copy() for _ in range(6)])
    for number, frame in enumerate(frames):
        frame[8:24, 8 * number : 8 * number + 16] = (220, 30, 60)
    write_mp4(tmp_path / "a.mp4", frames, fps=1)
    return tmp_path / "a.mp4"


def shows(path: Path, **more: object) -> Shows:
    return Shows(kind="video", path=str(path), sampling=SAMPLING, **more)  # type: ignore[arg-type]


def url_of(part: Part) -> str:
    return str(part[part["type"]]["url"])


def bytes_of(part: Part) -> bytes:
    return base64.b64decode(url_of(part).partition("base64,")[2])


def pixels_of(parts: list[Part]) -> Frames:
    images = [part for part in parts if part["type"] == "image_url"]
    return np.stack([np.asarray(Image.open(io.BytesIO(bytes_of(part)))) for part in images])


def test_frames_are_sent_with_their_times_and_are_the_plans_to_the_pixel(clip: Path, tmp_path: Path) -> None:
    parts, plan = Wire(video="frames").parts(shows(clip), tmp_path)
    assert plan is not None
    times = [part["text"] for part in parts if part["type"] == "text"]
    assert times == [f"<{time:.1f} s>" for time in plan.timestamps_s]
    assert times[1] == "<2.0 s>"
    assert [part["type"] for part in parts] == ["text", "image_url"] * 4
    assert frame_hashes(pixels_of(parts)) == plan.frame_sha256
    jpeg, _ = Wire(video="frames", picture="jpeg").parts(shows(clip), tmp_path)
    assert url_of(jpeg[1]).startswith("data:image/jpeg;base64,")
    assert 0 < mean_error(pixels_of(jpeg), clip) < 2


def mean_error(frames: Frames, clip: Path) -> float:
    return float(np.abs(frames.astype(int) - sample_clip(clip, sampling=SAMPLING).frames).mean())


def test_an_mp4_holds_the_planned_frames_at_their_times(clip: Path, tmp_path: Path) -> None:
    [part], plan = Wire().parts(shows(clip), tmp_path)
    assert plan == sample_clip(clip, sampling=SAMPLING).plan
    (tmp_path / "sent.mp4").write_bytes(bytes_of(part))
    sent = sample_clip(tmp_path / "sent.mp4", sampling=Sampling(fps=30))
    assert mean_error(sent.frames, clip) < 1
    assert plan is not None
    assert plan.timestamps_s == (0.0, 2.0, 3.0, 5.0)
    assert sent.timestamps_s == pytest.approx((0.0, 5 / 3, 10 / 3, 5.0))  # at their mean rate
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "sent.mp4"}  # nothing is left behind


def test_edits_are_in_what_is_sent_and_in_the_plan(clip: Path, tmp_path: Path) -> None:
    still = shows(clip, edits=(Still(),), remade=True)
    parts, plan = Wire(video="frames").parts(still, tmp_path)
    assert plan is not None
    assert frame_hashes(pixels_of(parts)) == plan.frame_sha256
    assert len(set(plan.frame_sha256)) == 1
    for video in ("mp4", "file"):
        [part], planned = Wire(video=video).parts(still, tmp_path)  # type: ignore[arg-type]
        assert planned == plan
        assert bytes_of(part) != clip.read_bytes()


def test_a_file_goes_as_it_is_and_its_hash_is_checked(clip: Path, tmp_path: Path) -> None:
    [part], plan = Wire(video="file").parts(shows(clip), tmp_path)
    assert bytes_of(part) == clip.read_bytes()
    assert url_of(part).startswith("data:video/mp4;base64,")
    assert plan is None
    with pytest.raises(MediaError, match="another hash"):
        Wire(video="file").parts(shows(clip, sha256="0" * 64), tmp_path)
    with pytest.raises(MediaError, match="no such file"):
        Wire(video="file").parts(shows(tmp_path / "none.mp4"), tmp_path)


def test_by_path_the_server_reads_the_very_file(clip: Path, tmp_path: Path) -> None:
    [part], _ = Wire(video="file", by="path").parts(shows(clip), tmp_path)
    assert url_of(part) == str(clip)
    [part], _ = Wire(video="file", by="file_url").parts(shows(clip), tmp_path)
    assert url_of(part) == clip.as_uri()
    [part], _ = Wire(by="path").parts(shows(clip), tmp_path)
    [data], _ = Wire().parts(shows(clip), tmp_path)
    assert Path(url_of(part)).read_bytes() == bytes_of(data)


def test_pictures_and_lone_frames_are_images_in_every_case(clip: Path, tmp_path: Path) -> None:
    picture = Shows(kind="image", path=str(write_picture(tmp_path / "c.png")), sampling=SAMPLING)
    lone = shows(clip).model_copy(update={"sampling": Sampling(max_frames=1)})
    for video in ("mp4", "frames", "file"):
        parts, plan = Wire(video=video).parts(picture, tmp_path)  # type: ignore[arg-type]
        assert [part["type"] for part in parts] == ["image_url"]
        assert plan is not None
        assert frame_hashes(pixels_of(parts)) == plan.frame_sha256
    parts, _ = Wire().parts(lone, tmp_path)
    assert [part["type"] for part in parts] == ["text", "image_url"]
    parts, _ = Wire().parts(shows(clip, remade=True).model_copy(update={"kind": "frame"}), tmp_path)
    assert [part["type"] for part in parts] == ["image_url"]


@pytest.mark.parametrize(("wire", "sentence"), [
    (Wire(video="frames", max_mib=0.0001), r"at most 0.0001 MiB \(max_mib\).*or send picture=jpeg"),
    (Wire(max_mib=0.0001), r"at most 0.0001 MiB"),
    (Wire(video="file", max_mib=0.0001), r"at most 0.0001 MiB"),
    (Wire(most_frames=3), "4 frames are more than most_frames = 3; lower max_frames or max_side_px"),
    (Wire(most_side_px=63), "a side of 64 px, more than most_side_px = 63"),
])  # fmt: skip
def test_media_over_a_limit_are_refused_with_a_sentence(wire: Wire, sentence: str, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(TooMuch, match=sentence):
        wire.parts(shows(clip), tmp_path)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="by is 'post'; use one of data, path, file_url"):
        Wire(by="post")  # type: ignore[arg-type]
    for given in ({"max_mib": 0}, {"most_frames": -1}, {"most_side_px": "big"}):
        with pytest.raises(InputError, match="give a number above 0"):
            Wire(**given)  # type: ignore[arg-type]


def test_a_conversation_of_several_turns(tmp_path: Path) -> None:
    told = shows(write_clip(tmp_path / "a.mp4")).model_dump(mode="json")
    request, plan = request_of(
        [ChatMessageSystem(content="Be kind."), ChatMessageUser(content="Hello."), ChatMessageAssistant(content="Hi."),
         ChatMessageUser(content="What is shown?", metadata={PROVIDER: told})],
        wire=Wire(), scratch=tmp_path,
    )  # fmt: skip
    assert isinstance(plan, FramePlan)
    assert request[:3] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello."},
                           {"role": "assistant", "content": "Hi."}]  # fmt: skip
    assert [part["type"] for part in request[3]["content"]] == ["video_url", "text"]
    assert request[3]["content"][1]["text"] == "What is shown?"
