"""gone: what clips looked like that were withdrawn or quarantined, so that a copy of one is known when it is not there.

The ledger remembers what every clip of an earlier build looked like. ``Filter`` compares new clips with these, too.

Example:
    >>> looks_of({"clip-4f1c"}, ledger, embed=PhashEmbed("runs/build/store"))                # doctest: +SKIP
    (('clip-4f1c', ('00f3a2b1c4d5e697…', …)),)
"""

from collections.abc import Collection, Iterator

from videosafety.build.ledger import Ledger, reading, unpacked
from videosafety.build.records import Embedded
from videosafety.build.step import Named, row_key, step_hash

Look = tuple[str, tuple[str, ...]]  # id of a clip, its vectors
IDS_AT_ONCE = 500  # of a query


def looks_of(clips: Collection[str], ledger: Ledger, *, embed: Named) -> tuple[Look, ...]:
    """What these clips look like, by id, as far as any build of this ledger has embedded them by this very step."""
    sha256 = step_hash(embed)
    keys = [row_key(sha256, probed.encode()) for probed in _probed(clips, ledger)]
    made = (outcome.made for outcome in ledger.outcomes(embed.name, keys).values())
    found = {one.id: one.vectors for rows in made for one in map(Embedded.model_validate_json, rows)}
    return tuple(sorted(found.items()))


def _probed(clips: Collection[str], ledger: Ledger) -> Iterator[str]:
    """All that any build found these clips to hold, as it was written."""
    ids = sorted(clips)
    if not ids:
        return
    with reading(ledger.path) as database:
        for start in range(0, len(ids), IDS_AT_ONCE):
            some = ids[start : start + IDS_AT_ONCE]
            query = ("SELECT made, num_made FROM outcomes WHERE step='probe' AND state='ok' AND row IN"
                     f" ({','.join('?' * len(some))})")  # fmt: skip
            for row in database.execute(query, some).fetchall():
                yield from unpacked(*row)
