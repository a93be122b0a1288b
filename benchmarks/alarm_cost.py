"""What the alarms cost: the prefill of a prompt without them, and with two more tokens and both heads read.

    python benchmarks/alarm_cost.py [--json FILE] [--tokens 5000] [--clock-tokens 2048] [--pairs 9] [--real]

FLOPs are counted by torch's counter on tensors without data, so the sizes of published language models are counted on
any machine; the two products with the heads are added by hand. The vision tower is the same on
both sides and left out, which makes the share larger than it is. Wall clock is the median of the ratios of pairs of
runs, taken in turns; small random weights, or with ``--real`` those of a 2B on a CUDA device in bf16.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config, VideoLlama3Config, VideoLlama3ForConditionalGeneration, VideoLlama3VisionConfig

from videosafety.core.alarm import MODALITIES
from videosafety.models.alarm import Alarm

SIZES = {  # hidden, intermediate, layers, heads, key-value heads, vocabulary
    "toy": (128, 384, 3, 4, 4, 2048),
    "small": (512, 1408, 8, 8, 2, 8192),
    "2b": (1536, 8960, 28, 12, 2, 151_936),
    "7b": (3584, 18_944, 28, 28, 4, 152_064),
}
TARGET = 1e-3
Prefill = Callable[[Tensor], object]


def main() -> None:
    """Count, then clock; print both tables, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write rows {bench, case, metric, value, unit} to this file")
    parser.add_argument("--tokens", type=int, default=5000, help="prompt length at which FLOPs are counted")
    parser.add_argument("--clock-tokens", type=int, default=2048, help="prompt length at which time is taken")
    parser.add_argument("--pairs", type=int, default=9, help="pairs of timed runs")
    parser.add_argument("--real", action="store_true", help="clock a 2B in bf16 on CUDA at --tokens")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    print(f"{'counted at ' + str(options.tokens):24} {'without, GFLOP':>16} {'with, GFLOP':>16} {'added':>9}  target")
    for name in SIZES:
        before, after = counted(name, options.tokens)
        share = after / before - 1
        told = "kept" if share <= TARGET else "MISSED"
        print(f"{name:24} {before / 1e9:16.3f} {after / 1e9:16.3f} {share:9.4%}  {told}")
        rows.append({"bench": "alarm_cost", "case": name, "metric": "flop_share", "value": share, "unit": "1"})
    name, num_tokens = ("2b", options.tokens) if options.real else ("small", options.clock_tokens)
    ratios = clocked(name, num_tokens, pairs=options.pairs, real=options.real)
    middle, spread = statistics.median(ratios), (min(ratios), max(ratios))
    print(f"\n{name}, {num_tokens} tokens, {len(ratios)} pairs: with / without = {middle:.4f} "
          f"(from {spread[0]:.4f} to {spread[1]:.4f})")  # fmt: skip
    rows.append({"bench": "alarm_cost", "case": name, "metric": "wall_clock_ratio", "value": middle, "unit": "1"})
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def build(name: str, device: str, dtype: torch.dtype) -> tuple[VideoLlama3ForConditionalGeneration, Alarm]:
    """A model of random weights with the six ids at the end of its vocabulary, and an alarm to read."""
    hidden, intermediate, layers, heads, kv_heads, vocabulary = SIZES[name]
    text = Qwen2Config(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=32_768,
        tie_word_embeddings=True,
    )  # fmt: skip
    vision = VideoLlama3VisionConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4)
    config = VideoLlama3Config(text_config=text, vision_config=vision, tie_word_embeddings=True)
    config._attn_implementation = "eager" if device == "meta" else "sdpa"
    with torch.device(device):
        model = VideoLlama3ForConditionalGeneration(config).to(dtype).eval()
    ids = [vocabulary - 6 + i for i in range(6)]
    pairs = ((ids[2], ids[3]), (ids[4], ids[5]))
    heads_AH = torch.zeros(len(MODALITIES), hidden, device=device)
    return model, Alarm((ids[0], ids[1]), pairs, heads_AH, torch.zeros(len(MODALITIES), device=device))


def prefills(model: VideoLlama3ForConditionalGeneration, alarm: Alarm) -> tuple[Prefill, Prefill]:
    """Both prefills: the logits of the last position alone, and with the alarms read from the same pass."""

    def without(ids_BT: Tensor) -> object:
        hidden_BTH = model.model(input_ids=ids_BT, use_cache=True).last_hidden_state
        return model.lm_head(hidden_BTH[:, -1])

    def with_alarms(ids_BT: Tensor) -> object:
        hidden_BTH = model.model(input_ids=ids_BT, use_cache=True).last_hidden_state
        return model.lm_head(hidden_BTH[:, -1]), alarm.logits(hidden_BTH, ids_BT).sigmoid()

    return without, with_alarms


def prompts(alarm: Alarm, num_tokens: int, device: str) -> tuple[Tensor, Tensor]:
    """A prompt of ``num_tokens``, and the same with the alarms before its last ten tokens."""
    plain = torch.arange(num_tokens, device=device)[None] % 1000
    alarms = torch.tensor([alarm.token_ids], device=device)
    return plain, torch.cat([plain[:, :-10], alarms, plain[:, -10:]], dim=1)


@torch.inference_mode()
def counted(name: str, num_tokens: int) -> tuple[int, int]:
    """FLOPs of both prefills, the heads' by hand."""
    model, alarm = build(name, "meta", torch.float32)
    prefill, _ = prefills(model, alarm)
    flops = []
    for ids in prompts(alarm, num_tokens, "meta"):
        with FlopCounterMode(display=False) as counter:
            prefill(ids)
        flops.append(int(counter.get_total_flops()))
    return flops[0], flops[1] + 2 * alarm.weight_AH.numel()


@torch.inference_mode()
def clocked(name: str, num_tokens: int, *, pairs: int, real: bool) -> list[float]:
    """Ratio of the two times in each pair; who goes first alternates."""
    device, dtype = ("cuda", torch.bfloat16) if real else ("cpu", torch.float32)
    model, alarm = build(name, device, dtype)
    runs = list(zip(prefills(model, alarm), prompts(alarm, num_tokens, device), strict=True))
    ratios = []
    for number in range(pairs + 1):
        seconds = {}
        for which in (0, 1) if number % 2 else (1, 0):
            run, ids = runs[which]
            start = time.perf_counter()
            run(ids)
            if real:
                torch.cuda.synchronize()
            seconds[which] = time.perf_counter() - start
        ratios.append(seconds[1] / seconds[0])
    return ratios[1:]


if __name__ == "__main__":
    main()
