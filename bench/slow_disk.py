"""A slower disk than this machine's: ext4 on a loop device on `slow_disk.c`, seen by the benchmark alone.

A flush that merely sleeps would not do: how many of the syncs that wait at once share a write or a journal commit is
what the measurement is about, and that is the file system's doing. So the file system is real, and the device below it
takes its time.

It needs root, since it mounts, in a mount namespace that ends with the benchmark and takes all mounts along.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from servers import BenchError, build

GIBIBYTES = 4
TOOLS = ("unshare", "losetup", "mkfs.ext4", "mount", "umount")
MARK = "BENCH_MOUNT_NAMESPACE"
START_DEADLINE_S = 10.0
# What ext4 sends for an append and its fdatasync: the page, the journal's blocks, a flush, the commit block, a flush.
COMMANDS_PER_SYNC = 5
PROBES = 500
MNT_DETACH = 2


@dataclass(frozen=True)
class Disk:
    """A mounted one.

    Attributes:
        folder: where its files are.
        command_us: what a command takes on top of the way to the device and back, microseconds.
        sync_ms: what an append and its fdatasync take, alone, the median.
    """

    folder: Path
    command_us: int
    sync_ms: float


def why_not() -> str:
    """Why there can't be one here; empty when there can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0:
        return "a slower disk needs root"
    if missing:
        return f"a slower disk needs {', '.join(missing)}"
    for device in ("/dev/fuse", "/dev/loop-control"):
        if not os.access(device, os.R_OK | os.W_OK):
            return f"a slower disk needs {device}"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        return "a slower disk needs a mount namespace of its own"
    return ""


def enter_namespace() -> None:
    """Start this program again in a mount namespace of its own; returns in there."""
    if os.environ.get(MARK) != "1":
        os.environ[MARK] = "1"
        own = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        os.execvp(own[0], own)


@contextlib.contextmanager
def slow_disk(folder: Path, sync_ms: float) -> Iterator[Disk]:
    """A disk on which an append and its fdatasync take about that long, if the way to it doesn't take longer already.

    Raises:
        BenchError: when a step fails, with what it printed.
    """
    with _attached(folder, 0) as mounted:
        bare_ms = probe_ms(mounted)
    command_us = max(0, round((sync_ms - bare_ms) * 1000 / COMMANDS_PER_SYNC))
    with _attached(folder, command_us) as mounted:
        yield Disk(mounted, command_us, probe_ms(mounted))


def probe_ms(folder: Path) -> float:
    """The median time of an append of 64 bytes and its fdatasync, alone on the disk."""
    times = []
    file = folder / "probe"
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for _ in range(PROBES):
        started = time.perf_counter()
        os.write(descriptor, bytes(64))
        os.fdatasync(descriptor)
        times.append(time.perf_counter() - started)
    os.close(descriptor)
    file.unlink()
    return statistics.median(times) * 1000


@contextlib.contextmanager
def _attached(folder: Path, command_us: int) -> Iterator[Path]:
    image, mounted = folder / "disk.image", folder / "disk"
    image.touch()
    mounted.mkdir(exist_ok=True)
    program = build("slow_disk.c", "slow_disk")
    # In a session of its own: Ctrl-C must not take the disk away from those who still write to it.
    command = [str(program), str(image), str(GIBIBYTES), str(command_us)]
    with subprocess.Popen(command, start_new_session=True) as device:
        try:
            _wait_for(image, device)
            with _mounted(image, mounted):
                yield mounted
        finally:
            _detach(image)
            device.kill()


@contextlib.contextmanager
def _mounted(image: Path, target: Path) -> Iterator[None]:
    loop = _run("losetup", "--find", "--show", "--direct-io=on", str(image))
    try:
        _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", loop)
        _run("mount", loop, str(target))
    finally:
        _run("losetup", "--detach", loop)  # when it is mounted, at the end of the mount
    try:
        yield
    finally:
        _run("umount", str(target))


def _wait_for(image: Path, device: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while image.stat().st_size == 0:
        if device.poll() is not None or time.monotonic() > deadline:
            raise BenchError("bench/slow_disk.c did not start, see above")
        time.sleep(0.01)


def _detach(target: Path) -> None:
    # Not by umount(8), which looks at what is mounted: that would ask a device that may be gone.
    ctypes.CDLL(None).umount2(os.fsencode(target), MNT_DETACH)


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise BenchError(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout.strip()
