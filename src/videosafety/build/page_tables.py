"""The tables of a build's page, of its figures alone; and two of them for a terminal.

Example:
    >>> print(terminal(figures))                                                             # doctest: +SKIP
    rows out of queries made                 en           zh
    fraud                              12 of 14            ·
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from videosafety.build.ask import KINDS
from videosafety.build.diversity import Diversity
from videosafety.build.figures import SPLITS, Coverage, Figures
from videosafety.build.people.agreement import agreement_table
from videosafety.html.table import Cell, Column, Table
from videosafety.html.text import bounded, visible

NO_CATEGORY = "(none: harmless clips)"
NONE = "none"
EMPTY = "·"
_REASONS = {"agreement": "all annotators agree", "majority": "most annotators agree",
            "adjudicator": "an adjudicator decided", "unsettled": "not settled: waits for people",
            "person": "a person"}  # fmt: skip
_MEASURES = (("distinct_1", "distinct-1"), ("distinct_2", "distinct-2"), ("self_bleu", "self-BLEU"),
             ("template_share", "template share"), ("in_language", "in the language"),
             ("ends_as_sentence", "whole sentences"), ("median_length", "median length"))  # fmt: skip


def tables(figures: Figures) -> dict[str, Table | list[Table]]:
    """All tables by name."""
    return {
        "splits": _splits(figures), "licences": _licences(figures), "lengths": _lengths(figures),
        "clusters": _clusters(figures), "coverage": coverage(figures),
        "kinds": [coverage(figures, kind=kind) for kind in KINDS if any(one.kind == kind for one in figures.coverage)],
        "texts": [_texts(figures, about) for about in ("query", "thinking")
                  if any(one.about == about for one in figures.texts)],
        "alphas": _alphas(figures), "settled": _settled(figures), "pairs": agreement_table(figures.people),
        "money": _money(figures), "gates": _gates(figures), "broken": _broken(figures),
    }  # fmt: skip


def coverage(figures: Figures, *, kind: str | None = None) -> Table:
    """Language × category: rows that go out, and of how many queries; of one kind, or of all. An empty cell says so."""
    held = [one for one in figures.coverage if kind in (None, one.kind)]
    out, asked = _cells(held)
    languages = list(dict.fromkeys([*figures.languages, *(one.language for one in held)]))
    categories: list[str | None] = list(dict.fromkeys([*figures.categories, *(one.category for one in held)]))
    categories.sort(key=lambda one: one is None)
    most = max((rows for (_, category), rows in out.items() if category is not None), default=0) or 1
    rows = []
    for category in categories:
        cells = [_covered(out[language, category], asked[language, category], most) for language in languages]
        rows.append((Cell(category or NO_CATEGORY), *cells))
    data = tuple((one.language, one.category, one.kind, one.asked, one.out) for one in held)
    note = ("Large: rows that go out. Below: queries that were made. Hatched: nothing goes out. A stronger tint: "
            "more rows.")  # fmt: skip
    return Table("coverage" if kind is None else f"coverage-{kind}", "All kinds" if kind is None else kind,
                 (Column("category", numeric=False), *(Column(one) for one in languages)), tuple(rows),
                 ("language", "category", "kind", "asked", "out"), data, note if kind is None else "")  # fmt: skip


def _cells(held: Iterable[Coverage]) -> tuple[Counter[tuple[str, str | None]], Counter[tuple[str, str | None]]]:
    out: Counter[tuple[str, str | None]] = Counter()
    asked: Counter[tuple[str, str | None]] = Counter()
    for one in held:
        out[one.language, one.category] += one.out
        asked[one.language, one.category] += one.asked
    return out, asked


def _covered(out: int, asked: int, most: int) -> Cell:
    detail = f"of {asked:,}" if asked else "not asked"
    if not out:
        return Cell(NONE, detail, muted=True, note="empty cell")
    return Cell(f"{out:,}", detail, shade=min(1.0, out / most))


def _texts(figures: Figures, about: str) -> Table:
    held = [one for one in figures.texts if one.about == about]
    measures = [one for one in _MEASURES if any(getattr(line.own, one[0]) is not None for line in held)]
    rows, data = [], []
    for line in held:
        cells = [_measured(name, line.own, line.baseline) for name, _ in measures]
        rows.append((Cell(line.language), Cell(f"{line.own.count:,}", f"{line.own.different:,} different"), *cells))
        numbers = [_value(line.own, name) for name, _ in _MEASURES]
        single = [_value(line.baseline, name) for name, _ in _MEASURES]
        data.append((line.language, line.own.count, line.own.different, *numbers, *single))
    names = [name for name, _ in _MEASURES]
    header = ("language", "rows", "different", *names, *(f"single_{name}" for name in names))
    columns = (Column("language", numeric=False), Column("rows looked at"), *(Column(label) for _, label in measures))
    note = ("Below each figure: the same rows said in a single template. Diverse texts have a high distinct-n and a "
            "low self-BLEU and template share. The figures fall with the number of rows: compare a line with its own "
            "baseline. The language is told of 200 texts at most.")  # fmt: skip
    title = "Queries" if about == "query" else "Thinking"
    return Table(f"texts-{about}", title, columns, tuple(rows), header, tuple(data), note)


def _measured(name: str, own: Diversity, single: Diversity | None) -> Cell:
    value, other = _value(own, name), _value(single, name)
    said = f"{value:.0f}" if name == "median_length" and value is not None else _figure(value)
    theirs = f"{other:.0f}" if name == "median_length" and other is not None else _figure(other)
    return Cell(said, "" if other is None else f"single {theirs}", muted=value is None)


def _value(of: Diversity | None, name: str) -> float | None:
    return getattr(of, name) if of is not None else None


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _alphas(figures: Figures) -> Table:
    rows = []
    for one in figures.alphas:
        span = "" if one.low is None or one.high is None else f"{one.low:.3f} to {one.high:.3f}"
        why = "" if one.alpha is not None else ("all labels are alike" if one.n else "no clip of two annotators")
        agreed = "–" if one.agreed is None else f"{100 * one.agreed:.1f} %"
        rows.append((Cell(one.about), Cell(f"{one.n:,}"), Cell(agreed),
                     Cell(_figure(one.alpha), span or why, muted=one.alpha is None)))  # fmt: skip
    header = ("about", "n", "agreed", "alpha", "low", "high")
    data = tuple((one.about, one.n, one.agreed, one.alpha, one.low, one.high) for one in figures.alphas)
    columns = (Column("label", numeric=False), Column("clips of two or more"), Column("agreed"), Column("alpha"))
    note = "Krippendorff's alpha of the annotators, before people: 1 is perfect, 0 is chance. 95 %, by cluster."
    return Table("alpha", "Annotators", columns, tuple(rows), header, data, note)


def _settled(figures: Figures) -> Table:
    named = [(name, label) for name, label in _REASONS.items() if name in figures.settled]
    return _counts("settled", "Who settled a clip's label", ("settled by", "clips"),
                   [(label, (figures.settled[name],)) for name, label in named])  # fmt: skip


def _splits(figures: Figures) -> Table:
    found: Counter[tuple[str, str]] = Counter()
    for one in figures.splits:
        found[one.split, one.kind] += one.rows
    rows = []
    for split in SPLITS:
        numbers = [found[split, kind] for kind in KINDS]
        cells = [Cell(f"{n:,}" if n else NONE, muted=not n) for n in (*numbers, sum(numbers))]
        rows.append((Cell(split), *cells))
    columns = (Column("split", numeric=False), *(Column(kind) for kind in KINDS), Column("all"))
    data = tuple((one.split, one.kind, one.language, one.rows) for one in figures.splits)
    return Table("splits", "Rows by split and kind", columns, tuple(rows), ("split", "kind", "language", "rows"), data)


def _licences(figures: Figures) -> Table:
    rows = [(one.licence or "not told", (one.clips, one.rows)) for one in figures.licences]
    return _counts("licences", "Licences", ("licence of the clips", "clips", "rows"), rows)


def _lengths(figures: Figures) -> Table:
    rows: list[tuple[str, tuple[int, ...]]] = [
        (f"{one.low_s:g} s and longer" if one.high_s is None else f"{one.low_s:g} s to {one.high_s:g} s", (one.clips,))
        for one in figures.lengths
    ]
    if figures.pictures:
        rows.append(("pictures", (figures.pictures,)))
    return _counts("lengths", "Lengths of described clips", ("length", "clips"), rows)


def _clusters(figures: Figures) -> Table:
    rows = [(f"{one.size:,}", (one.clusters, one.size * one.clusters)) for one in figures.clusters]
    return _counts("clusters", "Near-duplicate clusters", ("clips in a cluster", "clusters", "clips"), rows)


def _money(figures: Figures) -> Table:
    rows = [(Cell(one.step), Cell(one.model), Cell(f"{one.calls:,}", f"{one.lost:,} lost" if one.lost else ""),
             Cell(f"{one.usd:.4f}")) for one in figures.paid]  # fmt: skip
    columns = (Column("step", numeric=False), Column("model", numeric=False), Column("calls"), Column("USD"))
    data = tuple((one.step, one.model, one.calls, one.lost, one.usd) for one in figures.paid)
    note = ("All that this folder ever paid, also for earlier recipes. A lost call was under way when a build was "
            "killed: it counts at the most that it may have cost.")  # fmt: skip
    return Table(
        "money", "Calls to models", columns, tuple(rows), ("step", "model", "calls", "lost", "usd"), data, note
    )


def _gates(figures: Figures) -> Table:
    rows = []
    for one in figures.gates:
        more = one.num_faults - len(one.faults)
        said = "; ".join(one.faults) + (f" and {more:,} more" if more else "")
        rows.append((Cell(one.gate), Cell("▲ failed" if one.num_faults else "● passed"), Cell(f"{one.num_faults:,}"),
                     Cell(said)))  # fmt: skip
    columns = (Column("gate", numeric=False), Column("", numeric=False), Column("faults"),
               Column("the first of them", numeric=False))  # fmt: skip
    data = tuple((one.gate, one.num_faults, "; ".join(one.faults)) for one in figures.gates)
    return Table("gates", "Gates", columns, tuple(rows), ("gate", "faults", "first"), data)


def _broken(figures: Figures) -> Table:
    rows = tuple((Cell(one.file), Cell(one.step, ""), Cell(one.reason)) for one in figures.broken)
    columns = tuple(Column(label, numeric=False) for label in ("file", "step", "reason"))
    data = tuple((one.file, one.step, one.reason) for one in figures.broken)
    return Table("broken", "Files that could not be used", columns, rows, ("file", "step", "reason"), data)


def _counts(name: str, title: str, header: Sequence[str], rows: Sequence[tuple[str, tuple[int, ...]]]) -> Table:
    """A table of a name and some counts."""
    columns = (Column(header[0], numeric=False), *(Column(one) for one in header[1:]))
    lines = tuple((Cell(label), *(Cell(f"{number:,}") for number in numbers)) for label, numbers in rows)
    return Table(name, title, columns, lines, tuple(header), tuple((label, *numbers) for label, numbers in rows))


def terminal(figures: Figures) -> str:
    """Coverage and diversity as lines of text."""
    out, asked = _cells(figures.coverage)
    table = coverage(figures)
    languages = [column.label for column in table.columns[1:]]
    wide = max((len(line[0].text) for line in table.rows), default=0)
    wide = min(max(wide, len("rows out of queries made")), 40)
    lines = [f"{'rows out of queries made':{wide}}" + "".join(f"{one:>13}" for one in languages)]
    for line in table.rows:
        category = None if line[0].text == NO_CATEGORY else line[0].text
        cells = ((out[one, category], asked[one, category]) for one in languages)
        said = "".join(f"{f'{sent} of {made}' if made else EMPTY:>13}" for sent, made in cells)
        lines.append(f"{visible(bounded(line[0].text, 40)):{wide}}{said}")
    lines.append(f"empty cells, of {len(figures.languages) * len(figures.categories)}: {len(figures.empty)}")
    names = ("distinct_2", "self_bleu", "template_share")
    for about in ("query", "thinking"):
        held = [one for one in figures.texts if one.about == about]
        if held:
            heads = "".join(f"{name.replace('_', '-'):>18}" for name in names)
            lines += ["", f"{about:<10}{'rows':>7}{heads}   (a single template)"]
        for one in held:
            pairs = (f"{_figure(_value(one.own, name))} ({_figure(_value(one.baseline, name))})" for name in names)
            lines.append(f"{one.language:<10}{one.own.count:>7}" + "".join(f"{pair:>18}" for pair in pairs))
    return "\n".join(lines)
