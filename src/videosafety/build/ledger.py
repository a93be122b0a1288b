"""The ledger: one SQLite file that knows of every row what became of it in every step, and of every call to a model
what was asked, said and paid.

A row or a call that is written is on the disk when the method returns, so ``kill -9`` at any moment and the same build
again repeats none of them. One process writes; others may read. Answers of models are stored and never executed.

The ledger remembers more than the last build: an older recipe's rows stand in it, too. ``begin`` says which rows a step
has now, and the account counts those alone; one without an outcome is waiting.

Example:
    >>> with Ledger(folder / "ledger.sqlite") as ledger:
    ...     ledger.begin("probe", [key])
    ...     ledger.finish([Outcome(step="probe", key=key, row="a", parent=None, state=State.OK, made=("{...}",))])
    ...     ledger.account()
    [Count(step='probe', state=<State.OK: 'ok'>, reason='', rows=1, made=1)]
"""

import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from videosafety.build.state import State
from videosafety.core.errors import InputError, StorageError
from videosafety.core.store import storage_errors, take_lock

SCHEMA_VERSION = 2
BUSY_S = 5.0
SAME = "="  # in ``made``: the row went on as it came
SCHEMA = """
CREATE TABLE IF NOT EXISTS outcomes (
  step TEXT NOT NULL, key TEXT NOT NULL, row TEXT NOT NULL, parent TEXT, state TEXT NOT NULL, reason TEXT NOT NULL,
  num_made INTEGER NOT NULL, made BLOB NOT NULL, attempts INTEGER NOT NULL, PRIMARY KEY (step, key)
);
CREATE TABLE IF NOT EXISTS calls (
  key TEXT PRIMARY KEY, step TEXT NOT NULL, model TEXT NOT NULL, answer TEXT NOT NULL, input_tokens INTEGER,
  output_tokens INTEGER, cost REAL NOT NULL, latency_s REAL NOT NULL, retries INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS steps (step TEXT PRIMARY KEY, place INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS current (
  step TEXT NOT NULL, place INTEGER NOT NULL, key TEXT NOT NULL, PRIMARY KEY (step, place)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS clips (clip TEXT PRIMARY KEY, place INTEGER NOT NULL, split TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
  path TEXT PRIMARY KEY, num_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL
) WITHOUT ROWID;
"""
FIELDS = "step, key, row, parent, state, reason, num_made, made, attempts"


@dataclass(frozen=True)
class Outcome:
    """What became of one row in one step. ``made`` holds the canonical JSON of the rows that it became."""

    step: str
    key: str
    row: str
    parent: str | None
    state: State
    reason: str = ""
    made: tuple[str, ...] = ()
    attempts: int = 1


@dataclass(frozen=True)
class Call:
    """One finished call to a model. ``key`` is the hash of model, parameters, prompt and media; ``cost`` in USD."""

    key: str
    step: str
    model: str
    answer: str
    cost: float
    latency_s: float
    retries: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None


class Count(NamedTuple):
    """Rows of a step that ended in one state for one reason, and how many rows were made of them."""

    step: str
    state: State | None  # None: waiting
    reason: str
    rows: int
    made: int


class Known(NamedTuple):
    """What is known of the row in one place of a step: ``state`` None: nothing; ``is_same``: it went on as it came."""

    place: int
    state: State | None
    attempts: int = 0
    num_made: int = 0
    is_same: bool = False


def read_account(path: Path) -> list[Count]:
    """The account of a ledger that another process may be writing.

    Raises:
        InputError: there is no ledger.
    """
    with reading(path) as database:
        return _account(database)


def read_calls(path: Path) -> list[tuple[str, str, int, float]]:
    """(step, model, calls, USD paid) of a ledger that another process may be writing. Raises InputError."""
    query = "SELECT step, model, COUNT(*), SUM(cost) FROM calls GROUP BY step, model ORDER BY step, model"
    with reading(path) as database:
        return list(database.execute(query))


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A ledger's database, for reading. Raises InputError: there is none, or it is something else."""
    if not path.is_file():
        raise InputError("there is no ledger", where=str(path), fix="run `videosafety build` first")
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_S)
    try:
        yield database
    except (sqlite3.DatabaseError, zlib.error, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error
    finally:
        database.close()


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"is no ledger, or a damaged one ({error})", where=str(path),
                      fix="bring a copy back, or give another --out, where calls are paid again")  # fmt: skip


def _account(database: sqlite3.Connection) -> list[Count]:
    query = ("SELECT c.step, o.state, COALESCE(o.reason, ''), COUNT(*), COALESCE(SUM(o.num_made), 0) FROM current c"
             " LEFT JOIN steps s ON s.step = c.step LEFT JOIN outcomes o ON o.step = c.step AND o.key = c.key"
             " GROUP BY c.step, o.state, o.reason ORDER BY s.place, c.step, o.state, o.reason")  # fmt: skip
    return [Count(step, State(state) if state is not None else None, reason, rows, made)
            for step, state, reason, rows, made in database.execute(query)]  # fmt: skip


def _packed(made: tuple[str, ...]) -> bytes:
    """Canonical JSON has no line breaks. Nothing is written of a row that went on as it came."""
    return zlib.compress("\n".join(made).encode(), level=1) if made not in ((), (SAME,)) else b""


def unpacked(made: bytes, num_made: int) -> tuple[str, ...]:
    """The JSON of the rows in the column ``made``."""
    return tuple(zlib.decompress(made).decode().split("\n")) if made else (SAME,) * num_made


def _outcome(row: tuple[Any, ...]) -> "Outcome":
    step, key, name, parent, state, reason, num_made, made, attempts = row
    return Outcome(step, key, name, parent, State(state), reason, unpacked(made, num_made), attempts)


class Ledger:
    """A ledger file, opened for writing; calls that it does not have are looked up in the ledger ``paid``, if given.

    Raises:
        StorageError: another process writes it, or the disk refuses.
        InputError: the file is no ledger, or one of a newer version.
    """

    def __init__(self, path: Path, *, paid: Path | None = None) -> None:
        self.path = path
        self._paid: sqlite3.Connection | None = None
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = path.with_name(path.name + ".lock").open("a")
        try:
            take_lock(self._lock.fileno(), path)
        except StorageError:
            self._lock.close()
            raise
        try:
            self._open(paid)
        except BaseException:
            self._lock.close()
            raise

    def _open(self, paid: Path | None) -> None:
        with self._errors():
            self._database = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            version = int(self._database.execute("PRAGMA user_version").fetchone()[0])
            if version not in (0, SCHEMA_VERSION):
                age, fix = (
                    ("a newer", "update videosafety")
                    if version > SCHEMA_VERSION
                    else ("an older", "give another --out")
                )
                raise InputError(f"was written by {age} version ({version})", where=str(self.path), fix=fix)
            if paid is not None:
                self._paid = sqlite3.connect(f"{paid.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
            self._database.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")

    def start(self, steps: Iterable[str]) -> None:
        """A build begins: these are its steps, in this order, and none has rows yet."""
        with self._errors(), self._transaction():
            self._database.execute("DELETE FROM current")
            self._database.execute("DELETE FROM steps")
            self._database.executemany("INSERT INTO steps VALUES (?,?)", [(s, i) for i, s in enumerate(steps)])

    def begin(self, step: str, keys: Iterable[str]) -> None:
        """These are a step's rows now, in their order."""
        with self._errors(), self._transaction():
            self._database.execute("DELETE FROM current WHERE step=?", (step,))
            self._database.executemany(
                "INSERT INTO current VALUES (?,?,?)", ((step, place, key) for place, key in enumerate(keys))
            )

    def known(self, step: str) -> Iterator[Known]:
        """What is known of each of a step's rows, in their order."""
        query = (
            "SELECT c.place, o.state, COALESCE(o.attempts, 0), COALESCE(o.num_made, 0),"
            " COALESCE(o.num_made = 1 AND LENGTH(o.made) = 0, 0) FROM current c"
            " LEFT JOIN outcomes o ON o.step = c.step AND o.key = c.key WHERE c.step=? ORDER BY c.place"
        )
        with self._errors():
            for place, state, attempts, num_made, is_same in self._database.execute(query, (step,)).fetchall():
                yield Known(place, State(state) if state is not None else None, attempts, num_made, bool(is_same))

    def outcomes(self, step: str, keys: Iterable[str]) -> dict[str, Outcome]:
        """What is known of these rows in this step, by key."""
        query = f"SELECT {FIELDS} FROM outcomes WHERE step=? AND key=?"
        with self._errors():
            rows = (self._database.execute(query, (step, key)).fetchone() for key in keys)
            return {row[1]: _outcome(row) for row in rows if row is not None}

    def made(self, step: str, key: str) -> tuple[str, ...]:
        """The JSON of the rows that a row became."""
        with self._errors():
            row = self._database.execute(
                "SELECT made, num_made FROM outcomes WHERE step=? AND key=?", (step, key)
            ).fetchone()
            return unpacked(*row) if row is not None else ()

    def step(self, name: str) -> Iterator[Outcome]:
        """What became of each of a step's rows, in their order; rows that are waiting are passed over."""
        query = "SELECT key FROM current WHERE step=? ORDER BY place"
        with self._errors():
            keys = [key for (key,) in self._database.execute(query, (name,))]
        for key in keys:
            yield from self.outcomes(name, (key,)).values()

    def finish(self, outcomes: Iterable[Outcome]) -> None:
        """Write what became of rows, all or none; a row that had failed before gets its new state."""
        rows = [(o.step, o.key, o.row, o.parent, o.state.value, o.reason, len(o.made), _packed(o.made), o.attempts)
                for o in outcomes]  # fmt: skip
        with self._errors(), self._transaction():
            self._database.executemany("INSERT OR REPLACE INTO outcomes VALUES (?,?,?,?,?,?,?,?,?)", rows)

    def account(self) -> list[Count]:
        """How many rows ended in which state, by step and reason: for every step the sum is what went in."""
        with self._errors():
            return _account(self._database)

    def seen(self) -> dict[str, int]:
        """The clips of all builds so far, by id, with the place of each in the order in which they came."""
        with self._errors():
            return dict(self._database.execute("SELECT clip, place FROM clips"))

    def keep_seen(self, clips: Iterable[str]) -> None:
        """Number the clips that are new, in their order."""
        with self._errors(), self._transaction():
            (first,) = self._database.execute("SELECT COALESCE(MAX(place), -1) + 1 FROM clips").fetchone()
            self._database.executemany("INSERT OR IGNORE INTO clips VALUES (?,?,NULL)",
                                       ((clip, first + at) for at, clip in enumerate(clips)))  # fmt: skip

    def splits(self) -> dict[str, str]:
        """The split of every clip that a finished build placed, by id."""
        with self._errors():
            return dict(self._database.execute("SELECT clip, split FROM clips WHERE split IS NOT NULL"))

    def keep_splits(self, splits: Mapping[str, str]) -> None:
        """A build is finished: this is where its clips are from now on."""
        with self._errors(), self._transaction():
            self._database.executemany("UPDATE clips SET split=? WHERE clip=?",
                                       ((split, clip) for clip, split in splits.items()))  # fmt: skip

    def hash_of(self, path: str, *, num_bytes: int, mtime_ns: int) -> str | None:
        """The hash of a file that has not changed since ``keep_hashes``, by its size and time."""
        query = "SELECT sha256 FROM files WHERE path=? AND num_bytes=? AND mtime_ns=?"
        with self._errors():
            row = self._database.execute(query, (path, num_bytes, mtime_ns)).fetchone()
        return None if row is None else str(row[0])

    def keep_hashes(self, files: Iterable[tuple[str, int, int, str]]) -> None:
        """Write (path, bytes, time in ns, sha256) of files."""
        with self._errors(), self._transaction():
            self._database.executemany("INSERT OR REPLACE INTO files VALUES (?,?,?,?)", files)

    def call(self, key: str) -> Call | None:
        """The finished call of this key."""
        query = ("SELECT key, step, model, answer, cost, latency_s, retries, input_tokens, output_tokens FROM calls"
                 " WHERE key=?")  # fmt: skip
        with self._errors():
            row = self._database.execute(query, (key,)).fetchone()
            if row is None and self._paid is not None:
                row = self._paid.execute(query, (key,)).fetchone()
        return None if row is None else Call(*row)

    def keep_call(self, call: Call, *, instead_of: str | None = None) -> None:
        """Write a finished call; it is paid for, and safe when this returns. ``instead_of``: a call that goes then."""
        row = (call.key, call.step, call.model, call.answer, call.input_tokens, call.output_tokens, call.cost,
               call.latency_s, call.retries)  # fmt: skip
        with self._errors(), self._transaction():
            self._database.execute("INSERT OR IGNORE INTO calls VALUES (?,?,?,?,?,?,?,?,?)", row)
            self._database.execute("DELETE FROM calls WHERE key=?", (instead_of,))

    def forget_call(self, key: str) -> None:
        """Take a call back that surely cost nothing."""
        with self._errors(), self._transaction():
            self._database.execute("DELETE FROM calls WHERE key=?", (key,))

    def spent(self) -> float:
        """USD paid for all calls so far."""
        with self._errors():
            return float(self._database.execute("SELECT COALESCE(SUM(cost), 0) FROM calls").fetchone()[0])

    def num_calls(self) -> int:
        """Calls so far."""
        with self._errors():
            return int(self._database.execute("SELECT COUNT(*) FROM calls").fetchone()[0])

    def export_calls(self, path: Path) -> None:
        """Copy all calls into a new ledger, whole or not at all, that other machines read as ``paid``."""
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        with storage_errors(part), self._attached(part, "copy"):
            self._database.execute("CREATE TABLE copy.calls AS SELECT * FROM calls")
            self._database.execute("CREATE UNIQUE INDEX copy.by_key ON calls(key)")
        with storage_errors(path):
            part.replace(path)

    def absorb(self, path: Path) -> None:
        """Take in another ledger's outcomes and calls, all or none; attempts add up. Raises InputError: it is none."""
        columns = "step, key, row, parent, state, reason, num_made, made"
        before = "SELECT o.attempts FROM main.outcomes o WHERE o.step = s.step AND o.key = s.key"
        with self._errors(), self._attached(path, "shard"), self._transaction():
            self._database.execute(f"INSERT OR REPLACE INTO main.outcomes ({columns}, attempts) SELECT {columns},"
                                   f" s.attempts + COALESCE(({before}), 0) FROM shard.outcomes s")  # fmt: skip
            self._database.execute("INSERT OR IGNORE INTO main.calls SELECT * FROM shard.calls")

    @contextmanager
    def _attached(self, path: Path, name: str) -> Iterator[None]:
        self._database.execute(f"ATTACH DATABASE ? AS {name}", (str(path),))
        try:
            yield
        finally:
            self._database.execute(f"DETACH DATABASE {name}")

    def close(self) -> None:
        """Let others write."""
        if self._paid is not None:
            self._paid.close()
        self._database.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """SQLite's refusals as sentences."""
        try:
            yield
        except sqlite3.OperationalError as error:
            said = str(error)
            fix = "free some space, check the disk, or end who else has it open"
            raise StorageError(f"the ledger refuses: {said}", where=str(self.path), fix=fix) from error
        except (sqlite3.DatabaseError, zlib.error, UnicodeDecodeError) as error:
            raise _damaged(self.path, error) from error
