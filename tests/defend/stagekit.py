"""What the tests of training share: a stage's model on the toy base, batches, gradients, weights of a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

import videosafety.toyworld
from videosafety.core.example import Example
from videosafety.defend.losses import Counts, total
from videosafety.defend.objective import count
from videosafety.defend.rows import FAULTS, Rows
from videosafety.defend.sft import Assembled, assemble
from videosafety.defend.stage import StageConfig
from videosafety.models.checkpoint import load

SMALL = Path(videosafety.toyworld.__file__).parent / "bases" / "small"
QUICK = {"batch_size": 4, "micro_batch_size": 2, "precision": "fp32", "max_steps": 2, "warmup_share": 0.0,
         "learning_rate": 1e-3, "gradient_checkpointing": False, "group_by_length": False}  # fmt: skip


def quick(stage: str = "at_sft", **knobs: Any) -> StageConfig:
    """A stage's setting that takes seconds, changed."""
    return StageConfig.of(stage, **{**QUICK, **knobs})


def ready(base: str, config: StageConfig, *, heads: float = 0.05) -> Assembled:
    """The base with what ``config`` trains; heads that say something, so that hidden states have an alarm gradient."""
    made = assemble(load(base, dtype=torch.float32), config, seed=0)
    if made.wrapped.alarm is not None:
        with torch.no_grad():
            made.wrapped.head_weight_AH.normal_(0, heads, generator=torch.Generator().manual_seed(1))
    made.objective.train()
    return made


def batch_of(made: Assembled, examples: Sequence[Example], *, structured: bool = False) -> dict[str, Any]:
    """The rows as one batch, without the list of faults."""
    rows = Rows(examples, checkpoint=made.checkpoint, structured=structured)
    batch = rows.collate([rows[i] for i in range(len(rows))])
    batch.pop(FAULTS)
    return batch


def gradients(made: Assembled, batches: Sequence[dict[str, Any]], config: StageConfig) -> dict[str, Tensor]:
    """Of the loss of one global batch that is held as these micro-batches, by parameter name."""
    made.objective.zero_grad(set_to_none=True)
    counts = Counts(*sum(count(batch) for batch in batches))
    weights = {"lambda_visual": config.lambda_visual, "lambda_textual": config.lambda_textual}
    for batch in batches:
        total(made.objective(batch), counts, scaling=config.atc_scaling, **weights).backward()
    return {n: p.grad.clone() for n, p in made.objective.named_parameters() if p.grad is not None}


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest distance of two sets of gradients, relative to the norm of the first."""
    assert a.keys() == b.keys()
    norm = torch.stack([x.norm() for x in a.values()]).norm()
    return float(torch.stack([(a[n] - b[n]).norm() for n in a]).norm() / norm)


def weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint folder, the heads included."""
    files = sorted(folder.glob("*.safetensors"))
    return {f"{f.stem}/{name}": tensor for f in files for name, tensor in safetensors.torch.load_file(f).items()}


def bytes_of(folder: Path) -> dict[str, bytes]:
    """The weight files as they are; of the heads their tensors, for a header's entries are in no order."""
    heads = {name: tensor.numpy().tobytes() for name, tensor in weights(folder).items() if name.startswith("alarm_")}
    return heads | {file.name: file.read_bytes() for file in sorted(folder.glob("model*.safetensors"))}
