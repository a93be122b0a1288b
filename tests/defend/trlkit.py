"""A real GRPOTrainer of TRL on a tiny random text model: what our rewards, advantages and loss are compared with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

LABELS = "<vidType>0</vidType><textType>1</textType>"
WORDS = ("<pad>", "<eos>", "<unk>", "take", "clay", "and", "sand", LABELS, "a", "dax")
COMPLETION = 6  # tokens


def trainer_of(
    folder: Path, rewards: Sequence[Callable[..., Any]], rows: Sequence[dict[str, Any]], **knobs: Any
) -> GRPOTrainer:
    """A trainer of groups of four that samples, on the CPU."""
    vocabulary = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    vocabulary.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary, pad_token="<pad>", eos_token="<eos>",
                                        unk_token="<unk>")  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        pad_token_id=0, bos_token_id=1, eos_token_id=1,
    ))  # fmt: skip
    made = GRPOConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", num_generations=4,
        per_device_train_batch_size=8, max_completion_length=COMPLETION, save_strategy="no", disable_tqdm=True,
        activation_checkpointing=False, seed=0, **{"max_steps": 1, "beta": 0.0, **knobs},
    )  # fmt: skip
    return GRPOTrainer(model, list(rewards), args=made, train_dataset=Dataset.from_list(list(rows)),
                       processing_class=tokenizer)  # fmt: skip
