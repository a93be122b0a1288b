"""The finding in words, computed from the rows: no number on the page was typed by hand, this sentence included.

Example:
    >>> finding([])
    ['This run holds no pooled result yet.']
"""

from collections.abc import Sequence

from videosafety.core.metrics import SummaryRow
from videosafety.report.headline import drop
from videosafety.report.rows import STAGES, Setting, of, percent, pooled, settings

SAYS_NOTHING = "say nothing about real models"
TOY_CAUTION = f"Toy world: these numbers {SAYS_NOTHING}."


def finding(rows: Sequence[SummaryRow]) -> list[str]:
    """One or two sentences: the untreated model, and the last stage of its treatment where there is one."""
    told = [(s, sentence) for s in settings(rows) if (sentence := _sentence(s, of(rows, s)))]
    if not told:
        return ["This run holds no pooled result yet."]
    first = told[0]
    same_model = [t for t in told if t[0].benchmark == first[0].benchmark and t[0].judge == first[0].judge]
    last = same_model[-1]
    return [first[1]] if last is first else [first[1], last[1]]


def caution(rows: Sequence[SummaryRow], benchmarks: Sequence[str] = ()) -> str | None:
    """What every page about the toy world says."""
    names = {r.benchmark for r in rows} | set(benchmarks)
    return TOY_CAUTION if any("toy" in name.lower() for name in names) else None


def _sentence(setting: Setting, rows: Sequence[SummaryRow]) -> str | None:
    text = pooled(rows, "dsr", subset="HH", arm="text")
    video = pooled(rows, "dsr", subset="HH", arm="video")
    given = pooled(rows, "compromised", subset="HH", arm="video")
    who = _who(setting)
    if video is None or video.value is None:
        frr = pooled(rows, "frr", subset="SafeQ", arm="video")
        if frr is None or frr.value is None:
            return None
        return f"{who} refuses {percent(frr.value)} % of harmless requests ({_range(frr)})."
    if text is None or text.value is None:
        return f"{who} defends {percent(video.value)} % of harmful requests with video ({_range(video)})."
    sentence = (
        f"{who} defends {percent(text.value)} % of harmful requests made in words alone and {percent(video.value)} % "
        f"of the same requests once the video is there"
    )
    if given is not None and given.value is not None:
        sentence += f", and gives the forbidden content in {percent(given.value)} % of them ({_range(given)})"
    return sentence + "." + _drop_sentence(rows)


def _drop_sentence(rows: Sequence[SummaryRow]) -> str:
    points, relative = drop(rows, "drop_points"), drop(rows, "drop_relative")
    if points is None or points.value is None:
        return ""
    if points.low is None or points.high is None:
        return (
            f" The difference is {percent(points.value)} points, from too little data to say more ({_range(points)})."
        )
    if points.low <= 0 <= points.high:
        return f" The difference of {percent(points.value)} points is not distinguishable from none ({_range(points)})."
    share = f" ({percent(relative.value)} % relative)" if relative is not None and relative.value is not None else ""
    word = "drop" if points.value > 0 else "gain"
    return f" That is a {word} of {percent(abs(points.value))} points{share}, {_range(points)}."


def _who(setting: Setting) -> str:
    after = f" after {setting.stage}" if setting.stage in STAGES[1:] else ""
    return f"{setting.model or 'The model'}{after}"


def _range(row: SummaryRow) -> str:
    if row.low is None or row.high is None:
        return f"no interval, n = {row.n:,}"
    return f"95 % interval {percent(row.low)} to {percent(row.high)}, n = {row.n:,}"
