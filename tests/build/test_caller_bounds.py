"""Bounds of what a call can cost, learned from a model that takes more than was thought."""

import asyncio
from pathlib import Path

import pytest

from videosafety.build.annotate.annotator import AnnotatorConfig
from videosafety.build.annotate.caller import Caller
from videosafety.build.annotate.purse import LocalPurse
from videosafety.build.ledger import Ledger
from videosafety.llm.structured import Said


class Boasting:
    """A model that says of every call that it took many times its bound."""

    def __init__(self, tokens):
        self.tokens = tokens

    async def say(self, request):
        await asyncio.sleep(0.001)
        return Said('{"caption": "x"}', input_tokens=self.tokens, output_tokens=1)


def test_bounds_are_raised_once_for_all_calls_that_were_under_way(tmp_path):
    config = AnnotatorConfig(model="a/b", connections=16, usd_per_million_input=1, usd_per_million_output=1)

    async def ask(caller):
        return await asyncio.gather(*(caller.ask(f"question {number}?", {}, media=None) for number in range(64)))

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        caller = Caller(config, ledger=ledger, purse=LocalPurse(None), step="test", root=Path(), model=Boasting(50_000))
        asyncio.run(ask(caller))
        assert 10 < caller._more < 400
        assert ledger.spent() == pytest.approx(64 * 50_001 / 1e6)
