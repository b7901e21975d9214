"""The turn engine: admits calls, runs one turn at a time per instance, commits each as one batch, replies gated.

A call's way: `submit` checks owner, method and recorded results -> `admit` starts it or queues it -> `_start` decodes
the arguments and runs the first step -> `_finish` builds the batch -> `Commits.write` puts it into the WAL -> the gate
lets the reply out when it is on disk.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from kubeactor.actor import ActorType, Method
from kubeactor.call import LOCAL, MESSAGE, Call, Dispatcher
from kubeactor.clock import Clock
from kubeactor.engine.activation import Activation, Activator
from kubeactor.engine.alarms import Alarms
from kubeactor.engine.backoff import counts
from kubeactor.engine.commits import Commits
from kubeactor.engine.cycles import Cycles, Probe
from kubeactor.engine.gate import Gate
from kubeactor.engine.housekeeping import Housekeeping
from kubeactor.engine.instance import Instance
from kubeactor.engine.joined import join
from kubeactor.engine.loop import EngineLoop, NoPage, Page, start_task
from kubeactor.engine.outbox import Outbox
from kubeactor.engine.parked import Parked
from kubeactor.engine.refusals import fenced, timed_out, too_late, unawaited
from kubeactor.engine.results import CONFLICT, Results
from kubeactor.engine.stats import Stats
from kubeactor.engine.store import Store, StoreError, WriteBatch, new_batch
from kubeactor.engine.system import SystemCall
from kubeactor.engine.turn import Turn
from kubeactor.engine.volume import Volume
from kubeactor.errors import (
    ActorError,
    ActorFencedError,
    ActorMethodError,
    ActorOverloadedError,
    ActorReentrancyError,
    ActorUnknownBindingError,
    IdempotencyConflictError,
    Problem,
)
from kubeactor.limits import (
    HOST_QUEUE_BYTES,
    HOST_QUEUE_CALLS,
    INSTANCE_QUEUE_BYTES,
    INSTANCE_QUEUE_TURNS,
    LEFTOVERS,
    MESSAGE_ATTEMPTS,
    METHOD_TIMEOUT_S,
)
from kubeactor.mistakes import hint
from kubeactor.scope import SCOPE, chain_text, instance_text

if TYPE_CHECKING:
    from kubeactor.application import Application
    from kubeactor.env import Env

__all__ = ["Engine"]

# How long a turn that was cancelled may take to clean up before it counts as a leftover.
LEFTOVER_AFTER_S: Final = 1.0

log = logging.getLogger("kubeactor.engine")


class Served:
    """An actor type with the instances of it that are in memory."""

    __slots__ = ("instances", "methods", "type")

    def __init__(self, type: ActorType) -> None:
        self.type = type
        self.methods = type.served
        self.instances: dict[bytes, Instance] = {}


class Engine:
    """Runs the actors of the shards that a volume owns.

    Attributes:
        epochs: epoch by shard, of those that are served.
        dispatcher: where calls that turns make go; the engine itself until a router takes its place.
        background: whether what nobody calls for runs: alarms, and the delivery of messages.
        disk_full: whether turns that grow the data are refused.
        stopping: whether no new turn starts any more.
        failure: why nothing leaves the host any more, once a write or sync has failed.
    """

    def __init__(
        self,
        application: Application,
        store: Store,
        volume: Volume,
        loop: EngineLoop,
        *,
        clock: Clock | None = None,
        page: Page | None = None,
        failed: Callable[[str], None] = lambda why: None,
        quarantined: Callable[[bytes], bool] | None = None,
        method_timeout_s: float = METHOD_TIMEOUT_S,
        alarm_timeout_s: float = METHOD_TIMEOUT_S,
        idle_s: float = 60.0,
        detail: bool = False,
    ) -> None:
        self.application = application
        self.store = store
        self.volume = volume
        self.shards = volume.row.shards
        self.namespace_uid = volume.row.namespace
        self.host_id = volume.row.host
        self.volume_id = volume.row.volume
        self.epochs = volume.owned()
        self.loop = loop
        self.clock = clock or Clock()
        self.page = loop.page = page or NoPage()
        self.dispatcher: Dispatcher = self
        self.stats = Stats(self)
        self.background = True
        self.disk_full = False
        self.stopping = False
        self.failure: str | None = None
        self.send_probe: Callable[[int, Probe], None] = lambda shard, probe: None
        self.queued_calls = 0
        self.queued_bytes = 0
        self.waiting_instances: dict[Instance, None] = {}
        self.suspended: dict[Turn, None] = {}
        self.leftovers: set[Turn] = set()
        self._failed_hook = failed
        self.quarantined = quarantined
        self._method_timeout_s = method_timeout_s
        self._detail = detail
        self.env: Env | None = None
        self._context = contextvars.copy_context()
        self.served = {binding: Served(actor_type) for binding, actor_type in application.bindings.items()}
        self.gate = Gate(store, loop, self.out, self.fail)
        self.commits = Commits(self)
        self.results = Results(store, self.clock)
        self.parked = Parked(self)
        self.alarms = Alarms(self, alarm_timeout_s)
        self.outbox = Outbox(self)
        self.activator = Activator(self)
        self.cycles = Cycles(self)
        self.housekeeping = Housekeeping(self, idle_s)

    def start(self, env: Env, *, background: bool = True) -> None:
        """Begin to serve. Without `background` alarms and messages wait for `run_background`. Call it on the loop."""
        self.env, self.background = env, background
        self.housekeeping.start()
        for part in (self.parked, self.alarms, self.outbox):
            part.load(list(self.epochs))

    def run_background(self) -> None:
        """Begin with the alarms and messages that have waited since `start`."""
        self.background = True
        self.alarms.load([])
        self.outbox.load([])

    # --- admission

    def submit(self, call: Call) -> None:
        """Take a call; it is replied to exactly once."""
        epoch = self.epochs.get(call.shard)
        if epoch is None or (call.epoch and call.epoch != epoch) or self.stopping:
            self.stats.fenced += 1
            call.reply(fenced(call, epoch, self.stopping))
            return
        served = self.served.get(call.binding)
        if served is None:
            call.reply(ActorUnknownBindingError(f"no actor class is bound as {call.binding[:100]!r}"))
            return
        instance = served.instances.get(call.identity)
        if instance is None:
            instance = served.instances[call.identity] = Instance(served.type, call.identity, call.shard)
        method = served.methods.get(call.method)
        if method is None or (method.internal and not call.internal) or (call.chain and instance.key in call.chain):
            self._refuse(instance, call, served.type)
            return
        call.target = instance
        if call.id is not None and call.id.kind != LOCAL and self._known(instance, call):
            return
        if instance.turn is None and not instance.queue and not self.commits.stalled:
            self._start(instance, call, method)
        else:
            self._enqueue(instance, call)

    def admit(self, instance: Instance, call: SystemCall) -> None:
        """Queue or start a call of the engine's own; the queue's bounds are for callers."""
        if instance.turn is None and not instance.queue and not self.commits.stalled:
            self._start(instance, call, None)
            return
        self._append(instance, call)

    def _refuse(self, instance: Instance, call: Call, actor_type: ActorType) -> None:
        call.target = instance
        if call.id is not None and call.id.kind == MESSAGE:
            # It may have been applied when the class still had that method.
            outcome = self.results.find(instance, call)
            if outcome is not None:
                self.reply(instance, call, outcome, instance.batch)
                return
        try:
            actor_type.method(call.method, internal=call.internal)
            chain = chain_text((*call.chain, instance.key))
            error: ActorError = ActorReentrancyError(f"the call came back to an instance that waits for it: {chain}")
        except ActorError as refusal:
            error = refusal
        self.reply_error(instance, call, error)

    def _known(self, instance: Instance, call: Call) -> bool:
        """Join a call of the same id that is under way, or reply with what is recorded."""
        assert call.id is not None
        inflight = instance.inflight
        if inflight is not None and (first := inflight.get(call.id)) is not None:
            if first.method != call.method or first.body != call.body or first.format != call.format:
                call.reply(IdempotencyConflictError(CONFLICT))
            else:
                join(self, instance, first, call)
            return True
        try:
            outcome = self.results.find(instance, call)
        except StoreError as error:
            self.fail(str(error))
            return True
        if outcome is not None:
            self.stats.replays += 1
            self.reply(instance, call, outcome, instance.batch)
            return True
        if inflight is None:
            inflight = instance.inflight = {}
        inflight[call.id] = call
        return False

    def _enqueue(self, instance: Instance, call: Call) -> None:
        queue = instance.queue
        size = len(call.body)
        if queue and (len(queue) >= INSTANCE_QUEUE_TURNS or instance.queue_bytes + size > INSTANCE_QUEUE_BYTES):
            full = f"{instance_text(instance.key)} has {len(queue)} calls of {instance.queue_bytes} bytes waiting"
        elif self.queued_calls >= HOST_QUEUE_CALLS or self.queued_bytes + size > HOST_QUEUE_BYTES:
            full = f"this host has {self.queued_calls} calls of {self.queued_bytes} bytes waiting"
        else:
            self._append(instance, call)
            if call.chain:
                self.cycles.watch(instance, call)
            return
        self.out(call, ActorOverloadedError(f"{full}: try again later"))

    def _append(self, instance: Instance, call: Call) -> None:
        call.target = instance
        if instance.queue is None:
            instance.queue = deque()
        instance.queue.append(call)
        self._queued(instance, len(call.body), 1)
        self.waiting_instances[instance] = None

    def put_first(self, instance: Instance, call: Call) -> None:
        """Put a call that was about to start back at the head of its queue, whatever the bounds."""
        if instance.queue is None:
            instance.queue = deque()
        instance.queue.appendleft(call)
        self._queued(instance, len(call.body), 1)
        self.waiting_instances[instance] = None

    def _queued(self, instance: Instance, size: int, sign: int) -> None:
        instance.queue_bytes += sign * size
        self.queued_bytes += sign * size
        self.queued_calls += sign

    def remove_queued(self, instance: Instance, call: Call, error: ActorError) -> None:
        """Take a call out of its queue and answer it with the error."""
        assert instance.queue is not None
        instance.queue.remove(call)
        self._queued(instance, len(call.body), -1)
        self.reply_error(instance, call, error)

    def next_turn(self, instance: Instance) -> None:
        """Start what waits for an instance, if it may run."""
        if instance.draining:
            return  # a turn ended within its first step: the loop below, further up the stack, goes on
        instance.draining = True
        queue = instance.queue
        try:
            while queue and instance.turn is None and not self.commits.stalled and not self.stopping:
                call = queue.popleft()
                self._queued(instance, len(call.body), -1)
                self._start(instance, call, self._method_of(instance, call))
        finally:
            instance.draining = False
        if not queue:
            instance.queue = None
            self.waiting_instances.pop(instance, None)

    def _method_of(self, instance: Instance, call: Call) -> Method | None:
        return None if isinstance(call, SystemCall) else instance.type.served[call.method]

    # --- running

    def _start(self, instance: Instance, call: Call, method: Method | None) -> None:
        now = self.clock.monotonic()
        if call.deadline <= now:
            self.reply_error(instance, call, too_late(call))
            return
        actor = instance.actor
        if actor is None:
            actor = self.activator.activate(instance, call)
            if actor is None:
                return
        if method is None:
            assert isinstance(call, SystemCall)
            if not call.current():
                call.dropped()
                return
            budget_s = call.timeout_s
        else:
            budget_s = method.timeout_s or self._method_timeout_s
        instance.used = now
        turn = Turn(self, instance, call, method, min(call.deadline, now + budget_s))
        try:
            if method is None:
                coroutine = call.begin(actor, turn)  # type: ignore[attr-defined]
            else:
                args, kwargs = method.arguments.decode(call.body, call.format)
                coroutine = method.function(actor, *args, **kwargs)
        except Exception as error:
            refused = error if isinstance(error, ActorError) else self.as_actor_error(error, call)
            self.reply_error(instance, call, refused)
            return
        self.run(instance, turn, coroutine)

    def run(self, instance: Instance, turn: Turn, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a turn: its first step now."""
        instance.turn = turn
        self.stats.turns += 1
        context = self.outside()
        context.run(SCOPE.set, turn)
        task = start_task(self.loop, coroutine, context, turn.label)
        if task.done():
            self._finish(turn, task)
        else:
            turn.task = task
            self.suspended[turn] = None
            turn.timer = self.loop.call_later(turn.deadline - self.clock.monotonic(), self._expire, turn)
            task.add_done_callback(lambda done: self._finish(turn, done), context=self._context)

    def outside(self) -> contextvars.Context:
        """A context of its own that belongs to no turn."""
        return self._context.copy()

    # --- ending

    def _finish(self, turn: Turn, task: asyncio.Task[Any]) -> None:
        """The method has returned, raised or been cancelled."""
        self.suspended.pop(turn, None)
        turn.task = None  # whose context leads back to the turn: a cycle for each call is work for the collector
        if turn.expired:
            self.leftovers.discard(turn)
            if not task.cancelled():
                task.exception()  # nobody else asks
            return
        if turn.timer is not None:
            turn.timer.cancel()
            turn.timer = None
        instance = turn.instance
        try:
            result = task.result()
            if turn.unawaited:
                raise unawaited(turn)
            method = turn.method
            body = b"" if method is None else method.arguments.encode_result(result, turn.call.format)
        except BaseException as error:
            turn.live = False
            instance.turn = None
            self._end_failed(turn, error)
            self.next_turn(instance)
            return
        turn.live = False
        try:
            self.commits.end_turn(turn, body)
        except StoreError as error:
            self.fail(str(error))

    def turn_committed(self, turn: Turn, body: bytes, *, reply: bool = True) -> None:
        """The turn's batch is in the WAL, or it had none: reply through the gate, go on with the queue.

        Args:
            reply: False when the reply waits for the turn's messages.
        """
        instance = turn.instance
        instance.turn = None
        call = turn.call
        if turn.seen > instance.batch:
            instance.batch = turn.seen
        if turn.method is not None:
            if reply:
                self.reply(instance, call, body, instance.batch)
        elif isinstance(call, Activation):
            instance.actor = call.actor
            instance.failures = 0
        else:
            assert isinstance(call, SystemCall)
            call.committed(turn)
        if instance.queue:
            self.next_turn(instance)

    def _end_failed(self, turn: Turn, raised: BaseException) -> None:
        """The turn commits nothing; if it had written, or was cancelled, its object goes too."""
        instance, call = turn.instance, turn.call
        for inner in turn.unawaited or ():
            inner.drop()
        cancelled = isinstance(raised, asyncio.CancelledError)
        if turn.wrote or cancelled:
            instance.actor = None
        if turn.seen > instance.batch:
            instance.batch = turn.seen
        error = self.as_actor_error(raised, call)
        if isinstance(call, Activation):
            self.activator.failed(instance, call.waiting, error)
        else:
            self.reply_error(instance, call, error)

    def _expire(self, turn: Turn) -> None:
        self.revoke(turn, timed_out(turn))

    def revoke(self, turn: Turn, error: BaseException) -> None:
        """End a turn from outside: fence it, cancel it, and go on without waiting for code that ignores it."""
        if not turn.live:
            return
        instance = turn.instance
        turn.live = False
        turn.expired = True
        turn.wrote = True
        instance.turn = None
        assert turn.task is not None
        turn.task.cancel()
        self.loop.call_later(LEFTOVER_AFTER_S, self._left_over, turn)
        self._end_failed(turn, error)
        self.next_turn(instance)

    def _left_over(self, turn: Turn) -> None:
        """Count a turn that goes on although it was cancelled; it had some time to clean up."""
        if turn in self.suspended:
            self.leftovers.add(turn)
            if len(self.leftovers) > LEFTOVERS:
                self.fail(f"more than {LEFTOVERS} turns that timed out ignore their cancellation")

    def as_actor_error(self, raised: BaseException, call: Call) -> ActorError:
        """What the caller is told of what a turn raised."""
        if isinstance(raised, ActorError):
            raised.started = "yes"  # it may have been told of a call made inside; this turn itself has run
            return raised
        name = f"{call.binding}.{call.method}"
        if isinstance(raised, asyncio.CancelledError) and self.stopping:
            return ActorFencedError(f"{name} was cancelled: this host is going down; nothing was committed")
        instance = instance_text(call.instance)
        log.error("%s of %s raised", call.method, instance, exc_info=raised, extra={"call": call})
        cause = type(raised).__name__
        if not self._detail:
            return ActorMethodError(f"{name} raised {cause}; see the host's log", cause=cause)
        error = ActorMethodError(f"{name} raised {cause}: {raised}{hint(raised)}", cause=cause)
        error.__cause__ = raised  # a caller in this process shows the traceback
        return error

    # --- replying

    def reply_error(self, instance: Instance, call: Call, error: ActorError) -> None:
        """Reply with an error, gated like any result; a message that is over is written down first."""
        if isinstance(call, SystemCall):
            call.failed(error)
            return
        self.stats.errors[error.name] = self.stats.errors.get(error.name, 0) + 1
        if call.id is not None and call.id.kind == MESSAGE and self._ends(call, error):
            batch = new_batch()
            self.results.refuse_message(batch, instance, call, error)
            self.system_write(batch, lambda: self.reply(instance, call, error, instance.batch), instance)
            return
        self.reply(instance, call, error, instance.batch)

    def _ends(self, call: Call, error: ActorError) -> bool:
        assert call.id is not None
        return isinstance(error, Problem) or (counts(error) and call.id.slot + 1 >= MESSAGE_ATTEMPTS)

    def reply(self, instance: Instance, call: Call, outcome: bytes | ActorError, number: int) -> None:
        """Reply when that batch is on disk. A turn of this host may go on before: its own reply will wait instead."""
        scope = call.scope
        if scope is not None and scope.__class__ is Turn:
            scope.saw(number)
            self.out(call, outcome)
        elif self.gate.broken:
            return
        elif number <= self.gate.synced:
            self.out(call, outcome)
        else:
            self.gate.hold(number, call, outcome)

    def out(self, call: Call, outcome: bytes | ActorError) -> None:
        """Hand an outcome to the caller, past the gate."""
        call_id = call.id
        if call_id is not None and call_id.kind != LOCAL and call.target is not None and call.target.inflight:
            call.target.inflight.pop(call_id, None)
        call.reply(outcome)

    # --- for the other parts

    def find_instance(self, binding: str, identity: bytes) -> Instance | None:
        """The record of a name, if it is in memory."""
        served = self.served.get(binding)
        return None if served is None else served.instances.get(identity)

    def instance_of_key(self, key: bytes, shard: int) -> Instance | None:
        """The record of `BINDING NUL identity`, made if need be; None when that binding is not declared any more."""
        binding, _, identity = key.partition(b"\0")
        served = self.served.get(binding.decode())
        if served is None:
            return None
        instance = served.instances.get(identity)
        if instance is None:
            instance = served.instances[identity] = Instance(served.type, identity, shard)
            instance.used = self.clock.monotonic()
        return instance

    def system_write(self, batch: WriteBatch, then: Callable[[], None], instance: Instance | None) -> None:
        """Write a batch that no turn made; `then` runs when it is in the WAL."""
        self.commits.write(batch, then, instance)

    def epoch_of(self, shard: int) -> int:
        """The epoch of a shard; 0 when it is not served here."""
        return self.epochs.get(shard, 0)

    def inventory(self) -> list[tuple[int, int, str]]:
        """Shard, epoch and state of every shard that the volume knows."""
        return [(shard, state.epoch, state.state) for shard, state in sorted(self.volume.states.items())]

    def grant(self, grants: list[tuple[int, int]]) -> None:
        """Serve new, empty shards: stored and synced before this returns.

        Raises:
            ValueError: when one is known here at another epoch.
        """
        new = self.volume.grant(grants)
        self.epochs.update((shard, epoch) for shard, epoch in grants if shard in new)
        if self.env is not None:
            self.alarms.load(new)
            self.outbox.load(new)

    def ready(self) -> str | None:
        """None, or why it does not serve."""
        if self.failure is not None:
            return self.failure
        if self.env is None:
            return "starting"
        return "going down" if self.stopping else None

    def fail(self, why: str) -> None:
        """A write or a sync failed: nothing leaves any more; the worker has to be replaced."""
        if self.failure is None:
            self.halt(why)
            log.critical("nothing leaves this host any more: %s", why)
            self._failed_hook(why)

    def halt(self, why: str) -> None:
        """From here on nothing starts, is written or leaves, as of a process that has died."""
        self.failure = why
        self.gate.broken = True
        self.stopping = True

    async def close(self, grace_s: float = 2.0) -> None:
        """Admit nothing, let running turns end, cancel the rest, sync, close the store."""
        self.stopping = True
        await self.housekeeping.drain(grace_s)
        if self.failure is None:
            self.gate.close()
        self.store.close()
