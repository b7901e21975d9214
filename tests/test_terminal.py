"""What `kubeactor dev` shows on a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from msgspec import Meta
from tests.harness.dev import free_port
from tests.harness.program import COMMAND, ENVIRONMENT, LAB

from kubeactor import Actor, Problem, method
from kubeactor.actor import ActorType
from kubeactor.engine.watched import Answered
from kubeactor.errors import ActorError, ActorMethodError
from kubeactor.fetch import FETCH
from kubeactor.terminal import LINES_A_SECOND, QUEUED_LINES, CallLines, call_line, curl, greeting, has_colours, paint

PLAIN = paint(False)


class Empty(Actor):
    async def _private(self) -> None: ...


class Account(Actor):
    async def balance(self) -> int:
        return 0

    @method(internal=True)
    async def audit(self, text: str) -> None: ...

    async def close(self, when: datetime) -> None: ...  # a value that nobody can guess

    async def debit(self, amount: Annotated[int, Meta(gt=0)], note: str, *, twice: bool = False) -> int:
        return amount


class Text(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize(
    ("terminal", "environ", "coloured"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": ""}, True),  # no-color.org: when it is not empty
        (True, {"TERM": "dumb"}, False),
        (False, {"TERM": "xterm"}, False),
    ],
)
def test_colours_are_for_terminals_of_those_who_want_them(
    terminal: bool, environ: dict[str, str], coloured: bool
) -> None:
    assert has_colours(Text(terminal), environ) == coloured


def test_the_greeting_tells_address_methods_and_one_command_to_paste() -> None:
    bindings = {"ACCOUNT": ActorType("ACCOUNT", Account), "EMPTY": ActorType("EMPTY", Empty)}
    assert greeting(bindings, "http://here:1", ".kubeactor", PLAIN) == [
        "kubeactor serves http://here:1, data in .kubeactor; Ctrl-C ends it",
        "  ACCOUNT  balance(), audit(text), close(when), debit(amount, note, twice)",
        "  EMPTY    no methods",
        """  curl -d '{"amount":1,"note":"text"}' http://here:1/v1/actors/ACCOUNT/alice/debit""",
    ]


def test_without_a_method_whose_arguments_can_be_guessed_the_command_calls_one_that_takes_none() -> None:
    class Shy(Actor):
        async def hard(self, when: datetime) -> None: ...
        async def picky(self, n: Annotated[int, Meta(gt=5)]) -> None: ...
        async def easy(self) -> None: ...

    assert curl("SHY", ActorType("SHY", Shy), "http://u") == "curl -X POST http://u/v1/actors/SHY/alice/easy"
    assert curl("EMPTY", ActorType("EMPTY", Empty), "http://u") is None


class Full(Problem):
    status = 409


def answered(error: ActorError | None = None, **fields: Any) -> Answered:
    given: dict[str, Any] = {"method": "debit", "depth": 0, "system": False, "queue_s": 0.0001, "sync_s": 0.0006}
    return Answered(instance=b"ACCOUNT\0alice", error=error, total_s=0.0014, **{**given, **fields})


@pytest.mark.parametrize(
    ("one", "line"),
    [
        (answered(), "200 ACCOUNT/alice.debit 1.4 ms  queue 0.1 sync 0.6"),
        (answered(depth=2), "200     ACCOUNT/alice.debit 1.4 ms  queue 0.1 sync 0.6"),
        (answered(system=True, method="alarm"), "run ACCOUNT/alice.alarm 1.4 ms  queue 0.1 sync 0.6"),
        (answered(Full("no\nmore")), "409 ACCOUNT/alice.debit 1.4 ms  queue 0.1 sync 0.6  Full: no more"),
        (answered(ActorMethodError("x" * 1000)), f"queue 0.1 sync 0.6  ActorMethodError: {'x' * 300}"),
        (answered(method=FETCH), "200 ACCOUNT/alice.fetch 1.4 ms"),
    ],
)
def test_a_call_is_one_line(one: Answered, line: str) -> None:
    shown = call_line(one, PLAIN)
    assert line in shown
    assert "\n" not in shown


def test_a_name_cannot_write_escape_codes_to_the_terminal() -> None:
    shown = call_line(answered()._replace(instance=b"ACCOUNT\0a\x1b[2Jb\n"), paint(True))
    assert "a\\x1b[2Jb\\n" in shown
    assert re.sub(r"\x1b\[\d+m", "", shown).isprintable()


class Timers:
    """`call_later` of a loop whose time the test moves."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def __call__(self, seconds: float, function: Callable[[], None]) -> None:
        assert seconds == 1.0
        self.due.append(function)

    def fire(self) -> None:
        due, self.due = self.due, []
        for function in due:
            function()


def test_above_a_rate_calls_are_counted_and_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream, timers = io.StringIO(), Timers()
    lines = CallLines(stream, timers, PLAIN)
    wanted = sum(lines.wants() for _ in range(LINES_A_SECOND + 1234))
    assert wanted == LINES_A_SECOND
    lines.answered(answered())
    assert len(timers.due) == 1
    timers.fire()
    now += 1.0
    assert lines.wants()
    lines.close()
    assert stream.getvalue().splitlines() == [
        "200 ACCOUNT/alice.debit 1.4 ms  queue 0.1 sync 0.6",
        "... and 1,234 more in a second: more than 100 are counted",
    ]


class Stuck(io.StringIO):
    """A terminal that stands still."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, text: str) -> int:
        assert self.go.wait(30)
        return super().write(text)


def test_a_terminal_that_stands_still_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubeactor.terminal.LINES_A_SECOND", 10 * QUEUED_LINES)
    stream = Stuck()
    lines = CallLines(stream, Timers(), PLAIN)
    wanted = 0
    for _ in range(3 * QUEUED_LINES):
        if lines.wants():
            wanted += 1
            lines.answered(answered())
    assert QUEUED_LINES <= wanted <= QUEUED_LINES + 1  # the thread has one in its hands
    lines.close()
    stream.go.set()
    lines._thread.join(30)
    assert stream.getvalue().count("\n") == wanted


def test_a_terminal_that_has_gone_ends_the_lines_and_nothing_else() -> None:
    stream = io.StringIO()
    stream.close()
    lines = CallLines(stream, Timers(), PLAIN)
    lines.answered(answered())
    lines._thread.join(30)
    assert not lines._thread.is_alive()
    lines.close()


# On a real one


class Terminal:
    """`kubeactor dev` on a pseudo terminal."""

    def __init__(self, folder: Path, *options: str, cwd: Path = LAB, **environment: str) -> None:
        self.port = free_port()
        self.output = ""
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, "dev", "lab:Lab", "--port", str(self.port), "--data", str(folder / "data"), *options],
            cwd=cwd,
            env={**ENVIRONMENT, "TERM": "xterm", **environment},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # makes it the controlling terminal
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while data := os.read(self._ours, 65536):
                self.output += data.decode(errors="replace").replace("\r\n", "\n")
        except OSError:  # every process has closed its end
            pass

    def shows(self, text: str) -> None:
        """Wait until it shows that."""
        end = time.monotonic() + 30.0
        while text not in self.output:
            assert time.monotonic() < end, f"it does not show {text!r}:\n{self.output[-3000:]}"
            time.sleep(0.005)  # between looks

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def call(self, method: str, body: object = None) -> httpx.Response:
        return httpx.post(f"http://127.0.0.1:{self.port}/v1/actors/LAB/alice/{method}", json=body, timeout=30.0)

    def end(self) -> int:
        """Wait for its end; its status."""
        status = self.process.wait(30)
        self._reader.join(30)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, 9)
            self.process.wait(30)
        self._reader.join(30)
        os.close(self._ours)


@contextmanager
def shown(folder: Path, *options: str, cwd: Path = LAB, **environment: str) -> Iterator[Terminal]:
    terminal = Terminal(folder, *options, cwd=cwd, **environment)
    try:
        terminal.shows("Ctrl-C ends it")
        yield terminal
    finally:
        terminal.close()


@pytest.mark.parametrize("options", [(), ("--hosts", "2")])
def test_a_terminal_shows_a_line_a_call_and_ctrl_c_ends_it_at_once(tmp_path: Path, options: tuple[str, ...]) -> None:
    with shown(tmp_path, *options, NO_COLOR="1") as terminal:
        assert f"kubeactor serves http://127.0.0.1:{terminal.port}" in terminal.output
        assert terminal.call("add").json() == 1
        terminal.shows("200 LAB/alice.add ")
        assert re.search(r"^200 LAB/alice\.add [\d.]+ ms  queue [\d.]+ sync [\d.]+$", terminal.output, re.MULTILINE)
        assert "\x1b" not in terminal.output
        began = time.monotonic()
        terminal.type(b"\x03")
        assert terminal.end() == 0
        assert time.monotonic() - began < 5.0  # on a busy machine; 0.6 s on an idle one
        assert "Traceback" not in terminal.output


def test_a_call_that_runs_does_not_hold_up_ctrl_c(tmp_path: Path) -> None:
    with shown(tmp_path, NO_COLOR="1") as terminal:
        terminal.call("add")
        slow = threading.Thread(target=ended, args=(terminal,))
        slow.start()
        terminal.shows("LAB/alice.add")
        began = time.monotonic()
        terminal.type(b"\x03")
        assert terminal.end() == 0
        assert time.monotonic() - began < 5.0  # on a busy machine; 0.6 s on an idle one
        slow.join()
        assert "Traceback" not in terminal.output


BLOCKING = """
import time
from kubeactor import Actor
class Lab(Actor):
    async def slow(self, seconds: int) -> None:
        print("it blocks", flush=True)
        time.sleep(3600)
"""


def test_a_method_that_blocks_does_not_hold_up_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "lab.py").write_text(BLOCKING)
    with shown(tmp_path, NO_COLOR="1", cwd=tmp_path) as terminal:
        blocked = threading.Thread(target=ended, args=(terminal,))
        blocked.start()
        terminal.shows("it blocks")
        terminal.type(b"\x03")
        assert terminal.end() == 0
        blocked.join()
        assert "Traceback" not in terminal.output


def ended(terminal: Terminal) -> None:
    """A slow call, however it ends."""
    try:
        terminal.call("slow", [30])
    except httpx.TransportError:
        pass


def test_it_is_in_colour_unless_nobody_looks(tmp_path: Path) -> None:
    with shown(tmp_path, NO_COLOR="") as terminal:
        terminal.call("add")
        terminal.shows("\x1b[32m200\x1b[0m \x1b[1mLAB/alice.add\x1b[0m")
        terminal.type(b"\x03")
        assert terminal.end() == 0


def test_lines_can_be_turned_off(tmp_path: Path) -> None:
    with shown(tmp_path, "--no-calls", NO_COLOR="1") as terminal:
        assert terminal.call("add").json() == 1
        terminal.type(b"\x03")
        assert terminal.end() == 0
        assert "LAB/alice.add" not in terminal.output
