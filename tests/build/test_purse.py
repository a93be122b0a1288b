"""What bounds calls: the purse, the pace, and settings that cannot be."""

import asyncio

import pytest

from videosafety.build.annotate import pace
from videosafety.build.annotate.annotator import AnnotatorConfig
from videosafety.build.annotate.pace import Pace
from videosafety.build.annotate.purse import LocalPurse
from videosafety.core.errors import RecipeError
from videosafety.core.recipe import with_overrides
from videosafety.llm.structured import inline


@pytest.mark.parametrize("model", ["name-alone", "http://host/v1", "http://user@host/v1#a", "http://host/v1?key=x#a"])
def test_models_that_are_none(model):
    with pytest.raises(RecipeError):
        with_overrides({"model": model}, [], schema=AnnotatorConfig, where="test")


def test_an_annotator_shared_by_processes_has_a_part_of_the_limits_and_the_same_keys():
    config = AnnotatorConfig(model="a/b", connections=8, requests_per_minute=60.0)
    shared = config.shared_by(3)
    assert (shared.connections, shared.requests_per_minute, shared.tag) == (2, 20.0, config.tag)
    assert config.shared_by(99).connections == 1
    assert config.tag != AnnotatorConfig(model="a/b", temperature=0.5).tag
    assert len(AnnotatorConfig(model="a/b", name="n" * 200).tag) <= 200


def test_no_other_secret_can_be_sent():
    fields = {"model": "http://host/v1#a", "key_env": "OTHER_SECRET"}
    with pytest.raises(RecipeError, match="does not begin with VIDEOSAFETY_ANNOTATOR_API_KEY"):
        with_overrides(fields, [], schema=AnnotatorConfig, where="test")


def test_one_price_is_none():
    with pytest.raises(RecipeError, match="both prices"):
        with_overrides({"model": "a/b", "usd_per_million_input": 1.0}, [], schema=AnnotatorConfig, where="test")


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(pace.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(pace.asyncio, "sleep", self.sleep)

    async def sleep(self, seconds):
        self.now += seconds


def test_turns_are_a_gap_apart_and_none_comes_in_a_pause(monkeypatch):
    clock = Clock(monkeypatch)
    limited, free = Pace(per_minute=120), Pace(None)
    times = []

    async def turns():
        for number in range(5):
            if number == 3:
                limited.pause(10.2)
            await limited.turn()
            times.append(clock.now)

    asyncio.run(turns())
    assert times == pytest.approx([100.0, 100.5, 101.0, 111.2, 111.7])
    asyncio.run(free.turn())
    assert clock.now == times[-1]


def test_a_purse_makes_calls_wait_and_refuses_what_can_never_fit():
    async def story():
        purse = LocalPurse(1.0, spent_usd=0.1)
        assert await purse.reserve(0.5)
        assert await purse.reserve(0.4)
        waiting = asyncio.create_task(purse.reserve(0.3))
        await asyncio.sleep(0)
        assert not waiting.done()
        await purse.settle(0.4, 0.1)
        assert await waiting
        too_much = asyncio.create_task(purse.reserve(0.9))
        await asyncio.sleep(0)
        assert not too_much.done()
        await purse.settle(0.5, 0.5)
        await purse.settle(0.3, 0.0)
        assert not await too_much
        return purse

    purse = asyncio.run(story())
    assert purse.spent == pytest.approx(0.7)
    assert purse.reserved == 0
    assert asyncio.run(purse.reserve(0.3))  # exact to the last billionth, and in another loop
    assert not asyncio.run(LocalPurse(0.0).reserve(1e-9))
    assert asyncio.run(LocalPurse(0.0).reserve(0.0))
    assert asyncio.run(LocalPurse(None).reserve(1e9))


def test_waiting_for_a_lost_reservation_ends():
    async def story():
        purse = LocalPurse(1.0, wait_s=0.01)
        assert await purse.reserve(1.0)
        return await purse.reserve(0.5)

    assert not asyncio.run(story())


def test_references_in_a_schema_are_replaced():
    schema = {"$defs": {"One": {"type": "string"}}, "properties": {"a": {"items": {"$ref": "#/$defs/One"}}}}
    assert inline(schema) == {"properties": {"a": {"items": {"type": "string"}}}}
