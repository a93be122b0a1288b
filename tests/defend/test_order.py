"""The order of rows: as ever without grouping; with it every row once an epoch, like lengths in a micro-batch."""

from collections import Counter

import numpy as np
import pytest

from videosafety.core.errors import InputError
from videosafety.defend.order import order_of, padded_share
from videosafety.defend.stage import StageConfig

NUM = 4 * 16 * 2


def config(**given: object) -> StageConfig:
    return StageConfig.model_validate({"batch_size": 16, "micro_batch_size": 4, "epochs": 3.0, **given})


def mixed(num: int = NUM) -> list[int]:
    """Words alone, pictures, clips of 1 to 90 frames."""
    rng = np.random.default_rng(1)
    kinds = [rng.integers(20, 80, num), rng.integers(80, 400, num), rng.integers(1, 90, num) * 60]
    return [int(kinds[i % 3][i]) for i in range(num)]


def test_without_grouping_the_order_is_the_one_that_results_were_made_with() -> None:
    found = order_of(10, config(group_by_length=False, epochs=1.0), seed=0)
    assert found == [8, 1, 2, 7, 5, 3, 6, 0, 4, 9]
    twice = order_of(10, config(group_by_length=False, epochs=2.0), seed=5, lengths=range(10))
    assert twice == [row for epoch in (0, 1) for row in np.random.default_rng((5, 13, epoch)).permutation(10)]


@pytest.mark.parametrize("num", [1, 3, 4, 30, 127, NUM])
def test_every_row_is_seen_once_in_every_epoch(num: int) -> None:
    """Where an epoch ends inside a global batch, the order within that batch says nothing."""
    order = order_of(num, config(), seed=0, lengths=mixed(num))
    assert Counter(order) == Counter(dict.fromkeys(range(num), 3))
    for epoch in (1, 2):
        whole, begun = (Counter(order[: n // 16 * 16]) for n in (epoch * num, epoch * num + 15))
        assert all(begun[row] >= epoch and whole[row] <= epoch for row in range(num))


def test_a_micro_batch_is_alike_and_a_global_batch_is_mixed() -> None:
    lengths = mixed(32 * NUM)
    grouped = order_of(len(lengths), config(epochs=1.0), seed=0, lengths=lengths)
    plain = order_of(len(lengths), config(epochs=1.0, group_by_length=False), seed=0)
    assert padded_share(grouped, lengths, micro_batch_size=4) <= 1.05
    assert padded_share(plain, lengths, micro_batch_size=4) > 2
    spread = np.std([np.mean([lengths[row] for row in grouped[i : i + 16]]) for i in range(0, len(grouped), 16)])
    assert spread < np.std(lengths) / np.sqrt(16 / 4) * 1.3  # four independent micro-batches in each


def test_micro_batches_stay_alike_where_epochs_end_inside_one() -> None:
    lengths = mixed(1023)
    order = order_of(len(lengths), config(epochs=4.0), seed=0, lengths=lengths)
    assert padded_share(order, lengths, micro_batch_size=4) <= 1.05


def test_what_a_global_batch_consists_of_does_not_depend_on_the_number_of_processes() -> None:
    lengths, size, micro = mixed(), 16, 4
    order = order_of(len(lengths), config(), seed=2, lengths=lengths)
    micros = [order[i : i + micro] for i in range(0, len(order), micro)]
    for processes in (1, 2, 4):
        mine = [micros[i::processes] for i in range(processes)]  # what accelerate hands out
        per_step = size // micro // processes
        for step in range(len(order) // size):
            seen = [row for own in mine for part in own[step * per_step : (step + 1) * per_step] for row in part]
            assert sorted(seen) == sorted(order[step * size : (step + 1) * size])


def test_micro_batches_that_run_side_by_side_are_about_equally_long() -> None:
    lengths = mixed()
    order = order_of(len(lengths), config(), seed=2, lengths=lengths)
    for start in range(0, len(order), 16):
        longest = [max(lengths[row] for row in order[i : i + 4]) for i in range(start, start + 16, 4)]
        assert longest == sorted(longest, reverse=True)


def test_epochs_and_seeds_give_other_orders_and_the_same_again() -> None:
    lengths = mixed()
    orders = [order_of(len(lengths), config(), seed=seed, lengths=lengths) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][:NUM] != orders[0][NUM : 2 * NUM]


def test_steps_bound_the_order_in_place_of_epochs() -> None:
    assert len(order_of(10, config(max_steps=3), seed=0, lengths=[1] * 10)) == 3 * 16


def test_grouping_without_lengths_is_refused() -> None:
    with pytest.raises(InputError, match="group_by_length"):
        order_of(10, config(), seed=0)
