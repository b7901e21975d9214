"""Bringing an instance to life: its object, its `activate` turn, and the back-off when that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kubeactor.actor import Actor, Method
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


class Activation(SystemCall):
    """The `activate` turn; the call that woke the instance waits for it.

    Calls made inside get their ids from the waiting call, so that its retry repeats them under the same ids.
    """

    __slots__ = ("actor", "waiting", "waiting_method")

    def __init__(self, instance: Instance, actor: Actor, waiting: Call, method: Method | None) -> None:
        super().__init__(instance, "activate", number=0, deadline=waiting.deadline, timeout_s=METHOD_TIMEOUT_S)
        self.id = None
        self.root = waiting.root
        self.bucket = waiting.bucket
        self.chain = waiting.chain
        self.repeat = waiting.repeat
        self.actor = actor
        self.waiting = waiting
        self.waiting_method = method

    def token(self) -> bytes:
        """Of the waiting call, and different from it."""
        token = self.waiting.token()
        return token and b"activate\0" + token


class Activator:
    """Activates the instances of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def activate(self, instance: Instance, call: Call, method: Method | None) -> Actor | None:
        """Make the user's object.

        Returns:
            None when the call waits for the `activate` turn, or was answered with the reason why there is no object.
        """
        engine = self._engine
        if (refusal := self._refusal(instance)) is not None:
            engine.reply_error(instance, call, refusal)
            return None
        engine.stats.activations += 1
        actor = instance.type.cls.__new__(instance.type.cls)
        actor.ctx = Context(instance)
        actor.env = engine.env
        try:
            actor.__init__()  # type: ignore[misc]
        except Exception as error:
            self.failed(instance, call, engine.as_actor_error(error, call))
            return None
        if not instance.type.has_activate:
            instance.actor = actor
            return actor
        deadline = engine.clock.monotonic() + METHOD_TIMEOUT_S
        turn = Turn(engine, instance, Activation(instance, actor, call, method), None, deadline)
        engine.run(instance, turn, actor.activate())
        return None

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
        """Nothing was committed: the waiting call fails, the next one waits 1 s * 2^n, at most 60 s."""
        instance.actor = None
        instance.failures += 1
        backoff_s = min(2.0 ** min(instance.failures - 1, 10), BACKOFF_MAX_S)
        instance.not_before = self._engine.clock.monotonic() + backoff_s
        self._engine.reply_error(instance, call, error)
