"""The bank of examples/01-bank, served by the real command: the acceptance test of the whole idea."""

from __future__ import annotations

import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "01-bank"
START_S = 60.0
STOP_S = 60.0


class Bank:
    """`kubeactor dev` on the example, as `make run` starts it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = free_port()
        self.log = data.with_suffix(".log")
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60.0)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(Path(sys.executable).with_name("kubeactor")), "dev", "bank:Account", "--front-door", "bank:app"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), "--data", str(self.data)],
                cwd=FOLDER,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_S
        while not self.answers():
            assert self.process.poll() is None, f"it ended:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"it does not answer:\n{self.log.read_text()}"
            time.sleep(0.02)  # between attempts to connect; nothing tells us when it listens

    def answers(self) -> bool:
        try:
            return self.http.get("/health/readiness").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def post(self, path: str, **body: object) -> dict[str, object]:
        response = self.http.post(path, json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, object] = response.json()
        return answer

    def balance(self, account: str) -> object:
        return self.http.get(f"/accounts/{account}/balance").json()["balance"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Bank]:
    bank = Bank(tmp_path / "data")
    bank.start()
    yield bank
    bank.stop()
    bank.http.close()


def eventually(expected: object, read: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for something that no answer announces (an alarm, a delivery); fails with the last value."""
    deadline = time.monotonic() + seconds
    while (value := read()) != expected:
        assert time.monotonic() < deadline, f"{value!r}, not {expected!r}"
        time.sleep(0.01)


def test_the_script_of_the_bank_and_its_money_survives_a_restart(bank: Bank) -> None:
    assert bank.post("/accounts/alice/deposit", amount=100) == {"account": "alice", "balance": 100}
    assert bank.post("/alice", amount=30) == {"ok": True, "balance": 70}
    assert bank.post("/alice", amount=1000) == {"ok": False, "balance": 70}
    assert bank.post("/accounts/alice/debit", amount=1000) == {"account": "alice", "ok": False, "balance": 70}
    assert bank.post("/accounts/bob/deposit", amount=5) == {"account": "bob", "balance": 5}
    assert bank.http.get("/accounts/alice/balance").json() == {"account": "alice", "balance": 70}
    assert bank.stop() == 0
    bank.start()
    assert bank.balance("alice") == 70
    assert bank.balance("bob") == 5


def test_both_health_paths_answer(bank: Bank) -> None:
    for path in ("/health/liveness", "/health/readiness"):
        assert bank.http.get(path).json() == {"status": "ok"}


BAD_AMOUNTS = {
    "negative": '{"amount": -1}',
    "zero": '{"amount": 0}',
    "fractional": '{"amount": 1.5}',
    "absent": "{}",
    "no body": "",
    "null": '{"amount": null}',
    "text": '{"amount": "30"}',
    "boolean": '{"amount": true}',
    "a list": '{"amount": [30]}',
    "2^63": '{"amount": 9223372036854775808}',
    "a hundred digits": '{"amount": ' + "9" * 100 + "}",
    "beyond floats": '{"amount": 1e400}',
    "not JSON": '{"amount": NaN}',
    "no object": "[30]",
}


@pytest.mark.parametrize("path", ["/alice", "/accounts/alice/debit", "/accounts/alice/deposit"])
def test_a_bad_amount_is_a_400_that_names_the_field(bank: Bank, path: str) -> None:
    bank.post("/accounts/alice/deposit", amount=100)
    for what, content in BAD_AMOUNTS.items():
        response = bank.http.post(path, content=content)
        assert response.status_code == 400, (what, response.text)
        assert response.headers["content-type"] == "application/problem+json", what
        assert "amount" in response.json()["detail"], (what, response.text)
    assert bank.balance("alice") == 100


def test_the_actor_refuses_bad_amounts_itself_on_its_own_api(bank: Bank) -> None:
    for what, content in BAD_AMOUNTS.items():
        if what in ("no object", "not JSON"):  # [30] is a positional amount here
            continue
        response = bank.http.post("/v1/actors/ACCOUNT/alice/deposit", content=content)
        assert response.status_code == 400, (what, response.text)
        assert "amount" in response.json()["detail"], (what, response.text)
    assert bank.balance("alice") == 0


def test_the_largest_amount_fits_and_one_more_is_refused(bank: Bank) -> None:
    largest = 2**63 - 1
    assert bank.post("/accounts/rich/deposit", amount=largest)["balance"] == largest
    response = bank.http.post("/accounts/rich/deposit", json={"amount": 1})
    assert (response.status_code, response.json()["name"]) == (409, "AccountFull")
    assert response.json()["balance"] == largest


def test_a_transfer_debits_at_once_and_arrives_once(bank: Bank) -> None:
    bank.post("/accounts/alice/deposit", amount=100)
    assert bank.post("/accounts/alice/transfer", to="bob", amount=40) == {"account": "alice", "ok": True, "balance": 60}
    eventually(40, lambda: bank.balance("bob"))
    assert bank.post("/accounts/alice/transfer", to="bob", amount=61) == {
        "account": "alice",
        "ok": False,
        "balance": 60,
    }
    assert bank.balance("bob") == 40


def test_a_refused_transfer_comes_back(bank: Bank) -> None:
    bank.post("/accounts/rich/deposit", amount=2**63 - 1)
    bank.post("/accounts/alice/deposit", amount=100)
    bank.post("/accounts/alice/transfer", to="rich", amount=40)
    eventually(100, lambda: bank.balance("alice"))
    assert bank.balance("rich") == 2**63 - 1


def test_a_transfer_to_a_name_that_cannot_be_is_refused_and_debits_nothing(bank: Bank) -> None:
    bank.post("/accounts/alice/deposit", amount=100)
    for to in ("", "a\0b", "x" * 1025):
        response = bank.http.post("/accounts/alice/transfer", json={"to": to, "amount": 1})
        assert (response.status_code, response.json()["name"]) == (400, "BadRequest")
    assert bank.balance("alice") == 100


def test_interest_is_credited_by_an_alarm_until_it_is_ended(bank: Bank) -> None:
    bank.post("/accounts/alice/deposit", amount=1000)
    bank.post("/accounts/alice/interest", rate=0.5, every_s=0.2)
    eventually(True, lambda: bank.balance("alice") != 1000)
    bank.post("/accounts/alice/interest", rate=0, every_s=0)
    ended = bank.balance("alice")
    series = [1000]
    for _ in range(90):
        series.append(series[-1] + round(series[-1] * 0.5))
    assert ended in series[1:]
    time.sleep(0.5)  # two intervals in which nothing may happen
    assert bank.balance("alice") == ended


def console_lines(page: Path) -> list[tuple[str, str]]:
    """(command, expected output) of each `$ ` line in the page's console blocks."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output.strip()))
    return found


def test_the_curl_lines_of_the_readme_print_what_it_says(bank: Bank, require: Callable[[str], str]) -> None:
    require("curl")
    lines = [
        (command, output)
        for command, output in console_lines(ROOT / "README.md")
        if command.startswith("curl ") and ":8080/" in command
    ]
    assert len(lines) >= 4
    for command, expected in lines:
        arguments = shlex.split(command.replace("127.0.0.1:8080", f"127.0.0.1:{bank.port}"))
        result = subprocess.run([arguments[0], "-s", *arguments[1:]], capture_output=True, text=True, check=True)
        assert result.stdout == expected, command
