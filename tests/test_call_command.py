"""`kubeactor call`, against a server that runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from tests.harness.dev import BANK, free_port
from tests.harness.program import COMMAND, ENVIRONMENT, running

from kubeactor.call_command import CallError, Target, arguments, make, shown


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("bank")
    dev = ["dev", "bank:Account", "--port", "{port}", "--data", str(folder / "data"), "--no-reload"]
    with running(folder / "log", *dev, folder=BANK) as program:
        yield f"http://127.0.0.1:{program.ready().port}"


def kubeactor_call(*given: str, url: str) -> tuple[int, str, str]:
    command = [*COMMAND, "call", *given, "--url", url]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in result.stderr
    return result.returncode, result.stdout, result.stderr


def test_arguments_by_name_or_by_position_and_the_result_as_json(url: str) -> None:
    assert kubeactor_call("ACCOUNT", "alice/ü", "deposit", "amount=30", url=url) == (0, "30\n", "")
    status, out, err = kubeactor_call("ACCOUNT", "alice/ü", "debit", "10", url=url)
    assert (status, json.loads(out), err) == (0, {"ok": True, "balance": 20}, "")
    assert out.count("\n") == 4
    assert kubeactor_call("ACCOUNT", "alice/ü", "debit", "10", "--json", url=url)[1] == '{"ok":true,"balance":10}\n'


def test_a_unique_id_has_a_space_of_its_own(url: str) -> None:
    digits = "0123456789abcdef" * 2
    assert kubeactor_call("ACCOUNT", digits, "deposit", "5", "--id", url=url)[1] == "5\n"
    assert kubeactor_call("ACCOUNT", digits, "balance", url=url)[1] == "0\n"


def test_a_command_that_is_repeated_with_its_key_is_applied_once(url: str) -> None:
    for _ in range(2):
        assert kubeactor_call("ACCOUNT", "keyed", "deposit", "7", "--key", "order-17", url=url)[1] == "7\n"
    assert kubeactor_call("ACCOUNT", "keyed", "balance", url=url)[1] == "7\n"


def test_a_problem_is_told_by_name_and_detail_with_status_1(url: str) -> None:
    expected = (1, "", "ActorArgumentError: amount: Expected `int`, got `str`\n")
    assert kubeactor_call("ACCOUNT", "alice", "debit", "amount=much", url=url) == expected
    said = kubeactor_call("ACOUNT", "alice", "debit", "30", url=url)[2]
    assert said == "ActorUnknownBindingError: no actor is bound under 'ACOUNT'; did you mean 'ACCOUNT'?\n"
    status, out, err = kubeactor_call("ACCOUNT", "alice", "debitt", "--json", url=url)
    assert (status, out, json.loads(err)["name"]) == (1, "", "ActorUnknownMethodError")


def test_an_address_without_a_server_is_one_sentence_with_status_2() -> None:
    port = free_port()
    status, out, err = kubeactor_call("ACCOUNT", "alice", "debit", "30", url=f"http://127.0.0.1:{port}")
    assert (status, out) == (2, "")
    assert err.startswith(f"kubeactor: http://127.0.0.1:{port} can't be reached (")
    assert err.endswith("): start `kubeactor dev` there, or give --url\n")
    assert err.count("\n") == 1
    assert kubeactor_call("A", "a", "a", url="nonsense")[0] == 2


class Stranger(BaseHTTPRequestHandler):
    """A server of another kind: POST /v1/actors/OK/... is fine, others are not."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"] or 0))
        self.send_response(200 if "/OK/" in self.path else 502)
        self.end_headers()
        self.wfile.write(b"<html>not\nkubeactor</html>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("binding", ["OK", "BAD"])
def test_what_is_no_kubeactor_is_told(binding: str) -> None:
    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        status, _, err = kubeactor_call(binding, "a", "m", url=url)
        thread.join()
    assert status == 2
    assert "kubeactor" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ([], b""),
        (["amount=30"], b'{"amount":30}'),
        (["to=bob", "amount=30"], b'{"to":"bob","amount":30}'),
        (['to="30"', "n=null", "x=[1, 2]", "e="], b'{"to":"30","n":null,"x":[1,2],"e":""}'),
        (["30", "text", "1e3", "{"], b'[30,"text",1e3,"{"]'),
        (["a b=5", "=5"], b'["a b=5","=5"]'),
        (["big=" + "9" * 40], b'{"big":' + b"9" * 40 + b"}"),
    ],
)
def test_arguments_are_json_or_else_texts(given: list[str], body: bytes) -> None:
    assert arguments(given) == body


@pytest.mark.parametrize(
    ("given", "says"),
    [(["amount=30", "30"], "give all arguments by name"), (["a=1", "a=2"], "a is given twice")],
)
def test_what_cannot_be_written_is_refused(given: list[str], says: str) -> None:
    with pytest.raises(CallError, match=says):
        arguments(given)


def test_an_address_without_a_scheme_is_refused_with_how_to_write_it() -> None:
    with pytest.raises(CallError, match=r"'127.0.0.1:8080' is no address of a server: write it as in http://"):
        make("127.0.0.1:8080", Target("A", "a", "m"), b"", timeout_s=1.0)


def test_names_are_one_segment_of_the_path() -> None:
    assert Target("A", "a/b?c d", "m").path == "/v1/actors/A/a%2Fb%3Fc%20d/m"
    assert Target("A", "ab", "m", unique=True).path == "/v1/ids/A/ab/m"


def test_a_result_is_shown_for_a_person_or_on_one_line() -> None:
    assert shown(b'{"a":[1]}', one_line=True) == '{"a":[1]}'
    assert shown(b'{"a":1}', one_line=False) == '{\n  "a": 1\n}'
    with pytest.raises(CallError, match="no JSON"):
        shown(b"<html>", one_line=True)
