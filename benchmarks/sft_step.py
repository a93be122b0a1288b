"""One supervised step, ours against the plain way: wall clock and logits held, side by side in one process.

    python benchmarks/sft_step.py [--json FILE] [--repeats 3] [--real]

Ours: micro-batches of rows of like length, and the LM head on answer positions only. Plain: the same rows in random
order, and ``model(**batch, labels=labels)``, which makes logits for every position. Same tiny VideoLLaMA3 (random
weights, vocabulary of 32,000 so that logits weigh what they weigh in a real model), same global batch; the repeats are
interleaved and the best of each counts. Both losses are printed: they are the same mean over the answer tokens.

``--real`` instead times our step on one CUDA device at the size of VideoLLaMA3-2B's language model (random weights,
bf16 by autocast, fp32 masters, gradient checkpointing, words in the place of vision tokens), in tokens per second.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from videosafety.defend.losses import Counts, Sums, total
from videosafety.defend.objective import Objective
from videosafety.defend.order import order_of
from videosafety.defend.rows import ALARM_TARGETS
from videosafety.defend.stage import StageConfig
from videosafety.models.family import IGNORE
from videosafety.models.wrapped import AlarmModel

TINY = {"vocab_size": 32_000, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 4}  # fmt: skip
REAL = {"vocab_size": 151_936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2}  # fmt: skip
NUM, MICRO, ANSWER = 16, 4, 24

Batch = dict[str, Tensor]


def main() -> None:
    """Print the table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write rows {bench, case, metric, value, unit} to this file")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way; the best counts")
    parser.add_argument("--real", action="store_true", help="our step at 2B on one CUDA device")
    options = parser.parse_args()
    found = real(options.repeats) if options.real else side_by_side(options.repeats)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def model_of(shape: dict[str, int], device: str) -> PreTrainedModel:
    """A language model with random weights in fp32."""
    torch.manual_seed(0)
    config = Qwen2Config(**shape, max_position_embeddings=32_768, tie_word_embeddings=True, bos_token_id=None)
    with torch.device(device):
        return Qwen2ForCausalLM(config).train()


def batches(lengths: Sequence[int], vocab_size: int, *, grouped: bool, device: str) -> list[Batch]:
    """The micro-batches of one global batch: the same rows either way; the last ``ANSWER`` tokens are the answer."""
    config = StageConfig(batch_size=len(lengths), micro_batch_size=MICRO, group_by_length=grouped)
    order = order_of(len(lengths), config, seed=0, lengths=lengths)
    found = []
    for some in (order[start : start + MICRO] for start in range(0, len(order), MICRO)):
        longest = max(lengths[row] for row in some)
        batch = {name: torch.full((len(some), longest), fill) for name, fill in
                 (("input_ids", 0), ("attention_mask", 0), ("labels", IGNORE))}  # fmt: skip
        for at, row in enumerate(some):
            ids = torch.from_numpy(np.random.default_rng((1, row)).integers(1, vocab_size, lengths[row]))
            batch["input_ids"][at, : len(ids)], batch["attention_mask"][at, : len(ids)] = ids, 1
            batch["labels"][at, len(ids) - ANSWER : len(ids)] = ids[-ANSWER:]
        found.append({name: tensor.to(device) for name, tensor in batch.items()})
    return found


def ours(model: PreTrainedModel, rows: Sequence[Batch]) -> tuple[float, int]:
    """The loss of the global batch, gradients left on the model; and the largest number of logits rows at once."""
    objective, loss, most = Objective(AlarmModel(model, None)), 0.0, 0
    counts = Counts(float(len(rows) * MICRO * ANSWER), 0.0, 0.0)
    for batch in rows:
        nothing = torch.full((len(batch["input_ids"]), 2), torch.nan, device=batch["input_ids"].device)
        sums: Sums = objective({**batch, ALARM_TARGETS: nothing})
        part = total(sums, counts, lambda_visual=0.0, lambda_textual=0.0, scaling="paper")
        part.backward()
        loss, most = loss + part.item(), max(most, int((batch["labels"] != IGNORE).sum()))
    return loss, most


def plain(model: PreTrainedModel, rows: Sequence[Batch]) -> tuple[float, int]:
    """The same through the stock forward pass."""
    loss, most = 0.0, 0
    for batch in rows:
        part = model(**batch, use_cache=False).loss / len(rows)
        part.backward()
        loss, most = loss + part.item(), max(most, batch["labels"].numel())
    return loss, most


def timed(model: PreTrainedModel, run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one step without the optimiser, and what it returns."""
    model.zero_grad(set_to_none=True)
    started = time.perf_counter()
    result = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def side_by_side(repeats: int) -> list[dict[str, object]]:
    """Both ways on the CPU."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    lengths = [int([rng.integers(40, 80), rng.integers(60, 180), rng.integers(40, 720)][i % 3]) for i in range(NUM)]
    model, vocab = model_of(TINY, "cpu"), TINY["vocab_size"]
    like, mixed = (batches(lengths, vocab, grouped=grouped, device="cpu") for grouped in (True, False))
    ways: dict[str, Callable[[], tuple[float, int]]] = {
        "ours": lambda: ours(model, like),
        "answer positions only": lambda: ours(model, mixed),
        "grouped only": lambda: plain(model, like),
        "plain": lambda: plain(model, mixed),
    }
    best: dict[str, float] = {}
    results: dict[str, tuple[float, int]] = {}
    for _ in range(repeats):
        for way, run in ways.items():
            seconds, results[way] = timed(model, run)
            best[way] = min(seconds, best.get(way, seconds))
    found: list[dict[str, object]] = []
    print(f"{NUM} rows of {min(lengths)} to {max(lengths)} tokens, vocabulary {vocab}")
    print(f"{'way':24} {'wall s':>8} {'ratio':>6} {'loss':>9} {'rows of logits':>15}")
    for way, seconds in best.items():
        loss, most = results[way]
        print(f"{way:24} {seconds:8.3f} {seconds / best['ours']:6.2f} {loss:9.5f} {most:15}")
        for metric, value in (("wall_by_ours", seconds / best["ours"]), ("logits_by_ours", most / results["ours"][1])):
            found.append({"bench": "sft_step", "case": way, "metric": metric, "value": value, "unit": "1"})
    return found


def real(repeats: int) -> list[dict[str, object]]:
    """Our step at 2B; tokens are those of the rows, padding not counted. Forward and backward, without the optimiser.

    Not one number of it was measured where this was written: there was no GPU.
    """
    if not torch.cuda.is_available():
        raise SystemExit("--real needs a CUDA device")
    model = model_of(REAL, "cuda")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    lengths = [5_120 + 512] * MICRO
    rows = batches(lengths, REAL["vocab_size"], grouped=True, device="cuda")
    best = float("inf")
    for _ in range(repeats + 1):  # the first one warms up
        with torch.autocast("cuda", torch.bfloat16):
            seconds, _result = timed(model, lambda: ours(model, rows))
        best = min(best, seconds)
    rate = sum(lengths) / best
    print(
        f"{rate:,.0f} tokens/s on {torch.cuda.get_device_name()}, {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    )
    return [{"bench": "sft_step", "case": "real", "metric": "rate", "value": rate, "unit": "tokens/s"}]


if __name__ == "__main__":
    main()
