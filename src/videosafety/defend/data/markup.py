"""Words of a row that the model would read as markup: the special tokens of its checkpoint, and the alarms' own.

In a turn such a token stops the run at that row, perhaps hours in. In an answer it is learned as markup: an end token
ends the answer half way, and an alarm, which no position may say, makes the loss infinite. So all rows are searched
before training; the released code takes any text. The alarms' six tokens count for every base: stage 1 adds them.

Example:
    >>> markup = markup_of("runs/demo/base")                                    # doctest: +SKIP
    >>> markup.found("so it ends <|im_end|> here")                              # doctest: +SKIP
    ['<|im_end|>']
"""

import re
from dataclasses import dataclass
from functools import cached_property

from transformers import AutoProcessor

from videosafety.core.alarm import TOKENS
from videosafety.core.errors import CheckpointError
from videosafety.core.example import Example
from videosafety.core.response import FIELDS
from videosafety.models.checkpoint import resolve
from videosafety.models.family import special_tokens

OUR_TAGS = frozenset(f"<{slash}{name}>" for name in FIELDS for slash in ("", "/"))


@dataclass(frozen=True)
class Markup:
    """The tokens that a model reads as markup, at least one. A longer one is found before one that it begins with."""

    tokens: tuple[str, ...]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, sorted(self.tokens, key=len, reverse=True))))

    def found(self, text: str) -> list[str]:
        """The different tokens in a text, in their order."""
        return list(dict.fromkeys(self._pattern.findall(text)))


def markup_of(base: str) -> Markup:
    """The markup of a checkpoint, from its processor alone.

    Args:
        base: a folder or a hub id, of which no weights are fetched.

    Raises:
        CheckpointError: there is none, or its processor cannot be read.
    """
    folder = resolve(base, weights=False)
    try:
        tokens = special_tokens(AutoProcessor.from_pretrained(folder))
    except Exception as error:
        raise CheckpointError(f"the processor cannot be read ({type(error).__name__})", where=base,
                              fix="copy the checkpoint's processor and tokenizer files again") from error  # fmt: skip
    return Markup(tuple(sorted({*tokens, *TOKENS})))


def markup_fault(example: Example, markup: Markup) -> str | None:
    """Which fields hold markup; None where none does.

    Our response tags in the answer or the thinking are left to ``grammar_fault``, whatever the tokenizer makes of them.
    """
    fields = [(f"turn {number}", turn.text, frozenset[str]()) for number, turn in enumerate(example.turns, start=1)]
    fields += [("its answer", example.answer, OUR_TAGS), ("its think", example.think or "", OUR_TAGS)]
    found = {where: [token for token in markup.found(text) if token not in left] for where, text, left in fields}
    held = [f"{where} holds {', '.join(tokens[:3])}" for where, tokens in found.items() if tokens]
    return f"{'; '.join(held[:3])}: special tokens of the model, which are no words" if held else None
