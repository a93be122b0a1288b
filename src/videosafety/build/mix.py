"""mix: divide the rows into the benchmark and the splits of training, with quotas, without a leak.

First the sides (``sides``): nothing that a row of the benchmark has, clip, template or query, stands in training.
Training is divided by clips into ``sft`` (stages 1 and 2), ``cot`` (stage 3) and ``rl`` (stage 4), in the proportion of
the quotas. What is over a quota is left out, evenly over kinds and languages; what is missing is said (``missed``).
The same rows give the same mixture in any order.

Example:
    >>> mixed = Mix(quotas=Quotas(sft=600, cot=1500, rl=2500)).over(thoughts)                # doctest: +SKIP
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from videosafety.build.ledger import Outcome
from videosafety.build.records import Asked, Mixed, Thought
from videosafety.build.sides import NEAR, Traits, clip_groups, drawn_place, sides, traits_of
from videosafety.build.state import State, Terminal
from videosafety.core.example import Example, Turn
from videosafety.core.records import Record

Train = Literal["sft", "cot", "rl"]
TRAIN: tuple[Train, ...] = ("sft", "cot", "rl")
PROPORTION: dict[Train, int] = {"sft": 6, "cot": 15, "rl": 25}  # the released code's thousands; where no quota is set
SUBSET_OF = {"HH": "HH", "SH": "SH", "composed": "composed", "SafeQ": "SafeQ", "borderline": "SafeQ"}


class Quotas(Record):
    """How many rows are wanted; None or absent: all there are. ``eval`` counts by subset, borderline ones in SafeQ."""

    eval: dict[Literal["HH", "SH", "composed", "SafeQ"], int] = Field(default_factory=dict)
    sft: int | None = Field(default=None, ge=0)
    cot: int | None = Field(default=None, ge=0)
    rl: int | None = Field(default=None, ge=0)


class Shortfall(NamedTuple):
    """A quota that is not met: ``split`` (and subset, in evaluation), rows wanted and rows got."""

    split: str
    wanted: int
    got: int

    def __str__(self) -> str:
        return f"{self.split}: {self.got} of {self.wanted} rows"


@dataclass(frozen=True)
class Mix:
    """The step. Rows are ``Thought``; an ``Asked`` without a response can go into the benchmark only.

    ``before`` has the split of clips that an earlier build has placed, by id. Such a clip keeps it; one that would go
    from training to the benchmark or back is left out, since a model may have seen it.
    """

    quotas: Quotas = field(default_factory=Quotas)
    eval_share: float = 0.2
    near: float = NEAR
    seed: int = 0
    before: Mapping[str, str] = field(default_factory=dict, compare=False)
    name: ClassVar[str] = "mix"
    version: ClassVar[int] = 2
    makes: ClassVar[type[Mixed]] = Mixed

    def over(self, records: Sequence[Asked | Thought]) -> Iterator[Sequence[Mixed] | Terminal]:
        """For every row its place in the release, or why it has none."""
        rows: list[_Row] = []
        for record in records:
            asked = record.asked if isinstance(record, Thought) else record
            stratum = (asked.kind, asked.sample.language, asked.sample.category)
            rows.append(_Row(traits_of(asked), stratum, isinstance(record, Thought)))
        traits = [row.traits for row in rows]
        ends: dict[int, str] = {}
        split: dict[int, str] = {}
        train: list[int] = []
        placed = sides(traits, eval_share=self.eval_share, seed=self.seed, near=self.near)
        for index, (side, why) in enumerate(placed):
            was = self.before.get(clip_of(traits[index].id))
            if side is None:
                ends[index] = f"split:{why}"
            elif was is not None and (was == "eval") != (side == "eval"):
                ends[index] = "split:was_eval" if was == "eval" else "split:was_train"
            elif side == "eval":
                split[index] = "eval"
            elif not rows[index].has_response:
                ends[index] = "split:no_response"
            else:
                train.append(index)
        split |= self._divided(traits, train)
        for index in self._over(rows, split):
            ends[index] = f"quota:{split.pop(index)}"
        for index, record in enumerate(records):
            end = Terminal(state=State.FILTERED, reason=ends[index]) if index in ends else None
            yield end or _mixed(record, split[index])

    def _divided(self, rows: Sequence[Traits], train: Sequence[int]) -> dict[int, str]:
        """The split of every training row: a group of clips stays where it was, a new one goes where most lack."""
        wanted = {name: getattr(self.quotas, name) for name in TRAIN}
        parts = PROPORTION if None in wanted.values() else wanted
        whole = sum(parts.values())
        members: dict[str, list[int]] = defaultdict(list)
        for index, group in zip(train, clip_groups([rows[i] for i in train]), strict=True):
            members[group].append(index)
        count: Counter[str] = Counter()
        split: dict[int, str] = {}
        was = {group: self._was(rows, own) for group, own in members.items()}
        for group in sorted(members, key=lambda name: (was[name] is None, drawn_place(self.seed, name))):
            size = len(members[group])
            total = count.total() + size
            name = was[group] or max(TRAIN, key=lambda one: parts[one] * total - count[one] * whole)
            count[name] += size
            split |= dict.fromkeys(members[group], name)
        return split

    def _was(self, rows: Sequence[Traits], own: Sequence[int]) -> str | None:
        """The split that most rows of a group had in an earlier build; None: it is new."""
        found = Counter(was for index in own if (was := self.before.get(clip_of(rows[index].id))) is not None)
        return max(sorted(found), key=lambda name: found[name]) if found else None

    def _over(self, rows: Sequence["_Row"], split: dict[int, str]) -> list[int]:
        """The rows that are over a quota."""
        pools: dict[tuple[str, int], list[int]] = defaultdict(list)
        for index, name in split.items():
            subset = SUBSET_OF[rows[index].traits.kind]
            quota = self.quotas.eval.get(subset) if name == "eval" else getattr(self.quotas, name)  # type: ignore[call-overload]
            if quota is not None:
                pools[(f"eval {subset}" if name == "eval" else name, quota)].append(index)
        return [index for (_, quota), pool in sorted(pools.items()) for index in self._ranked(rows, pool)[quota:]]

    def _ranked(self, rows: Sequence["_Row"], pool: Iterable[int]) -> list[int]:
        """A pool in the order in which it is taken: by turns of each kind, language and category."""

        def place(index: int) -> str:
            return drawn_place(self.seed, rows[index].traits.id)

        turns: Counter[tuple[str, str, str | None]] = Counter()
        ranked: list[tuple[int, str, int]] = []
        for index in sorted(pool, key=place):
            stratum = rows[index].stratum
            ranked.append((turns[stratum], place(index), index))
            turns[stratum] += 1
        return [index for _, _, index in sorted(ranked)]


def clip_of(row: str) -> str:
    """The id of a row's clip: ``clip-4f….SH-en-0`` is about ``clip-4f…``."""
    return row.partition(".")[0]


def splits_of(outcomes: Iterable[Outcome]) -> dict[str, str]:
    """The split of every clip by what became of its rows in this step; also of rows that were over a quota."""
    found: dict[str, str] = {}
    for one in outcomes:
        if one.made:
            found[clip_of(one.row)] = one.made[0].rpartition('"split":"')[2].partition('"')[0]  # its last field
        elif one.reason.startswith("quota:"):
            found[clip_of(one.row)] = one.reason.removeprefix("quota:")
    return found


class _Row(NamedTuple):
    """All that mixing needs of a row: the row itself stays in the ledger."""

    traits: Traits
    stratum: tuple[str, str, str | None]  # kind, language, category
    has_response: bool


def _mixed(record: Asked | Thought, split: str) -> list[Mixed]:
    asked = record.asked if isinstance(record, Thought) else record
    example = example_of(record) if split != "eval" and isinstance(record, Thought) else None
    fields = {"id": f"{asked.id}.{split}", "parent": record.id, "split": split}
    return [Mixed(**fields, asked=asked, example=example)]  # type: ignore[arg-type]


def example_of(thought: Thought) -> Example:
    """The training example of a row, as stages 1 to 4 read it."""
    sample = thought.asked.sample
    turn = Turn(role="user", text=sample.query, media=(sample.media,) if sample.media is not None else ())
    labels = sample.labels
    return Example(
        id=sample.id, turns=(turn,), answer=thought.answer, think=thought.think, visual=labels.visual,
        textual=labels.textual, request=labels.request, language=sample.language, source="build", facts=sample.facts,
    )  # fmt: skip


def counts(rows: Iterable[Mixed]) -> Counter[str]:
    """Rows by split, and of evaluation also by subset, as ``eval HH``."""
    found: Counter[str] = Counter()
    for row in rows:
        found[row.split] += 1
        if row.split == "eval":
            found[f"eval {SUBSET_OF[row.asked.kind]}"] += 1
    return found


def missed(got: Mapping[str, int], quotas: Quotas) -> list[Shortfall]:
    """Every quota that numbers of rows (as of ``counts``) do not meet."""
    wanted: dict[str, int | None] = {f"eval {subset}": count for subset, count in quotas.eval.items()}
    wanted |= {name: getattr(quotas, name) for name in TRAIN}
    return [Shortfall(name, count, got.get(name, 0)) for name, count in wanted.items()
            if count is not None and got.get(name, 0) < count]  # fmt: skip
