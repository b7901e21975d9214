"""`make restart`: how long until the next success when the worker is killed under full load?

Each round lets the load run, so that the WAL is written anew, then kills the worker with SIGKILL and sends a deposit
on new connections until one is answered with success. At the end no acknowledged unit may be missing, and no call may
have been applied twice: the sum lies between the calls that were answered and the calls that were sent.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import FUNDS, names, say
from servers import BENCH, RESULTS, BenchError, Server, for_each_account, kubeactor, processes

ACCOUNTS = 10_000  # many, since an instance that is in its turn at three deaths is quarantined
CONNECTIONS = 64
GIVE_UP_S = 30.0
LONG_S = 24 * 3600


def worker(server: Server) -> int:
    """The process below the supervisor that has used the most CPU."""
    tree = list(server.pids())[1:]
    ticks = {pid: used for pid, _, used in processes() if pid in tree}
    if not ticks:
        raise BenchError("there is no worker below the supervisor")
    return max(ticks, key=lambda pid: ticks[pid])


def time_to_success_s(server: Server, number: int) -> float:
    """Kill the worker; seconds until a deposit succeeds. Raises BenchError after 30 s."""
    os.kill(worker(server), signal.SIGKILL)
    killed = time.perf_counter()
    while (passed := time.perf_counter() - killed) < GIVE_UP_S:
        try:
            with server.client(5.0) as client:
                client.call(f"probe-{number}", "deposit", 1)
            return time.perf_counter() - killed
        except (OSError, http.client.HTTPException, BenchError):
            time.sleep(0.001)
    raise BenchError(f"no success within {passed:.0f} s of a kill")


def run(server: Server, rounds: int, between_s: float) -> list[float]:
    """All rounds under one load, then the sums."""
    for_each_account(server, names(ACCOUNTS), "deposit", FUNDS)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{LONG_S}s", "--timeout", "30s", "-s", str(BENCH / "load.lua")]
    command += [server.url, "--", "deposit", str(ACCOUNTS), str(LONG_S)]
    times = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wrk:
        try:
            for number in range(rounds):
                time.sleep(between_s * random.uniform(0.5, 1.5))
                times.append(time_to_success_s(server, number))
                say(f"round {number + 1}: {times[-1] * 1000:.0f} ms")
        finally:
            wrk.send_signal(signal.SIGINT)  # it prints what it has
        output, _ = wrk.communicate()
    line = next((line for line in output.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise BenchError(f"wrk failed:\n{output}")
    check(server, json.loads(line.removeprefix("RESULT ")))
    return times


def check(server: Server, load: dict[str, int]) -> None:
    """Compare the sums with what wrk saw. Raises BenchError."""
    applied = for_each_account(server, names(ACCOUNTS), "balance") - ACCOUNTS * FUNDS
    say(f"{load['sent']} deposits sent, {load['good']} answered, {applied} applied")
    if load["bad"]:
        raise BenchError(f"wrong answers: {load}")
    if not load["good"] <= applied <= load["sent"]:
        raise BenchError(f"{applied} deposits were applied, {load['good']} answered, {load['sent']} sent")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--between", type=float, default=2.0, help="seconds of load before each kill, on average")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="restart-", dir=RESULTS))
    server = kubeactor("restart", folder)
    try:
        server.start()
        times_ms = sorted(time_s * 1000 for time_s in run(server, options.rounds, options.between))
    finally:
        server.stop(signal.SIGKILL)
    p99 = times_ms[min(len(times_ms) - 1, int(len(times_ms) * 0.99))]
    print(
        f"{len(times_ms)} kills: p50 {statistics.median(times_ms):.0f} ms, p99 {p99:.0f} ms, max {times_ms[-1]:.0f} ms"
    )
    shutil.rmtree(folder)


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"restart: {error}")
