from __future__ import annotations

import errno
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from kubeactor import cgroup, worker
from kubeactor import child as module
from kubeactor.child import Child, Pulse, Restarts, Timing, describe
from kubeactor.ids import ActorId
from kubeactor.page import TurnPage, instance_of, label_of
from kubeactor.worker import WorkerContext, WorkerFatalError, WorkerSpec

ALICE = ActorId("ACCOUNT", b"alice")
TIMING = Timing()


def serve(context: WorkerContext) -> int:
    return 0


def test_a_worker_that_served_is_followed_at_once() -> None:
    restarts = Restarts(TIMING)
    assert [restarts.delay_s(now, was_ready=True) for now in range(50)] == [0.0] * 50


def test_starts_that_fail_in_a_row_are_backed_off_up_to_five_seconds() -> None:
    restarts = Restarts(TIMING)
    delays = [restarts.delay_s(now, was_ready=False) for now in range(10)]
    assert delays == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5])
    assert restarts.delay_s(11, was_ready=True) == 0
    assert restarts.delay_s(12, was_ready=False) == 0


def test_many_failed_starts_do_not_overflow() -> None:
    restarts = Restarts(TIMING)
    assert [restarts.delay_s(now * 100, was_ready=False) for now in range(5000)][-1] == 5


def test_a_storm_of_deaths_is_slowed_down_until_a_minute_is_calm() -> None:
    restarts = Restarts(TIMING)
    delays = [restarts.delay_s(now * 0.1, was_ready=True) for now in range(101)]
    assert delays == [0.0] * 100 + [1.0]
    assert restarts.delay_s(120, was_ready=True) == 0


def test_a_loop_is_hung_after_ten_seconds_outside_rocksdb() -> None:
    pulse = Pulse()
    pulse.observe(1, False, 0.25)
    for _ in range(39):
        pulse.observe(1, False, 0.25)
    assert not pulse.hung(TIMING)
    pulse.observe(1, False, 0.25)
    assert pulse.hung(TIMING)
    pulse.observe(2, False, 0.25)
    assert not pulse.hung(TIMING)


def test_a_loop_is_hung_after_sixty_seconds_inside_rocksdb() -> None:
    pulse = Pulse()
    pulse.observe(1, False, 9.0)
    for _ in range(59):
        pulse.observe(1, True, 1.0)
    pulse.observe(1, False, 1.0)
    assert not pulse.hung(TIMING)
    pulse.observe(1, True, 1.0)
    assert pulse.hung(TIMING)


def test_a_worker_that_has_never_ticked_is_not_watched() -> None:
    pulse = Pulse()
    for _ in range(1000):
        pulse.observe(0, False, 1.0)
    assert not pulse.hung(TIMING)


def test_a_supervisor_that_was_frozen_does_not_blame_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(WorkerSpec("a", serve), TIMING, pid=1)
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
    child.page.tick()
    child.look(0.0)
    child.look(3600.0)
    assert sent == []


@pytest.mark.parametrize(("used", "sent"), [(899, []), (900, [signal.SIGKILL])])
def test_a_worker_is_killed_alone_at_90_percent_of_the_containers_limit(
    monkeypatch: pytest.MonkeyPatch, used: int, sent: list[int]
) -> None:
    """Before the kernel takes the whole container, supervisor included."""
    found: list[int] = []
    monkeypatch.setattr(cgroup, "memory_limit_bytes", lambda: 1000)
    monkeypatch.setattr(cgroup, "resident_bytes", lambda *_: used)
    monkeypatch.setattr(os, "kill", lambda pid, number: found.append(number))
    Child(WorkerSpec("a", serve), TIMING, pid=1).look(0.0)
    assert found == sent


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (3, "ended by itself with status 3"),
        (-9, "killed by SIGKILL"),
        (-11, "killed by SIGSEGV"),
        (-200, "killed by signal 200"),
    ],
)
def test_an_exit_code_in_words(code: int, text: str) -> None:
    assert describe(code) == text


def left_behind(folder: Path, memory_percent: int = 0, own_kill: bool = False) -> None:
    """The page of a container that was killed while a turn of alice was stepped."""
    page = TurnPage.open(folder / "turn.page")
    page.reset()
    page.enter(label_of(instance_of(ALICE), "debit"))
    page.note_memory(memory_percent)
    if own_kill:
        page.mark_own_kill()
    page.close()


@pytest.mark.parametrize(("left", "deaths"), [({}, 0), ({"memory_percent": 80}, 1), ({"own_kill": True}, 1)])
def test_the_death_of_the_whole_container_counts_if_the_page_tells_why(
    tmp_path: Path, left: dict[str, Any], deaths: int
) -> None:
    left_behind(tmp_path, **left)
    child = Child(WorkerSpec("a", serve, data=tmp_path), TIMING)
    assert child.quarantine.deaths(ALICE) == deaths
    assert child.page.read() is None, "it counts once"


def test_the_death_of_the_machine_counts_against_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_behind(tmp_path, memory_percent=80)
    monkeypatch.setattr(TurnPage, "of_this_boot", False)
    assert Child(WorkerSpec("a", serve, data=tmp_path), TIMING).quarantine.deaths(ALICE) == 0


@pytest.mark.parametrize(("kills", "deaths"), [([5, 6], 1), ([5, 5], 0)])
def test_a_kill_by_the_kernel_for_lack_of_memory_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: list[int], deaths: int
) -> None:
    monkeypatch.setattr(cgroup, "oom_kills", lambda: kills.pop(0))
    monkeypatch.setattr(Child, "_launch", lambda *_: 12345)
    child = Child(WorkerSpec("a", serve, data=tmp_path), TIMING)
    child.start(0.0, lambda _: None)
    child.page.enter(label_of(instance_of(ALICE), "debit"))
    assert child.reaped(9, 1.0) == -9
    assert child.quarantine.deaths(ALICE) == deaths
    assert child.due == 1.0


def test_a_start_that_the_system_refuses_leaks_nothing_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(Child, "_launch", refuse)
    child = Child(WorkerSpec("a", serve), TIMING)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="unavailable") as caught:
        child.start(0.0, lambda _: None)
    child.start_failed(0.0, caught.value)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert child.due == pytest.approx(0.1)
    assert child.last_death == "could not be started: Resource temporarily unavailable"


def test_a_function_of_a_module_can_be_spawned_by_its_name() -> None:
    assert module._importable(WorkerSpec("a", worker.spawned)) == "kubeactor.worker:spawned"
    with pytest.raises(WorkerFatalError, match="can only be forked"):
        module._importable(WorkerSpec("a", lambda _: 0))


def test_a_worker_that_closed_its_end_is_not_heard_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[socket.socket] = []

    def launch(_: Child, theirs: socket.socket, release: object) -> int:
        ends.append(theirs.dup())
        return 12345

    monkeypatch.setattr(Child, "_launch", launch)
    child = Child(WorkerSpec("a", serve), TIMING)
    child.start(0.0, lambda _: None)
    assert child.hear()
    ends[0].close()
    assert not child.hear()
    child.close()
