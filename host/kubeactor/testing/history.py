"""The calls that instances got and what came back, and the question whether one order of turns explains it all.

The check is the search of Wing and Gong (Testing and Verification for Concurrent Objects, 1993) with Lowe's memory of
configurations that were tried before (Testing for Linearizability, 2017).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, overload

from kubeactor import codec
from kubeactor.call import CODEC, MESSAGE, Call
from kubeactor.errors import ActorError, ActorMethodError, Problem
from kubeactor.ids import ActorId
from kubeactor.stub import id_of

if TYPE_CHECKING:
    from kubeactor.actor import ActorType

__all__ = ["Entry", "History"]

ENTRIES_MAX: Final = 100_000
STEPS_MAX: Final = 200_000


class Entry:
    """One call of an instance: from the test, the front door, `/v1`, another instance, or a message.

    Attributes:
        id: the instance; method: its method.
        caller: the instance that called, or that sent the message; None for a call from outside.
        args, kwargs: as the method got them.
        error: what it failed with, or None.
        done: whether its outcome is known; a call that its caller's crash cut off has none.
        began, ended: places in the order of all beginnings and ends.
    """

    def __init__(self, call: Call, type: ActorType, began: int) -> None:
        self.id = ActorId(call.binding, call.identity)
        self.method = call.method
        self.caller = _caller(call)
        self.began = began
        self.ended: int | None = None
        self.error: ActorError | None = None
        self.batch = 0
        self._type = type
        self._format = call.format
        self._body = call.body
        self._outcome = b""

    @property
    def done(self) -> bool:
        """Whether its outcome is known."""
        if self.ended is None:
            return False
        return self.error is None or (
            isinstance(self.error, Problem | ActorMethodError) and self.error.started == "yes"
        )

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments."""
        return self._arguments()[0]

    @property
    def kwargs(self) -> dict[str, Any]:
        """Named arguments."""
        return self._arguments()[1]

    @property
    def result(self) -> Any:
        """What it returned: of a call over HTTP as JSON has it; None without a result."""
        if self.ended is None or self.error is not None:
            return None
        if self._format != CODEC:
            return json.loads(self._outcome)
        method = self._type.served.get(self.method)
        return codec.decode(self._outcome) if method is None else method.arguments.decode_result(self._outcome)

    def _arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self._format == CODEC:
            args, kwargs = codec.decode(self._body)
            return tuple(args), kwargs
        given = json.loads(self._body or b"{}")
        return ((), given) if isinstance(given, dict) else (tuple(given), {})

    def finish(self, outcome: bytes | ActorError, batch: int, ended: int) -> None:
        """Note the outcome."""
        self.ended = ended
        self.batch = batch
        if isinstance(outcome, ActorError):
            self.error = outcome
        else:
            self.error = None
            self._outcome = outcome

    def lose(self) -> None:
        """Its outcome was handed on unsynced, and is gone together with who got it."""
        self.ended = None
        self.error = None

    def __repr__(self) -> str:
        arguments = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        if self.ended is None:
            outcome = "?"
        else:
            outcome = repr(self.result) if self.error is None else f"{self.error.name}: {self.error.detail}"
        return f"{self.id}.{self.method}({', '.join(arguments)}) -> {outcome}"


def _caller(call: Call) -> ActorId | None:
    if call.id is not None and call.id.kind == MESSAGE:
        key = call.id.key
    elif call.chain:
        key = call.chain[-1]
    else:
        return None
    binding, _, identity = key.partition(b"\0")
    return ActorId(binding.decode(), identity)


class History(Sequence[Entry]):
    """All calls of a test, in the order in which they began. Alarms and `undelivered` are turns, but no calls."""

    def __init__(self, types: dict[str, ActorType]) -> None:
        self._types = types
        self._entries: list[Entry] = []
        self._by_token: dict[bytes, Entry] = {}
        self._events = 0
        self._cut = False

    @overload
    def __getitem__(self, index: int, /) -> Entry: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[Entry]: ...
    def __getitem__(self, index: Any, /) -> Any:
        """The calls by their order."""
        return self._entries[index]

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self._entries))

    def of(self, stub: object) -> list[Entry]:
        """The calls of one instance."""
        wanted = id_of(stub)
        return [entry for entry in self._entries if entry.id == wanted]

    def began(self, call: Call) -> Entry | None:
        """Note a call; one that is made again is the same call."""
        token = call.token()
        if known := self._by_token.get(token):
            return known
        actor_type = self._types.get(call.binding)
        if actor_type is None:
            return None
        if len(self._entries) >= ENTRIES_MAX:
            self._cut = True
            return None
        self._events += 1
        entry = self._by_token[token] = Entry(call, actor_type, self._events)
        self._entries.append(entry)
        return entry

    def ended(self, entry: Entry | None, outcome: bytes | ActorError, batch: int) -> None:
        """Note an outcome."""
        if entry is not None:
            self._events += 1
            entry.finish(outcome, batch, self._events)

    def lose_after(self, batch: int) -> None:
        """The host lost power: what calls between its instances got from later batches is gone."""
        for entry in self._entries:
            if entry.batch > batch:
                entry.lose()
        self.keep()

    def keep(self) -> None:
        """What is known stays known; the next host counts its batches from one again."""
        for entry in self._entries:
            entry.batch = 0

    def check(self, stub: object, model: Callable[[], object]) -> None:
        """Look for one order of the instance's calls that fits to when they were made and to what came back.

        Args:
            stub: of the instance, which must have begun empty.
            model: makes a plain object with the same methods, without `async`: what one call after another returns.
                A refusal is an exception of the same class. It is copied by `copy.deepcopy`.

        Raises:
            AssertionError: when there is no such order; it shows the calls.
            ValueError: when that can't be said: too many calls, or too many at the same time.
        """
        calls = self.of(stub)
        if self._cut:
            raise ValueError(f"a history keeps {ENTRIES_MAX} calls, and this test made more")
        calls = [call for call in calls if call.done or call.error is None or call.error.started != "no"]
        if not _explained(calls, model()):
            shown = "\n".join(map(repr, calls))
            raise AssertionError(f"no order of these calls of {id_of(stub)} explains what they returned:\n{shown}")


def _explained(calls: list[Entry], start: object) -> bool:
    """Whether an order exists; calls without a known outcome may come at any time after their begin, or never."""
    known = sum(1 << number for number, call in enumerate(calls) if call.done)
    tried: set[tuple[int, str]] = set()
    path: list[Iterator[tuple[int, object]]] = [_next_states(calls, 0, start)]
    steps = 0
    while path:
        taken, state = next(path[-1], (-1, None))
        if taken < 0:
            path.pop()
            continue
        if taken & known == known:
            return True
        if (seen := (taken, _shown(state))) in tried:
            continue
        tried.add(seen)
        steps += 1
        if steps > STEPS_MAX:
            raise ValueError(f"{len(calls)} calls can't be checked: too many of them were under way at once")
        path.append(_next_states(calls, taken, state))
    return not known


def _next_states(calls: list[Entry], taken: int, state: object) -> Iterator[tuple[int, object]]:
    left = [(number, call) for number, call in enumerate(calls) if not taken >> number & 1]
    first_end = min((call.ended for _, call in left if call.done and call.ended is not None), default=None)
    for number, call in left:
        if first_end is not None and call.began > first_end:
            continue
        fits, after = _made(call, state)
        if fits:
            yield taken | 1 << number, after


def _made(call: Entry, state: object) -> tuple[bool, object]:
    """Make the call on a copy of the model: whether it ends as the real one did, and the state after it."""
    model = copy.deepcopy(state)
    try:
        result = getattr(model, call.method)(*call.args, **call.kwargs)
    except Exception as error:
        told = call.error
        name = told.cause if isinstance(told, ActorMethodError) else told.name if told is not None else ""
        return not call.done or type(error).__name__ == name, state  # what raises commits nothing
    return not call.done or (call.error is None and result == call.result), model


def _shown(model: object) -> str:
    return repr(getattr(model, "__dict__", model))
