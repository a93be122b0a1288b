"""Frame sampling against other ways to get the same frames: CPU seconds and wall clock, side by side in one process.

    python benchmarks/decode.py [--json FILE] [--seconds 30] [--repeats 3] [CLIP ...]

Cases: a 720p H.264 clip made on the spot at GOP 60 and at GOP 250, and every path given. Ways: ours (plan, hashes and
all), PyAV decoding every frame, PyAV seeking for each sample, and torchcodec where it imports. Each is the best of the
repeats, one thread; ``ratio`` is a way's CPU time over ours, so above 1 we are faster.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from videosafety.video.decode import FLAGS_NATIVE
from videosafety.video.probe import probe
from videosafety.video.sample import Sampling, sample_clip

FPS = 1.0
ONE_A_SECOND = Sampling(fps=FPS, max_frames=10_000)


def main() -> None:
    """Run every way on every case; print the table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, help="clips to time, besides the generated ones")
    parser.add_argument("--json", type=Path, help="write rows {bench, case, metric, value, unit} to this file")
    parser.add_argument("--seconds", type=int, default=30, help="length of the generated clips, s")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way; the best counts")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    ways = known_ways()
    with tempfile.TemporaryDirectory() as folder:
        made = [make_clip(Path(folder) / f"720p_gop{gop}.mp4", gop=gop, seconds=options.seconds) for gop in (60, 250)]
        print(f"{'case':24} {'way':16} {'CPU s':>8} {'wall s':>8} {'ratio':>6}  frames equal to ours")
        for clip in (*made, *options.clips):
            rows += measure(clip, ways, repeats=options.repeats)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def make_clip(path: Path, *, gop: int, seconds: int) -> Path:
    """A 720p clip, 30 frames per second: textured ground that pans, with noise, so that it costs what footage costs."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 256, (45, 120, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    grain = rng.integers(0, 24, (8, 720, 1280, 1), dtype=np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"g": str(gop), "crf": "26", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for number in range(seconds * 30):
            left = number * 4 % 640
            picture = np.maximum(ground[:, left : left + 1280], 24) - grain[number % 8]
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def ours(path: Path) -> np.ndarray:
    """The library."""
    return sample_clip(path, sampling=ONE_A_SECOND).frames


def to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """The same conversion as ours."""
    return frame.reformat(format="rgb24", interpolation=FLAGS_NATIVE, threads=1).to_ndarray()


def pyav_sequential(path: Path) -> np.ndarray:
    """Every frame decoded, one in fps kept."""
    wanted = set(sample_clip_indices(path))
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        return np.stack([to_rgb(f) for n, f in enumerate(container.decode(video=0)) if n in wanted])


def pyav_seek(path: Path) -> np.ndarray:
    """A seek for each sample, then decoding up to it."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        start, base = stream.start_time or 0, float(stream.time_base or 1)
        half = 0.5 / float(stream.average_rate or 25)
        for time_s in sample_clip_times(path):
            container.seek(start + int(time_s / base), stream=stream)
            for frame in container.decode(stream):
                if frame.pts is not None and (frame.pts - start) * base >= time_s - half:
                    found.append(to_rgb(frame))
                    break
    return np.stack(found)


def torchcodec(path: Path) -> np.ndarray:
    """Exact seeking, one thread."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, dimension_order="NHWC", seek_mode="exact")
    return decoder.get_frames_at(indices=list(sample_clip_indices(path))).data.numpy()


def keyframes_only(path: Path) -> np.ndarray:
    """A lower bound that answers another question: the key frames."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        stream.codec_context.skip_frame = "NONKEY"
        return np.stack([to_rgb(frame) for frame in container.decode(stream)])


PLANS: dict[Path, tuple[tuple[int, ...], tuple[float, ...]]] = {}


def sample_clip_indices(path: Path) -> tuple[int, ...]:
    """Which frames, planned outside the timing."""
    return PLANS[path][0]


def sample_clip_times(path: Path) -> tuple[float, ...]:
    """When they are shown."""
    return PLANS[path][1]


def known_ways() -> dict[str, Callable[[Path], np.ndarray]]:
    """Every way that runs here."""
    known = {"ours": ours, "pyav sequential": pyav_sequential, "pyav seek": pyav_seek, "keyframes only": keyframes_only}
    try:
        import torchcodec.decoders
    except (ImportError, OSError, RuntimeError) as error:
        print(f"torchcodec does not import here ({type(error).__name__}): left out", file=sys.stderr)
        return known
    del torchcodec.decoders
    return {**known, "torchcodec": globals()["torchcodec"]}


def measure(path: Path, ways: dict[str, Callable[[Path], np.ndarray]], *, repeats: int) -> list[dict[str, object]]:
    """Time every way on one clip; repeats are interleaved, so that a busy machine disturbs all alike."""
    plan = sample_clip(path, sampling=ONE_A_SECOND)
    assert plan.plan is not None
    PLANS[path] = plan.plan.indices, plan.timestamps_s
    info = probe(path)
    case = f"{path.stem} ({info.width_px}x{info.height_px}, {info.duration_s:.0f} s)"
    best: dict[str, tuple[float, float]] = {}
    equal: dict[str, str] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            frames = way(path)
            cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
            best[name] = min(best.get(name, (cpu_s, wall_s)), (cpu_s, wall_s))
            same = frames.shape == plan.frames.shape and np.abs(frames.astype(int) - plan.frames).mean() < 1.0
            equal[name] = "yes" if same else f"no: {len(frames)} frames"
    rows: list[dict[str, object]] = []
    for name, (cpu_s, wall_s) in best.items():
        ratio = cpu_s / best["ours"][0]
        print(f"{case[:24]:24} {name:16} {cpu_s:8.3f} {wall_s:8.3f} {ratio:6.2f}  {equal[name]}")
        for metric, value, unit in (("cpu", cpu_s, "s"), ("wall", wall_s, "s"), ("ratio_to_ours", ratio, "1")):
            rows.append({"bench": "decode", "case": f"{case} / {name}", "metric": metric, "value": value, "unit": unit})
    return rows


if __name__ == "__main__":
    main()
