"""The first write of a new data folder outlives a power loss, and so do the folders that it lies in."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from tests.faults.shim import Mode, Shim
from tests.harness.needs import needs_compiler

needs_compiler()

PROGRAM = """
import os, sys
from pathlib import Path
from kubeactor.engine.store import Store, new_batch
from kubeactor.engine.volume import Volume
store = Store(Path(sys.argv[1]))
Volume(store, namespace="n", host="host-0", shards=4)
if sys.argv[2] == "read":
    print(store.get(b"key"))
else:
    batch = new_batch()
    batch.put(b"key", b"value")
    store.write(batch)
    store.sync()
os.kill(os.getpid(), 9) if sys.argv[2] == "write" else store.close()
"""


def run(shim: Shim, folder: Path, what: str) -> str:
    arguments = [sys.executable, "-c", PROGRAM, str(folder), what]
    return subprocess.run(arguments, env=shim.environment(), capture_output=True, text=True, check=False).stdout.strip()


def test_a_new_folder_outlives_a_power_loss_with_what_was_synced_in_it(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    shim = Shim(tmp_path / "disk", tmp_path / "work")
    folder = tmp_path / "disk" / "data" / "host-0" / "db"
    run(shim, folder, "write")
    shim.switches.off = 1
    shim.kill()
    shim.restore(Mode.DROP, random.Random(0))
    assert run(shim, folder, "read") == "b'value'"
