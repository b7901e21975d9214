"""One `kubeactor dev` for the tests of a module."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.client.serving import till_dev
from tests.harness.dev import Dev


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    dev = till_dev(tmp_path_factory.mktemp("till") / "data")
    dev.start()
    try:
        asyncio.run(dev.ready())
        yield dev
    finally:
        dev.kill()


@pytest.fixture(scope="module")
def url(dev: Dev) -> str:
    return f"http://127.0.0.1:{dev.port}"
