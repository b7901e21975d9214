"""`make soak`: full load for ten minutes. Does the memory hold, and is every unit there at the end?

Debits, deposits and reads over 10,000 accounts in turns; the memory of every process is sampled. The run fails when a
unit is missing, or when the last fifth of the samples is above the second by more than `--growth` percent and 16 MiB.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench import Books, Cell, drive, say
from servers import RESULTS, BenchError, Server, kubeactor

ACCOUNTS = 10_000
CONNECTIONS = 64
TURN_S = 10
SAMPLE_S = 1.0
MIB = 1024 * 1024
SLACK_MIB = 16.0


class Sampler(threading.Thread):
    """Adds up the resident memory of all processes of a server, once a second."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.samples_mib: list[float] = []
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(SAMPLE_S):
            self.samples_mib.append(sum(self.server.rss_bytes().values()) / MIB)


def soak(server: Server, seconds: float) -> list[float]:
    """Drive the server for that long; the samples in MiB. Raises BenchError on a wrong answer or sum."""
    books = Books()
    books.open(server, ACCOUNTS)
    sampler = Sampler(server)
    sampler.start()
    end = time.monotonic() + seconds
    for turn, operation in enumerate(itertools.cycle(("debit", "deposit", "balance"))):
        if time.monotonic() >= end:
            break
        sample = drive(server, Cell(operation, ACCOUNTS, CONNECTIONS), TURN_S, books, turn)
        memory = sampler.samples_mib[-1] if sampler.samples_mib else 0.0
        say(f"{turn * TURN_S:5d} s  {operation:8s} {sample.per_s:8,.0f}/s  {sample.cpu_us:4.0f} us  {memory:7.1f} MiB")
    sampler.done.set()
    sampler.join()
    books.check(server)
    return sampler.samples_mib


def verdict(samples_mib: list[float], growth_percent: float) -> str:
    """One line with the growth. Raises BenchError when it is too much."""
    fifth = max(1, len(samples_mib) // 5)
    early, late = statistics.mean(samples_mib[fifth : 2 * fifth]), statistics.mean(samples_mib[-fifth:])
    growth = (late - early) / early * 100
    line = f"memory {early:.1f} MiB in the second fifth, {late:.1f} MiB in the last: {growth:+.1f} %"
    if growth > growth_percent and late - early > SLACK_MIB:
        raise BenchError(f"{line}, which is more than {growth_percent} %")
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--growth", type=float, default=10.0, help="percent that is still fine")
    parser.add_argument("--hosts", help="ingress and that many hosts instead of one embedded process")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir=RESULTS))
    server = kubeactor("soak", folder, ["--hosts", options.hosts] if options.hosts else [])
    try:
        server.start()
        samples_mib = soak(server, options.seconds)
    finally:
        server.stop(signal.SIGKILL)
    print(verdict(samples_mib, options.growth))
    shutil.rmtree(folder)


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"soak: {error}")
