"""What the engine itself answers a call with when it does not run it, or not to its end."""

from __future__ import annotations

from kubeactor.call import Call
from kubeactor.engine.turn import Turn
from kubeactor.errors import (
    ActorError,
    ActorFencedError,
    ActorFetchTimeoutError,
    ActorMethodTimeoutError,
    ActorUnawaitedCallError,
)
from kubeactor.fetch import FETCH
from kubeactor.scope import instance_text

__all__ = ["fenced", "timed_out", "too_late", "unawaited"]


def fenced(call: Call, epoch: int | None, stopping: bool) -> ActorError:
    """This host does not serve the call's shard at its epoch, or nothing any more; `epoch` is the one it serves."""
    if stopping:
        return ActorFencedError("this host is going down")
    if epoch is None:
        return ActorFencedError(f"shard {call.shard} is not served here")
    return ActorFencedError(f"shard {call.shard} has epoch {epoch}, the call was sent for {call.epoch}")


def too_late(call: Call) -> ActorError:
    """Its deadline passed before its turn came."""
    text = f"{instance_text(call.instance)}.{call.method} was not started: its deadline had passed"
    return ActorMethodTimeoutError(text, started="no")


def timed_out(turn: Turn) -> ActorError:
    """Its turn ran for longer than it may."""
    kind = ActorFetchTimeoutError if turn.call.method == FETCH else ActorMethodTimeoutError
    return kind(f"{instance_text(turn.instance.key)}.{turn.call.method} used up its budget")


def unawaited(turn: Turn) -> ActorError:
    """Its turn made a call that nobody awaited."""
    call = turn.unawaited_call()
    assert call is not None
    file, line = call.where
    return ActorUnawaitedCallError(f"{call.method}(...) at {file}:{line} was not awaited; write `await`, or ctx.send")
