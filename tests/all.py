"""Every test, with its coverage: `make test`.

The tests of the cluster mostly wait for it, so they run beside all others, which have less right to the cores: what the
cluster does is measured. The output of each part comes in one piece.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

LOG = Path("build/cluster-tests.log")
PYTEST = [sys.executable, "-m", "coverage", "run", "-m", "pytest"]
CLUSTER = [*PYTEST, "-m", "cluster or kindnodes", "--durations=20"]
OTHERS = [*PYTEST, "-m", "not cluster and not kindnodes", "--numprocesses=2", "--dist=loadfile"]
NICE = 10
POLL_S = 0.2


def main() -> int:
    """0 if all of them passed."""
    LOG.parent.mkdir(exist_ok=True)
    print(f"The tests of the cluster run beside these; what they print is in {LOG}, and comes last.", flush=True)
    with LOG.open("w") as out:
        cluster = subprocess.Popen(CLUSTER, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        others = subprocess.call(OTHERS, preexec_fn=lambda: os.nice(NICE))
        follow(LOG, cluster)
    except KeyboardInterrupt:
        return 130
    finally:
        cluster.wait()  # after Ctrl-C too, which it has heard: it ends the cluster that it started
    return others or cluster.returncode


def follow(log: Path, process: subprocess.Popen[bytes]) -> None:
    """Print what is in the log, and what is added to it until the process has ended."""
    with log.open() as text:
        while process.poll() is None:
            print(text.read(), end="", flush=True)
            time.sleep(POLL_S)
        print(text.read(), end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
