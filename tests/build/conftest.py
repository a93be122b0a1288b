"""What tests of annotators share: servers that end with the test, and a ledger."""

import pytest
from annotator_server import AnnotatorServer

from videosafety.build.ledger import Ledger


@pytest.fixture
def serve(tmp_path):
    """Starts servers; ends them."""
    started = []

    def start(*kinds):
        started.append(AnnotatorServer(tmp_path / f"server-{len(started)}.log", *kinds))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened
