"""For tests of actors: the real engine on a RocksDB of its own, on a clock that stands still, and crashes at will.

The fixture `actors` (a pytest plugin of this package) serves what `[tool.kubeactor]` of pyproject.toml names;
`testing.run` serves an Env, with fakes in the place of some of it.

file              responsibility
actors.py         `Actors` and `run`: what a test has in its hands
served.py         the application, with what a test replaces
machine.py        the host: start, crash, restart, time, rest
store.py          RocksDB that can lose power
clock.py          virtual time
gateway.py        calls from outside, which outlive a host
history.py        calls and replies; linearizability
background.py     failures that no caller hears of
view.py           storage as a test sees it
loop.py           the test's loop steps turns
lifespan.py       the front door's lifespan
"""

from __future__ import annotations

from kubeactor.testing.actors import Actors, run
from kubeactor.testing.background import BackgroundError
from kubeactor.testing.history import Entry, History
from kubeactor.testing.view import StorageView

__all__ = ["Actors", "BackgroundError", "Entry", "History", "StorageView", "run"]
