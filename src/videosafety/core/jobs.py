"""Independent jobs in processes of their own, with one progress report for all.

A job is a function of a module with keyword arguments; it is also given ``report(done, total)``. One thread per
process: on small models a second one only waits. A job whose parent was killed ends itself.

Example:
    >>> run_jobs([Job("a", train, {"seed": 0}), Job("b", train, {"seed": 1})], workers=2)     # doctest: +SKIP
"""

import os
import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.queues import Queue
from typing import Any

Report = Callable[[int, int], None]
OnProgress = Callable[[str, int, int], None]
SINGLE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
_reports: "Queue[tuple[str, int, int]]"


@dataclass(frozen=True)
class Job:
    """``function(**arguments, report=…)`` under a name that progress is reported by."""

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)


def run_jobs(
    jobs: Sequence[Job], *, workers: int, on_progress: OnProgress = lambda name, done, total: None
) -> list[Any]:
    """Run all jobs, ``workers`` at a time; returns their results in the order of the jobs.

    A single job, or a single worker, runs in this process. What a job raises is raised here once the others ended.
    """
    if len(jobs) <= 1 or workers <= 1:
        return [_alone(job, on_progress) for job in jobs]
    os.environ.update({name: os.environ.get(name, value) for name, value in SINGLE_THREAD.items()})
    context = get_context("spawn")
    reports: Queue[tuple[str, int, int]] = context.Queue()
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _start, (reports,)) as pool:
        futures = [pool.submit(_run, job) for job in jobs]
        _listen(reports, futures, on_progress)
    return [future.result() for future in futures]


def _alone(job: Job, on_progress: OnProgress) -> Any:
    return job.function(**job.arguments, report=lambda done, total: on_progress(job.name, done, total))


def _start(reports: "Queue[tuple[str, int, int]]") -> None:
    global _reports
    _reports = reports


def _run(job: Job) -> Any:
    parent = parent_process()

    def report(done: int, total: int) -> None:
        if parent is not None and not parent.is_alive():  # killed: nobody waits for this worker any more
            os._exit(1)
        _reports.put((job.name, done, total))

    return job.function(**job.arguments, report=report)


def _listen(reports: "Queue[tuple[str, int, int]]", futures: Sequence["Future[Any]"], on_progress: OnProgress) -> None:
    while not all(future.done() for future in futures):
        try:
            on_progress(*reports.get(timeout=0.2))
        except queue.Empty:
            continue
