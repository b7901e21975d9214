"""What stands before the host: calls of the test, the front door and `/v1`; they outlive it, as behind an ingress.

Deadlines and times of retention are made on the machine's clocks out there, and translated to the virtual ones here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kubeactor.call import DAY, LOCAL, MESSAGE, Call, Reply, derived_id
from kubeactor.errors import ActorError, ActorFencedError
from kubeactor.testing.clock import VirtualClock
from kubeactor.testing.history import History

if TYPE_CHECKING:
    from kubeactor.engine.engine import Engine

__all__ = ["Gateway", "Recorder"]

BUCKET_US: Final = 600_000_000


class Gateway:
    """Takes calls from outside; makes those again that a host's end left without an answer, under the same id.

    Attributes:
        recorder: hands calls to the host that there is; None while there is none.
    """

    def __init__(self, shards: int, clock: VirtualClock) -> None:
        self.shards = shards
        self.recorder: Recorder | None = None
        self._clock = clock
        self._open: dict[Call, Reply] = {}

    def epoch_of(self, shard: int) -> int:
        """The epoch of a shard; 0 while no host is there."""
        return 0 if self.recorder is None else self.recorder.engine.epoch_of(shard)

    def submit(self, call: Call) -> None:
        """Take a call; while there is no host it waits for the next."""
        shift_s = self._clock.skipped_s
        deadline = call.deadline
        if call.id is not None and call.id.kind == LOCAL:
            # An ingress apart from its hosts gives ids that are recorded; so a call is applied once, crash or not.
            call.id = derived_id(call.root, call.binding, call.identity, call.method, 0)
        if call.bucket != DAY:
            call.bucket = self._clock.now_us() // BUCKET_US
        call.deadline += shift_s
        reply = call.reply

        def answered(outcome: bytes | ActorError) -> None:
            call.deadline = deadline
            reply(outcome)

        self._open[call] = answered
        self._make(call)

    def _make(self, call: Call) -> None:
        recorder = self.recorder
        if recorder is None:
            return

        def reply(outcome: bytes | ActorError) -> None:
            lost = recorder is not self.recorder  # that host has ended; what it still says does not get out
            if not lost and (answered := self._open.pop(call, None)) is not None:
                answered(outcome)

        call.reply = reply
        call.target = None
        recorder.submit(call)

    def open(self, recorder: Recorder) -> None:
        """A host is there: make the calls that wait, in their order."""
        self.recorder = recorder
        for call in list(self._open):
            call.repeat = True
            self._make(call)

    def close(self) -> None:
        """No host comes any more."""
        self.recorder = None
        for call in list(self._open):
            self._open.pop(call)(ActorFencedError(f"the test ended before {call.binding}.{call.method} was answered"))


class Recorder:
    """Hands calls to an engine and writes them and their outcomes down.

    Attributes:
        messages: how many deliveries are under way.
    """

    def __init__(self, engine: Engine, history: History) -> None:
        self.engine = engine
        self.shards = engine.shards
        self.messages = 0
        self._history = history

    def submit(self, call: Call) -> None:
        """Take a call."""
        entry = self._history.began(call)
        message = call.id is not None and call.id.kind == MESSAGE
        self.messages += message
        reply = call.reply

        def answered(outcome: bytes | ActorError) -> None:
            self.messages -= message
            if self.engine.failure is None:
                self._history.ended(entry, outcome, 0 if call.target is None else call.target.batch)
            reply(outcome)

        call.reply = answered
        self.engine.submit(call)
