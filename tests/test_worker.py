from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.harness.supervision import gone

from kubeactor import worker
from kubeactor.page import TurnPage
from kubeactor.quarantine import Quarantine
from kubeactor.worker import WorkerContext, WorkerFatalError

PRELUDE = """
import os, signal, socket, sys
from kubeactor.page import TurnPage
from kubeactor.quarantine import Quarantine
from kubeactor.worker import WorkerContext, WorkerFatalError, enter
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
theirs.setblocking(False)
context = WorkerContext("a", [], TurnPage.anonymous(), Quarantine(None), theirs)
context.page.reset()
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PRELUDE + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def context(control: socket.socket) -> WorkerContext:
    return WorkerContext("a", [], TurnPage.anonymous(), Quarantine(None), control)


def test_ready_is_told(pair: tuple[socket.socket, socket.socket]) -> None:
    context(pair[1]).ready()
    assert pair[0].recv(10) == worker.READY


def test_a_worker_goes_on_while_its_supervisor_lives(pair: tuple[socket.socket, socket.socket]) -> None:
    mine = context(pair[1])
    mine.leave_orphaned()
    pair[0].send(b"a word of a later version")
    mine.leave_orphaned()
    assert mine.supervisor_gone == pair[1].fileno()


def test_telling_a_supervisor_that_has_gone_is_no_error(
    pair: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    pair[0].close()
    context(pair[1]).ready()
    assert "could not tell its supervisor" in caplog.text


def test_a_worker_ends_at_once_when_its_supervisor_has_gone() -> None:
    assert run("ours.close(); context.leave_orphaned()").returncode == worker.ORPHANED


def test_a_worker_whose_parent_changed_before_it_could_ask_ends_at_once() -> None:
    ended = run("enter(context, lambda context: print('ran') or 0, {}, parent=os.getppid() + 1)")
    assert (ended.returncode, ended.stdout) == (worker.ORPHANED, "")


def test_a_worker_gets_its_arguments_and_its_output_is_flushed() -> None:
    ended = run("enter(context, lambda context, fee: print(fee) or 0, {'fee': 5}, os.getppid())")
    assert (ended.returncode, ended.stdout) == (0, "5\n")


@pytest.mark.parametrize(("code", "status"), [("5", 5), ("None", 0), ("'a text'", 1)])
def test_a_worker_that_leaves_by_sys_exit_has_its_status(code: str, status: int) -> None:
    assert run(f"enter(context, lambda context: sys.exit({code}), {{}}, os.getppid())").returncode == status


def test_a_worker_that_raises_prints_its_traceback() -> None:
    ended = run("enter(context, lambda context: 1 / 0, {}, os.getppid())")
    assert ended.returncode == worker.FAILED
    assert "ZeroDivisionError" in ended.stderr


def test_a_crash_in_c_prints_the_python_stack() -> None:
    ended = run("import ctypes\nenter(context, lambda context: ctypes.string_at(0), {}, os.getppid())")
    assert ended.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in ended.stderr


def test_a_failure_of_the_worker_itself_is_counted_against_no_turn_and_its_reason_is_told() -> None:
    ended = run(
        "context.page.enter(b'ACCOUNT\\0alice\\0debit\\0')\n"
        "if os.fork() == 0:\n"
        "    context.fail('the disk is gone')\n"
        "assert os.waitstatus_to_exitcode(os.wait()[1]) == 70\n"
        "assert context.page.read() is None\n"
        "assert ours.recv(100) == b'Mthe disk is gone'\n"
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_kill_of_another_process_is_not_taken_for_its_own() -> None:
    ended = run(
        "import subprocess\n"
        "def main(context):\n"
        "    other = subprocess.Popen(['sleep', '60'])\n"
        "    os.kill(other.pid, signal.SIGKILL)\n"
        "    other.wait()\n"
        "    return int(context.page.own_kill)\n"
        "enter(context, main, {}, os.getppid())"
    )
    assert ended.returncode == 0


@pytest.mark.parametrize("text", ["kubeactor.nowhere:main", "kubeactor.worker:nothing", "kubeactor.worker", ""])
def test_a_worker_function_that_does_not_exist_is_fatal(text: str) -> None:
    with pytest.raises(WorkerFatalError, match="there is no worker function"):
        worker.resolve(text)


def test_a_worker_function_is_found_by_its_text() -> None:
    assert worker.resolve("kubeactor.worker:spawned") is worker.spawned


def start(order: dict[str, object], fds: list[int]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kubeactor.worker"],
        env={**os.environ, worker.ENVIRONMENT: json.dumps(order)},
        pass_fds=fds,
        stdout=subprocess.PIPE,
        text=True,
    )


MAIN = """
import os
def main(context, word):
    names = (context.name, context.restarts, context.last_death, len(context.sockets), str(context.quarantine.path))
    print(word, *names, context.sockets[0].getsockname()[1], "KUBEACTOR_WORKER" in os.environ)
    print(*[os.get_inheritable(s.fileno()) for s in (*context.sockets, context.control)])
    return 3
"""


def test_a_spawned_worker_finds_all_that_it_was_given(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    (tmp_path / "mine.py").write_text(MAIN)
    page = TurnPage.anonymous()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        fds = [page.fd, pair[1].fileno(), listening.fileno()]
        order: dict[str, object] = {
            "name": "a",
            "main": "mine:main",
            "arguments": {"word": "hello"},
            "path": [str(tmp_path), *sys.path],
            "parent": os.getpid(),
            "page": fds[0],
            "control": fds[1],
            "sockets": fds[2:],
            "quarantine": str(tmp_path / "quarantine.json"),
            "restarts": 2,
            "last_death": "hung",
        }
        with start(order, fds) as process:
            said, _ = process.communicate(timeout=30)
        port = listening.getsockname()[1]
    assert process.returncode == 3
    assert said == f"hello a 2 hung 1 {tmp_path}/quarantine.json {port} False\nFalse False\n"


def test_signals_are_back_to_their_defaults_in_a_worker() -> None:
    code = (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "def main(context):\n"
        "    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "enter(context, main, {}, os.getppid())"
    )
    assert run(code).returncode == -signal.SIGTERM


def test_the_kernel_kills_a_worker_when_its_parent_dies(tmp_path: Path) -> None:
    code = (
        "def main(context):\n"
        "    os.write(1, str(os.getpid()).encode())\n"
        "    signal.pause()\n"
        "parent = os.getpid()\n"
        "if os.fork() == 0:\n"
        "    ours.close()\n"
        "    enter(context, main, {}, parent)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", PRELUDE + code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pidfd = os.pidfd_open(int(os.read(process.stdout.fileno(), 20)))
        process.kill()
        assert gone(pidfd)
