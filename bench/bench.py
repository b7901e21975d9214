"""`make bench`: kubeactor beside a hand-rolled C server, under the same load, every answer and every sum checked.

All servers run at once and are driven in turns: within a round each of them gets the same load for the same time, so
the ratios of a round compare like with like although the machine's own speed moves. A run that lost or doubled one
unit, or saw one wrong answer, ends with exit status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import slow_disk
from servers import BENCH, RESULTS, ROOT, BenchError, Server, baseline, for_each_account, kubeactor

TAIL_S = 0.8  # of each load, at most half of it: health checks only, while the last calls are answered
WARM_UP_S = 1
FUNDS = 10**9
DOCUMENT = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


@dataclass(frozen=True)
class Cell:
    """One load: an operation over a number of accounts by a number of connections."""

    operation: str
    accounts: int
    connections: int


@dataclass
class Sample:
    """What one server did under one load in one round."""

    server: str
    cell: Cell
    round: int
    calls: int
    per_s: float
    cpu_us: float
    syncs_per_s: float


@dataclass(frozen=True)
class Plan:
    """Which loads, how often and for how long (whole seconds, as wrk wants them)."""

    cells: list[Cell]
    rounds: int
    seconds: int

    def duration_s(self, servers: int) -> int:
        """Roughly how long the loads take, with one short turn to warm up each."""
        return len(self.cells) * servers * (self.rounds * self.seconds + WARM_UP_S)


def quick() -> Plan:
    """Under two minutes."""
    cells = [Cell("debit", accounts, connections) for accounts in (1, 100) for connections in (1, 64)]
    return Plan([*cells, Cell("deposit", 100, 64), Cell("balance", 100, 64)], rounds=2, seconds=1)


def full() -> Plan:
    """Under eight minutes: debits over the whole grid, one load of deposits, one of reads."""
    grid = [Cell("debit", accounts, connections) for accounts in (1, 100, 10_000) for connections in (1, 16, 64, 256)]
    return Plan([*grid, Cell("deposit", 100, 64), Cell("balance", 100, 64)], rounds=3, seconds=2)


class Books:
    """What each set of accounts of a server must sum up to."""

    def __init__(self) -> None:
        self.sums: dict[int, int] = {}

    def open(self, server: Server, accounts: int) -> None:
        """Give every account of a set its funds."""
        for_each_account(server, names(accounts), "deposit", FUNDS)
        self.sums[accounts] = accounts * FUNDS

    def note(self, cell: Cell, calls: int) -> None:
        """Count acknowledged calls of one unit each."""
        self.sums[cell.accounts] += {"debit": -calls, "deposit": calls, "balance": 0}[cell.operation]

    def check(self, server: Server) -> None:
        """Compare with what the server says. Raises BenchError at the difference of one unit."""
        for accounts, expected in self.sums.items():
            actual = for_each_account(server, names(accounts), "balance")
            if actual != expected:
                raise BenchError(f"{server.name}: {accounts} accounts hold {actual}, not {expected}: a unit was lost")


def names(accounts: int) -> list[str]:
    """The accounts of a set, as bench/load.lua calls them."""
    return [f"bench-{accounts}-{number}" for number in range(accounts)]


def drive(server: Server, cell: Cell, seconds: int, books: Books, turn: int) -> Sample:
    """Put one load on a server. Raises BenchError at the first wrong answer."""
    command = ["wrk", "-t1", f"-c{cell.connections}", f"-d{seconds}s", "--timeout", "30s"]
    script = ["-s", str(BENCH / "load.lua"), server.url, "--", cell.operation, str(cell.accounts)]
    count_s = seconds - min(TAIL_S, seconds / 2)
    cpu, syncs = server.cpu_s(), server.syncs()
    with subprocess.Popen([*command, *script, f"{count_s:.3f}"], stdout=subprocess.PIPE, text=True) as wrk:
        time.sleep(count_s)
        cpu, synced = server.cpu_s() - cpu, server.syncs() - syncs
        output, _ = wrk.communicate()
    result = parse(output, server, cell)
    books.note(cell, result["good"])
    per_s = result["good"] / result["seconds"]
    cpu_us, syncs_per_s = cpu / result["good"] * 1e6, synced / count_s
    return Sample(server.name, cell, turn, result["good"], per_s, cpu_us, syncs_per_s)


def parse(output: str, server: Server, cell: Cell) -> dict[str, int]:
    """What bench/load.lua counted."""
    line = next((line for line in output.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise BenchError(f"{server.name}, {cell}: wrk failed:\n{output}")
    result: dict[str, int] = json.loads(line.removeprefix("RESULT "))
    wrong = result["bad"] or result["errors"] or result["refused"] or result["sent"] != result["good"]
    if wrong or not result["good"]:
        raise BenchError(f"{server.name}, {cell}: wrong or missing answers: {line}")
    return result


def run(plan: Plan, servers: Sequence[Server]) -> list[Sample]:
    """Drive every server through the plan in turns, then check the sums, before and after a kill."""
    books = {server.name: Books() for server in servers}
    for server, accounts in itertools.product(servers, dict.fromkeys(cell.accounts for cell in plan.cells)):
        books[server.name].open(server, accounts)
    samples = []
    for cell in plan.cells:
        say(f"{cell.operation}, {cell.accounts} accounts, {cell.connections} connections")
        for server in servers:
            drive(server, cell, WARM_UP_S, books[server.name], 0)
        for turn in range(1, plan.rounds + 1):
            order = servers if turn % 2 else servers[::-1]  # whoever is driven first has no lasting advantage
            samples += [drive(server, cell, plan.seconds, books[server.name], turn) for server in order]
    say("sums, before and after SIGKILL")
    for server in servers:
        books[server.name].check(server)
        server.stop(signal.SIGKILL)
        server.start()
        books[server.name].check(server)
    return samples


def table(samples: list[Sample], servers: Sequence[Server]) -> str:
    """Markdown: one row for each load, the C server in absolute figures, the others as ratios to it."""
    others = [server.name for server in servers[1:]]
    head = ["load", "accounts", "connections", servers[0].name, *others]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for cell in dict.fromkeys(sample.cell for sample in samples):
        here = [sample for sample in samples if sample.cell == cell]
        base = [sample for sample in here if sample.server == servers[0].name]
        columns = [cell.operation, f"{cell.accounts:,}", str(cell.connections), absolute(base)]
        for name in others:
            own = [sample for sample in here if sample.server == name]
            ratios = [mine.per_s / its.per_s for mine, its in zip(own, base, strict=True)]
            spread = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f}-{max(ratios):.2f})"
            columns.append(f"{spread} {absolute(own)}")
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def absolute(samples: list[Sample]) -> str:
    """Calls a second, CPU microseconds a call, syncs a second: medians."""
    per_s = statistics.median(sample.per_s for sample in samples)
    cpu_us = statistics.median(sample.cpu_us for sample in samples)
    syncs_per_s = statistics.median(sample.syncs_per_s for sample in samples)
    return f"{per_s:,.0f}/s, {cpu_us:.0f} us, {syncs_per_s:,.0f} syncs/s"


def machine(disk: str) -> str:
    """One sentence about what it ran on."""
    today = datetime.datetime.now(datetime.UTC).date()
    return (
        f"{today}, {os.cpu_count()} cores ({platform.machine()}), Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, {disk}."
    )


@contextlib.contextmanager
def disk_of(folder: Path, sync_ms: float) -> Iterator[tuple[Path, str]]:
    """Where the servers keep their data, and what that is: a slower disk if one is wanted and possible."""
    reason = slow_disk.why_not() if sync_ms else "as wanted"
    if reason:
        say(f"on this machine's own disk: {reason}")
        yield folder, f"append + fdatasync {slow_disk.probe_ms(folder):.3f} ms on the machine's own disk"
        return
    with slow_disk.slow_disk(folder, sync_ms) as disk:
        text = f"append + fdatasync {disk.sync_ms:.3f} ms on ext4 on bench/slow_disk.c, {disk.command_us} us a command"
        say(text)
        yield disk.folder, text


def say(text: str) -> None:
    """Progress, on stderr, so that stdout is the table alone."""
    print(text, file=sys.stderr, flush=True)


def update_document(text: str) -> None:
    """Put the table between the marks of docs/performance.md. Raises BenchError without the marks."""
    page = DOCUMENT.read_text()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"{DOCUMENT.name} has no {BEGIN} ... {END}")
    DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


FORMS = {"embedded": [], "ingress + 1 host": ["--hosts", "1"], "ingress + 2 hosts": ["--hosts", "2"]}


def comparisons(folder: Path, against: Path | None) -> list[list[Server]]:
    """Which servers run side by side, the first of each list being what the others are compared to."""
    if against is None:
        return [[baseline(folder), *(kubeactor(name, folder, options) for name, options in FORMS.items())]]
    before = {name: kubeactor(f"{name}, before", folder, options, against) for name, options in FORMS.items()}
    return [[before[name], kubeactor(name, folder, options)] for name, options in FORMS.items()]


def compare(plan: Plan, servers: list[Server]) -> list[Sample]:
    """Start the servers, run the plan, end them."""
    try:
        for server in servers:
            server.start()
        return run(plan, servers)
    finally:
        for server in servers:
            server.stop(signal.SIGKILL)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small grid, under two minutes")
    parser.add_argument("--update", action="store_true", help="write the table into docs/performance.md")
    parser.add_argument(
        "--against", type=Path, help="compare with this other checkout's kubeactor (after `make` there), not with C"
    )
    parser.add_argument(
        "--sync-ms", type=float, default=0.0, help="on a disk where an append and its fdatasync take that long"
    )
    parser.add_argument("--rounds", type=int, help="instead of the plan's own number")
    options = parser.parse_args()
    if options.against and options.update:
        parser.error("--update writes the table beside C; leave out --against")
    return options


def main() -> None:
    options = arguments()
    if shutil.which("wrk") is None:
        raise BenchError("wrk is missing: install it (apt-get install wrk)")
    plan = quick() if options.quick else full()
    if options.rounds:
        plan = Plan(plan.cells, options.rounds, plan.seconds)
    if options.sync_ms and not slow_disk.why_not():
        slow_disk.enter_namespace()
    RESULTS.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=RESULTS))
    with disk_of(folder, options.sync_ms) as (data, disk):
        sides = comparisons(data, options.against)
        say(f"about {plan.duration_s(sum(map(len, sides))) / 60 + 1:.0f} minutes")
        results = [(compare(plan, servers), servers) for servers in sides]
        samples = [sample for some, _ in results for sample in some]
        text = "\n\n".join([machine(disk), *(table(some, servers) for some, servers in results)])
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
        record = {"machine": text.partition("\n")[0], "samples": [asdict(sample) for sample in samples]}
        (RESULTS / f"{stamp}.json").write_text(json.dumps(record, indent=1))
        (RESULTS / f"{stamp}.md").write_text(f"{text}\n")
        print(text)
        if options.update:
            update_document(text)
    shutil.rmtree(folder)


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"bench: {error}")
