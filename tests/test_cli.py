"""The command line: what it refuses, in one sentence that says what to change, before anything serves."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
from tests.harness.dev import BANK, free_port
from tests.harness.program import COMMAND, ENVIRONMENT, refused, running

from kubeactor.cli import app

NEEDY = """
from kubeactor import Actor, Binding, Env, Secret
class A(Actor):
    env: "Needs"
    async def get(self) -> int: return 1
class Needs(Env):
    A: Binding[A]
    FEE: int
    TOKEN: Secret
    RATE: float = 1.0
"""


def dev(data: Path, *actors: str, port: int | None = None) -> list[str]:
    return ["dev", *actors, "--port", str(port or free_port()), "--data", str(data)]


def one_sentence(text: str) -> str:
    assert text.startswith("kubeactor: "), text
    assert text.count("\n") == 1, text
    return text.removeprefix("kubeactor: ").strip()


@pytest.mark.parametrize(
    ("actors", "says"),
    [
        (["nowhere:Account"], "there is no module 'nowhere' here or on the Python path"),
        (["bank:Acount"], "bank has no 'Acount'; did you mean 'Account'?"),
        (["bank:Payment"], "'Payment' is not a subclass of kubeactor.Actor: write `class Payment(Actor)`"),
        (["bank"], "'bank' is not of the form module:name, as in bank:Account"),
        (["bank:Account", "bank:Account"], "two classes are bound as ACCOUNT; name one of them: OTHER=bank:Account"),
        (["small=bank:Account"], "'small' is no binding name: upper-case letters, digits and _, as in ACCOUNT"),
    ],
)
def test_actors_that_cannot_be_served_are_named(tmp_path: Path, actors: list[str], says: str) -> None:
    assert one_sentence(refused(*dev(tmp_path / "data", *actors), folder=BANK)) == says
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("door", "says"),
    [
        ("bank:MAX", "bank:MAX is neither an ASGI app nor an async def fetch(request, env)"),
        ("bank:appp", "bank has no 'appp'; did you mean 'app'?"),
    ],
)
def test_a_bad_front_door_is_named(tmp_path: Path, door: str, says: str) -> None:
    command = [*dev(tmp_path / "data", "bank:Account"), "--front-door", door]
    assert one_sentence(refused(*command, folder=BANK)) == says


def test_code_that_fails_at_import_is_told_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    says = one_sentence(refused(*dev(tmp_path / "data", "broken:A"), folder=tmp_path))
    assert says == "broken can't be imported: ZeroDivisionError: division by zero (broken.py, line 1)"


@pytest.mark.parametrize("command", ["dev", "host", "ingress"])
def test_all_that_is_wrong_with_the_configuration_is_told_at_once(tmp_path: Path, command: str) -> None:
    (tmp_path / "needy.py").write_text(NEEDY)
    arguments = [command, "needy:A", "--port", str(free_port()), "--data", str(tmp_path / "data")]
    says = one_sentence(refused(*arguments, folder=tmp_path, environment={"RATE": "much"}))
    for name in ("FEE", "TOKEN", "RATE"):
        assert name in says


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        says = one_sentence(refused(*dev(tmp_path / "data", "bank:Account", port=port), folder=BANK))
    where = f"127.0.0.1:{port}"
    assert says == f"port {port} is taken: another process listens on {where}; end that one, or choose another port"


def test_a_host_option_without_an_address_is_refused(tmp_path: Path) -> None:
    command = ["ingress", "bank:Account", "--data", str(tmp_path), "--port", str(free_port()), "--host", "host-0"]
    assert one_sentence(refused(*command, folder=BANK)) == "--host takes name=address:port, not 'host-0'"


@pytest.mark.parametrize("shards", ["0", "-1", "1000000000", "many"])
def test_a_bad_number_of_shards_is_refused(tmp_path: Path, shards: str) -> None:
    assert "--shards" in refused(*dev(tmp_path / "data", "bank:Account"), "--shards", shards, folder=BANK)


def test_the_number_of_shards_of_a_namespace_never_changes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(tmp_path / "log", *dev(data, "lab:Lab", port=0), "--port", "{port}", "--shards", "7") as program:
        assert program.ready().http.post("/v1/actors/LAB/a/add").json() == 1
        program.stop()
    says = one_sentence(refused(*dev(data, "lab:Lab"), "--shards", "8"))
    assert says.startswith(f"the namespace in {data} has 7 shards, which never changes")
    with running(tmp_path / "log", *dev(data, "lab:Lab", port=0), "--port", "{port}") as program:
        assert program.ready().http.post("/v1/actors/LAB/a/count").json() == 1


def test_a_data_folder_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(tmp_path / "log", *dev(data, "lab:Lab", port=0), "--port", "{port}") as program:
        program.ready()
        wanted = (
            f"the data folder {data} is in use by another kubeactor, pid {program.process.pid}:"
            " stop that one, or choose another --data"
        )
        assert one_sentence(refused(*dev(data, "lab:Lab"))) == wanted
        assert one_sentence(refused(*dev(data, "lab:Lab"), "--hosts", "2")) == wanted
        host = ["host", "lab:Lab", "--data", str(data), "--port", str(free_port())]
        assert one_sentence(refused(*host)) == wanted
        assert program.http.post("/v1/actors/LAB/a/add").json() == 1


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert "can't be used" in one_sentence(refused(*dev(tmp_path / "data", "lab:Lab")))


def test_more_hosts_may_take_over_a_data_folder_but_not_fewer_than_have_shards(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number, (hosts, count) in enumerate([("2", 1), ("3", 2), ("2", 3)]):
        log = tmp_path / f"log-{number}"
        with running(log, *dev(data, "lab:Lab", port=0), "--port", "{port}", "--hosts", hosts) as program:
            assert program.ready().http.post("/v1/actors/LAB/a/add").json() == count
            assert program.stop()[0] == 0
    says = f"the shards in {data} are on host-0, host-1: start with --hosts 2 or more, or with another data folder"
    assert one_sentence(refused(*dev(data, "lab:Lab"))) == says
    assert one_sentence(refused(*dev(data, "lab:Lab"), "--hosts", "1")) == says


TWO = """
from kubeactor import Actor
class A(Actor):
    async def put(self, value: int) -> None: await self.ctx.storage.put("x", value)
    async def read(self) -> None: await self.ctx.storage.get("x")
class B(A): ...
"""


def test_data_of_a_binding_that_is_declared_no_more_is_named(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    data = tmp_path / "data"
    both = dev(data, "two:A", "two:B", "C=two:B", port=0)
    with running(tmp_path / "log", *both, "--port", "{port}", folder=tmp_path) as program:
        program.ready()
        program.http.post("/v1/actors/B/b/put", json=[1]).raise_for_status()
        program.http.post("/v1/actors/C/c/read").raise_for_status()  # leaves no data
        program.stop()
    says = f"the data in {data} has instances of B, which nothing is bound as any more:"
    result = subprocess.run(
        [*COMMAND, *dev(data, "two:A")], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 2
    assert result.stderr == f"kubeactor: {says} name a class for it (B=module:Class), or start with another --data\n"


def test_the_data_folder_is_kept_out_of_git_unless_it_says_something_else(tmp_path: Path) -> None:
    for text in ("*\n", "mine\n"):
        with running(tmp_path / "log", *dev(tmp_path / "data", "lab:Lab", port=0), "--port", "{port}") as program:
            program.ready()
            assert (tmp_path / "data" / ".gitignore").read_text() == text
            program.stop()
        (tmp_path / "data" / ".gitignore").write_text("mine\n")


def test_each_command_has_help_with_an_example() -> None:
    commands = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True, env=ENVIRONMENT).stdout
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert {"check", "dev", "host", "ingress"} <= set(names)
    for command in app.registered_commands:
        assert command.callback is not None
        assert "Example: kubeactor " in (command.callback.__doc__ or "")
        assert command.callback.__name__ in commands
