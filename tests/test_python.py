"""Which Python it takes; an older one is played, since the lock is for those that it takes."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from kubeactor.python import OLDEST

ROOT = Path(__file__).resolve().parents[1]
SAYS = "kubeactor needs Python 3.11 or newer, this is 3.10: make the environment with a newer one"


@pytest.mark.parametrize(
    "argv",
    [
        "sys.argv[0] = '/x/bin/kubeactor'",
        "sys.orig_argv[1:] = ['-m', 'kubeactor', 'dev']",
        "sys.argv[0] = '-m'; del sys.orig_argv",  # as 3.9 has it
    ],
)
def test_an_old_python_ends_the_command_line_in_one_sentence(argv: str) -> None:
    code = f"import sys; sys.version_info = (3, 10, 4, 'final', 0); {argv}; import kubeactor"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"kubeactor: {SAYS}\n")


@pytest.mark.parametrize("more", ["", "; del sys.orig_argv"])
def test_an_old_python_that_imports_it_is_told_by_the_exception(more: str) -> None:
    code = f"import sys; sys.version_info = (3, 10, 4, 'final', 0){more}; import kubeactor"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"ImportError: {SAYS}"


def test_it_is_the_one_that_the_package_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={'.'.join(map(str, OLDEST))}"
