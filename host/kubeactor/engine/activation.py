"""Bringing an instance to life: its object, its `activate` turn, and the back-off when that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kubeactor.actor import Actor
from kubeactor.call import Call
from kubeactor.context import Context
from kubeactor.engine.instance import Instance
from kubeactor.engine.system import SystemCall
from kubeactor.engine.turn import Turn
from kubeactor.errors import ActorError, ActorMethodError, ActorQuarantinedError
from kubeactor.limits import METHOD_TIMEOUT_S
from kubeactor.scope import instance_text

if TYPE_CHECKING:
    from kubeactor.engine.engine import Engine

__all__ = ["Activation", "Activator"]

BACKOFF_MAX_S: Final = 60.0
INIT_LABEL: Final = b"\0__init__\0"


class Activation(SystemCall):
    """The `activate` turn; the call that woke the instance waits for it at the head of the queue.

    Calls made inside get their ids from the waiting call, so that its retry repeats them under the same ids.
    """

    __slots__ = ("actor", "waiting")

    def __init__(self, instance: Instance, actor: Actor, waiting: Call) -> None:
        super().__init__(instance, "activate", number=0, deadline=waiting.deadline, timeout_s=METHOD_TIMEOUT_S)
        self.id = None
        self.root = waiting.root
        self.bucket = waiting.bucket
        self.chain = waiting.chain
        self.repeat = waiting.repeat
        self.actor = actor
        self.waiting = waiting

    def origin(self) -> bytes:
        """Of the waiting call, and different from it."""
        origin = self.waiting.origin()
        return origin and b"activate\0" + origin


class Activator:
    """Activates the instances of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def activate(self, instance: Instance, call: Call) -> Actor | None:
        """Make the user's object.

        Returns:
            None when the call waits for the `activate` turn, or was answered with the reason why there is no object.
        """
        engine = self._engine
        if (refusal := self._refusal(instance)) is not None:
            engine.reply_error(instance, call, refusal)
            return None
        engine.stats.activations += 1
        try:
            actor = self._made(instance)
        except Exception as error:
            self._failed(instance)
            engine.reply_error(instance, call, engine.as_actor_error(error, call))
            return None
        if not instance.type.has_activate:
            instance.actor = actor
            return actor
        engine.put_first(instance, call)
        deadline = engine.clock.monotonic() + METHOD_TIMEOUT_S
        turn = Turn(engine, instance, Activation(instance, actor, call), None, deadline)
        engine.run(instance, turn, actor.activate())
        return None

    def _made(self, instance: Instance) -> Actor:
        """The object. Its `__init__` runs in no turn, but shows on the poison page as the instance's code."""
        actor = instance.type.cls.__new__(instance.type.cls)
        actor.ctx = Context(instance)
        actor.env = self._engine.env
        outer = self._engine.loop.enter(instance.key + INIT_LABEL)
        try:
            self._engine.outside().run(actor.__init__)  # type: ignore[misc]
        finally:
            self._engine.loop.leave(outer)
        return actor

    def _refusal(self, instance: Instance) -> ActorError | None:
        engine = self._engine
        if engine.quarantined is not None and engine.quarantined(instance.key):
            text = f"{instance_text(instance.key)} ended its worker three times; release it by hand when it is mended"
            return ActorQuarantinedError(text)
        wait_s = instance.not_before - engine.clock.monotonic()
        if wait_s > 0:
            text = f"{instance_text(instance.key)} could not be activated {instance.failures} times in a row"
            return ActorMethodError(text, cause="ActivationBackoff", started="no", retry_after_s=round(wait_s) or 1)
        return None

    def failed(self, instance: Instance, call: Call, error: ActorError) -> None:
        """Nothing was committed: the waiting call fails, unless its deadline has passed before."""
        self._failed(instance)
        if instance.queue and call in instance.queue:
            self._engine.remove_queued(instance, call, error)

    def _failed(self, instance: Instance) -> None:
        """The next attempt waits 1 s * 2^n, at most 60 s; the record is kept for that long and the idle time."""
        instance.actor = None
        instance.failures += 1
        backoff_s = min(2.0 ** min(instance.failures - 1, 10), BACKOFF_MAX_S)
        instance.not_before = instance.used = self._engine.clock.monotonic() + backoff_s
