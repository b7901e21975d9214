"""`requirements/install.sh` says in one line what a machine lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def install(folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a copy, so that the .venv of these tests is never touched."""
    (folder / "requirements").mkdir()
    script = shutil.copy(ROOT / "requirements" / "install.sh", folder / "requirements")
    environment = os.environ | {"PYTHON": python}
    return subprocess.run(["sh", script, "run"], env=environment, capture_output=True, text=True, check=False)


def fake_python(folder: Path, answers: str) -> str:
    path = folder / "python"
    path.write_text(f'#!/bin/sh\ncase "$*" in\n{answers}\nesac\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("answers", "line"),
    [
        ("--version) echo Python 3.9.2 ;;\n*version_info*) exit 1 ;;", "Python 3.9.2 is too old, 3.11 is the oldest"),
        ("*version_info*) exit 0 ;;\n*) exit 1 ;;", "has no venv module: install it"),
    ],
)
def test_a_python_that_cannot_do_it_is_named_in_one_line(tmp_path: Path, answers: str, line: str) -> None:
    result = install(tmp_path, fake_python(tmp_path, answers))
    assert result.returncode == 1
    assert result.stderr.startswith("kubeactor: ")
    assert line in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / ".venv").exists()


def test_a_missing_python_is_named_in_one_line(tmp_path: Path) -> None:
    result = install(tmp_path, "no-such-python")
    assert result.returncode == 1
    assert result.stderr.startswith("kubeactor: no-such-python is missing: install Python 3.11 or newer")
    assert len(result.stderr.splitlines()) == 1
