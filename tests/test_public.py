"""What is public, and what an import of it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import kubeactor


def test_all_that_is_listed_exists_and_is_sorted() -> None:
    assert list(kubeactor.__all__) == sorted(kubeactor.__all__)
    for name in kubeactor.__all__:
        assert getattr(kubeactor, name).__doc__, name


def test_every_error_that_a_caller_can_meet_is_public() -> None:
    assert set(kubeactor.errors.__all__) <= set(kubeactor.__all__)


@pytest.mark.parametrize(
    "module", ["rocksdict", "uvicorn", "uvloop", "kopf", "kubernetes", "prometheus_client", "typer"]
)
def test_importing_the_library_loads_none_of_what_only_hosts_need(module: str) -> None:
    code = f"import kubeactor, sys; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_test_suite_can_turn_deprecations_into_errors(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\nfilterwarnings = ["error::kubeactor.KubeactorDeprecationWarning"]\n'
    )
    (tmp_path / "test_it.py").write_text(
        "import warnings, kubeactor\n"
        "def test_it():\n"
        "    warnings.warn('old goes; write new', kubeactor.KubeactorDeprecationWarning)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:kmock", "-p", "no:asyncio"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert "KubeactorDeprecationWarning: old goes; write new" in result.stdout, result.stdout + result.stderr
    assert "1 failed" in result.stdout


def test_every_public_class_of_the_contract_is_there() -> None:
    names = {
        "Actor",
        "ActorError",
        "AlarmInfo",
        "Binding",
        "Env",
        "Key",
        "Message",
        "Problem",
        "Secret",
        "id_of",
        "method",
    }
    assert names <= set(kubeactor.__all__)
