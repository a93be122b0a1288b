"""Train the base model on several seeds at once, a process each, with one progress report for all.

Example:
    >>> train_seeds(BaseConfig(), seeds=[0, 1], folder=Path("runs/bases"), workers=2)   # doctest: +SKIP
    [PosixPath('runs/bases/seed-0'), PosixPath('runs/bases/seed-1')]
"""

from collections.abc import Sequence
from pathlib import Path

from videosafety.core.jobs import Job, OnProgress, Report, run_jobs
from videosafety.toyworld.base import TRAINING, BaseConfig, train_base


def train_seeds(
    config: BaseConfig,
    *,
    seeds: Sequence[int],
    folder: Path,
    workers: int,
    on_progress: OnProgress = lambda name, done, total: None,
) -> list[Path]:
    """Train every seed that has no finished checkpoint in ``folder`` yet; returns the checkpoints in seed order.

    Raises:
        StorageError: the disk is full; what is finished stays.
    """
    outs = {seed: folder / f"seed-{seed}" for seed in seeds}
    jobs = [Job(f"seed {seed}", _train, {"config": config, "seed": seed, "out": out})
            for seed, out in outs.items() if not (out / TRAINING).is_file()]  # fmt: skip
    run_jobs(jobs, workers=workers, on_progress=on_progress)
    return list(outs.values())


def _train(config: BaseConfig, seed: int, out: Path, report: Report) -> None:
    train_base(config, seed=seed, out=out, on_step=lambda progress: report(progress.step, progress.total))
