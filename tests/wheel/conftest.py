"""One wheel and one environment for all tests of what a user installs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.harness.wheel import Installed, build


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installed:
    """The wheel as `pip install 'kubeactor[client,test]'` leaves it in an empty environment."""
    return Installed(tmp_path_factory.mktemp("installed") / "venv", wheel, "client", "test")
