from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.harness.supervision import Supervised, ask, connect, gone, kill, receive, supervised, watched

from kubeactor.ids import ActorId
from kubeactor.quarantine import Quarantine
from kubeactor.quarantine import release as release_by_hand

ALICE = ActorId("ACCOUNT", b"alice")
BOB = ActorId("ACCOUNT", b"bob")
QUICK = {"hung_s": 0.4, "hung_rocksdb_s": 1.2, "check_s": 0.05}

Start = Callable[..., tuple[Supervised, int]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a supervisor with one worker `a`; gives it and its port, when the worker is ready."""
    with ExitStack() as stack:

        def begin(ready: bool = True, worker: dict[str, Any] | None = None, **settings: Any) -> tuple[Supervised, int]:
            settings = {"workers": [{"name": "a", **(worker or {})}], **settings}
            running = stack.enter_context(supervised(settings, tmp_path / f"{time.monotonic_ns()}.log"))
            port: int = running.hears("ports")["ports"][0]
            if ready:
                running.hears("ready")
            return running, port

        yield begin


def test_after_each_of_fifty_kills_the_next_worker_serves_on_the_same_socket(start: Start) -> None:
    running, port = start()
    pid = ask(port, "about")["pid"]
    for count in range(1, 51):
        assert kill(pid)
        answer = ask(port, "about")
        assert (answer["restarts"], answer["last_death"]) == (count, "killed by SIGKILL")
        assert answer["pid"] != pid
        pid = answer["pid"]
    assert running.children() == [pid]


def test_a_connection_that_the_dead_worker_had_not_accepted_is_answered_by_the_next(start: Start) -> None:
    _, port = start()
    with connect(port) as held, connect(port) as waiting:
        held.sendall(b"about\n")
        pid = receive(held)["pid"]
        waiting.sendall(b"about\n")  # the worker serves one connection at a time
        assert kill(pid)
        assert receive(held) is None
        assert receive(waiting)["restarts"] == 1


def test_two_hundred_restarts_leave_no_zombie_and_no_descriptor(start: Start) -> None:
    running, port = start(timing={"burst": 1000})
    before, in_worker = running.fds(), ask(port, "about")["fds"]
    for count in range(1, 201):
        assert ask(port, "die nobody exit") is None
        assert running.hears("ready")["restarts"] == count
    assert len(running.fds()) == len(before)
    assert ask(port, "about")["fds"] == in_worker
    assert len(running.children()) == 1


def test_a_supervisor_that_is_killed_leaves_no_orphan_and_a_free_port(start: Start) -> None:
    running, port = start()
    worker = watched(ask(port, "about")["pid"])
    running.send(signal.SIGKILL)
    assert running.ends() == -signal.SIGKILL
    assert gone(worker)
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_supervisor_that_is_killed_takes_a_spawned_worker_with_it(start: Start) -> None:
    running, port = start(thread=True)
    worker = watched(ask(port, "about")["pid"])
    running.send(signal.SIGKILL)
    assert gone(worker)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_supervisor_that_is_asked_to_end_ends_its_worker_first(start: Start, number: signal.Signals) -> None:
    running, port = start()
    worker = watched(ask(port, "about")["pid"])
    running.send(number)
    assert running.ends() == 0
    assert gone(worker)
    assert "worker a ended by itself with status 0" in running.log()


def test_ctrl_c_reaches_the_whole_group_and_the_worker_still_ends_in_order(start: Start) -> None:
    running, _ = start()
    os.killpg(running.pid, signal.SIGINT)
    assert running.ends() == 0
    assert "Traceback" not in running.log()


def test_a_worker_that_does_not_end_when_asked_is_killed_after_the_grace(start: Start) -> None:
    running, _ = start(worker={"arguments": {"stubborn": True}}, timing={"grace_s": 0.3})
    begun = time.monotonic()
    running.send(signal.SIGTERM)
    assert running.ends() == 1
    assert time.monotonic() - begun >= 0.3
    assert "did not end when asked" in running.log()


def test_a_second_signal_does_not_wait_for_the_grace(start: Start) -> None:
    running, port = start(worker={"arguments": {"stubborn": True}}, timing={"grace_s": 600.0})
    worker = watched(ask(port, "about")["pid"])
    running.send(signal.SIGTERM)
    running.send(signal.SIGINT)
    assert running.ends() == 1
    assert gone(worker)


def test_starts_that_fail_are_backed_off_and_the_first_good_one_serves(start: Start) -> None:
    begun = time.monotonic()
    running, port = start(worker={"arguments": {"starts": 4}})
    assert time.monotonic() - begun >= 0.1 + 0.2 + 0.4
    assert ask(port, "about")["last_death"] == "RuntimeError: start 3 fails"
    assert running.log().count("worker a died: RuntimeError: start") == 4


def test_a_fork_that_the_system_refuses_is_tried_again(start: Start) -> None:
    running, port = start(refused_forks=3)
    assert ask(port, "about")["last_death"] == "could not be started: Resource temporarily unavailable"
    assert running.log().count("could not be started") == 3


def test_a_fault_of_the_supervisor_itself_ends_its_workers_too(start: Start, tmp_path: Path) -> None:
    (tmp_path / "changed").mkdir()  # what watches for a change can't remove it and raises
    running, _ = start(ready=False, changed=str(tmp_path / "changed"), timing={"watch_s": 0.3})
    worker = watched(running.hears("ready")["pid"])
    assert running.ends() == 1
    assert gone(worker)
    assert "IsADirectoryError" in running.log() or "PermissionError" in running.log()


def test_a_worker_that_refuses_its_configuration_ends_the_supervisor_with_its_sentence(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "refuse").write_text("FEE is not set")
    running, _ = start(ready=False, worker={"arguments": {"refuse": str(tmp_path / "refuse")}})
    assert running.hears("message") == {"message": "FEE is not set"}
    assert running.ends() == os.EX_CONFIG


def test_a_port_that_is_taken_is_told_in_one_sentence(start: Start, tmp_path: Path) -> None:
    _, port = start()
    settings = {"workers": [{"name": "b", "port": port}]}
    with supervised(settings, tmp_path / "log") as second:
        assert second.ends() == 1
        assert second.log().startswith(f"port {port} is taken: another process listens on 127.0.0.1:{port}; end that")
        assert second.log().count("\n") == 1


def test_a_supervisor_with_threads_spawns_its_worker_and_says_so(start: Start) -> None:
    running, port = start(thread=True)
    first = ask(port, "about")
    assert kill(first["pid"])
    second = ask(port, "about")
    assert (second["restarts"], second["last_death"], second["mask"]) == (1, "killed by SIGKILL", 0)
    assert second["fds"] == first["fds"]
    assert "worker a is spawned, not forked: the supervisor has 2 threads" in running.log()


def test_a_spawned_worker_is_watched_and_blamed_like_a_forked_one(start: Start, tmp_path: Path) -> None:
    _, port = start(thread=True, worker={"data": str(tmp_path)}, timing=QUICK)
    for _ in range(3):
        assert ask(port, "hang alice loop") is None
    assert ask(port, "turn alice") == {"refused": True}


def test_a_worker_given_as_a_local_function_can_not_be_spawned(start: Start) -> None:
    running, _ = start(ready=False, thread=True, callable=True)
    assert running.hears("message")["message"] == 'main of worker a can only be forked: give it as "module:function"'
    assert running.ends() == os.EX_CONFIG


def test_one_worker_of_two_dies_and_the_other_notices_nothing(start: Start) -> None:
    running, _ = start(ready=False, workers=[{"name": "a"}, {"name": "b"}])
    pids = {said["ready"]: said["pid"] for said in (running.hears("ready"), running.hears("ready"))}
    assert kill(pids["a"])
    assert running.hears("ready")["ready"] == "a"
    assert pids["b"] in running.children()
    sockets = [path.readlink() for path in Path(f"/proc/{pids['b']}/fd").iterdir()]
    assert sum(str(target).startswith("socket:") for target in sockets) == 2, "its port and its supervisor"


@pytest.mark.parametrize(
    ("where", "reason", "least_s"),
    [("loop", "hung in ACCOUNT/alice.debit", 0.4), ("rocksdb", "hung inside RocksDB in ACCOUNT/alice.debit", 1.2)],
)
def test_a_hung_worker_is_killed(start: Start, where: str, reason: str, least_s: float) -> None:
    _, port = start(timing=QUICK)
    begun = time.monotonic()
    assert ask(port, f"hang alice {where}") is None
    assert time.monotonic() - begun >= least_s
    assert ask(port, "about")["last_death"] == reason


def test_a_worker_near_its_memory_limit_is_killed_and_the_instance_is_named(start: Start, tmp_path: Path) -> None:
    limit = {"data": str(tmp_path), "memory_limit_bytes": 200 << 20}
    _, port = start(worker=limit, timing={"check_s": 0.05})
    assert ask(port, "eat alice 190") is None
    assert ask(port, "about")["last_death"].endswith("of 200 MiB in ACCOUNT/alice.debit")
    assert Quarantine(tmp_path / "quarantine.json").deaths(ALICE) == 1


@pytest.mark.parametrize("how", ["exit", "segfault", "kill", "raise"])
def test_three_deaths_in_its_turns_quarantine_an_instance_and_no_other(start: Start, tmp_path: Path, how: str) -> None:
    running, port = start(worker={"data": str(tmp_path)})
    assert ask(port, f"die bob {how}") is None
    for _ in range(3):
        assert ask(port, "turn alice") == {"refused": False}
        assert ask(port, f"die alice {how}") is None
    assert ask(port, "turn alice") == {"refused": True}
    assert ask(port, "turn bob") == {"refused": False}
    assert "ACCOUNT/alice.debit is quarantined" in running.log()


def test_a_death_in_no_turn_or_of_the_worker_itself_counts_against_nobody(start: Start, tmp_path: Path) -> None:
    _, port = start(worker={"data": str(tmp_path)})
    for _ in range(4):
        assert ask(port, "die nobody segfault") is None
        assert ask(port, "die alice fail") is None
    assert ask(port, "about")["last_death"] == "the disk is gone"
    assert ask(port, "turn alice") == {"refused": False}
    assert Quarantine(tmp_path / "quarantine.json").deaths(ALICE) == 0


def test_a_kill_from_outside_counts_against_nobody(start: Start, tmp_path: Path) -> None:
    _, port = start(worker={"data": str(tmp_path)})
    for _ in range(4):
        assert kill(ask(port, "begin alice")["pid"])
    assert ask(port, "turn alice") == {"refused": False}


def test_a_running_worker_notices_a_release_by_hand(start: Start, tmp_path: Path) -> None:
    _, port = start(worker={"data": str(tmp_path)})
    for _ in range(3):
        ask(port, "die alice exit")
    assert ask(port, "turn alice") == {"refused": True}
    assert release_by_hand(tmp_path, ALICE)
    until = time.monotonic() + 60
    while ask(port, "turn alice") == {"refused": True}:
        assert time.monotonic() < until
    assert ask(port, "die alice exit") is None
    assert ask(port, "turn alice") == {"refused": False}, "its earlier deaths are forgotten"


def test_reexec_keeps_pid_and_port_and_waiting_connections(start: Start) -> None:
    running, port = start(hangup="reexec")
    with connect(port) as held, connect(port) as waiting:
        held.sendall(b"about\n")
        worker = receive(held)["pid"]
        waiting.sendall(b"about\n")
        running.send(signal.SIGHUP)
        assert running.hears("ports") == {"pid": running.pid, "ports": [port]}
        answer = receive(waiting)
    assert answer["pid"] != worker
    assert answer["restarts"] == 0, "a new program"
    assert running.children() == [answer["pid"]]
    running.send(signal.SIGTERM)
    assert running.ends() == 0


def test_replace_ends_the_worker_in_order_and_forks_it_again(start: Start) -> None:
    running, port = start(hangup="replace")
    worker = ask(port, "about")["pid"]
    running.send(signal.SIGHUP)
    said = running.hears("ready")
    assert said["pid"] != worker
    assert (said["restarts"], ask(port, "about")["last_death"]) == (1, None)


def test_code_that_no_longer_loads_waits_for_the_next_change(start: Start, tmp_path: Path) -> None:
    code, changed = tmp_path / "code.py", tmp_path / "changed"
    code.write_text("x = 1")
    running, port = start(code=str(code), changed=str(changed), timing={"watch_s": 0.05})
    code.write_text("x = = 1")
    changed.touch()
    assert running.hears("ports")["pid"] == running.pid
    with connect(port) as waiting:
        waiting.sendall(b"about\n")
        code.write_text("x = 2")
        changed.touch()
        assert receive(waiting)["restarts"] == 0
    assert running.process.poll() is None


def test_code_that_does_not_load_at_the_first_start_ends_the_supervisor(start: Start, tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("x = = 1")
    running, _ = start(ready=False, code=str(tmp_path / "code.py"), changed=str(tmp_path / "changed"))
    assert running.ends() == 1
    assert "SyntaxError" in running.log()


def test_a_changed_configuration_that_a_worker_refuses_waits_for_the_next_change(start: Start, tmp_path: Path) -> None:
    refuse, changed = tmp_path / "refuse", tmp_path / "changed"
    running, port = start(worker={"arguments": {"refuse": str(refuse)}}, changed=str(changed), timing={"watch_s": 0.05})
    refuse.write_text("FEE is not set")
    changed.touch()
    running.hears("ports")
    with connect(port) as waiting:
        waiting.sendall(b"about\n")
        refuse.unlink()
        changed.touch()
        assert receive(waiting)["restarts"] == 0


def test_a_supervisor_that_inherits_orphans_waits_for_them_too(start: Start) -> None:
    running, port = start(subreaper=True)
    worker = ask(port, "about")["pid"]
    for _ in range(5):
        ask(port, "orphan")
    until = time.monotonic() + 60
    while running.children() != [worker]:
        assert time.monotonic() < until
        ask(port, "about")
