"""Frames: what ingresses, hosts and operators say to each other on one connection.

A frame is its length as 4 bytes (big-endian) and a msgpack array whose first item is the tag of its type. The one who
dials speaks first: `Hello`, answered by `Welcome` or `Refused`. After that both sides send frames in any order;
`number` pairs an answer with its question. Fields are only ever added at the end, with defaults: an older reader
ignores them, an older writer leaves them out. Any other change raises VERSION.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final

import msgspec

from kubeactor.call import CallId
from kubeactor.errors import ActorError, BodyTooLargeError, from_document, to_document
from kubeactor.limits import BODY_BYTES

__all__ = [
    "FRAME_BYTES",
    "HELLO_BYTES",
    "VERSION",
    "CallFrame",
    "CheckRequest",
    "Failure",
    "Frame",
    "GrantRequest",
    "Granted",
    "Hello",
    "Inventory",
    "InventoryRequest",
    "ParkedRequest",
    "Probe",
    "Refused",
    "Result",
    "RetryRequest",
    "Welcome",
    "WireError",
    "authentic",
    "decode",
    "encode",
    "error_of",
    "failure",
    "frame_size",
    "measured",
]

VERSION: Final = 1
FRAME_BYTES: Final = BODY_BYTES + 64 * 1024
HELLO_BYTES: Final = 16 * 1024  # before the credentials are checked nobody makes us hold more
_LENGTH: Final = Struct(">I")
LENGTH_BYTES: Final = _LENGTH.size

# Who dials.
INGRESS: Final = "ingress"
HOST: Final = "host"
OPERATOR: Final = "operator"


class WireError(Exception):
    """Raised when what came over a connection is no frame, or not one that may come now. Ends that connection only."""


class Hello(msgspec.Struct, array_like=True, tag=0, frozen=True, gc=False):
    """The first frame of the side that dials.

    Attributes:
        session: names the life of this dialer (a process); a new connection of a session replaces its earlier one.
    """

    version: int
    namespace: str
    credentials: bytes
    role: str
    session: bytes


class Welcome(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False):
    """The answer of a host that accepts a hello, by which the dialer knows whether it reached the right one."""

    version: int
    namespace: str
    host: str
    volume: str
    shards: int


class Refused(msgspec.Struct, array_like=True, tag=2, frozen=True, gc=False):
    """The answer of a host that does not accept a hello; it closes the connection then."""

    version: int
    reason: str


class CallFrame(msgspec.Struct, array_like=True, tag=3, frozen=True, gc=False):
    """A call, see `kubeactor.call.Call`.

    Attributes:
        number: the dialer's, grows with each frame of the connection that wants an answer.
        remaining_ms: until the call's deadline.
    """

    number: int
    shard: int
    epoch: int
    binding: str
    identity: bytes
    method: str
    format: int
    body: bytes
    remaining_ms: int
    id: CallId | None = None
    bucket: int = 0
    chain: tuple[bytes, ...] = ()
    root: bytes = b""
    repeat: bool = False
    internal: bool = False


class Result(msgspec.Struct, array_like=True, tag=4, frozen=True, gc=False):
    """The answer to a call or probe: the result's bytes as the method's side encoded them, passed on untouched."""

    number: int
    body: bytes


class Failure(msgspec.Struct, array_like=True, tag=5, frozen=True, gc=False):
    """The answer to a call or request that failed: the problem document as JSON (msgpack has no large integers)."""

    number: int
    document: bytes


class Probe(msgspec.Struct, array_like=True, tag=6, frozen=True, gc=False):
    """A question to the engine that owns a shard, outside of any queue. Answered by Result or Failure."""

    number: int
    shard: int
    epoch: int
    body: bytes


class InventoryRequest(msgspec.Struct, array_like=True, tag=7, frozen=True, gc=False):
    """Asks a host what its volume holds."""

    number: int


class Inventory(msgspec.Struct, array_like=True, tag=8, frozen=True):
    """(shard, epoch, state) of each shard that the volume knows; the state is "owned", "frozen" or "given"."""

    number: int
    shards: list[tuple[int, int, str]]


class GrantRequest(msgspec.Struct, array_like=True, tag=9, frozen=True):
    """Tells a host to begin these (shard, epoch) empty; only an operator may."""

    number: int
    shards: list[tuple[int, int]]


class Granted(msgspec.Struct, array_like=True, tag=10, frozen=True, gc=False):
    """The granted shards are stored and synced."""

    number: int


class ParkedRequest(msgspec.Struct, array_like=True, tag=11, frozen=True, gc=False):
    """Asks a host what it has parked. Answered by Result: a JSON array of `kubeactor.parked.Item`."""

    number: int


class RetryRequest(msgspec.Struct, array_like=True, tag=12, frozen=True, gc=False):
    """Tells a host to try again what it has parked. Answered by Result, `true` or `false` as JSON, or by Failure."""

    number: int
    kind: str
    instance: str
    message: int


class CheckRequest(msgspec.Struct, array_like=True, tag=13, frozen=True, gc=False):
    """Tells a host to write, sync and read in a shard of its own. Answered by Result, once synced, or by Failure."""

    number: int
    shard: int
    epoch: int


Frame = (
    Hello
    | Welcome
    | Refused
    | CallFrame
    | Result
    | Failure
    | Probe
    | InventoryRequest
    | Inventory
    | GrantRequest
    | Granted
    | ParkedRequest
    | RetryRequest
    | CheckRequest
)

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final[Callable[[bytes], Frame]] = msgspec.msgpack.Decoder(Frame).decode
_pack: Final = _LENGTH.pack
_unpack: Final = _LENGTH.unpack_from


def encode(frame: Frame) -> bytes:
    """The payload of a frame, without its length.

    Raises:
        BodyTooLargeError: when it is above FRAME_BYTES.
    """
    payload = _encode(frame)
    if len(payload) > FRAME_BYTES:
        raise BodyTooLargeError(f"the call or its answer takes {len(payload)} bytes; a frame has at most {FRAME_BYTES}")
    return payload


def measured(payload: bytes) -> bytes:
    """The 4 bytes that go before a payload."""
    return _pack(len(payload))


def frame_size(data: bytes | bytearray, offset: int) -> int:
    """The size of the payload whose 4 length bytes stand at the offset."""
    size: int = _unpack(data, offset)[0]
    return size


def decode(payload: bytes) -> Frame:
    """The frame of a payload.

    Raises:
        WireError: when it is none.
    """
    try:
        return _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a frame: {error}") from error


def authentic(given: bytes, accepted: Sequence[bytes]) -> bool:
    """Whether the credentials are among the accepted ones, in a time that tells nothing about them."""
    return sum(hmac.compare_digest(given, one) for one in accepted) > 0  # `any` would stop at the first


def failure(number: int, error: ActorError) -> Failure:
    """The frame that carries an error."""
    return Failure(number, to_document(error))


def error_of(frame: Failure) -> ActorError:
    """The error that a frame carries.

    Raises:
        WireError: when its document is none.
    """
    try:
        return from_document(frame.document)
    except ValueError as error:
        raise WireError(str(error)) from error
