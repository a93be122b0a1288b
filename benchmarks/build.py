"""A whole build of toy footage, by number of clips and of workers: seconds by step, clips/s, memory, bytes.

    python benchmarks/build.py [--json FILE] [--num 2000] [--workers 1,2] [--footage DIR]

Every build is a process of its own on an empty folder: collect, keep, probe, embed, filter, labels from a file, ask in
two languages, think, check, mix, gates, splits, release. No model is asked: what calls cost is the annotators' affair.
Memory is the peak of the building process, and of the largest of its workers. With ``--num N`` the builds have N/4, N/2
and N clips, so that what is not linear shows; the last lines are the least-squares line and what it says of a million.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from videosafety.toyworld.footage import write_footage

RECIPE = Path(__file__).parents[1] / "recipes" / "build_toy.yaml"
MILLION = 1_000_000
CHILD = """
import json, sys, time
from pathlib import Path
from videosafety.build.build import build
from videosafety.build.recipe import BuildRecipe
from videosafety.core.recipe import load_recipe
if __name__ == "__main__":
    recipe, footage, out, workers = sys.argv[1:]
    steps, begun = {}, time.monotonic()
    def on_row(step, done, total):
        steps[step] = time.monotonic() - begun
    asked = load_recipe(recipe, BuildRecipe, overrides=[
        f"labels={footage}/labels.jsonl", f"engine.workers={workers}",
        "ask.languages=[en,zh]", "ask.languages_per_clip=2"])
    built = build(asked, clips=Path(footage) / "clips", out=Path(out), on_row=on_row)
    rows = sum(count for name, count in built.counts.items() if " " not in name)
    print(json.dumps({"rows": rows, "total_s": time.monotonic() - begun, "until_s": steps}))
"""


def measured(footage: Path, out: Path, *, workers: int) -> dict[str, Any]:
    """One build: its rows, seconds by step, MiB and bytes on the disk."""
    script = out.parent / "child.py"
    script.write_text(CHILD)
    command = [sys.executable, str(script), str(RECIPE), str(footage), str(out), str(workers)]
    env = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    peaks = {"parent": 0, "worker": 0}
    watcher = threading.Thread(target=_watch, args=(psutil.Process(child.pid), peaks), daemon=True)
    watcher.start()
    said, _ = child.communicate()
    if child.returncode:
        raise SystemExit("a build failed")
    watcher.join()
    until = json.loads(said)
    ends = list(until["until_s"].items())
    steps = {name: end - (ends[at - 1][1] if at else 0.0) for at, (name, end) in enumerate(ends)}
    steps["page"] = until["total_s"] - ends[-1][1]
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file() and "media" not in path.parts)
    return {"rows": until["rows"], "s": until["total_s"], "steps": steps, "mb": size / 1e6,
            "parent_mib": peaks["parent"] / 2**20, "worker_mib": peaks["worker"] / 2**20}  # fmt: skip


def _watch(parent: psutil.Process, peaks: dict[str, int]) -> None:
    while True:
        try:
            peaks["parent"] = max(peaks["parent"], parent.memory_info().rss)
            for process in parent.children(recursive=True):
                peaks["worker"] = max(peaks["worker"], process.memory_info().rss)
        except psutil.NoSuchProcess:
            if not parent.is_running() or parent.status() == psutil.STATUS_ZOMBIE:
                return
        if not parent.is_running() or parent.status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)


def main() -> None:
    """Draw the footage once, build it in every size with every number of workers, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write rows {bench, case, metric, value, unit} to this file")
    parser.add_argument("--num", type=int, default=2000)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--footage", type=Path, help="a folder to draw the footage in, and to find it in again")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        source = given.footage or Path(temporary)
        found: dict[tuple[int, int], dict[str, Any]] = {}
        workers_of = [int(one) for one in given.workers.split(",")]
        for num, workers in product((given.num // 4, given.num // 2, given.num), workers_of):
            footage = source / f"footage-{num}"
            if not footage.exists():
                write_footage(footage, num_clips=num)
            with tempfile.TemporaryDirectory() as folder:
                one = found[num, workers] = measured(footage, Path(folder) / "out", workers=workers)
            case = f"{num} clips, {workers} workers"
            print(
                f"{case}: {one['rows']} rows, {one['s']:.1f} s, {num / one['s'] / workers:.1f} clips/s per worker, "
                f"peak {one['parent_mib']:.0f} + {one['worker_mib']:.0f} MiB, {one['mb'] / num * 1000:.0f} kB a clip"
            )
            print("    " + ", ".join(f"{name} {s:.1f}" for name, s in one["steps"].items()), flush=True)
            for metric, value, unit in (("time", one["s"], "s"), ("clips", num / one["s"], "1/s"),
                                        ("peak of the build", one["parent_mib"], "MiB"),
                                        ("peak of a worker", one["worker_mib"], "MiB"),
                                        ("rows", one["rows"], "rows"), ("written", one["mb"], "MB")):  # fmt: skip
                rows.append({"bench": "build", "case": case, "metric": metric, "value": value, "unit": unit})
            rows += [{"bench": "build", "case": case, "metric": f"step {name}", "value": s, "unit": "s"}
                     for name, s in one["steps"].items()]  # fmt: skip
        for workers in workers_of:
            nums = [num for num, w in found if w == workers]
            for what, unit, scale in (("s", "h", 3600.0), ("parent_mib", "GiB", 1024.0), ("mb", "GB", 1000.0)):
                slope, start = np.polyfit(nums, [found[num, workers][what] for num in nums], 1)
                print(f"{workers} workers: {what} = {start:.1f} + {slope:.4g} a clip; "
                      f"a million clips: {(start + slope * MILLION) / scale:.1f} {unit}")  # fmt: skip
                rows.append({"bench": "build", "case": f"a million clips, {workers} workers", "metric": what,
                             "value": (start + slope * MILLION) / scale, "unit": unit})  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
