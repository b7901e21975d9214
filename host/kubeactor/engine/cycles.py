"""Cycles of waiting calls: alice calls bob while bob calls alice, each queued behind the other's turn.

A call that has been queued for 10 ms behind a turn follows what that turn waits for: calls that are queued elsewhere,
or run there and wait in their turn. When it comes back to itself, the queued call with the highest root in the circle
fails. The last edge of a circle is always made by a call that is queued, so the check of that call finds it; both
sides that find the same circle choose the same call.

On the same host it follows pointers. A turn that waits for a call on another host is followed there by a probe frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from kubeactor.call import Call
from kubeactor.engine.instance import Instance
from kubeactor.errors import ActorReentrancyError
from kubeactor.limits import CHAIN_DEPTH
from kubeactor.scope import chain_text, instance_text

if TYPE_CHECKING:
    from kubeactor.engine.engine import Engine

__all__ = ["Cycles", "Probe"]

CHECK_AFTER_S: Final = 0.010
# A circle of that many calls is followed; each hop is a chain of its own.
STEPS_MAX: Final = 16 * CHAIN_DEPTH


class Step(msgspec.Struct, array_like=True, frozen=True):
    """A call of the circle: its root, its own token, and the instance that it is for; queued there, or running."""

    root: bytes
    token: bytes
    shard: int
    instance: bytes
    queued: bool = True


class Probe(msgspec.Struct, array_like=True, frozen=True):
    """What travels: the calls followed so far; the last is the one to follow on the receiving host.

    `victim` is the token of the call to fail when the circle was found and the call is on the receiving host.
    """

    steps: list[Step]
    victim: bytes = b""

    def encode(self) -> bytes:
        """As it travels."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Probe:
        """What `encode` made."""
        return msgspec.msgpack.decode(data, type=cls)


class Cycles:
    """Finds and breaks the cycles that a host's queued calls are part of."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.broken = 0

    def watch(self, instance: Instance, call: Call) -> None:
        """A call that was made by a turn has been queued."""
        self._engine.loop.call_later(CHECK_AFTER_S, self._check, instance, call)

    def _check(self, instance: Instance, call: Call) -> None:
        if instance.queue and call in instance.queue:
            self._follow([_step(call)], instance)

    def _follow(self, steps: list[Step], instance: Instance) -> None:
        """Go on from the turn that the last step's call waits behind."""
        turn = instance.turn
        if turn is None or not turn.waiting or len(steps) >= STEPS_MAX:
            return
        for waited in list(turn.waiting):
            step = _step(waited)
            if step.token == steps[0].token:
                self._break(steps)
                return
            if any(step.token == seen.token for seen in steps):
                continue
            if waited.shard not in self._engine.epochs:
                self._engine.send_probe(waited.shard, Probe([*steps, step]))
                continue
            target = self._engine.find_instance(waited.binding, waited.identity)
            if target is not None:
                self._arrive([*steps, step], target)

    def _arrive(self, steps: list[Step], instance: Instance) -> None:
        """Go on from where the last step's call is: in the queue of that instance, or its running turn."""
        last = steps[-1]
        if any(call.token() == last.token for call in instance.queue or ()):
            self._follow(steps, instance)
        elif instance.turn is not None and instance.turn.call.token() == last.token:
            self._follow([*steps[:-1], msgspec.structs.replace(last, queued=False)], instance)

    def receive(self, probe: Probe) -> None:
        """A probe of another host: follow on, or fail the call it names."""
        last = probe.steps[-1]
        binding, _, identity = last.instance.partition(b"\0")
        instance = self._engine.find_instance(binding.decode(), identity)
        if instance is None:
            return
        if probe.victim:
            self._fail(instance, probe)
        else:
            self._arrive(probe.steps, instance)

    def _break(self, steps: list[Step]) -> None:
        victim = max((step for step in steps if step.queued), key=lambda step: (step.root, step.token))
        ordered = [step for step in steps if step is not victim]
        probe = Probe([*ordered, victim], victim.token)
        if victim.shard in self._engine.epochs:
            self.receive(probe)
        else:
            self._engine.send_probe(victim.shard, probe)

    def _fail(self, instance: Instance, probe: Probe) -> None:
        for call in instance.queue or ():
            if call.token() == probe.victim:
                self.broken += 1
                names = chain_text(tuple(step.instance for step in probe.steps))
                error = ActorReentrancyError(
                    f"calls wait for each other in a circle: {names}; {instance_text(instance.key)} gave way",
                    retryable=True,
                    started="no",
                )
                self._engine.remove_queued(instance, call, error)
                return


def _step(call: Call) -> Step:
    return Step(call.root, call.token(), call.shard, call.instance)
