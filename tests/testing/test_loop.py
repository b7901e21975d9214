"""Turns run on whatever asyncio loop a test runs on, and the loop is its own again afterwards."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from tests.testing.ward import Ward

from kubeactor import testing
from kubeactor.engine.loop import new_event_loop
from kubeactor.testing.loop import stepping_loop

FACTORIES = pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop, new_event_loop])


@FACTORIES
def test_actors_run_on_any_loop(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        before = type(asyncio.get_running_loop())
        async with testing.run(Ward) as outer, testing.run(Ward) as inner:
            await inner.env.PURSE.id_from_name("a").put(5)
            assert await outer.env.PURSE.id_from_name("a").coins() == 0
            async with asyncio.timeout(10):
                assert await outer.env.PURSE.id_from_name("a").slow(0.01) == 1
        assert type(asyncio.get_running_loop()) is before

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


@FACTORIES
def test_a_loop_is_what_it_was_after_an_error(factory: Callable[[], Any]) -> None:
    async def main() -> None:
        before = type(asyncio.get_running_loop())
        with pytest.raises(KeyError), stepping_loop():
            raise KeyError
        assert type(asyncio.get_running_loop()) is before

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def test_a_loop_that_can_not_be_extended_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed:
        __slots__ = ()

    fixed = Fixed()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: fixed)
    with (
        pytest.raises(RuntimeError, match=r"actors can't run on a .*Fixed: use asyncio's own loop or uvloop") as caught,
        stepping_loop(),
    ):
        raise AssertionError("it went on")
    assert "TypeError" in "".join(traceback.format_exception(caught.value))
