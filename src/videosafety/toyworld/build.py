"""The toy benchmark on disk: real mp4 and png files, a manifest of samples, and the hash of every file.

Run: ``videosafety toy build --size small --out toy``

Example:
    >>> build_benchmark(Path("toy"), size="small", seed=0)                      # doctest: +SKIP
    PosixPath('toy/manifest.jsonl')
"""

from collections.abc import Callable
from pathlib import Path

from videosafety.core.errors import InputError
from videosafety.core.folder import write_folder
from videosafety.core.recipe import Config, knob
from videosafety.core.records import Sample
from videosafety.core.store import sha256_file, write_manifest, write_records
from videosafety.toyworld.benchmark import ToyClip, benchmark_clips
from videosafety.toyworld.scenes import FPS, draw
from videosafety.toyworld.world import World
from videosafety.video.write import write_mp4, write_png

MANIFEST = "manifest.jsonl"
EVALUATION_SEED = 2000  # apart from training seeds, and from 1000, on whose clips the base recipe was found


class BenchmarkConfig(Config):
    """How large the toy benchmark is."""

    world: str = knob("small", help="size of the toy world: small or full")
    clips_per_name: int = knob(10, unit="clips", help="clips that show each thing", ge=1, le=1000)
    seed: int = knob(EVALUATION_SEED, help="seed of the evaluation clips", ge=0)


def build_benchmark(
    out: Path,
    *,
    size: str = "small",
    seed: int = EVALUATION_SEED,
    clips_per_name: int = 10,
    on_clip: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write clips, pictures and ``manifest.jsonl`` to ``out``, whole or not at all; returns the manifest's path.

    Equal arguments give equal bytes. ``on_clip(done, total)`` reports progress.

    Raises:
        InputError: unknown size, or ``out`` holds something that is not a toy benchmark.
        StorageError: the disk is full or refuses.
    """
    if out.exists() and not (out / MANIFEST).is_file() and any(out.iterdir()):
        raise InputError("this folder holds something else", where=str(out), fix="name a new or empty folder")
    clips = list(benchmark_clips(World.of(size), seed=seed, clips_per_name=clips_per_name))

    def fill(part: Path) -> None:
        samples: list[Sample] = []
        for done, clip in enumerate(clips, start=1):
            samples += _write(part, clip)
            on_clip(done, len(clips))
        write_records(part / MANIFEST, samples)
        files = [MANIFEST, *(clip.media.path for clip in clips)]
        write_manifest(part, name=f"toy-{size}", seed=seed, num_records=len(samples), files=files)

    return write_folder(out, fill) / MANIFEST


def _write(folder: Path, clip: ToyClip) -> list[Sample]:
    file = folder / clip.media.path
    file.parent.mkdir(exist_ok=True)
    frames = draw(clip.scene, num_frames=clip.num_frames)
    if clip.num_frames == 1:
        write_png(file, frames[0])
    else:
        write_mp4(file, frames, fps=FPS)
    media = clip.media.model_copy(update={"sha256": sha256_file(file)})
    return [sample.model_copy(update={"media": media}) for sample in clip.samples]
