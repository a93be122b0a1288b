"""build: from a folder of clips to a benchmark and training splits. The whole of it, in order, over one ledger.

    collect → [screen] → [keep] → probe → embed → filter → describe → settle → ask → [paraphrase] → think → check → heed
    → mix → gates → OUT/splits, OUT/release, OUT/review, OUT/build.html

Killed anywhere and run again it goes on where it was: no finished call to a model is repeated, and the bytes that come
out are the same. It stops before it mixes when too many rows failed or the cost cap is reached, and before it publishes
when a gate finds a fault; what was done stays done, and OUT/build.html says how it stands.

Example:
    >>> built = build(load_recipe("build", BuildRecipe), clips=Path("clips"), out=Path("runs/build"))   # doctest: +SKIP
    >>> built.counts["eval"], built.waiting_for_people                                       # doctest: +SKIP
    (3800, 12)
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from videosafety.build.account import FOR_PEOPLE, Line, faults_of, held, lines_of
from videosafety.build.annotate.purse import LocalPurse
from videosafety.build.collect import STEP as COLLECT
from videosafety.build.collect import collect, named
from videosafety.build.gates import Finding, Gates, enforce
from videosafety.build.ledger import Count, Ledger, Outcome
from videosafety.build.mix import TRAIN, Quotas, splits_of
from videosafety.build.page import write_page
from videosafety.build.people.people import People
from videosafety.build.people.review import read_verdicts, write_review
from videosafety.build.places import ACCOUNT, LEDGER, SPLITS, STORE, check_places, sweep
from videosafety.build.pool import refuse_in_worker
from videosafety.build.recipe import BuildRecipe
from videosafety.build.records import Clip, Mixed
from videosafety.build.release.publish import Contents, publish
from videosafety.build.release.takedown import copies_of, is_gone, withdrawn
from videosafety.build.rows import Packed, Rows, Watched
from videosafety.build.run import run_step
from videosafety.build.shards import absorb_shards
from videosafety.build.showing import Course
from videosafety.build.splits import Splits
from videosafety.build.stages import Stage, stages
from videosafety.build.step import step_hash
from videosafety.core.errors import InputError, VideoSafetyError
from videosafety.core.store import storage_errors, write_json
from videosafety.core.taxonomy import Taxonomy, load_taxonomy

WRITE_AT_ONCE = 256
OnRow = Callable[[str, int, int], None]  # step, done, total
RunStage = Callable[..., Rows[Any]]


class Held(VideoSafetyError):
    """The build stopped where it could go on once somebody acts; the same command goes on."""

    exit_code = 3


@dataclass(frozen=True)
class Built:
    """What a build made: rows by split, the account, the gates, what it paid, and how many clips wait for people."""

    counts: dict[str, int]
    account: list[Line]
    findings: list[Finding]
    spent_usd: float
    waiting_for_people: int


def build(recipe: BuildRecipe, *, clips: Path, out: Path, on_row: OnRow = lambda step, done, total: None) -> Built:
    """Build, or go on building.

    Args:
        recipe: what is wanted.
        clips: a folder of clips, or a manifest of them.
        out: the folder of the build.
        on_row: told of progress.

    Raises:
        Held: too many rows failed, or the cost cap is reached.
        InputError: nothing to build from, a gate found a fault, a file of the recipe cannot be read, or the script that
            calls this has no ``if __name__ == "__main__":``.
        StorageError: the disk refuses, or another process builds here.
    """
    refuse_in_worker()
    folder, _ = named(clips)
    taxonomy = load_taxonomy(recipe.taxonomy)
    known = {one.id for one in taxonomy.subcategories}
    people = read_verdicts(recipe.review, out, categories=known)
    people = replace(people, hidden=frozenset(copies_of(people.quarantined, out, ever=True).values()))
    root = folder if recipe.collect.keep == "in_place" else out / STORE
    check_places(clips, out)
    gone = people.quarantined | {one.clip for one in withdrawn(out).values()}
    plan = stages(recipe, clips=folder, root=root, people=people, gone=gone)
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    with Ledger(out / LEDGER) as ledger:
        sweep(out)
        absorb_shards(out, ledger)
        ledger.start([COLLECT, *(stage.name for stage in plan)])
        course = Course(recipe, plan, ledger, out, people)
        try:
            return _whole(course, clips=clips, root=root, taxonomy=taxonomy, on_row=on_row)
        except (Held, InputError) as error:
            with suppress(VideoSafetyError):  # the error itself is what counts
                write_page(out, course.figures(stopped=error))
            raise


def _whole(course: Course, *, clips: Path, root: Path, taxonomy: Taxonomy, on_row: OnRow) -> Built:
    """All steps, the gates, what is written. Raises as ``build``."""
    recipe, ledger, out, made = course.recipe, course.ledger, course.out, course.made
    rows: Rows[Any] = _collected(recipe, clips, ledger, on_row)
    made[COLLECT] = rows
    run = _engine(recipe, out, ledger)
    for stage in course.plan:
        if stage.name == "mix":
            write_review(out, described=made["describe"], thoughts=made["check"], people=_shown(course.people, out),
                         config=recipe.review, clips=root, name=recipe.name, taxonomy=taxonomy,
                         workers=recipe.engine.num_workers, on_row=partial(on_row, "review"))  # fmt: skip
            _hold(recipe, ledger, out)
        rows = run(stage, rows, on_row=partial(on_row, stage.name))
        made[stage.name] = rows
    account = _account(ledger, out)
    made_rows, contents = _divided(course, rows, media=root, on_row=on_row)
    figures = course.figures()
    provenance = _provenance(recipe, ledger, course.plan, account) | {"agreement": figures.for_card}
    mixed = Watched(rows, tell=partial(on_row, "release"))
    publish(mixed, out, config=recipe.publish, clips=root, provenance=provenance, contents=contents)
    write_page(out, figures)
    waits = sum(n for line in account for (_, why), n in line.ended.items() if why.startswith(FOR_PEOPLE))
    return Built(dict.fromkeys(("eval", *TRAIN), 0) | made_rows, account, course.findings, ledger.spent(), waits)


def _divided(course: Course, rows: Rows[Mixed], *, media: Path, on_row: OnRow) -> tuple[Counter[str], Contents]:
    """Go through the mixture once: gates, splits, figures, and what the release must know of it before it is written.

    Raises:
        InputError: a gate found faults, or a clip is gone. Splits and release of before stay.
        StorageError: the disk refuses; they stay, too.
    """
    recipe, ledger, out, wanted = course.recipe, course.ledger, course.out, course.recipe.mix
    gone = withdrawn(out)
    contents = Contents(gone)
    gates = Gates(
        quotas=wanted.quotas if wanted.quotas != Quotas() else None,
        declared=wanted.declared or None,  # type: ignore[arg-type]
        taxonomy=recipe.taxonomy,
        near=wanted.near,
        wants_eval=recipe.ask.eval_share > 0,
    )
    with Splits(out / SPLITS, media=media, link=recipe.collect.keep != "in_place") as splits:
        for place, row in enumerate(Watched(rows, tell=partial(on_row, "gates"))):
            left_out = is_gone(row, gone)
            contents.see(place, row)
            course.sent.see(row, gone=left_out)
            if not left_out:
                gates.see(row)
                splits.add(row)
        course.findings = gates.findings()
        enforce(course.findings)
        ledger.keep_splits(splits_of(ledger.step("mix")))
        splits.put()
    return splits.counts, contents


def _shown(people: People, out: Path) -> People:
    """What people said, with clips that were taken down among those that no page shows."""
    return replace(people, hidden=people.hidden | frozenset(one.clip for one in withdrawn(out).values()))


def _collected(recipe: BuildRecipe, clips: Path, ledger: Ledger, on_row: OnRow) -> Rows[Clip]:
    """Every file with its end, and the clips: those of earlier builds first, so that the older of two copies stays."""
    found: list[tuple[str, str | None]] = []  # key, clip
    some: list[Outcome] = []
    for outcome in collect(clips, ledger, source=recipe.collect.source, licence=recipe.collect.licence,
                           workers=recipe.engine.num_workers,
                           on_row=partial(on_row, COLLECT)):  # fmt: skip
        clip = Clip.model_validate_json(outcome.made[0]).id if outcome.made else None
        found.append((outcome.key, clip))
        some.append(outcome)
        if len(some) >= WRITE_AT_ONCE:
            ledger.finish(some)
            some = []
    ledger.finish(some)
    ledger.keep_seen(clip for _, clip in found if clip is not None)
    seen = ledger.seen()
    found.sort(key=lambda one: seen.get(one[1] or "", len(seen)))
    keys = [key for key, _ in found]
    ledger.begin(COLLECT, keys)
    return Rows(ledger, COLLECT, Clip, keys=keys, known=ledger.known(COLLECT), source=Packed(Clip, ()))


def _engine(recipe: BuildRecipe, out: Path, ledger: Ledger) -> RunStage:
    """How a stage is run: in this process and its workers, or on a cluster."""
    engine = recipe.engine
    if engine.kind == "ray":
        from videosafety.build.engine import Cluster

        return Cluster(engine, out=out, ledger=ledger, limits=recipe.limits).run
    purse = LocalPurse(recipe.limits.cost_cap_usd, spent_usd=ledger.spent())

    def run(stage: Stage, rows: Rows[Any], *, on_row: Callable[[int, int], None]) -> Rows[Any]:
        return run_step(stage.make(ledger, purse), rows, ledger, workers=engine.num_workers,
                        concurrency=recipe.limits.concurrency, on_row=on_row)  # fmt: skip

    return run


def _hold(recipe: BuildRecipe, ledger: Ledger, out: Path) -> None:
    """Stop before the mixture where rows are missing that another run may bring. Raises Held."""
    why = held(lines_of(ledger.account()), max_failed_share=recipe.limits.max_failed_share)
    if why is not None:
        raise Held(
            why.partition("; ")[0], where=str(out), fix=f"{why.partition('; ')[2]} and run the same command again"
        )


def _account(ledger: Ledger, out: Path) -> list[Line]:
    """The account, written down. Raises InputError: it does not balance."""
    counted: list[Count] = ledger.account()
    lines = lines_of(counted)
    write_json(out / ACCOUNT, [count._asdict() for count in counted])
    if faults := faults_of(lines):
        raise InputError(f"the account does not balance: {'; '.join(faults)}", where=str(out),
                         fix="this is a fault of ours; please report it with account.json")  # fmt: skip
    return lines


def _provenance(recipe: BuildRecipe, ledger: Ledger, plan: Sequence[Stage], account: list[Line]) -> dict[str, Any]:
    """What the release says of how it was made; nothing of it changes when the same build is run again, elsewhere.

    ``steps`` is the hash of all that decides the rows: versions and settings of the steps, not where things lie.
    """
    steps = [step_hash(stage.make(ledger, LocalPurse(None))) for stage in plan]
    ends = [[line.step, state.value, reason, rows] for line in account for (state, reason), rows in line.ended.items()]
    asked = recipe.describe.annotators if recipe.describe is not None else ()
    return {"recipe": recipe.name, "steps": hashlib.sha256("".join(steps).encode()).hexdigest(), "account": ends,
            "annotators": sorted(one.label for one in asked)}  # fmt: skip
