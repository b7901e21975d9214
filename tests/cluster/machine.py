"""The scripts of this folder as seen by tests: programs, cluster, engine, images."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["HERE", "ROOT", "Missing", "inside", "read_env", "script"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CLONE_NEWNET = 0x40000000


class Missing(Exception):
    """The machine can't have this; the one line says what is missing and how to get it."""


def script(name: str, *arguments: str) -> str:
    """Run one of the scripts, whose progress goes to this process's stderr, and return what it printed.

    Raises Missing with the script's last line if it failed.
    """
    last = ""
    with subprocess.Popen(
        [HERE / name, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stderr:
            last = line.rstrip()
            os.write(2, f"{last}\n".encode())
        printed = process.stdout.read()
    if process.returncode:
        raise Missing(last)
    return printed


def read_env() -> dict[str, str]:
    """What `cluster.sh env` says of the running cluster: KUBECONFIG, and with an engine of our own DOCKER_HOST,
    PROGRAMS and PID."""
    lines = script("cluster.sh", "env").splitlines()
    return dict(line.split("=", 1) for line in lines)


@contextlib.contextmanager
def inside(pid: int | None) -> Iterator[None]:
    """This thread, and what it starts, in the network of that process; None changes nothing."""
    if pid is None:
        yield
        return
    with Path("/proc/thread-self/ns/net").open() as home, Path(f"/proc/{pid}/ns/net").open() as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")
