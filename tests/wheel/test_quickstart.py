"""The quick start, word for word from an installed wheel; only the port is another one, and who is killed.

Each `$` line of its console blocks is run, and prints what the page shows; `...` stands for anything.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.harness.dev import free_port
from tests.harness.wheel import ROOT, Installed

from kubeactor import scaffold

PAGE = (ROOT / "docs" / "quickstart.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LIMIT_S = 120.0


class Step(NamedTuple):
    """A command of the page and what it prints."""

    command: str
    output: str


def steps(page: str) -> list[Step]:
    """The console blocks, in their order."""
    found: list[Step] = []
    for kind, text in BLOCK.findall(page):
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:] if kind == "console" else ():
            command, _, output = part.partition("\n")
            found.append(Step(command, output))
    return found


def matches(shown: str, printed: str) -> bool:
    """Whether it is what the page shows."""
    return re.fullmatch(re.escape(shown.strip()).replace(r"\.\.\.", ".*"), printed.strip(), re.DOTALL) is not None


class Reader:
    """Someone with two terminals who types what the page says."""

    def __init__(self, installed: Installed, folder: Path) -> None:
        self.installed = installed
        self.folder = folder
        self.port = str(free_port())
        self.server: subprocess.Popen[bytes] | None = None
        self.served = 0

    def type(self, step: Step) -> None:
        command = step.command.replace("8080", self.port)
        output = step.output.replace("8080", self.port)
        if command.startswith("cd "):
            self.folder /= command.removeprefix("cd ")
        elif command == "kubeactor dev":
            self._serve(output)
        elif command == "pkill -9 -f 'kubeactor dev'":
            self.kill()
        else:
            # The page's server is on the port that `call` has as its default.
            command = re.sub(r"^kubeactor call", rf"\g<0> --url http://127.0.0.1:{self.port}", command)
            result = self.installed.run("sh", "-c", command, folder=self.folder)
            printed = result.stdout + (result.stderr if command.startswith("kubeactor") else "")
            assert matches(output, printed), f"$ {command}\n{result.stdout}{result.stderr}"

    def _serve(self, output: str) -> None:
        self.served += 1
        log = self.folder / f"log{self.served}"
        command = ["kubeactor", "dev", "--port", self.port]
        with log.open("wb") as out:
            self.server = subprocess.Popen(
                command, cwd=self.folder, env=self.installed.environment, stdout=out, stderr=out, start_new_session=True
            )
        end = time.monotonic() + 60.0
        while not matches(output, printed := log.read_text()):
            assert self.server.poll() is None, printed
            assert time.monotonic() < end, printed
            time.sleep(0.01)  # between looks

    def kill(self) -> None:
        if self.server is not None:
            os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait(30)
            self.server = None


@pytest.fixture
def reader(installed: Installed, tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(installed, tmp_path)
    yield reader
    reader.kill()


def test_who_follows_it_has_a_passing_test_and_a_running_server_in_under_two_minutes(
    reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    for step in steps(PAGE):
        reader.type(step)
    seconds = time.monotonic() - began
    with capsys.disabled():
        print(f"\nthe quick start took {seconds:.1f} s")
    assert seconds < LIMIT_S
    assert reader.served == 2


def test_the_code_that_it_shows_is_the_code_that_init_writes(tmp_path: Path) -> None:
    scaffold.create("bank", tmp_path)
    (shown,) = (text for kind, text in BLOCK.findall(PAGE) if kind == "python")
    written = (tmp_path / "bank" / "bank.py").read_text()
    assert shown.removeprefix("# bank.py\n") == written.partition('"""\n\n')[2]
    assert {path.name for path in (tmp_path / "bank").iterdir()} == set(
        re.findall(r"`([\w.]+\.(?:py|toml|yaml))`", PAGE)
    )


def test_it_installs_what_the_tests_need() -> None:
    installs = [text for kind, text in BLOCK.findall(PAGE) if kind == "sh"]
    assert installs == ["pip install 'kubeactor[test]'\n"]


def test_what_init_wrote_is_accepted_by_mypy(installed: Installed, tmp_path: Path) -> None:
    scaffold.create("my_bank", tmp_path)
    files = ["my_bank.py", "test_my_bank.py"]
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"]
    command += ["--python-executable", str(installed.python), *files]
    result = subprocess.run(command, cwd=tmp_path / "my_bank", capture_output=True, text=True, timeout=110, check=False)
    assert (result.returncode, result.stdout) == (0, "")
