"""The connection over real sockets; what takes `server` runs over the fast and over the slow path."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from kubeactor.call import CLIENT, DAY, LOCAL, Call
from kubeactor.errors import ActorMethodError, ActorReentrancyError
from kubeactor.ids import shard_of
from kubeactor.ingress import protocol
from kubeactor.ingress.protocol import FastCall
from kubeactor.limits import BODY_BYTES

ECHO = "/v1/actors/ACCOUNT/alice/echo"
HOLD = "/v1/actors/ACCOUNT/alice/hold"


def test_a_call_reaches_the_dispatcher_as_it_was_sent(server: Any) -> None:
    answer = server.call(ECHO, b"[30]")
    assert answer.status == 200
    assert answer.json() == {"identity": b"alice".hex(), "binding": "ACCOUNT", "body": "[30]"}
    [call] = server.dispatcher.calls
    assert call.shard == shard_of(b"alice", 16)
    assert (call.id.kind, len(call.id.key), call.repeat, call.internal, call.chain) == (LOCAL, 16, False, False, ())
    assert abs(call.bucket - time.time() / 600) <= 1
    assert 50 < call.deadline - time.monotonic() <= 60
    assert isinstance(call, FastCall) == server.listener.fast


def test_an_answer_has_the_documented_headers_and_no_others(server: Any) -> None:
    answer = server.call(ECHO)
    assert list(answer.headers) == ["date", "content-type", "kubeactor-epoch", "kubeactor-request-id", "content-length"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["kubeactor-epoch"] == str(100 + shard_of(b"alice", 16))
    assert answer.headers["kubeactor-request-id"] == server.dispatcher.calls[0].id.key.hex()


def test_an_error_is_a_problem_with_everything_filled_in(server: Any) -> None:
    answer = server.call("/v1/actors/ACCOUNT/alice/busy")
    assert (answer.status, answer.problem, answer.headers["retry-after"]) == (503, "ActorOverloadedError", "1")
    assert answer.json()["instance"] == "ACCOUNT/alice"
    assert answer.json()["epoch"] == int(answer.headers["kubeactor-epoch"])


def test_a_client_key_is_the_id_of_the_call_and_is_kept_for_a_day(server: Any) -> None:
    server.call(ECHO, b"", "Idempotency-Key: order 7")
    server.call(ECHO, b"", "idempotency-key:k" + "y" * 255)
    assert [(c.id.kind, c.id.key, c.bucket) for c in server.dispatcher.calls] == [
        (CLIENT, b"order 7", DAY),
        (CLIENT, b"k" + b"y" * 255, DAY),
    ]


@pytest.mark.parametrize(
    "headers",
    [
        ["Idempotency-Key: " + "k" * 257],
        ["Idempotency-Key:"],
        ["Idempotency-Key: a", "Idempotency-Key: b"],
        *[
            [f"Kubeactor-Timeout: {text}"]
            for text in ("0", "-1", "300.1", "nan", "inf", "1e2", "1_0", "five", "", "0x1")
        ],
        ["Kubeactor-Timeout: 1", "kubeactor-timeout: 1"],
    ],
)
def test_headers_out_of_their_bounds_are_refused_and_the_next_request_works(server: Any, headers: list[str]) -> None:
    client = server.client()
    answer = client.call(ECHO, b"[1]", *headers)
    assert (answer.status, answer.problem) == (400, "ActorArgumentError")
    assert not server.dispatcher.calls
    assert client.call(ECHO).status == 200


@pytest.mark.parametrize(("text", "seconds"), [("0.5", 0.5), ("300", 300.0), (".25", 0.25), ("  7  ", 7.0)])
def test_the_time_limit_is_the_header_s(server: Any, text: str, seconds: float) -> None:
    before = time.monotonic()
    server.call(ECHO, b"", f"Kubeactor-Timeout: {text}")
    after = time.monotonic()
    assert before + seconds <= server.dispatcher.calls[0].deadline <= after + seconds


HOSTILE_NAMES = [
    "a/b",
    ".",
    "..",
    "a.b",
    "+15551234",
    "a|b@c",
    "%2F",
    "?x#y",
    "a b",
    " ",
    "\U0001f600é",
    "x" * 1024,
    "*",
    "~'\"",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("safe", ["", "!$&'()*+,;=:@-._~"])
def test_every_name_keeps_its_own_identity(server: Any, name: str, safe: str) -> None:
    answer = server.call(f"/v1/actors/ACCOUNT/{quote(name, safe=safe)}/echo")
    assert (answer.status, answer.json()["identity"]) == (200, name.encode().hex())


@pytest.mark.parametrize(
    "segment", ["x" * 1025, quote("é" * 513), "%00", "a%00b", "%ff", "%C3%28", "%ed%a0%80", "", "%zz", "%", "a%2"]
)
def test_a_name_that_is_none_is_refused_and_the_next_request_works(server: Any, segment: str) -> None:
    client = server.client()
    answer = client.call(f"/v1/actors/ACCOUNT/{segment}/echo", b"[1]")
    assert (answer.status, answer.problem) == (400, "ActorArgumentError")
    assert client.call(ECHO).status == 200
    assert len(server.dispatcher.calls) == 1


def test_a_unique_id_has_a_path_of_its_own(server: Any) -> None:
    digits = "0123456789abcdef" * 2
    answer = server.call(f"/v1/ids/ACCOUNT/{digits}/echo")
    assert bytes.fromhex(answer.json()["identity"]) == b"\xff" + digits.encode()
    assert server.call(f"/v1/ids/ACCOUNT/{digits.upper()}/echo").status == 400
    assert server.call("/v1/ids/ACCOUNT/alice/echo").problem == "ActorArgumentError"
    busy = server.call(f"/v1/ids/ACCOUNT/{digits}/busy")
    assert busy.json()["instance"] == f"ACCOUNT!{digits}"


@pytest.mark.parametrize(
    ("path", "status", "name"),
    [
        ("/v1/actors/NOBODY/alice/echo", 404, "ActorUnknownBindingError"),
        ("/v1/actors/account/alice/echo", 404, "ActorUnknownBindingError"),
        ("/v1/actors//alice/echo", 404, "ActorUnknownBindingError"),
        ("/v1/actors/ACCOUNT/alice/nope", 404, "ActorUnknownMethodError"),
        ("/v1/actors/ACCOUNT/alice/_private", 404, "ActorUnknownMethodError"),
        ("/v1/actors/ACCOUNT/alice/__class__", 404, "ActorUnknownMethodError"),
        ("/v1/actors/ACCOUNT/alice/ctx", 404, "ActorUnknownMethodError"),
        ("/v1/actors/ACCOUNT/alice/", 404, "ActorUnknownMethodError"),
        ("/v1/actors/ACCOUNT/alice/e%2Fo", 404, "ActorUnknownMethodError"),
        ("/v1/actors/ACCOUNT/alice/secret", 403, "ActorPrivateMethodError"),
        ("/v1/actors/ACCOUNT/alice/fetch", 404, "ActorUnknownMethodError"),
        ("/v1/actors/ACCOUNT/alice/fetch/a/b", 404, "ActorUnknownMethodError"),
        ("/v1/actors/ACCOUNT/alice", 404, "ActorUnknownMethodError"),
        ("/v1/actors/ACCOUNT/alice/echo/more", 404, "ActorUnknownMethodError"),
        ("/v1/nothing", 404, "ActorUnknownMethodError"),
        ("/elsewhere", 404, "ActorUnknownMethodError"),
    ],
)
def test_what_is_not_callable_is_the_documented_error(server: Any, path: str, status: int, name: str) -> None:
    client = server.client()
    answer = client.call(path, b"[1]")
    assert (answer.status, answer.problem) == (status, name)
    assert client.call(ECHO).status == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_another_http_method_is_a_405_that_names_post(server: Any, method: str) -> None:
    answer = server.call(ECHO, method=method)
    assert (answer.status, answer.headers["allow"], answer.json()["status"]) == (405, "POST", 405)


def test_a_query_is_not_part_of_the_method(server: Any) -> None:
    assert server.call(ECHO + "?x=1/2").status == 200
    assert server.call("http://elsewhere" + ECHO).json()["identity"] == b"alice".hex()


# Order, pipelining, the connection's life


def test_answers_keep_the_order_of_the_requests(server: Any, request_bytes: Callable[..., bytes]) -> None:
    kinds = ["hold", "echo", "later", "/healthz", "busy", "echo", "/healthz", "/nowhere", "hold", "later"]
    text = b"".join(
        request_bytes(k, method="GET") if k[0] == "/" else request_bytes(f"/v1/actors/ACCOUNT/a/{k}") for k in kinds
    )
    client = server.client().send(text)
    server.release(server.held(), b'"first"')
    answers = [client.answer() for _ in range(8)]
    server.release(server.held(), b'"second"')
    answers += [client.answer() for _ in range(2)]
    assert [a.status for a in answers] == [200, 200, 200, 200, 503, 200, 200, 404, 200, 200]
    assert answers[0].json() == "first"
    assert answers[3].body == b"ok\n"
    assert answers[8].json() == "second"


def test_a_later_answer_waits_for_the_earlier_ones(serving: Any, request_bytes: Callable[..., bytes]) -> None:
    server = serving()
    client = server.client().send(request_bytes(HOLD) * 3)
    calls = [server.held() for _ in range(3)]
    for number in (2, 1, 0):
        server.release(calls[number], b"%d" % number)
    assert [client.answer().json() for _ in range(3)] == [0, 1, 2]


def test_pipelined_requests_are_bounded_and_all_answered(server: Any, request_bytes: Callable[..., bytes]) -> None:
    client = server.client()
    sent = 100
    client.send(request_bytes(HOLD) * sent)
    started = [server.held()]
    fast = server.listener.fast
    while fast and len(started) < protocol.PIPELINED:
        started.append(server.held())
    server.run(lambda: None)
    assert server.dispatcher.held.empty()
    for number in range(sent):
        server.release(started.pop(0), b"%d" % number)
        if number + len(started) + 1 < sent:
            started.append(server.held())
    assert [client.answer().json() for _ in range(sent)] == list(range(sent))


def test_thousands_of_pipelined_cold_requests_are_answered_in_order(server: Any) -> None:
    client = server.client()
    client.send(b"GET /healthz HTTP/1.1\r\n\r\n" * 3000, b"GET /nowhere HTTP/1.1\r\n\r\n")
    assert [client.answer().status for _ in range(3001)] == [200] * 3000 + [404]


@pytest.mark.parametrize("headers", [[], ["Connection: close, upgrade", "Upgrade: h2c"]])
def test_what_follows_the_last_request_of_a_connection_is_thrown_away(
    server: Any, request_bytes: Callable[..., bytes], headers: list[str]
) -> None:
    client = server.client()
    client.send(request_bytes(ECHO, b"", *(headers or ["Connection: close"])), request_bytes(ECHO))
    assert client.answer().status == 200
    assert client.ended()
    assert len(server.dispatcher.calls) == 1


def test_connection_close_and_http_1_0_end_after_their_answer(server: Any) -> None:
    client = server.client()
    assert client.call(ECHO, b"", "Connection: close").headers["connection"] == "close"
    assert client.ended()
    client = server.client().send(b"POST %b HTTP/1.0\r\nContent-Length: 2\r\n\r\n[]" % ECHO.encode())
    assert client.answer().json()["body"] == "[]"
    assert client.ended()


def test_keep_alive_serves_many_requests(server: Any) -> None:
    client = server.client()
    for number in range(20):
        header = "Connection: keep-alive" if number % 2 else "connection:Keep-Alive "
        assert client.call(ECHO, b"%d" % number, header).json()["body"] == str(number)


def test_a_client_that_leaves_does_not_stop_its_call(server: Any) -> None:
    client = server.client().send(b"POST %b HTTP/1.1\r\n\r\n" % HOLD.encode())
    call = server.held()
    client.close()
    other = server.client()
    while server.ingress.stats.connections > 1:
        other.call(ECHO)
    server.release(call)
    assert server.call(ECHO).status == 200
    assert server.ingress.stats.dropped == (1 if server.listener.fast else 0)


def test_a_client_that_leaves_in_mid_request_harms_nobody(server: Any) -> None:
    for text in (b"POST", b"POST %b HTTP/1.1\r\nContent-Length: 9\r\n\r\n[1" % ECHO.encode(), b""):
        server.client().send(text).close()
    assert server.call(ECHO).status == 200
    assert len(server.dispatcher.calls) == 1


def test_a_client_that_does_not_read_is_not_served_on_and_gets_all_later(
    server: Any, request_bytes: Callable[..., bytes]
) -> None:
    client = server.client()
    count = 12
    client.send(request_bytes("/v1/actors/ACCOUNT/a/large") * count)
    server.call(ECHO)
    assert len(server.dispatcher.calls) < count
    assert [len(client.answer().body) for _ in range(count)] == [BODY_BYTES] * count


def age(server: Any, seconds: float) -> None:
    """Let the sweep believe that so much time has passed."""

    def sweep() -> None:
        server.listener.sweep(time.monotonic() + seconds)
        server.listener.clock = time.monotonic()

    server.run(sweep)


@pytest.mark.parametrize(
    "text", [b"PO", b"POST /v1/actors/ACCOUNT/a/echo HTTP/1.1\r\nContent-Length: 4\r\n\r\n[", b"GET / HTTP/1.1\r\nX:"]
)
def test_a_request_that_does_not_arrive_is_cut_off_after_30_seconds(server: Any, text: bytes) -> None:
    client = server.client().send(text)
    other = server.client()
    assert other.call(ECHO).status == 200  # by now the bytes were read
    age(server, 29)
    assert server.ingress.stats.expired == 0
    age(server, 32)
    assert client.ended()
    assert server.ingress.stats.expired == 1


def test_an_idle_connection_ends_and_one_that_waits_for_its_call_does_not(server: Any) -> None:
    waiting = server.client().send(b"POST %b HTTP/1.1\r\n\r\n" % HOLD.encode())
    idle, new = server.client(), server.client()
    assert idle.call(ECHO).status == 200
    call = server.held()
    age(server, 70)
    assert server.ingress.stats.expired == 0
    age(server, 80)
    assert idle.ended()
    assert new.ended()
    server.release(call)
    assert waiting.answer().status == 200


def test_a_client_that_never_reads_is_cut_off(server: Any) -> None:
    client = server.client()
    client.send(b"POST /v1/actors/ACCOUNT/a/large HTTP/1.1\r\n\r\n" * 3)
    other = server.client()
    other.call(ECHO)
    age(server, 59)
    assert server.ingress.stats.expired == 0
    age(server, 62)
    assert server.ingress.stats.expired == 1


def test_the_first_connection_after_a_long_rest_is_served(serving: Any) -> None:
    """The clock of the sweep stands still without connections: one that is new must not look as old as the rest."""
    server = serving()
    server.run(lambda: setattr(server.listener, "clock", time.monotonic() - 1000))
    assert server.call(ECHO).status == 200
    assert server.ingress.stats.expired == 0


def test_the_sweep_goes_on_by_itself_and_rests_without_connections(serving: Any) -> None:
    server = serving()
    client = server.client()
    client.call(ECHO)
    assert server.run(lambda: server.listener._timer) is not None
    client.close()
    while server.run(lambda: server.listener._timer) is not None:
        pass
    assert server.call(ECHO).status == 200


def test_a_graceful_end_answers_what_runs_and_closes(own_server: Any) -> None:
    client = own_server.client().send(b"POST %b HTTP/1.1\r\n\r\n" % HOLD.encode())
    idle = own_server.client()
    idle.call(ECHO)
    call = own_server.held()
    own_server.leave()
    assert idle.ended()
    own_server.release(call)
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert client.ended()
    own_server.thread.join(20)
    assert not own_server.thread.is_alive()


def test_a_graceful_end_closes_after_the_last_of_several_answers(
    serving: Any, request_bytes: Callable[..., bytes]
) -> None:
    server = serving()
    client = server.client().send(request_bytes(HOLD) * 2)
    calls = [server.held(), server.held()]
    idle = server.client()
    idle.call(ECHO)
    server.leave()
    assert idle.ended()
    client.send(request_bytes(ECHO))  # not started any more
    server.release(calls[1])
    server.release(calls[0])
    answers = [client.answer(), client.answer()]
    assert ["connection" in answer.headers for answer in answers] == [False, True]
    assert client.ended()
    assert len(server.dispatcher.calls) == 3


def test_a_drained_connection_serves_its_next_request_and_says_that_it_ends(own_server: Any) -> None:
    idle, busy = own_server.client(), own_server.client()
    idle.call(ECHO)
    busy.send(b"POST %b HTTP/1.1\r\n\r\n" % HOLD.encode())
    call = own_server.held()
    own_server.run(own_server.listener.drain)
    own_server.release(call)
    for client, answer in ((busy, busy.answer()), (idle, idle.call(ECHO))):
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.ended()
    late = own_server.client()  # nobody is turned away meanwhile
    assert late.call(ECHO).headers["connection"] == "close"
    assert late.ended()


def test_draining_answers_all_that_a_client_has_sent(serving: Any, request_bytes: Callable[..., bytes]) -> None:
    server = serving()
    client = server.client().send(request_bytes(HOLD) * 2)
    calls = [server.held(), server.held()]
    server.run(server.listener.drain)
    client.send(request_bytes(ECHO))
    while len(server.dispatcher.calls) < 3:
        server.run(lambda: None)
    for call in calls:
        server.release(call)
    answers = [client.answer() for _ in range(3)]
    assert ["connection" in answer.headers for answer in answers] == [False, False, True]
    assert client.ended()


def test_a_call_that_does_not_end_is_cut_off_after_the_grace(own_server: Any) -> None:
    client = own_server.client().send(b"POST %b HTTP/1.1\r\n\r\n" % HOLD.encode())
    own_server.held()
    own_server.leave()
    assert client.ended()


# Cycles


def test_a_broken_cycle_is_called_again_under_the_same_id(server: Any) -> None:
    server.dispatcher.cycles_left = 3
    answer = server.call("/v1/actors/ACCOUNT/alice/cycle", b"[1]")
    assert (answer.status, answer.json()["body"]) == (200, "[1]")
    call = server.dispatcher.calls[-1]
    assert len(server.dispatcher.calls) == 4
    assert call.repeat
    assert call.id.key.hex() == answer.headers["kubeactor-request-id"]
    assert server.ingress.stats.cycles == 3


def test_a_broken_cycle_is_the_answer_when_no_time_is_left(server: Any) -> None:
    server.dispatcher.cycles_left = 10**6
    answer = server.call("/v1/actors/ACCOUNT/alice/cycle", b"", "Kubeactor-Timeout: 0.05")
    assert (answer.status, answer.problem) == (409, "ActorReentrancyError")


def test_a_chain_that_came_back_to_itself_is_not_called_again(server: Any) -> None:
    client = server.client().send(b"POST %b HTTP/1.1\r\n\r\n" % HOLD.encode())
    server.release(server.held(), ActorReentrancyError("a -> b -> a"))
    assert client.answer().problem == "ActorReentrancyError"


def test_the_same_error_object_may_answer_two_calls(server: Any) -> None:
    error = ActorMethodError("failed", cause="ValueError")
    ids = set()
    for _ in range(2):
        client = server.client().send(b"POST %b HTTP/1.1\r\n\r\n" % HOLD.encode())
        server.release(server.held(), error)
        answer = client.answer()
        assert answer.problem == "ActorMethodError"
        ids.add(answer.headers["kubeactor-request-id"])
    assert len(ids) == 2
    assert error.request_id is None


def test_a_second_reply_is_an_error_of_the_dispatcher(serving: Any) -> None:
    server = serving()
    client = server.client().send(b"POST %b HTTP/1.1\r\n\r\n" % HOLD.encode())
    call = server.held()
    server.release(call)
    assert client.answer().status == 200
    with pytest.raises(AssertionError, match="twice"):
        server.release(call)


def test_a_fast_call_has_all_that_a_call_has(serving: Any) -> None:
    server = serving()
    server.call(ECHO, b"[1]")
    [call] = server.dispatcher.calls
    fast = {name: getattr(call, name) for name in Call.__slots__}
    plain = Call(
        "ACCOUNT", b"alice", "echo", b"[1]", shard=call.shard, deadline=0.0, reply=print, id=call.id, bucket=call.bucket
    )
    for name in set(Call.__slots__) - {"deadline", "reply", "root"}:
        assert fast[name] == getattr(plain, name), name
