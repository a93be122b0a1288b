"""Which row is seen when: all epochs of a run in one list, a function of (seed, lengths, config) alone.

Every epoch is a permutation of its own. With ``group_by_length`` the permutation is cut into mega-batches of 32 global
batches, each is sorted by length and cut into micro-batches, and the micro-batches are shuffled: a micro-batch holds
rows of like length and pads little, while a global batch still mixes lengths. transformers' own grouping samples
anew in every process; here a global batch is a slice of one list, so what it consists of does not depend on the number
of processes: accelerate gives process i the i-th micro-batch of each round.

Example:
    >>> config = StageConfig(batch_size=2, micro_batch_size=2)
    >>> sorted(order_of(4, config, seed=0, lengths=[9, 1, 9, 1])[:2]) in ([0, 2], [1, 3])
    True
"""

from collections.abc import Sequence

import numpy as np

from videosafety.core.errors import InputError
from videosafety.defend.stage import StageConfig

MEGA = 32  # global batches that are sorted together


def order_of(num_rows: int, config: StageConfig, *, seed: int, lengths: Sequence[int] | None = None) -> list[int]:
    """Row numbers of all steps, every row once an epoch; the last epoch may be a part.

    Args:
        num_rows: how many there are.
        config: epochs, steps, batch sizes, and whether rows are grouped by length.
        seed: of the permutations.
        lengths: tokens of each row, at least roughly (``defend/lengths.py``); unused without grouping.

    Raises:
        InputError: rows are to be grouped and their lengths are not given.
    """
    num = config.max_steps * config.batch_size if config.max_steps else round(config.epochs * num_rows)
    if config.group_by_length and (lengths is None or len(lengths) != num_rows):
        raise InputError("group_by_length needs a length for every row", where="order", fix="estimate the lengths")
    order: list[int] = []
    epoch = 0
    while len(order) < num:
        permutation = np.random.default_rng((seed, 13, epoch)).permutation(num_rows).tolist()
        if config.group_by_length and lengths is not None:
            shuffle = np.random.default_rng((seed, 17, epoch))
            missing = -len(order) % config.micro_batch_size
            permutation = _grouped(permutation, lengths, config=config, missing=missing, shuffle=shuffle)
        order += permutation
        epoch += 1
    order = order[:num]
    if not config.group_by_length or lengths is None:
        return order
    return _longest_first(order, lengths, config=config)


def padded_share(order: Sequence[int], lengths: Sequence[int], *, micro_batch_size: int) -> float:
    """Tokens computed by tokens useful, 1 or above: every micro-batch is as long as its longest row."""
    batches = _cut(order, micro_batch_size)
    computed = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    return computed / max(1, sum(lengths[row] for row in order))


def _grouped(
    permutation: Sequence[int], lengths: Sequence[int], *, config: StageConfig, missing: int,
    shuffle: np.random.Generator,
) -> list[int]:  # fmt: skip
    """One epoch. Its first ``missing`` rows fill up the last micro-batch of the epoch before; its last may be short.

    Both are the shortest rows of their mega-batches, so that the one batch of mixed epochs pads little, too.
    """
    mega, micro = MEGA * config.batch_size, config.micro_batch_size
    first: list[int] = []
    last: list[int] = []
    batches: list[list[int]] = []
    for start in [0, *range(mega + missing, len(permutation), mega)]:
        stop = start + mega + (missing if start == 0 else 0)
        rows = sorted(permutation[start:stop], key=lambda row: lengths[row])
        if start == 0:
            first, rows = rows[:missing], rows[missing:]
        last, rows = rows[: len(rows) % micro], rows[len(rows) % micro :]
        batches += _cut(rows, micro)
    shuffled = [batches[i] for i in shuffle.permutation(len(batches))]
    return [*first, *(row for batch in shuffled for row in batch), *last]


def _longest_first(order: Sequence[int], lengths: Sequence[int], *, config: StageConfig) -> list[int]:
    """Each global batch with its longest micro-batches first: those that run side by side are about equally long."""
    found: list[int] = []
    for batch in _cut(order, config.batch_size):
        parts = _cut(batch, config.micro_batch_size)
        whole = [part for part in parts if len(part) == config.micro_batch_size]
        whole.sort(key=lambda part: -max(lengths[row] for row in part))
        found += [row for part in (*whole, *parts[len(whole) :]) for row in part]
    return found


def _cut(rows: Sequence[int], size: int) -> list[list[int]]:
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]
