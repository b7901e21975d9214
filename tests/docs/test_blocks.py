"""Every Python block of the pages runs; a block that does not is told with its page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.blocks import PAGES, ROOT, Programs, programs

WITH_BLOCKS = [page for page in PAGES if any(programs(page.read_text()))]


def run(found: Programs, folder: Path) -> str:
    """Import or test all of it in a fresh process; what it printed when it failed, else nothing."""
    for name, source in {**found.modules, **found.tests}.items():
        (folder / f"{name}.py").write_text(source)
    command = [sys.executable, "-W", "error", "-c", f"import {', '.join(found.modules)}"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return result.stdout + result.stderr if result.returncode else ""


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_python_block_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    assert not run(programs(page.read_text()), tmp_path)


def test_the_readme_and_the_guide_have_blocks() -> None:
    assert {"README.md", "guide.md", "client.md"} <= {page.name for page in WITH_BLOCKS}


@pytest.mark.parametrize(
    "text",
    [
        "```python\nimport kubeactor\nkubeactor.Actr\n```\n",
        "```python\n# a.py\nX = 1\n```\nand\n```python\nfrom a import Y\n```\n",
        "```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n",
    ],
)
def test_a_block_that_does_not_run_is_told(text: str, tmp_path: Path) -> None:
    assert "Error" in run(programs(text), tmp_path)


def test_two_blocks_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"two blocks are a\.py"):
        programs("```python\n# a.py\n```\n```python\n# a.py\n```\n")
