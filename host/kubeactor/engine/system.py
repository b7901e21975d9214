"""Turns that no caller asked for: activation, alarms, undelivered messages. They queue like any call."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from kubeactor.actor import Actor
from kubeactor.call import ALARM, CODEC, Call, CallId
from kubeactor.errors import ActorError

if TYPE_CHECKING:
    from kubeactor.engine.instance import Instance
    from kubeactor.engine.store import WriteBatch
    from kubeactor.engine.turn import Turn

__all__ = ["SystemCall"]


class SystemCall(Call):
    """A call that the engine makes by itself.

    Its derived ids are kept for a day, since nothing bounds when it is tried again.
    """

    __slots__ = ("timeout_s",)

    def __init__(self, instance: Instance, method: str, *, number: int, deadline: float, timeout_s: float) -> None:
        super().__init__(
            instance.type.binding,
            instance.identity,
            method,
            b"",
            shard=instance.shard,
            deadline=deadline,
            reply=lambda outcome: None,
            format=CODEC,
            id=CallId(ALARM, instance.key + b"\0" + method.encode(), 0, number),
            internal=True,
            repeat=True,
        )
        self.root = self.token()
        self.timeout_s = timeout_s

    def current(self) -> bool:
        """Whether it is still wanted, asked when its turn comes."""
        return True

    def dropped(self) -> None:
        """It was not wanted any more and has not run."""

    def begin(self, actor: Actor, turn: Turn) -> Coroutine[Any, Any, Any]:
        """The coroutine of the turn."""
        raise NotImplementedError

    def commit(self, turn: Turn, batch: WriteBatch) -> None:
        """Add rows of this call's own to the turn's batch."""

    def committed(self, turn: Turn) -> None:
        """The batch was written."""

    def failed(self, error: ActorError) -> None:
        """The turn committed nothing, or was not even started; `backoff.counts` tells which of them count."""
