"""The operator's program: what it asks of kopf, and when."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import kopf
import pytest
from kopf._cogs.structs.references import Resource, Selector
from tests.harness.dev import free_port

from kubeactor_operator import main, names
from kubeactor_operator.controller import Controller


def resource(group: str, plural: str) -> Resource:
    return Resource(group, "v1", plural, namespaced=True)


def test_events_of_namespaces_and_of_our_pods_are_all_that_it_asks_kopf_for() -> None:
    """Timers, daemons, changing and deleting handlers would each put a finalizer on what they handle."""
    registry = main._handlers(Mock())
    watched = {one.selector: one.labels for one in registry._watching.get_all_handlers()}
    assert watched == {
        Selector(names.GROUP, names.VERSION, names.PLURAL): None,
        Selector("", "v1", "pods"): {names.NAMESPACE_LABEL: kopf.PRESENT},
    }
    others = (registry._changing, registry._spawning, registry._indexing, registry._webhooks)
    assert [list(one.get_all_handlers()) for one in others] == [[], [], [], []]
    assert [one.id.rpartition(".")[2] for one in registry._activities.get_all_handlers()] == ["login"]


class Turn:
    """A Lease that this replica gets, and loses, when the test says so."""

    def __init__(self) -> None:
        self.ours, self.over, self.released = asyncio.Event(), asyncio.Event(), False
        self.tried_s, self.held = 0.0, True

    async def acquire(self) -> None:
        await self.ours.wait()

    async def keep(self) -> None:
        await self.over.wait()

    async def release(self) -> None:
        self.released = True


@pytest.mark.asyncio
@pytest.mark.parametrize("watched", [(), ("team-a",)])
async def test_kopf_is_started_once_the_lease_is_held_and_the_replica_ends_when_it_is_lost(
    watched: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    turn, started = Turn(), asyncio.Event()
    asked: list[dict[str, Any]] = []

    async def operator(**how: Any) -> None:
        asked.append(how)
        started.set()
        await asyncio.Event().wait()

    async def look_after_nothing(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("kopf.operator", operator)
    monkeypatch.setattr(main, "Lease", lambda *_: turn)
    monkeypatch.setattr(main, "connection", lambda _: kopf.ConnectionInfo(server="http://127.0.0.1:1"))
    monkeypatch.setattr(Controller, "run", look_after_nothing)
    chosen = replace(main.options(["--lease-namespace", "here"], {}), namespaces=watched, port=free_port())
    program = asyncio.create_task(main.operate(chosen, asyncio.Event()))
    for _ in range(100):
        await asyncio.sleep(0)
    assert asked == []
    turn.ours.set()
    await asyncio.wait_for(started.wait(), 30)
    (how,) = asked
    assert (how["standalone"], how["clusterwide"], how["namespaces"]) == (True, not watched, watched)
    turn.over.set()
    assert await asyncio.wait_for(program, 30) == main.LOST_LEASE
    assert turn.released
