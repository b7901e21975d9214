"""The wheel in an environment that has nothing but what the wheel says it needs, made without the network.

What it needs is linked from the environment of these tests, whose versions are locked: the closure of the requirements
in the wheel's own metadata. So a dependency that is not declared is missing here, as it would be at a user's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Final
from zipfile import ZipFile

from packaging.requirements import Requirement

__all__ = ["Installed", "build"]

ROOT: Final = Path(__file__).resolve().parents[2]
LIMIT_S: Final = 120.0
SCRIPT: Final = """#!{python}
import sys
from {module} import {function}
sys.exit({function}())
"""


def build(folder: Path) -> Path:
    """Build the wheel with the locked hatchling."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-index", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=LIMIT_S)
    (found,) = folder.glob("kubeactor-*.whl")
    return found


class Installed:
    """A virtual environment with the wheel, and what `kubeactor[extra,...]` needs."""

    def __init__(self, folder: Path, wheel: Path, *extras: str) -> None:
        self.folder = folder
        venv.create(folder, symlinks=True, with_pip=False)
        self.python = folder / "bin" / "python"
        (self.packages,) = folder.glob("lib/python*/site-packages")
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--no-index", str(wheel)]
        subprocess.run(command, check=True, timeout=LIMIT_S)
        for needed in _closure(wheel, extras):
            self._link(distribution(needed))
        self.environment = {name: os.environ[name] for name in ("HOME", "LANG", "TERM", "TMPDIR") if name in os.environ}
        self.environment |= {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}

    def _link(self, needed: Distribution) -> None:
        for file in needed.files or ():
            source = Path(str(needed.locate_file(file)))
            if ".." in file.parts or not source.exists():
                continue
            target = self.packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(source) if _same_disk(source, target.parent) else target.symlink_to(source)
        for entry in needed.entry_points.select(group="console_scripts"):
            script = self.folder / "bin" / entry.name
            script.write_text(SCRIPT.format(python=self.python, module=entry.module, function=entry.attr))
            script.chmod(0o755)

    def run(self, *command: str, folder: Path, timeout_s: float = LIMIT_S) -> subprocess.CompletedProcess[str]:
        """A command of this environment."""
        return subprocess.run(
            command, cwd=folder, env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )


def _same_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def _closure(wheel: Path, extras: tuple[str, ...]) -> Iterator[str]:
    """All that the wheel's metadata ask for, with what those ask for."""
    done: set[tuple[str, str]] = set()
    names: set[str] = set()
    todo = [(text, extra) for text in _requirements(wheel) for extra in ("", *extras)]
    while todo:
        text, extra = todo.pop()
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in done:
                done.add((name, wanted))
                todo += [(below, wanted) for below in distribution(name).requires or ()]
        if name not in names:
            names.add(name)
            yield name


def _requirements(wheel: Path) -> list[str]:
    with ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    return re.findall(r"^Requires-Dist: (.*)$", text, re.MULTILINE)
