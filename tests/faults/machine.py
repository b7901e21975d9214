"""A `kubeactor dev` of the test actors under the fault shim: what the fault tests have in common."""

from __future__ import annotations

from pathlib import Path

from tests.faults.shim import Shim
from tests.harness.dev import BANK, Dev

__all__ = ["machine", "notes"]


def machine(folder: Path) -> tuple[Shim, Dev]:
    """The bank, its data on a disk whose faults are at the test's command."""
    return _machine(folder, ["bank:Account"], BANK, None)


def notes(folder: Path, hosts: int | None = None) -> tuple[Shim, Dev]:
    """The test actors, likewise."""
    return _machine(folder, ["actors:Note"], Path(__file__).parent, hosts)


def _machine(folder: Path, actors: list[str], code: Path, hosts: int | None) -> tuple[Shim, Dev]:
    disk = folder / "disk"
    disk.mkdir()
    shim = Shim(disk, folder / "shim")
    front_door = "bank:app" if code == BANK else None
    dev = Dev(
        disk / "data", actors=actors, front_door=front_door, folder=code, hosts=hosts, environment=shim.environment()
    )
    dev.log_file = folder / "log"  # printed, not stored: not on the disk that fails
    return shim, dev
