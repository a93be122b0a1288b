"""``inspect eval`` as its own process gives the numbers of ``videosafety evaluate``, item by item."""

import math
import os
import subprocess
import sys
from pathlib import Path

from evalkit import manifest, rates
from inspect_ai.log import list_eval_logs, read_eval_log

from videosafety.chain import BASES
from videosafety.core.jsonl import read_records
from videosafety.core.metrics import find
from videosafety.core.records import Response, Verdict
from videosafety.evaluate.folder import summarise_run
from videosafety.evaluate.manifest import Benchmark, load_benchmark
from videosafety.evaluate.run import evaluate
from videosafety.evaluate.tasks import Decoding


def test_both_ways_give_the_same_outcomes_and_rates(tmp_path: Path, toy: Benchmark) -> None:
    checkpoint = BASES / "small"  # trained, so that the outcomes differ from item to item
    shown = [sample for sample in toy.samples if sample.media is not None]
    kept = shown[:: max(1, len(shown) // 16)]
    for sample in kept:
        assert sample.media is not None
        file = tmp_path / "data" / sample.media.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((toy.root / sample.media.path).read_bytes())
    gone = kept[3]
    assert gone.media is not None
    (tmp_path / "data" / gone.media.path).write_bytes(b"")
    data = manifest(tmp_path / "data", kept)
    command = [str(Path(sys.executable).with_name("inspect")), "eval", "videosafety/toy",
               "--model", f"videosafety/{checkpoint}", "-T", f"data={data}", "-T", "arm=video",
               "-T", "judges=oracle,rules", "-T", "max_new_tokens=32", "-M", "batch_size=3",
               "--display", "plain", "--log-dir", "logs"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"NO_COLOR": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    [log] = [read_eval_log(info) for info in list_eval_logs(str(tmp_path / "logs"))]
    assert log.status == "success"
    assert log.samples is not None
    assert log.results is not None

    benchmark = load_benchmark(data, name="toy", taxonomy="toy")
    out = evaluate(str(checkpoint), benchmark, out=tmp_path / "run" / "evaluations" / "base", arms=["video"],
                   judges=["oracle", "rules"], decoding=Decoding(max_new_tokens=32))  # fmt: skip
    ours = {(v.sample_id, v.judge): v for v in read_records(out / "verdicts.jsonl", Verdict, unique=None)}
    theirs = {(str(s.id), name): score for s in log.samples for name, score in (s.scores or {}).items()}
    assert ours.keys() == theirs.keys()
    for key, verdict in ours.items():
        value = theirs[key].value
        if verdict.outcome == "unscored":
            assert isinstance(value, float)
            assert math.isnan(value)
            assert theirs[key].reason == verdict.reason
            assert verdict.reason == "media:empty"
        else:
            assert value == verdict.outcome
    assert ours[gone.id, "oracle"].outcome == "unscored"
    assert {"compromised", "helpful", "unscored"} <= {verdict.outcome.value for verdict in ours.values()}
    said = {r.sample_id: r.text for r in read_records(out / "responses.jsonl", Response, unique=None)}
    assert said == {str(s.id): s.output.completion for s in log.samples}
    rows = summarise_run(out.parents[1])
    found = list(rates(log))
    assert len(found) > 4
    for where, value in found:
        [ours_row] = find(rows, **where)
        assert value == ours_row.value
    for score in log.results.scores:
        assert score.unscored_samples == sum(v.outcome == "unscored" for v in ours.values() if v.judge == score.name)
    assert f"{found[0][0]['metric']}_{found[0][0]['subset']}" in done.stdout
