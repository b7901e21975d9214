"""What a test needs of its machine: absent, its module is skipped with one line; under CI=true that is a failure."""

from __future__ import annotations

import os
import shutil

import pytest

__all__ = ["needs_compiler"]


def needs_compiler() -> None:
    """Call at the top of a module whose tests build the fault shim."""
    if shutil.which("cc") is None:
        reason = "no C compiler (cc): the fault shim can't be built"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason, allow_module_level=True)
