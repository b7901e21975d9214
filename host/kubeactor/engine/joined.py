"""A call that is repeated while it is under way: the repeats get the outcome of the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubeactor.call import Call, Reply
from kubeactor.engine.instance import Instance
from kubeactor.errors import ActorError, ActorOverloadedError
from kubeactor.limits import INSTANCE_QUEUE_TURNS
from kubeactor.scope import instance_text

if TYPE_CHECKING:
    from kubeactor.engine.engine import Engine

__all__ = ["Joined", "join"]


class Joined:
    """The reply of such a call: to its own caller, then to those of the repeats, each through the gate."""

    __slots__ = ("_engine", "_instance", "_reply", "calls")

    def __init__(self, engine: Engine, instance: Instance, reply: Reply) -> None:
        self._engine = engine
        self._instance = instance
        self._reply = reply
        self.calls: list[Call] = []

    def __call__(self, outcome: bytes | ActorError) -> None:
        """Part of Call: its reply."""
        try:
            self._reply(outcome)
        finally:
            for call in self.calls:
                self._engine.reply(self._instance, call, outcome, self._instance.batch)


def join(engine: Engine, instance: Instance, first: Call, second: Call) -> None:
    """Let a repeat wait for the call that is under way; as many as calls may wait for an instance."""
    second.target = None
    joined = first.reply
    if not isinstance(joined, Joined):
        joined = first.reply = Joined(engine, instance, first.reply)
    if len(joined.calls) >= INSTANCE_QUEUE_TURNS:
        where = f"{instance_text(instance.key)}.{first.method}"
        second.reply(ActorOverloadedError(f"{len(joined.calls)} repeats of one call of {where} wait for it already"))
        return
    joined.calls.append(second)
    first.deadline = max(first.deadline, second.deadline)
