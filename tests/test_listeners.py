from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from kubeactor import listeners as module
from kubeactor.listeners import ListenError, Listeners


def test_a_connection_waits_in_the_backlog() -> None:
    mine = Listeners()
    sock = mine.listen("127.0.0.1", 0)
    assert not sock.getblocking()
    assert not sock.get_inheritable()
    with socket.create_connection(sock.getsockname()):
        mine.close()
    assert sock.fileno() == -1


def test_a_taken_port_is_told() -> None:
    mine = Listeners()
    port = mine.listen("127.0.0.1", 0).getsockname()[1]
    with pytest.raises(
        ListenError, match=f"^port {port} is taken: another process listens on 127.0.0.1:{port}; end that one"
    ):
        mine.listen("127.0.0.1", port)
    mine.close()


@pytest.mark.parametrize(
    ("host", "sentence"),
    [("203.0.113.1", "203.0.113.1 is no address of this machine"), ("no host", "host 'no host' is unknown")],
)
def test_a_wrong_host_is_told(host: str, sentence: str) -> None:
    with pytest.raises(ListenError, match=f"^{sentence}"):
        Listeners().listen(host, 0)


@pytest.mark.parametrize(
    ("number", "sentence"), [(13, "port 80 needs more rights"), (105, "h:80 can't be listened on: No buffer space")]
)
def test_what_the_system_refuses_is_told(number: int, sentence: str) -> None:
    assert module._sentence("h", 80, OSError(number, os.strerror(number))).startswith(sentence)


@pytest.mark.parametrize("host", ["::1", "localhost", ""])
def test_every_kind_of_host_is_listened_on(host: str) -> None:
    mine = Listeners()
    assert mine.listen(host, 0).getsockname()[1] > 0
    mine.close()


def test_the_next_program_of_this_process_finds_its_sockets_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.ENVIRONMENT, "")  # restored at the end, whatever is set in between
    monkeypatch.delenv(module.ENVIRONMENT)
    before = Listeners()
    assert not before.reexecuted
    first, second = before.listen("127.0.0.1", 0), before.listen("127.0.0.1", 0)
    before.hand_over()
    ports, fds = [s.getsockname()[1] for s in (first, second)], [first.detach(), second.detach()]
    assert all(os.get_inheritable(fd) for fd in fds)

    after = Listeners()
    assert after.reexecuted
    assert module.ENVIRONMENT not in os.environ
    assert after.listen("127.0.0.1", 0).getsockname()[1] == ports[0]
    assert not os.get_inheritable(fds[1])
    after.close_unclaimed()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fds[1])
    after.close()


def test_a_child_does_not_take_its_parents_sockets_for_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.ENVIRONMENT, json.dumps({"pid": os.getppid(), "sockets": {"127.0.0.1:0": [0]}}))
    mine = Listeners()
    assert mine.listen("127.0.0.1", 0).fileno() != 0
    assert Path("/proc/self/fd/0").exists()
    mine.close()
