from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from kubeactor import wire
from kubeactor.call import SESSION, CallId
from kubeactor.errors import ActorMethodError, ActorOverloadedError, BodyTooLargeError, Problem, StorageLimitError
from kubeactor.limits import BODY_BYTES

CALL = wire.CallFrame(
    7, 3, 2, "ACCOUNT", b"alice", "debit", 0, b'{"amount":30}', 59_000, CallId(SESSION, b"12345678", 3, 9), 5,
    (b"ACCOUNT\0bob",), b"root", True, True,
)  # fmt: skip
FRAMES: list[wire.Frame] = [
    wire.Hello(1, "uid", b"token", wire.INGRESS, b"s"),
    wire.Welcome(1, "uid", "host-0", "vol-0", 256),
    wire.Refused(1, "wrong credentials"),
    CALL,
    wire.Result(7, b"\x00any bytes\xff"),
    wire.Failure(7, b"{}"),
    wire.Probe(7, 3, 2, b"steps"),
    wire.InventoryRequest(7),
    wire.Inventory(7, [(0, 1, "owned"), (1, 4, "given")]),
    wire.GrantRequest(7, [(0, 1), (1, 1)]),
    wire.Granted(7),
    wire.ParkedRequest(7),
    wire.RetryRequest(7, "message", "ACCOUNT/alice", 3),
    wire.CheckRequest(7, 3, 2),
]


def test_all_frames_are_tried_here() -> None:
    assert {type(frame) for frame in FRAMES} == set(get_args(wire.Frame))


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_a_frame_comes_back_as_it_was(frame: wire.Frame) -> None:
    assert wire.decode(wire.encode(frame)) == frame


def test_tags_never_change() -> None:
    tags = [msgspec.msgpack.decode(wire.encode(frame))[0] for frame in FRAMES]
    assert tags == list(range(len(FRAMES)))


def test_the_first_protocol_stays_readable() -> None:
    golden = bytes.fromhex("9f03 07 03 02 a74143434f554e54 c405616c696365 a56465626974 00".replace(" ", ""))
    assert wire.encode(CALL)[1:].startswith(b"\x00\x10" + golden[1:]), "array of 16: tag, number, shard, epoch, ..."


def test_an_older_writer_leaves_new_fields_out_and_a_newer_one_adds_some() -> None:
    values: list[Any] = msgspec.msgpack.decode(wire.encode(CALL))
    older = wire.decode(msgspec.msgpack.encode(values[:10]))
    assert isinstance(older, wire.CallFrame)
    assert (older.id, older.chain, older.repeat) == (None, (), False)
    assert wire.decode(msgspec.msgpack.encode([*values, "a field of later"])) == CALL


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"GET / HTTP/1.1\r\n",
        wire.encode(CALL)[:-1],
        wire.encode(CALL) + b"\0",
        msgspec.msgpack.encode([99, 1]),
        msgspec.msgpack.encode([3, "seven"]),
        msgspec.msgpack.encode([]),
        msgspec.msgpack.encode({"tag": 3}),
        b"\x91" * 5000,
        b"\x92\x02" + b"\xa2\xff\xff",
        b"\xdd\xff\xff\xff\xff\x03",
    ],
)
def test_what_is_no_frame_is_refused(payload: bytes) -> None:
    with pytest.raises(wire.WireError, match="not a frame"):
        wire.decode(payload)


def test_a_frame_above_the_limit_is_not_made() -> None:
    wire.encode(wire.Result(1, b"x" * BODY_BYTES))
    with pytest.raises(BodyTooLargeError, match="a frame has at most"):
        wire.encode(wire.Result(1, b"x" * wire.FRAME_BYTES))


def test_the_length_before_a_payload_is_four_bytes_big_endian() -> None:
    assert wire.measured(b"x" * 258) == b"\0\0\x01\x02"
    assert wire.frame_size(b"??\0\0\x01\x02", 2) == 258


def test_credentials_are_any_of_the_accepted_ones() -> None:
    assert wire.authentic(b"new", [b"new", b"old"])
    assert wire.authentic(b"old", [b"new", b"old"])
    assert wire.authentic(b"", [b""])
    for given in (b"", b"ol", b"old ", "ö".encode()):
        assert not wire.authentic(given, [b"new", b"old"])
    assert not wire.authentic(b"", [])


class TooLittle(Problem):
    status = 409
    balance: int
    note: Any


def test_an_error_arrives_as_the_same_class_with_its_members() -> None:
    sent = TooLittle("30 is more than 5", balance=5, note={"big": 2**70})
    got = wire.error_of(wire.failure(7, sent))
    assert isinstance(got, TooLittle)
    assert (got.detail, got.balance, got.note) == ("30 is more than 5", 5, {"big": 2**70})
    overloaded = wire.error_of(wire.failure(7, ActorOverloadedError("full", epoch=3)))
    assert (type(overloaded), overloaded.started, overloaded.retry_after_s, overloaded.epoch) == (
        ActorOverloadedError, "no", 1, 3,
    )  # fmt: skip
    disk = wire.error_of(wire.failure(7, StorageLimitError("full", disk=True)))
    assert disk.http_status() == 507


def test_an_error_with_members_that_no_frame_can_carry_arrives_without_them() -> None:
    loop: list[Any] = []
    loop.append(loop)
    error = TooLittle("poor", balance=1, note="")
    for note in (loop, "\ud800", "x" * 100_000):
        error.note = note  # past the check of the constructor
        got = wire.error_of(wire.failure(7, error))
        assert isinstance(got, TooLittle)
        assert got.detail == "poor"
        assert not hasattr(got, "note")
    error.note = object
    assert wire.error_of(wire.failure(7, error)).detail == "poor"


def test_a_detail_of_any_length_and_content_arrives_cut() -> None:
    error = ActorMethodError("\ud800" + "x" * 1_000_000, cause="KeyError")
    frame = wire.failure(7, error)
    assert len(frame.document) < 33_000
    assert wire.error_of(frame).detail == "?" + "x" * 999


@pytest.mark.parametrize("document", [b"", b"[]", b"{", b'{"name": ["x"]}'])
def test_a_failure_without_a_problem_document_is_refused(document: bytes) -> None:
    with pytest.raises(wire.WireError, match="not a problem document"):
        wire.error_of(wire.Failure(7, document))
