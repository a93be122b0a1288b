"""What can go wrong, as a tree. Every message says what was given, where, and the fix.

    VideoSafetyError            one clear sentence for a person; the command line prints it and exits with ``exit_code``
    ├── InputError              the user's input is wrong: a file, a record, a flag, a recipe key     exit 2
    │   ├── RecipeError         a recipe does not load
    │   ├── RecordError         a record or manifest does not load
    │   └── MediaError          a media file cannot be used; carries a typed ``fault``
    ├── CheckpointError         a checkpoint cannot be read or written                                exit 2
    ├── DependencyError         an optional package is missing; names the install line                exit 2
    ├── ServerError             a model server cannot be reached, or its answer makes no sense        exit 2
    └── StorageError            the disk is full or refuses                                           exit 2

Example:
    >>> str(InputError("no such language 'eng'", where="data.jsonl:3", fix="use one of en, zh"))
    "data.jsonl:3: no such language 'eng'; use one of en, zh"
"""

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from enum import StrEnum


class VideoSafetyError(Exception):
    """A fault that a person can mend: ``what`` happened, ``where`` (file, line, record id, key) and the ``fix``."""

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what, where, fix)

    def __str__(self) -> str:
        where = printable(self.where).replace("\n", "\\n") if self.where else None
        sentence = f"{where}: {self.what}" if where else self.what
        return printable(f"{sentence}; {self.fix}" if self.fix else sentence)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), dict(self.__dict__)))


def _rebuild(kind: type[VideoSafetyError], state: dict[str, object]) -> VideoSafetyError:
    """Unpickle an error from a worker process with all its fields."""
    error = kind.__new__(kind)
    error.__dict__.update(state)
    Exception.__init__(error, state.get("what"), state.get("where"), state.get("fix"))
    return error


class InputError(VideoSafetyError):
    """The user's input is wrong."""


class RecipeError(InputError):
    """A recipe does not load."""


class RecordError(InputError):
    """A record or a manifest does not load."""


class MediaFault(StrEnum):
    """Why a media file cannot be used. A fault is a state of the item, never a verdict about the model."""

    MISSING = "missing"  # no such file
    EMPTY = "empty"  # zero bytes
    CORRUPT = "corrupt"  # not a media file, or undecodable
    NO_VIDEO = "no_video"  # audio only, or no stream at all
    SINGLE_FRAME = "single_frame"  # one frame: an image, not a video
    NO_DURATION = "no_duration"  # a stream that lasts zero seconds
    TOO_LARGE = "too_large"  # absurd width, height, frame count, duration or bytes, refused before decoding
    UNREADABLE = "unreadable"  # permission denied, a folder, a device
    CHANGED = "changed"  # the file's hash is not the one that the record declares
    TIMEOUT = "timeout"  # decoding took longer than allowed


class MediaError(InputError):
    """A media file cannot be used; ``fault`` says why in one word."""

    def __init__(self, what: str, *, fault: MediaFault, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what, where=where, fix=fix)
        self.fault = fault


class CheckpointError(VideoSafetyError):
    """A checkpoint cannot be read or written."""


class DependencyError(VideoSafetyError):
    """An optional package is missing."""


class ServerError(VideoSafetyError):
    """A model server cannot be reached, or its answer makes no sense."""


class StorageError(VideoSafetyError):
    """The disk is full or refuses."""


def printable(text: str) -> str:
    """Text that is safe on a terminal: control, bidi and broken characters as escapes; a newline stays.

    >>> printable("a\\x1b[31m.mp4")
    'a\\\\x1b[31m.mp4'
    """
    unsafe = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(
        c if c == "\n" or unicodedata.category(c) not in unsafe else c.encode("unicode_escape").decode() for c in text
    )


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: ``did you mean 'refusal'? known: oracle, refusal``."""
    names = sorted(known)
    close = get_close_matches(given, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(names)}"
