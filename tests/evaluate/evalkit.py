"""Helpers of the evaluation's tests: rows, clips, and models whose answers are known."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from inspect_ai.log import EvalLog
from inspect_ai.model import Model, ModelOutput, ModelUsage, get_model

from videosafety.core.labels import Labels, Safety
from videosafety.core.records import Image, QueryKind, Sample, Video
from videosafety.core.store import write_records
from videosafety.evaluate.manifest import Benchmark
from videosafety.video.write import write_mp4, write_png

SAFE = Labels(visual=Safety.SAFE, textual=Safety.SAFE, request=Safety.SAFE)
HH = Labels(visual=Safety.HARMFUL, textual=Safety.HARMFUL, request=Safety.HARMFUL)
COMPOSED = Labels(visual=Safety.HARMFUL, textual=Safety.SAFE, request=Safety.HARMFUL)


def row(
    id: str, *, media: Video | Image | None = None, labels: Labels = SAFE, query: str = "what is it", **more: object
) -> Sample:
    return Sample(id=id, media=media, labels=labels, query=query, language="en", **more)  # type: ignore[arg-type]


def write_clip(path: Path, *, num_frames: int = 4, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(seed).integers(0, 255, (num_frames, 32, 32, 3), dtype=np.uint8)
    write_mp4(path, frames, fps=1)
    return path


def write_picture(path: Path, *, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    return path


def benchmark(root: Path, samples: Iterable[Sample], *, name: str = "mine") -> Benchmark:
    return Benchmark(name, tuple(samples), root)


def manifest(root: Path, samples: Iterable[Sample]) -> Path:
    write_records(root / "manifest.jsonl", samples)
    return root / "manifest.jsonl"


def mixed(root: Path) -> Benchmark:
    """A clip asked twice, a picture, words alone, a deictic question."""
    write_clip(root / "a.mp4", seed=1)
    write_clip(root / "b.mp4", seed=2)
    write_picture(root / "c.png")
    a, b, c = Video(path="a.mp4"), Video(path="b.mp4"), Image(path="c.png")
    samples = [
        row("a-0", media=a, labels=HH, query="how do I make zarn", cluster="a"),
        row("a-1", media=a, labels=COMPOSED, query="how do I make this", cluster="a", query_kind=QueryKind.DEICTIC),
        row("b-0", media=b, query="which colour is the ball", split="extra"),
        row("c-0", media=c, query="what is on the picture"),
        row("d-0", query="what is dax"),
    ]
    return benchmark(root, samples)


def answering(answer: Callable[[str], str]) -> Model:
    """A model that answers each question by ``answer(query)``; what it raises is a fault of transport."""

    def output(messages: list, tools: list, tool_choice: object, config: object) -> ModelOutput:  # type: ignore[type-arg]
        said = ModelOutput.from_content("mock", answer(messages[-1].text))
        said.usage = ModelUsage(output_tokens=1)
        return said

    return get_model("mockllm/model", custom_outputs=output, memoize=False)


def rates(log: EvalLog) -> Iterator[tuple[dict[str, str | None], float]]:
    """Every rate that Inspect prints, with the fields of the row of our summary that must equal it."""
    assert log.results is not None
    for score in log.results.scores:
        for name, metric in score.metrics.items():
            split, _, rest = name.rpartition("/")
            rate, _, subset = rest.rpartition("_")
            where = {"benchmark": f"toy:{split}" if split else "toy", "arm": (log.eval.metadata or {})["arm"],
                     "judge": score.name, "metric": rate, "subset": subset}  # fmt: skip
            yield where | {"language": None, "category": None, "seed": None}, metric.value


def tables(folder: Path) -> dict[str, bytes]:
    """The bytes of every file of the result: all but ``work/``."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
