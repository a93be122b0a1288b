"""The gates of a whole data set: a build whose rows fail one of them fails.

    rows        ids are unique, and some are for evaluation where some were asked for
    labels      as the subset table has them, in the row and in its example; categories known (``check``)
    grammar     every example makes a structured response that parses
    language    query, thinking and answer are in the declared one
    leak        no file, cluster, template (in any language) or query, equal or nearly, on both sides of evaluation
    splits      no clip in two splits of training
    quotas      every quota is met, and none exceeded
    counts      as declared: rows, categories, languages (``PUBLISHED`` has the paper's sets)

The leak is looked for here anew, key by key, and not taken from what ``mix`` worked out. What a release shows is looked
at where it lies (``release/check``).

Example:
    >>> gates = Gates(quotas=Quotas(sft=600))
    >>> for row in mixed:                                                                    # doctest: +SKIP
    ...     gates.see(row)
    >>> enforce(gates.findings())                                                            # doctest: +SKIP
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple, Protocol

from pydantic import Field

from videosafety.build.check import language_fault, query_fault
from videosafety.build.mix import TRAIN, Quotas, counts, missed
from videosafety.build.records import Mixed
from videosafety.build.sides import NEAR, clip_keys, near_queries, traits_of, word_keys
from videosafety.core.errors import InputError
from videosafety.core.records import Record
from videosafety.core.response import ParseStatus, parse
from videosafety.core.taxonomy import Taxonomy, load_taxonomy

MAX_NAMED = 5  # rows that a finding names


class Finding(NamedTuple):
    """What a gate found: the faults of its rows, empty where it passes."""

    gate: str
    faults: tuple[str, ...]

    def __str__(self) -> str:
        more = f" and {len(self.faults) - MAX_NAMED} more" if len(self.faults) > MAX_NAMED else ""
        return f"{self.gate}: {'; '.join(self.faults[:MAX_NAMED])}{more}" if self.faults else f"{self.gate}: passed"


class Amount(Record):
    """A declared number; ``within`` is half of the last digit that was given: 11.4k is 11,400 within 50."""

    value: int = Field(ge=0)
    within: int = Field(default=0, ge=0)


Declared = dict[Literal["pairs", "eval", "train", "sft", "cot", "rl", "categories", "languages"], Amount]
PUBLISHED: Declared = {  # the paper's sets (design of VSB-77k, VSE and VST; rounded where the paper rounds)
    "pairs": Amount(value=77_646),
    "eval": Amount(value=11_400, within=50),
    "train": Amount(value=46_000, within=500),
    "sft": Amount(value=6000, within=500),
    "cot": Amount(value=15_000, within=500),
    "rl": Amount(value=25_000, within=500),
    "categories": Amount(value=19),
    "languages": Amount(value=10),
}


class Gates:
    """All gates that are asked for; each is shown every row once, and then says all that it found.

    Args:
        quotas: what ``mix`` was asked for; None: not looked at.
        declared: numbers that somebody promised; None: not looked at.
        taxonomy: its name or file.
        near: similarity from which two queries count as one.
        wants_eval: a set without a row for evaluation has a fault.
    """

    def __init__(
        self,
        *,
        quotas: Quotas | None = None,
        declared: Declared | None = None,
        taxonomy: str = "vse",
        near: float = NEAR,
        wants_eval: bool = False,
    ) -> None:
        known = load_taxonomy(taxonomy)
        self._gates: list[_Gate] = [
            _Unique(wants_eval), _ByRow("labels", lambda row: _label_faults(row, known)),
            _ByRow("grammar", _grammar_faults), _ByRow("language", _language_faults), _Leaks(near), _Splits(),
        ]  # fmt: skip
        self._numbers, self._quotas, self._declared = Numbers(), quotas, declared

    def see(self, row: Mixed) -> None:
        """A row of the mixture, of whatever split."""
        for gate in self._gates:
            gate.see(row)
        self._numbers.see(row)

    def findings(self) -> list[Finding]:
        """What each gate found in all rows."""
        found = [Finding(gate.name, tuple(gate.faults())) for gate in self._gates]
        if self._quotas is not None:
            found.append(Finding("quotas", tuple(quota_faults(self._numbers.rows, self._quotas))))
        if self._declared is not None:
            found.append(Finding("counts", tuple(count_faults(self._numbers.told, self._declared))))
        return found


def enforce(findings: Iterable[Finding]) -> None:
    """Raises InputError: a gate found faults; it names every such gate."""
    failed = [finding for finding in findings if finding.faults]
    if failed:
        said = " | ".join(str(finding) for finding in failed)
        raise InputError(f"the build fails {len(failed)} of its gates: {said}",
                         fix="mend the rows, or the recipe that made them")  # fmt: skip


class _Gate(Protocol):
    """Sees every row once, then says what is wrong."""

    @property
    def name(self) -> str:
        """The gate's name."""

    def see(self, row: Mixed) -> None:
        """One row."""

    def faults(self) -> Iterable[str]:
        """What was wrong."""


class _ByRow:
    """A gate that judges each row by itself."""

    def __init__(self, name: str, judge: Callable[[Mixed], Iterable[str]]) -> None:
        self.name, self._judge = name, judge
        self._found: list[str] = []

    def see(self, row: Mixed) -> None:
        self._found += self._judge(row)

    def faults(self) -> Iterable[str]:
        return self._found


class _Unique:
    """There are rows, and none stands twice."""

    name = "rows"

    def __init__(self, wants_eval: bool) -> None:
        self._wants_eval, self._has_eval = wants_eval, False
        self._seen: dict[str, set[bytes]] = {"id": set(), "parent": set()}  # digests: half the memory of names
        self._more: dict[str, Counter[str]] = {"id": Counter(), "parent": Counter()}

    def see(self, row: Mixed) -> None:
        self._has_eval |= row.split == "eval"
        for field, seen in self._seen.items():
            name = getattr(row, field)
            digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
            if digest in seen:
                self._more[field][name] += 1
            seen.add(digest)

    def faults(self) -> Iterator[str]:
        if not self._seen["id"]:
            yield "there is no row"
        elif self._wants_eval and not self._has_eval:
            yield "no clip was drawn for evaluation: use more clips, or raise ask.eval_share"
        for field, more in self._more.items():
            yield from (f"{field} {name} stands {count + 1} times" for name, count in more.items())


def _label_faults(row: Mixed, taxonomy: Taxonomy) -> Iterator[str]:
    if fault := query_fault(row.asked, taxonomy=taxonomy):
        yield f"{row.id} {fault}"
    labels, example = row.asked.sample.labels, row.example
    if example is not None and any(
        getattr(example, name) is not getattr(labels, name) for name in ("visual", "textual", "request")
    ):
        yield f"{row.id} labels:example"


def _grammar_faults(row: Mixed) -> Iterator[str]:
    if row.example is None:
        return
    try:
        status = parse(row.example.target(structured=True)).status
    except InputError:
        yield f"{row.id} cannot be rendered"
        return
    if status is not ParseStatus.COMPLETE:
        yield f"{row.id} {status.value}"


def _language_faults(row: Mixed) -> Iterator[str]:
    example = row.example
    fault = (
        language_fault(row.asked) if example is None
        else language_fault(row.asked, think=example.think, answer=example.answer)
    )  # fmt: skip
    if fault is None and example is not None and example.language != row.asked.sample.language:
        fault = "language:example"
    if fault is not None:
        yield f"{row.id} {fault}"


class _Leaks:
    """What stands in evaluation and in training: files, clusters, templates, queries equal or nearly."""

    name = "leak"

    def __init__(self, near: float) -> None:
        self._near = near
        self._held: dict[str, set[str]] = {"eval": set(), "train": set()}
        self._queries: dict[str, set[str]] = {"eval": set(), "train": set()}

    def see(self, row: Mixed) -> None:
        side, traits = "eval" if row.split == "eval" else "train", traits_of(row.asked)
        self._held[side].update([*clip_keys(traits), *word_keys(traits)])
        self._queries[side].add(traits.query)

    def faults(self) -> Iterator[str]:
        held, queries = self._held, self._queries
        yield from sorted(_named(key) for key in held["eval"] & held["train"])
        shared = queries["eval"] & queries["train"]
        for first, second in near_queries(queries["eval"], among=queries["train"], near=self._near):
            if not {first, second} & shared:
                yield f"queries {_digest(first)} and {_digest(second)} are nearly the same"


class _Splits:
    """No clip stands in two splits of training."""

    name = "splits"

    def __init__(self) -> None:
        self._splits: dict[str, set[str]] = defaultdict(set)

    def see(self, row: Mixed) -> None:
        for key in clip_keys(row.asked) if row.split != "eval" else ():
            self._splits[key].add(row.split)

    def faults(self) -> Iterator[str]:
        for key, own in sorted(self._splits.items()):
            if len(own) > 1:
                yield f"{_named(key)} in {' and '.join(sorted(own))}"


def _named(key: str) -> str:
    """A key as a fault may show it: the words of a query stay unsaid."""
    kind, _, name = key.partition(":")
    return f"{kind} {_digest(name) if kind == 'query' else name}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def quota_faults(got: Mapping[str, int], quotas: Quotas) -> Iterator[str]:
    """Quotas that are not met, then those that are exceeded."""
    yield from (str(missing) for missing in missed(got, quotas))
    wanted: dict[str, int | None] = {f"eval {subset}": count for subset, count in quotas.eval.items()}
    wanted |= {name: getattr(quotas, name) for name in TRAIN}
    yield from (f"{name}: {got.get(name, 0)} rows, over {count}" for name, count in wanted.items()
                if count is not None and got.get(name, 0) > count)  # fmt: skip


class Numbers:
    """The numbers of a data set: ``rows`` by split and subset, and what somebody may have declared."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self._pairs = 0
        self._categories: set[str | None] = {None}
        self._languages: set[str] = set()

    def see(self, row: Mixed) -> None:
        """Count a row; a pair is a row with a clip."""
        sample = row.asked.sample
        self.rows += counts([row])
        self._pairs += sample.media is not None
        self._categories |= {sample.category, row.asked.described.category}
        self._languages.add(sample.language)

    @property
    def told(self) -> dict[str, int]:
        """By the names of ``Declared``."""
        return {
            "pairs": self._pairs,
            "eval": self.rows["eval"],
            "train": sum(self.rows[name] for name in TRAIN),
            **{name: self.rows[name] for name in TRAIN},
            "categories": len(self._categories - {None}),
            "languages": len(self._languages),
        }


def count_faults(numbers: Mapping[str, int], declared: Declared) -> list[str]:
    """The declared numbers that are not there; one that was not counted is a fault too."""
    faults = []
    for name, amount in declared.items():
        got = numbers.get(name)
        if got is None or abs(got - amount.value) > amount.within:
            about = f"{amount.value} ± {amount.within}" if amount.within else f"{amount.value}"
            faults.append(f"{name}: {'not counted' if got is None else got} and not {about}")
    return faults
