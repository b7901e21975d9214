"""Every example: its own tests pass, `kubeactor dev` serves it, and the lines of its README print what it says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from tests.examples.test_01_bank import ROOT, START_S, console_lines, free_port

FOLDERS = sorted(path for path in (ROOT / "examples").iterdir() if path.is_dir())
SCRIPTS = Path(sys.executable).parent
EXAMPLES = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
STOP_S = 15.0


def test_there_are_seven_numbered_from_one() -> None:
    assert [folder.name[:2] for folder in FOLDERS] == [f"{number:02}" for number in range(1, len(FOLDERS) + 1)]
    assert len(FOLDERS) >= 7


@EXAMPLES
def test_its_own_tests_pass(folder: Path, tmp_path: Path) -> None:
    """In a copy, as someone has it who begins with it, in a folder whose own settings of pytest are not for it."""
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = ["--no-such-option"]\n')
    copy = shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns(".*", "__pycache__"))
    options = ("-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:kmock", "-p", "no:hypothesispytest")
    command = [str(SCRIPTS / "pytest"), *options, "-o", "asyncio_default_fixture_loop_scope=function"]
    result = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=100, check=False)
    assert re.search(r"^[1-9]\d* passed in ", result.stdout, re.MULTILINE), result.stdout + result.stderr


@contextmanager
def running(command: list[str], folder: Path, port: int, path: str, log: Path, **environment: str) -> Iterator[None]:
    """The command, from when it answers at the path until the block ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
        )
    try:
        deadline = time.monotonic() + START_S
        while not answers(f"http://127.0.0.1:{port}{path}"):
            assert process.poll() is None, f"it ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"it does not answer:\n{log.read_text()}"
            time.sleep(0.02)  # between attempts to connect; nothing tells us when it listens
        yield
    finally:
        process.terminate()
        process.wait(STOP_S)


def answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=10.0)
    except httpx.TransportError:
        return False
    return True


def check_lines(readme: Path, ports: Mapping[int, int]) -> None:
    """Run its `curl` lines, with the ports that there are in the place of those that it names."""
    lines = [(command, output) for command, output in console_lines(readme) if command.startswith("curl ")]
    assert len(lines) >= 4
    for command, expected in lines:
        for named, port in ports.items():
            command = command.replace(f"127.0.0.1:{named}/", f"127.0.0.1:{port}/")
        arguments = shlex.split(command)
        result = subprocess.run([arguments[0], "-s", *arguments[1:]], capture_output=True, text=True, check=True)
        assert result.stdout.strip() == expected, command


@EXAMPLES
def test_its_readme_is_what_happens(folder: Path, tmp_path: Path, require: Callable[[str], str]) -> None:
    require("curl")
    port = free_port()
    dev = [str(SCRIPTS / "kubeactor"), "dev", "--port", str(port), "--data", str(tmp_path / "data")]
    with ExitStack() as stack:
        stack.enter_context(running(dev, folder, port, "/healthz", tmp_path / "dev.log"))
        ports = {8080: port}
        if (folder / "web.py").exists():
            ports[5000] = free_port()
            flask = [sys.executable, "-m", "flask", "--app", "web", "run", "--port", str(ports[5000])]
            url = f"http://127.0.0.1:{port}"
            stack.enter_context(running(flask, folder, ports[5000], "/", tmp_path / "web.log", KUBEACTOR_URL=url))
        check_lines(folder / "README.md", ports)
