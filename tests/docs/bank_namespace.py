"""The code in examples/01-bank/namespace.yaml is bank.py beside it: `python -m tests.docs.bank_namespace` renews it."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Final

__all__ = ["PAGE", "render"]

FOLDER: Final = Path(__file__).resolve().parents[2] / "examples" / "01-bank"
PAGE: Final = FOLDER / "namespace.yaml"
BEGIN: Final = "  bank.py: |\n"
END: Final = "---\n"


def render() -> str:
    """The file's text."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, tail = rest.rpartition(END)
    return head + BEGIN + textwrap.indent((FOLDER / "bank.py").read_text(), "    ") + END + tail


if __name__ == "__main__":
    PAGE.write_text(render())
