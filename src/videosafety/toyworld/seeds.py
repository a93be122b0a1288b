"""Train the base model on several seeds at once, a process each, with one progress report for all.

Example:
    >>> train_seeds(BaseConfig(), seeds=[0, 1], folder=Path("runs/bases"), workers=2)   # doctest: +SKIP
    [PosixPath('runs/bases/seed-0'), PosixPath('runs/bases/seed-1')]
"""

import os
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from multiprocessing.queues import Queue
from pathlib import Path

from videosafety.toyworld.base import TRAINING, BaseConfig, Progress, train_base

OnProgress = Callable[[int, Progress], None]
_SINGLE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
_reports: "Queue[tuple[int, Progress]]"


def train_seeds(
    config: BaseConfig,
    *,
    seeds: Sequence[int],
    folder: Path,
    workers: int,
    on_progress: OnProgress = lambda seed, progress: None,
) -> list[Path]:
    """Train every seed that has no finished checkpoint in ``folder`` yet; returns the checkpoints in seed order.

    Raises:
        StorageError: the disk is full; what is finished stays.
    """
    outs = [folder / f"seed-{seed}" for seed in seeds]
    todo = [(seed, out) for seed, out in zip(seeds, outs, strict=True) if not (out / TRAINING).is_file()]
    if todo:
        os.environ.update({name: os.environ.get(name, value) for name, value in _SINGLE_THREAD.items()})
        context = get_context("spawn")
        reports: Queue[tuple[int, Progress]] = context.Queue()
        with ProcessPoolExecutor(min(workers, len(todo)), context, _start, (reports,)) as pool:
            futures = [pool.submit(_train, config, seed, out) for seed, out in todo]
            _listen(reports, futures, on_progress)
    return outs


def _start(reports: "Queue[tuple[int, Progress]]") -> None:
    global _reports
    _reports = reports


def _train(config: BaseConfig, seed: int, out: Path) -> None:
    parent = parent_process()

    def on_step(progress: Progress) -> None:
        if parent is not None and not parent.is_alive():  # killed: nobody waits for this worker any more
            os._exit(1)
        _reports.put((seed, progress))

    train_base(config, seed=seed, out=out, on_step=on_step)


def _listen(reports: "Queue[tuple[int, Progress]]", futures: list["Future[None]"], on_progress: OnProgress) -> None:
    while not all(future.done() for future in futures):
        try:
            on_progress(*reports.get(timeout=0.2))
        except queue.Empty:
            continue
    for future in futures:
        future.result()
