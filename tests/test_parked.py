"""What is parked is listed and tried again by hand, and quarantined instances are released: on real servers."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.harness.program import COMMAND, ENVIRONMENT, Program, running

from kubeactor.engine.alarms import AlarmRow
from kubeactor.engine.layout import ALARM, PARKED, due_key, instance_key, numbered_key
from kubeactor.engine.store import Store, new_batch
from kubeactor.ids import ActorId, shard_of
from kubeactor.limits import SHARDS_DEFAULT
from kubeactor.parked import Item
from kubeactor.parked_commands import ParkedError, fetch, lines, release
from kubeactor.quarantine import Quarantine

CODE = """
from datetime import timedelta

from kubeactor import Actor, Binding, Env, Problem


class Full(Problem):
    status = 409


class Box(Actor):
    env: "Street"

    async def send(self, to: str, text: str) -> None:
        self.ctx.send(self.env.BOX.id_from_name(to).take, text)

    async def take(self, text: str) -> None:
        if await self.ctx.storage.get("full"):
            raise Full("no room")
        self.ctx.storage.put("got", [*await self.ctx.storage.get("got", []), text])

    async def fill(self, full: bool) -> None:
        self.ctx.storage.put("full", full)

    async def got(self) -> list[str]:
        return await self.ctx.storage.get("got", [])

    async def wake(self, seconds: float) -> None:
        self.ctx.storage.set_alarm(timedelta(seconds=seconds))

    async def alarm(self, info) -> None:
        await self.take("alarm")


class Street(Env):
    BOX: Binding[Box]
"""


@contextmanager
def dev(folder: Path, *options: str) -> Iterator[Program]:
    (folder / "street.py").write_text(CODE)
    arguments = ["dev", "street:Box", "--port", "{port}", "--data", str(folder / "data"), *options]
    with running(folder / "log", *arguments, folder=folder) as program:
        yield program.ready()


def call(program: Program, name: str, method: str, *args: Any) -> Any:
    response = program.http.post(f"/v1/actors/BOX/{name}/{method}", json=list(args))
    assert response.status_code == 200, response.text
    return response.json()


def command(*arguments: str) -> tuple[int, str]:
    """Run `kubeactor` with these arguments: its status, and what it printed."""
    done = subprocess.run([*COMMAND, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=30)
    assert "Traceback" not in done.stderr
    return done.returncode, (done.stdout + done.stderr).strip()


def soon(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("options", [(), ("--hosts", "2")])
def test_a_parked_message_is_listed_and_sent_again(tmp_path: Path, options: tuple[str, ...]) -> None:
    with dev(tmp_path, *options) as program:
        url = str(program.http.base_url)
        assert program.http.get("/v1/parked").json() == []
        call(program, "bob", "fill", True)
        for sender in ("alice", "carol", "dave", "eve"):
            call(program, sender, "send", "bob", f"from {sender}")
        soon(lambda: len(program.http.get("/v1/parked").json()) == 4)
        status, output = command("parked", "--url", url)
        assert status == 0
        assert len(output.splitlines()) == 4
        assert "message BOX/alice 1 -> BOX/bob.take  attempts: 1  Full: no room" in output

        call(program, "bob", "fill", False)
        assert command("retry", "message", "BOX/alice", "1", "--url", url) == (0, "")
        soon(lambda: call(program, "bob", "got") == ["from alice"])
        retry = {"kind": "message", "instance": "BOX/carol", "number": 1}
        assert program.http.post("/v1/parked/retry", json=retry).json() == {"retried": True}
        assert program.http.post("/v1/parked/retry", json=retry).json() == {"retried": False}
        soon(lambda: call(program, "bob", "got") == ["from alice", "from carol"])
        status, output = command("retry", "message", "BOX/alice", "1", "--url", url)
        assert (status, output) == (2, "kubeactor: nothing of that kind and number is parked at BOX/alice")
        assert {item["instance"] for item in program.http.get("/v1/parked").json()} == {"BOX/dave", "BOX/eve"}
        if not options:
            assert "kubeactor_messages_parked 2.0" in program.http.get("/metrics").text


def park_alarm(folder: Path, name: str) -> None:
    """Rewrite an alarm as its tenth failure would have left it."""
    store = Store(folder / "data" / "host-0" / "db")
    identity = name.encode()
    shard, key = shard_of(identity, SHARDS_DEFAULT), b"BOX\0" + identity
    raw = store.get(instance_key(shard, ALARM, key))
    assert raw is not None
    row = msgspec.msgpack.decode(raw, type=AlarmRow)
    batch = new_batch()
    batch.delete(due_key(shard, row.next_us, key))
    parked = msgspec.structs.replace(row, retries=10, parked=True, error="RuntimeError: broken")
    batch.put(instance_key(shard, ALARM, key), msgspec.msgpack.encode(parked))
    batch.put(numbered_key(shard, PARKED, key, 0), b"")
    store.write(batch)
    store.close()


def test_a_parked_alarm_is_listed_and_run_again(tmp_path: Path) -> None:
    with dev(tmp_path) as program:
        call(program, "alice", "wake", 3600)
        assert program.stop()[0] == 0
    park_alarm(tmp_path, "alice")
    with dev(tmp_path) as program:
        url = str(program.http.base_url)
        assert "alarm BOX/alice  attempts: 10  RuntimeError: broken" in command("parked", "--url", url)[1]
        assert command("retry", "alarm", "BOX/alice", "--url", url) == (0, "")
        soon(lambda: call(program, "alice", "got") == ["alarm"])
        assert program.http.get("/v1/parked").json() == []


def test_what_is_no_request_for_parked_things_is_refused(tmp_path: Path) -> None:
    with dev(tmp_path) as program:
        post = program.http.post
        for body in (b"", b"[]", b'{"kind": "alarm"}', b'{"kind": "alarm", "instance": "box", "more": 1}'):
            answer = post("/v1/parked/retry", content=body)
            assert (answer.status_code, answer.json()["name"]) == (400, "ActorArgumentError")
        answer = post("/v1/parked/retry", json={"kind": "alarm", "instance": "nobody"})
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
        assert "BINDING/name" in answer.json()["detail"]
        for odd in ({"kind": "tea", "instance": "BOX/a"}, {"kind": "alarm", "instance": "NONE/a"}):
            assert post("/v1/parked/retry", json=odd).json() == {"retried": False}
        assert post("/v1/parked/retry", content=b"x" * 100_000).status_code == 413
        assert program.http.get("/v1/parked/retry").status_code == 405
        url = str(program.http.base_url)
        assert command("retry", "alarm", "nobody", "--url", url)[0] == 2


def test_a_quarantined_instance_is_released(tmp_path: Path) -> None:
    host = tmp_path / "data" / "host-0"
    host.mkdir(parents=True)
    quarantine = Quarantine(host / "quarantine.json")
    for _ in range(3):
        quarantine.record_death(ActorId("BOX", b"alice"), "it looped")
    with dev(tmp_path) as program:
        answer = program.http.post("/v1/actors/BOX/alice/got")
        assert (answer.status_code, answer.json()["name"]) == (503, "ActorQuarantinedError")
        data = str(tmp_path / "data")
        assert command("release", "BOX/alice", "--data", data) == (0, "")
        soon(lambda: program.http.post("/v1/actors/BOX/alice/got").status_code == 200)
        assert command("release", "BOX/alice", "--data", data)[0] == 2


def test_release_names_what_it_can_not_use(tmp_path: Path) -> None:
    with pytest.raises(ParkedError, match="BINDING/name"):
        release(tmp_path, "alice")
    with pytest.raises(ParkedError, match="no data folder"):
        release(tmp_path / "none", "BOX/alice")


def test_an_unreachable_server_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParkedError, match=r"127\.0\.0\.1:1/v1/parked can.t be reached"):
        fetch("http://127.0.0.1:1")


def test_lines_begin_with_what_waits_longest() -> None:
    alarm = Item("alarm", "BOX/b", 0, 10, "RuntimeError: broken", 60.0)
    message = Item("message", "BOX/a", 7, 1, "Full: no room", 0.0, "BOX/b", "take")
    assert lines([alarm, message]) == [
        "1970-01-01 00:00:00Z  message BOX/a 7 -> BOX/b.take  attempts: 1  Full: no room",
        "1970-01-01 00:01:00Z  alarm BOX/b  attempts: 10  RuntimeError: broken",
    ]
