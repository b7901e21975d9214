"""What `kubeactor dev` shows: a greeting with a command to paste, then a line a call.

Lines go through a thread and a bounded queue, so a terminal that stands still (Ctrl-S, a slow connection) holds up no
call. Above a rate nobody can read, calls are counted instead and told in one line a second.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO, get_args, get_origin

import msgspec

from kubeactor.actor import ActorType, Method
from kubeactor.call import JSON
from kubeactor.errors import ActorError
from kubeactor.fetch import FETCH
from kubeactor.scope import instance_text

if TYPE_CHECKING:
    from kubeactor.engine.watched import Answered

__all__ = ["CallLines", "Paint", "call_line", "curl", "greeting", "has_colours", "paint", "standard_lines"]

LINES_A_SECOND: Final = 100
QUEUED_LINES: Final = 500
CLOSE_S: Final = 0.2
DETAIL_CHARS: Final = 300

Colour = Literal["red", "yellow", "green", "dim", "bold"]
Paint = Callable[[Colour, str], str]

_CODES: Final[Mapping[Colour, str]] = {"red": "31", "yellow": "33", "green": "32", "dim": "2", "bold": "1"}


def has_colours(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to colour what goes there: a terminal that can, and nobody said no (no-color.org)."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def paint(coloured: bool) -> Paint:
    """A function that colours a text, or leaves it as it is."""
    return (lambda colour, text: f"\033[{_CODES[colour]}m{text}\033[0m") if coloured else (lambda colour, text: text)


# The greeting


def greeting(bindings: Mapping[str, ActorType], url: str, data: str, painted: Paint) -> list[str]:
    """Address, bindings with their methods, and one command to paste."""
    width = max(map(len, bindings), default=0)
    found = [f"kubeactor serves {painted('bold', url)}, data in {data}; Ctrl-C ends it"]
    for binding, bound in bindings.items():
        methods = ", ".join(_method_text(name, method) for name, method in bound.methods.items()) or "no methods"
        found.append(f"  {painted('bold', binding.ljust(width))}  {methods}")
    commands = [command for binding, bound in bindings.items() if (command := curl(binding, bound, url))]
    with_body = [command for command in commands if " -d " in command]
    return [*found, *(f"  {command}" for command in (with_body or commands)[:1])]


def _method_text(name: str, method: Method) -> str:
    """`debit(amount)`."""
    return f"{name}({', '.join(each.name for each in method.arguments.parameters)})"


def curl(binding: str, bound: ActorType, url: str) -> str | None:
    """A command that calls a method: one with arguments if values for them can be guessed, else one without."""
    found = None
    for name, method in bound.methods.items():
        if method.internal or (body := _example(method)) is None:
            continue
        target = f"{url}/v1/actors/{binding}/alice/{name}"
        if body:
            return f"curl -d '{body}' {target}"
        found = found or f"curl -X POST {target}"
    return found


def _example(method: Method) -> str | None:
    """A JSON body that the method takes; empty for none; None when no value can be guessed."""
    values = {each.name: _guess(each.hint) for each in method.arguments.parameters if each.required}
    body = msgspec.json.encode(values) if values else b""
    try:
        method.arguments.decode(body, JSON)
    except ActorError:
        return None
    text = body.decode()
    return None if "'" in text else text


def _guess(hint: Any) -> Any:
    """A value that a person could have written for that hint; None where that would be a guess too wild."""
    while hasattr(hint, "__metadata__"):
        hint = get_args(hint)[0]
    guesses: dict[Any, Any] = {int: 1, float: 0.5, str: "text", bool: True, Any: 1, list: [], dict: {}}
    return guesses.get(get_origin(hint) or hint)


# A line a call


def call_line(answered: Answered, painted: Paint) -> str:
    """`200 ACCOUNT/alice.debit 1.4 ms  queue 0.1 sync 0.6`, then what an error says."""
    error = answered.error
    status = "run" if answered.system and error is None else str(error.http_status() if error else 200)
    colour: Colour = "green" if error is None else "yellow" if error.http_status() < 500 else "red"
    method = "fetch" if answered.method == FETCH else answered.method
    target = f"{instance_text(answered.instance)}.{method}".encode("unicode_escape").decode()
    times = f"queue {answered.queue_s * 1e3:.1f} sync {answered.sync_s * 1e3:.1f}"
    line = f"{painted(colour, status)} {'  ' * answered.depth}{painted('bold', target)} {answered.total_s * 1e3:.1f} ms"
    line += f"  {painted('dim', times)}"
    if error is not None:
        detail = " ".join(error.detail.split())[:DETAIL_CHARS].encode("unicode_escape").decode()
        line += f"  {error.name}: {detail}"
    return line


class CallLines:
    """Writes a line a call, at most 100 a second; the others are counted and told in one line.

    Args:
        stream: where to.
        later: runs a function after that many seconds, as `loop.call_later` does.
    """

    def __init__(self, stream: TextIO, later: Callable[[float, Callable[[], None]], object], painted: Paint) -> None:
        self._stream = stream
        self._later = later
        self._painted = painted
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._since = 0.0
        self._left = LINES_A_SECOND
        self._more = 0
        self._thread = threading.Thread(target=self._write, name="kubeactor-terminal", daemon=True)
        self._thread.start()

    def wants(self) -> bool:
        """Whether there is room for one more line in this second; else the call is counted."""
        now = time.monotonic()
        if now - self._since >= 1.0:
            self._since, self._left = now, LINES_A_SECOND
        if self._left and self._queue.qsize() < QUEUED_LINES:
            self._left -= 1
            return True
        if not self._more:
            self._later(1.0, self._sum_up)
        self._more += 1
        return False

    def answered(self, answered: Answered) -> None:
        """Write the line of a call."""
        self._queue.put(call_line(answered, self._painted))

    def _sum_up(self) -> None:
        more, self._more = self._more, 0
        self._queue.put(
            self._painted("dim", f"... and {more:,} more in a second: more than {LINES_A_SECOND} are counted")
        )

    def _write(self) -> None:
        try:
            while (line := self._queue.get()) is not None:
                self._stream.write(line + "\n")
                if self._queue.empty():
                    self._stream.flush()
        except (OSError, ValueError):  # the terminal has gone; nobody reads on
            pass

    def close(self) -> None:
        """Write what waits, unless the terminal stands still."""
        self._queue.put(None)
        self._thread.join(CLOSE_S)


def standard_lines(later: Callable[[float, Callable[[], None]], object], coloured: bool) -> CallLines:
    """Lines on the standard output."""
    return CallLines(sys.stdout, later, paint(coloured))
