"""A `kubeactor dev` of the test actors under the fault shim: what the fault tests have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.faults.shim import Shim
from tests.harness.dev import Dev

__all__ = ["bank", "machine", "notes"]

HERE = Path(__file__).parent


def bank(data: Path, *, hosts: int | None = None, environment: Mapping[str, str] | None = None) -> Dev:
    """The example bank, and beside it the savers that a `Load` looks after."""
    environment = {**(environment or {}), "PYTHONPATH": str(HERE)}
    return Dev(data, actors=["bank:Account", "actors:Saver"], hosts=hosts, environment=environment)


def machine(folder: Path) -> tuple[Shim, Dev]:
    """That bank, its data on a disk whose faults are at the test's command."""
    shim = _shim(folder)
    return shim, _logged(folder, bank(folder / "disk" / "data", environment=shim.environment()))


def notes(folder: Path, hosts: int | None = None) -> tuple[Shim, Dev]:
    """The test actors, likewise."""
    shim = _shim(folder)
    dev = Dev(
        folder / "disk" / "data",
        actors=["actors:Note"],
        front_door=None,
        folder=HERE,
        hosts=hosts,
        environment=shim.environment(),
    )
    return shim, _logged(folder, dev)


def _shim(folder: Path) -> Shim:
    (folder / "disk").mkdir()
    return Shim(folder / "disk", folder / "shim")


def _logged(folder: Path, dev: Dev) -> Dev:
    dev.log_file = folder / "log"  # printed, not stored: not on the disk that fails
    return dev
