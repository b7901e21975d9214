"""Lets the loop of a running test step turns, whoever made it: ours, pytest-asyncio's or anyio's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from kubeactor.engine.loop import EngineLoop, Stepping

__all__ = ["stepping_loop"]


@contextmanager
def stepping_loop() -> Iterator[EngineLoop]:
    """The running loop as one that an engine takes; afterwards it is what it was.

    A turn's first step runs at once and its later ones are noted, which takes a loop's own `call_soon`. Another loop in
    front of the running one would not do: tasks, timeouts and cancel scopes ask for the running one.

    Raises:
        RuntimeError: when no asyncio loop runs, or its class can't be extended.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError as error:
        raise RuntimeError("actors run on asyncio: let the test run on it, not on trio or without a loop") from error
    if isinstance(loop, Stepping):
        yield cast("EngineLoop", loop)
        return
    before = type(loop)
    try:
        loop.__class__ = type(before.__name__, (Stepping, before), {})
    except TypeError as error:
        raise RuntimeError(f"actors can't run on a {before.__qualname__}: use asyncio's own loop or uvloop") from error
    try:
        yield cast("EngineLoop", loop)
    finally:
        loop.__class__ = before
