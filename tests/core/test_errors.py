import pickle

import pytest

from videosafety.core import errors
from videosafety.core.errors import InputError, MediaError, MediaFault, VideoSafetyError, did_you_mean


def _tree(kind: type[VideoSafetyError]) -> list[type[VideoSafetyError]]:
    return [kind, *(deeper for sub in kind.__subclasses__() for deeper in _tree(sub))]


KINDS = [kind for kind in _tree(VideoSafetyError) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_crosses_a_process_whole(kind: type[VideoSafetyError]) -> None:
    extra = {"fault": MediaFault.CORRUPT} if kind is MediaError else {}
    error = kind("what", where="a.jsonl:3", fix="mend it", **extra)
    error.__cause__ = ValueError("cause")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert vars(again) == vars(error)
    assert str(again) == str(error) == "a.jsonl:3: what; mend it"
    assert again.exit_code == 2


def test_the_sentence_without_place_or_fix() -> None:
    assert str(InputError("what")) == "what"
    assert str(InputError("what", where="here")) == "here: what"
    assert str(InputError("what", fix="mend it")) == "what; mend it"


def test_a_media_error_says_its_fault_in_one_word() -> None:
    assert MediaError("bad", fault=MediaFault.EMPTY).fault == "empty"
    assert issubclass(MediaError, InputError)


def test_did_you_mean_names_the_nearest_and_all() -> None:
    assert did_you_mean("refusl", ["refusal", "oracle"]) == "did you mean 'refusal'? known: oracle, refusal"
    assert did_you_mean("zzz", ["refusal", "oracle"]) == "known: oracle, refusal"
