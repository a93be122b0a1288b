"""Figures of a small build in which everything happened, and whose every name is hostile."""

from thought_rows import asked, thought

from videosafety.build.account import Line
from videosafety.build.figures import Figures, Made, Sent, figures_of
from videosafety.build.gates import Finding
from videosafety.build.mix import example_of
from videosafety.build.people.people import ClipVerdict, People
from videosafety.build.phrases import load_phrases
from videosafety.build.records import Mixed, Vote
from videosafety.build.state import State
from videosafety.core.labels import Safety

HOSTILE = "<script>window.pwned=1</script><img src=x onerror='window.pwned=2'>\u202ehidden"
LANGUAGES = ("en", "zh", "ar", "ja")
CATEGORIES = ("fraud", "physical_violence", "self_harm", HOSTILE)
SECRET = "secret-words"
KINDS = ("HH", "SH", "composed", "SafeQ", "borderline")


def described(name, votes=("harmful", "harmful"), *, by="agreement", seconds=10.0, cluster=None, licence=None, **clip):
    """A clip with the votes of annotators a, b, …; a vote is "safe" or the category."""
    one = asked("HH", clip=name).described
    said = tuple(
        Vote(annotator=annotator, caption=f"{SECRET} {HOSTILE}",
             visual=Safety.SAFE if vote == "safe" else Safety.HARMFUL,
             category=None if vote == "safe" else "fraud" if vote == "harmful" else vote)
        for annotator, vote in zip("abc", votes, strict=False)
    )  # fmt: skip
    return one.model_copy(update={
        "votes": said, "by": by, "facts": one.facts.model_copy(update={"duration_s": seconds}),
        "cluster": cluster or f"near-{name}", "clip": one.clip.model_copy(update={"licence": licence} | clip),
    })  # fmt: skip


def mixed(kind="SH", split="eval", *, licence=None, **fields):
    """A row that goes out."""
    one = thought(kind, **fields)
    about = one.asked.described
    about = about.model_copy(update={"clip": about.clip.model_copy(update={"licence": licence})})
    whole = one.asked.model_copy(update={"described": about})
    one = one.model_copy(update={"asked": whole})
    return Mixed(id=f"{one.id}.{split}", parent=one.id, split=split, asked=whole,
                 example=None if split == "eval" else example_of(one))  # fmt: skip


def sent_of(rows, *, is_gone=lambda row: False):
    sent = Sent()
    for row in rows:
        sent.see(row, gone=is_gone(row))
    return sent


def account():
    """Lines of every kind of end."""
    ends = {(State.QUARANTINED, "media:corrupt"): 30, (State.FILTERED, "static"): 90, (State.PARTIAL, "media:part"): 10,
            (State.REFUSED, HOSTILE): 60, (State.FAILED, "cost:cap"): 70, (State.FAILED, "votes:disagree"): 40,
            (State.FILTERED, "duplicate:near"): 5}  # fmt: skip
    went = 1000 - sum(ends.values()) - 200
    return [Line("collect", 1000, 1000, 0, 1000, {}), Line("describe", 1000, went, 200, went, ends),
            Line("ask", went, went, 0, 3 * went, {}), Line("mix", 0, 0, 0, 0, {})]  # fmt: skip


def hostile_figures(*, stopped: str | None = None) -> Figures:
    """All figures, with an empty split (rl) and empty cells."""
    rows = [(kind, language, category, number) for number, language in enumerate(LANGUAGES[:3])
            for kind in KINDS for category in CATEGORIES if (language, category) != ("ar", "fraud")]  # fmt: skip
    queries = [asked(kind, language=language, category=category, number=at, query=f"{SECRET} {at % 7} {HOSTILE}?")
               for at, (kind, language, category, _) in enumerate(rows)]  # fmt: skip
    sent = [mixed(kind, ("eval", "sft", "cot")[at % 3], language=language, category=category, number=at,
                  clip=f"c{at}", licence=(HOSTILE, "CC-BY-4.0", None)[at % 3])
            for at, (kind, language, category, _) in enumerate(rows) if at % 5]  # fmt: skip
    thoughts = [thought(kind, language=language, category=category, number=at)
                for at, (kind, language, category, _) in enumerate(rows) if category != HOSTILE]  # fmt: skip
    clips = [described(f"v{at}", ("harmful", ("harmful", "safe", HOSTILE)[at % 3]), seconds=at / 4,
                       cluster=f"near-{at // 2}", by=("agreement", "majority", "unsettled")[at % 3])
             for at in range(60)]  # fmt: skip
    people = People(clips=(ClipVerdict(item=clips[0].id, annotator="ann", action="label", visual="safe", seconds=1),))
    return figures_of(
        name=HOSTILE, account=account(), rows=Made(clips, queries, thoughts), sent=sent_of(sent), people=people,
        findings=[Finding("rows", ()), Finding("leak", tuple(f"cluster {HOSTILE} {n}" for n in range(9)))],
        paid=[("describe", HOSTILE, 1200, 3.25, 3), ("think", "two", 20, 0.5, 0)],
        broken=[("probe", "media:corrupt", f"{HOSTILE}.mp4")], phrases=load_phrases(), languages=LANGUAGES,
        stopped=stopped,
    )  # fmt: skip
