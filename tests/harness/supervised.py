"""A real supervisor for tests to run and to kill: `python supervised.py <settings as JSON>`.

It says on its standard output, a JSON object a line, which ports it holds and what happens; its log goes to standard
error. The workers below serve a few one-word commands, a line each, on their socket.
"""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from kubeactor.ids import ActorId
from kubeactor.listeners import ListenError, Listeners
from kubeactor.page import instance_of, label_of
from kubeactor.supervisor import Supervisor, Timing
from kubeactor.worker import WorkerContext, WorkerFatalError, WorkerSpec

PR_SET_CHILD_SUBREAPER = 36


def say(**what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def serve(context: WorkerContext, *, refuse: str = "", stubborn: bool = False, starts: int = 0) -> int:
    """Answers the lines of one connection at a time until SIGTERM.

    Args:
        refuse: a file: while it exists this worker refuses to run, and says its text.
        stubborn: don't end at SIGTERM.
        starts: how many starts fail before one serves.
    """
    if refuse and Path(refuse).exists():
        raise WorkerFatalError(Path(refuse).read_text())
    if context.restarts < starts:
        raise RuntimeError(f"start {context.restarts} fails")
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    context.page.tick()
    context.ready()
    say(ready=context.name, pid=os.getpid(), restarts=context.restarts)
    with selectors.DefaultSelector() as selector:
        selector.register(context.supervisor_gone, selectors.EVENT_READ, context.leave_orphaned)
        for sock in context.sockets:
            selector.register(sock, selectors.EVENT_READ, lambda sock=sock: answer(context, sock))
        while True:
            for key, _ in selector.select(0.1):
                key.data()
            context.page.tick()
            context.quarantine.refresh()


def answer(context: WorkerContext, listening: socket.socket) -> None:
    try:
        connection, _ = listening.accept()
    except BlockingIOError:
        return
    connection.settimeout(60)
    with connection, connection.makefile("rw") as lines:
        for line in lines:
            command, *words = line.split()
            lines.write(json.dumps(COMMANDS[command](context, *words)) + "\n")
            lines.flush()


def step(context: WorkerContext, name: str) -> ActorId:
    actor = ActorId("ACCOUNT", name.encode())
    if name != "nobody":
        context.page.enter(label_of(instance_of(actor), "debit"))
    return actor


def about(context: WorkerContext) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "name": context.name,
        "restarts": context.restarts,
        "last_death": context.last_death,
        "fds": len(list(Path("/proc/self/fd").iterdir())),
        "mask": len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    }


def die(context: WorkerContext, name: str, how: str) -> NoReturn:
    """Dies in a turn of the instance, in one of the ways that an actor's code can."""
    step(context, name)
    if how == "exit":
        os._exit(3)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "fail":
        context.fail("the disk is gone")
    raise RuntimeError("out of the loop")


def hang(context: WorkerContext, name: str, where: str) -> NoReturn:
    step(context, name)
    if where == "rocksdb":
        context.page.enter_rocksdb()
    while True:
        signal.pause()


def eat(context: WorkerContext, name: str, megabytes: str) -> NoReturn:
    step(context, name)
    eaten = b"x" * (int(megabytes) << 20)
    while True:
        context.page.tick()
        signal.sigtimedwait([], 0.05)
        assert eaten


def turn(context: WorkerContext, name: str) -> dict[str, bool]:
    """A turn that ends well, unless its instance is quarantined."""
    refused = context.quarantine.is_quarantined(instance_of(step(context, name)))
    context.page.leave()
    return {"refused": refused}


def begin(context: WorkerContext, name: str) -> dict[str, int]:
    step(context, name)
    return {"pid": os.getpid()}


def orphan(context: WorkerContext) -> dict[str, int]:
    """Starts a process that outlives its own parent."""
    if (middle := os.fork()) == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(middle, 0)
    return {"pid": middle, "restarts": context.restarts}


COMMANDS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (about, die, hang, eat, turn, begin, orphan)
}


def main(settings: dict[str, Any]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    if settings.get("subreaper"):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    listeners = Listeners()
    specs = []
    for worker in settings["workers"]:
        sock = listeners.listen("127.0.0.1", worker.get("port", 0))
        specs.append(
            WorkerSpec(
                worker["name"],
                serve if settings.get("callable") else "supervised:serve",
                worker.get("arguments", {}),
                [sock],
                Path(worker["data"]) if "data" in worker else None,
                worker.get("memory_limit_bytes", 0),
            )
        )
    say(pid=os.getpid(), ports=[sock.getsockname()[1] for sock in listeners.sockets()])
    changed = Path(settings["changed"]) if "changed" in settings else None
    supervisor = Supervisor(
        specs,
        listeners=listeners,
        preload=lambda: preload(settings),
        timing=Timing(**settings.get("timing", {})),
        on_hangup=hangup(settings.get("hangup"), lambda: supervisor),
        watch=(lambda: consume(changed)) if changed else None,
    )
    status = supervisor.run()
    if supervisor.message:
        say(message=supervisor.message)
    return status


def preload(settings: dict[str, Any]) -> None:
    if settings.get("thread"):
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    refuse_forks(settings.get("refused_forks", 0))
    if "code" in settings:
        compile(Path(settings["code"]).read_text(), "code", "exec")


def refuse_forks(count: int) -> None:
    """The system has no process left for the first forks."""
    fork, left = os.fork, [OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))] * count

    def refusing() -> int:
        if left:
            raise left.pop()
        return fork()

    os.fork = refusing


def hangup(kind: str | None, supervisor: Callable[[], Supervisor]) -> Callable[[], None] | None:
    if kind == "reexec":
        return lambda: supervisor().reexec()
    return (lambda: supervisor().replace()) if kind == "replace" else None


def consume(changed: Path) -> bool:
    found = changed.exists()
    changed.unlink(missing_ok=True)
    return found


if __name__ == "__main__":
    try:
        sys.exit(main(json.loads(sys.argv[1])))
    except ListenError as error:
        sys.exit(str(error))
