"""What all tests share: tools that a machine may lack, and how hypothesis looks for examples."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's business, not the code's: a busy one fails no test.
settings.register_profile("kubeactor", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kubeactor")

pytest_plugins = ["tests.cluster.plugin"]


@pytest.fixture(scope="session")
def require() -> Callable[[str], str]:
    """A function that gives the path of a command, or skips the test with one line that names it.

    Under CI=true a missing command is a failure: a skip there would hide that something is not tested at all.
    """

    def find(command: str) -> str:
        if path := shutil.which(command):
            return path
        line = f"{command} is missing (as root on Debian, `make test` installs it)"
        if os.environ.get("CI") == "true":
            pytest.fail(line, pytrace=False)
        pytest.skip(line)

    return find
