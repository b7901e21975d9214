"""The tests of docs/testing.md, run as they stand, and checked by mypy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.blocks import ROOT, programs

PAGE = (ROOT / "docs" / "testing.md").read_text()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    found = programs(PAGE)
    for name, text in {**found.modules, **found.tests}.items():
        (tmp_path / f"{name}.py").write_text(text)
    sections = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "pyproject.toml").write_text("\n".join(sections))
    return tmp_path


def run(project: Path, *command: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=project, capture_output=True, text=True, timeout=100, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_tests_of_the_page_pass(project: Path) -> None:
    options = ("-p", "no:cacheprovider", "-p", "no:kmock", "-o", "asyncio_default_fixture_loop_scope=function")
    assert re.search(r"^1[01] passed", run(project, "pytest", "-q", "-W", "error", *options), re.MULTILINE)


def test_the_tests_of_the_page_are_typed(project: Path) -> None:
    run(project, "mypy", "--strict", *(path.name for path in project.glob("*.py")))
