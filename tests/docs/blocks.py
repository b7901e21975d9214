"""The Python blocks of the pages, as the programs that a reader would make of them.

A block whose first line is `# name.py` is that file. The others of a page follow one another as one program, which may
import the files. `test_*.py` runs under pytest, everything else is imported.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["PAGES", "Programs", "programs"]

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK: Final = re.compile(r"^```python[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
NAME: Final = re.compile(r"# (\w+)\.py\n")
PAGE: Final = "page"


class Programs(NamedTuple):
    """Module name -> source, in the order of the page."""

    modules: dict[str, str]
    tests: dict[str, str]


def programs(text: str) -> Programs:
    """What a page holds.

    Raises:
        ValueError: when two blocks of the page claim one name.
    """
    found: dict[str, str] = {}
    for block in BLOCK.findall(text):
        match = NAME.match(block)
        name = match[1] if match else PAGE
        if match and name in found:
            raise ValueError(f"two blocks are {name}.py")
        found[name] = found.get(name, "") + block
    tests = {name: found.pop(name) for name in list(found) if name.startswith("test_")}
    return Programs(found, tests)
