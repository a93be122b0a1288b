"""How many tokens each row will have, without decoding its media: what rows are grouped by.

Words are counted by the tokenizer. What media add is a linear function of what a probe knows (pixels shown, frames,
media), fitted by least squares on a handful of rows that are really encoded; a processor that shrinks large media shows
as a cap on the pixels, which is fitted too. A medium that cannot be read counts nothing. An error costs some padding
and nothing else.

Example:
    >>> lengths = estimate_lengths(rows)                                        # doctest: +SKIP
    >>> order_of(len(rows), config, seed=0, lengths=lengths)                    # doctest: +SKIP
"""

import itertools
import math
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import numpy as np
from accelerate import PartialState
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import TaskID

from videosafety.core.errors import MediaError
from videosafety.core.example import Example
from videosafety.core.jsonl import read_json
from videosafety.core.progress import progress_bar
from videosafety.core.records import Image, Video
from videosafety.core.store import write_json
from videosafety.defend.rows import Rows
from videosafety.video.plan import Sampling, fitted
from videosafety.video.probe import MediaInfo, probe

PER_KIND = 5  # rows with clips, with pictures, and with words alone that are encoded
PROBES_AT_ONCE = 8
TEXTS_AT_ONCE = 1000
CLEARLY = 0.9  # a cap is believed where it takes at least a tenth of the squared error away
QUIET_S = 5.0  # before a bar appears
CLIP_PX, FRAMES, CLIPS, PICTURE_PX, PICTURES = range(5)

Floats = NDArray[np.float64]
T = TypeVar("T")


def estimate_lengths(rows: Rows, *, console: Console | None = None) -> list[int]:
    """Tokens of each row, target included: about right for every row, and at least those of its words.

    A function of the rows, their files and the processor alone.
    """
    words_N = _words(rows)
    shown_NF = _shown(rows, console)
    chosen = _choose(shown_NF, words_N)
    encoded = [(i, row) for i, row in _watched(((i, rows[i]) for i in chosen), len(chosen), "encoding", console)]
    known = [i for i, row in encoded if row.fault is None]
    if not known:
        return [int(words) for words in words_N]
    extra_K = np.array([len(row.encoded.input_ids) for _, row in encoded if row.fault is None]) - words_N[known]
    estimate_N = words_N + predict(shown_NF, *fit(shown_NF[known], extra_K))
    return [int(length) for length in np.maximum(words_N, estimate_N).round()]


def kept_lengths(rows: Rows, file: Path) -> list[int]:
    """The estimate that ``file`` holds; the first process makes it once, so all processes and a resumed run agree."""
    state = PartialState()
    if state.is_main_process and not file.is_file():
        write_json(file, estimate_lengths(rows))
    state.wait_for_everyone()
    return [int(length) for length in read_json(file)]


def fit(shown_KF: Floats, extra_K: Floats) -> tuple[Floats, Floats]:
    """Least squares of ``extra = weights · [1, min(shown, caps)]``.

    Returns:
        Weights (1 + F,), and caps (F,): infinite but for pixels of clips and of pictures, where they may be one of
        the values seen.
    """
    best: tuple[float, Floats, Floats] | None = None
    seen = ([math.inf, *sorted({*shown_KF[:, f].tolist()})] for f in (CLIP_PX, PICTURE_PX))
    for clip_px, picture_px in itertools.product(*seen):
        caps_F = np.full(shown_KF.shape[1], math.inf)
        caps_F[[CLIP_PX, PICTURE_PX]] = clip_px, picture_px
        inputs_KI = _inputs(shown_KF, caps_F)
        scale_I = np.maximum(np.abs(inputs_KI).max(axis=0), 1.0)
        weights_I = np.linalg.lstsq(inputs_KI / scale_I, extra_K, rcond=1e-9)[0] / scale_I
        error = float(np.square(inputs_KI @ weights_I - extra_K).sum())
        if best is None or error < CLEARLY * best[0] - 1e-6:
            best = error, weights_I, caps_F
    assert best is not None
    return best[1], best[2]


def predict(shown_NF: Floats, weights_I: Floats, caps_F: Floats) -> Floats:
    """(N,) tokens beside the words."""
    predicted_N: Floats = _inputs(shown_NF, caps_F) @ weights_I
    return predicted_N


def _inputs(shown_NF: Floats, caps_F: Floats) -> Floats:
    return np.column_stack([np.ones(len(shown_NF)), np.minimum(shown_NF, caps_F)])


def _words(rows: Rows) -> Floats:
    """(N,) tokens of all turns and of the target."""
    texts = [text for example in rows.examples for text in _texts(example, structured=rows.structured)]
    counts: list[int] = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        some = rows.checkpoint.tokenizer(texts[start : start + TEXTS_AT_ONCE], add_special_tokens=False)
        counts += map(len, some["input_ids"])
    each = iter(counts)
    return np.array([
        sum(itertools.islice(each, len(_texts(example, structured=rows.structured)))) for example in rows.examples
    ], dtype=float)  # fmt: skip


def _texts(example: Example, *, structured: bool) -> list[str]:
    return [example.target(structured=structured), *(turn.text for turn in example.turns)]


def _shown(rows: Rows, console: Console | None) -> Floats:
    """(N, F) what each row shows: pixels of clips, their frames, their number, pixels of pictures, their number."""
    distinct = list(dict.fromkeys(media for example in rows.examples for media in example.media))
    with ThreadPoolExecutor(PROBES_AT_ONCE) as pool:
        found = pool.map(lambda media: _facts(media, rows.root, rows.sampling), distinct)
        facts = dict(zip(distinct, _watched(found, len(distinct), "looking at media", console), strict=True))
    shown_NF = np.zeros((len(rows), 5))
    for total_F, example in zip(shown_NF, rows.examples, strict=True):
        for media in example.media:
            total_F += facts[media]
    return shown_NF


def _facts(media: Video | Image, root: Path, sampling: Sampling) -> Floats:
    facts_F = np.zeros(5)
    try:
        info = probe(root / media.path)
    except MediaError:
        return facts_F
    width, height = fitted(info.width_px, info.height_px, max_side_px=sampling.max_side_px)
    if isinstance(media, Image):
        facts_F[[PICTURE_PX, PICTURES]] = width * height, 1
    else:
        frames = num_sampled(info, sampling)
        facts_F[[CLIP_PX, FRAMES, CLIPS]] = frames * width * height, frames, 1
    return facts_F


def num_sampled(info: MediaInfo, sampling: Sampling) -> int:
    """Frames that ``sample_clip`` takes of a clip: exact at an even frame rate."""
    wanted = max(1, math.ceil(info.duration_s * sampling.fps - 1e-6))
    return min(wanted, sampling.max_frames, info.num_frames)


def _choose(shown_NF: Floats, words_N: Floats) -> list[int]:
    """Rows of each kind, from the least to the most that are shown."""
    kinds = np.stack([shown_NF[:, CLIPS] > 0, shown_NF[:, PICTURES] > 0], axis=1) @ [1, 2]
    by_size = np.lexsort((words_N, shown_NF[:, PICTURE_PX], shown_NF[:, CLIP_PX]))
    chosen: list[int] = []
    for kind in np.unique(kinds):
        some = by_size[kinds[by_size] == kind]
        chosen += some[np.unique(np.linspace(0, len(some) - 1, PER_KIND).round().astype(int))].tolist()
    return chosen


def _watched(items: Iterable[T], num: int, what: str, console: Console | None) -> Iterator[T]:
    """The items, with a bar once they take long."""
    started = time.monotonic()
    with ExitStack() as stack:
        bar, task = None, TaskID(0)
        for done, item in enumerate(items):
            if bar is None and time.monotonic() - started > QUIET_S:
                bar = stack.enter_context(progress_bar(console))
                task = bar.add_task(what, total=num)
            if bar is not None:
                bar.update(task, completed=done)
            yield item
