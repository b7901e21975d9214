"""The wheel, in an environment without anything else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from tests.harness.wheel import ROOT, Installed

PROGRAM = ROOT / "tests" / "typing" / "program"


def test_the_wheel_holds_the_packages_with_their_py_typed_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    packages = {"kubeactor", "kubeactor_operator", "kubeactor_pytest"}
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == packages
    assert {"kubeactor/py.typed", "kubeactor_operator/py.typed"} <= set(names)


def test_it_has_all_that_it_needs(installed: Installed, tmp_path: Path) -> None:
    code = "import kubeactor, kubeactor.cli, kubeactor.processes, kubeactor.client; print(kubeactor.__file__)"
    result = installed.run("python", "-W", "error", "-c", code, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).is_relative_to(installed.packages)


def test_mypy_takes_the_program_of_the_api_and_reports_wrong_uses_there(installed: Installed, tmp_path: Path) -> None:
    shutil.copytree(PROGRAM, tmp_path / "program")
    assert mypy(installed, tmp_path / "program", "bank.py", "shop.py") == ""
    (tmp_path / "program" / "wrong.py").write_text(
        "from bank import Bank\n"
        "async def f(env: Bank) -> str:\n"
        "    return await env.ACCOUNT.id_from_name('a').debit('30')\n"
    )
    said = mypy(installed, tmp_path / "program", "wrong.py")
    assert said.count("wrong.py:3: error:") == 2, said
    assert "[return-value]" in said
    assert "[arg-type]" in said


def mypy(installed: Installed, folder: Path, *files: str) -> str:
    """What mypy says, which finds kubeactor in the environment alone."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file="]
    command += ["--cache-dir", str(folder / ".mypy_cache"), "--python-executable", str(installed.python), *files]
    result = subprocess.run(
        command, cwd=folder, env=installed.environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert result.returncode in (0, 1), result.stderr
    return result.stdout


@pytest.mark.parametrize("extra", ["client", "test"])
def test_the_extras_are_there(wheel: Path, extra: str) -> None:
    with ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        assert f"Provides-Extra: {extra}" in archive.read(metadata).decode()
