"""What goes wrong, as one tree. `name` of a problem document is the class name.

ActorError
├── Problem                       a user's own refusal (400-499), declared by subclassing
├── CodecError                    400  a value has no stored form
├── ActorArgumentError            400  arguments do not fit the method's hints
├── StorageTypeError              400  a stored value is not of the typed key's type
├── ActorUnauthenticatedError     401
├── ActorPrivateMethodError       403  an internal method was called from outside
├── ActorUnknownBindingError      404
├── ActorUnknownMethodError       404
├── ActorReentrancyError          409  a chain of calls came back to an instance that waits for it
├── IdempotencyConflictError      409  one key, two different calls
├── BodyTooLargeError             413
├── ActorQuotaError               429
├── ActorMethodError              500  the method raised something of its own
├── ActorUnawaitedCallError       500  a turn ended with a call that nobody awaited
├── BlockConcurrencyTimeoutError  500
├── ActorOverloadedError          503  a queue is full
├── ActorFencedError              503  the owner moved, or the turn has ended
├── ActorShardUnavailableError    503  no owner that can be reached at the moment
├── ActorQuarantinedError         503  the instance killed its worker three times
├── ActorMethodTimeoutError       504
│   └── ActorFetchTimeoutError    504
├── ActorOutputGateError          504  the write happened, its sync is unknown
└── StorageLimitError             507 for a full disk, else 413: a bound of storage
"""

from __future__ import annotations

import typing
from typing import Any, ClassVar, Final, Literal

import msgspec

__all__ = [
    "ActorArgumentError",
    "ActorError",
    "ActorFencedError",
    "ActorFetchTimeoutError",
    "ActorMethodError",
    "ActorMethodTimeoutError",
    "ActorOutputGateError",
    "ActorOverloadedError",
    "ActorPrivateMethodError",
    "ActorQuarantinedError",
    "ActorQuotaError",
    "ActorReentrancyError",
    "ActorShardUnavailableError",
    "ActorUnauthenticatedError",
    "ActorUnawaitedCallError",
    "ActorUnknownBindingError",
    "ActorUnknownMethodError",
    "BlockConcurrencyTimeoutError",
    "BodyTooLargeError",
    "CodecError",
    "IdempotencyConflictError",
    "Problem",
    "StorageLimitError",
    "StorageTypeError",
]

Started = Literal["yes", "no", "unknown"]

# What a problem document holds for itself; a user's Problem can't declare members of these names.
RESERVED_MEMBERS = frozenset(
    {"args", "cause", "detail", "epoch", "instance", "name", "overloaded", "request_id", "retryable", "started"}
    | {"status", "title", "type", "with_traceback", "add_note", "retry_after_s", "members"}
)


class ActorError(Exception):
    """The root of all errors that kubeactor raises or carries between processes.

    `started` tells whether the method can have run: "no" means that it did not, so the call may be made again.
    """

    status: ClassVar[int] = 500
    retryable: bool = False
    overloaded: bool = False
    started: Started = "yes"
    retry_after_s: int | None = None
    detail: str
    request_id: str | None = None
    instance: str | None = None
    epoch: int | None = None

    def __init__(self, detail: str = "", **fields: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        for name, value in fields.items():
            setattr(self, name, value)

    @property
    def name(self) -> str:
        """The class name, which is what travels."""
        return type(self).__name__

    def members(self) -> dict[str, Any]:
        """The fields that only this class has, as they stand in the problem document."""
        return {}

    def to_wire(self) -> dict[str, Any]:
        """The problem document (RFC 9457) as plain data."""
        document: dict[str, Any] = self.members()
        document |= {
            "type": "about:blank",
            "title": self.name,
            "status": self.http_status(),
            "name": self.name,
            "detail": self.detail,
            "retryable": self.retryable,
            "overloaded": self.overloaded,
            "started": self.started,
        }
        for field in ("request_id", "instance", "epoch", "retry_after_s"):
            if (value := getattr(self, field)) is not None:
                document[field] = value
        return document

    def http_status(self) -> int:
        """The status of the response that carries this error."""
        return self.status


class Problem(ActorError):
    """Raised by a user's method to refuse a call: commits nothing, `status` is 400-499, annotated members travel.

    Catch it by its class, which is found by its name where it is imported, else as `Problem`.

    >>> class InsufficientFunds(Problem):
    ...     status = 409
    ...     balance: int
    """

    status: ClassVar[int] = 400
    _members: ClassVar[tuple[str, ...]] = ()
    _hints: ClassVar[dict[str, Any]] = {}
    _foreign: tuple[str, dict[str, Any]] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not (isinstance(cls.status, int) and 400 <= cls.status <= 499):
            raise TypeError(f"{cls.__name__}.status must be 400..499, not {cls.status!r}")
        own = tuple(name for name in cls.__dict__.get("__annotations__", {}) if name not in ("status", "_members"))
        if reserved := RESERVED_MEMBERS.intersection(own):
            raise TypeError(f"{cls.__name__}: {', '.join(sorted(reserved))} is a field of every problem; rename it")
        if cls.__name__ in _BUILT_IN:
            raise TypeError(f"{cls.__name__} is an error of kubeactor itself; rename your Problem")
        cls._members = tuple(dict.fromkeys(cls._members + own))

    def __init__(self, detail: str = "", **members: Any) -> None:
        super().__init__(detail)
        missing = [name for name in self._members if name not in members and not hasattr(type(self), name)]
        if missing:
            raise TypeError(f"{self.name} needs {', '.join(missing)}, as annotated on the class")
        for name, value in members.items():
            if name not in self._members:
                raise TypeError(f"{self.name} has no member {name!r}; annotate it on the class")
            _check_member(type(self), name, value)
            setattr(self, name, value)

    @property
    def name(self) -> str:
        """The class name; of a problem whose class is not imported here, the name that it came with."""
        return type(self).__name__ if self._foreign is None else self._foreign[0]

    def members(self) -> dict[str, Any]:
        """The annotated members."""
        if self._foreign is not None:
            return dict(self._foreign[1])
        return {name: getattr(self, name) for name in self._members}

    def _adopt(self, name: str, document: dict[str, Any]) -> None:
        """Stand in for a class that is not imported here: keep its name, status and members."""
        status = document.get("status")
        if isinstance(status, int) and 400 <= status <= 499:
            self.__dict__["status"] = status
        members = {key: value for key, value in document.items() if key not in RESERVED_MEMBERS}
        self._foreign = (name or "Problem", members)


class CodecError(ActorError):
    """Raised when a value has no stored or wire form; the detail names its path (`$.items[3].f`).

    Store plain data, or the object through a typed `Key`; pass `id_of(stub)` instead of a stub.
    """

    status = 400


class ActorArgumentError(ActorError):
    """Raised when arguments do not fit the method's type hints; the detail names the argument.

    Send what the hint of the named argument asks for.
    """

    status = 400
    started: Started = "no"


class StorageTypeError(ActorError):
    """Raised when a value is not of the type that its typed key declares.

    Put what the `Key` declares; to change its type, read it by the old `Key` and put it by a new name.
    """

    status = 400


class ActorUnauthenticatedError(ActorError):
    """Raised when a call carries no valid credentials.

    Send the token that the server expects.
    """

    status = 401
    started: Started = "no"


class ActorPrivateMethodError(ActorError):
    """Raised when a method marked `@method(internal=True)` is called from outside.

    Call it from an actor or from the front door, or take `internal=True` away.
    """

    status = 403
    started: Started = "no"


class ActorUnknownBindingError(ActorError):
    """Raised when no actor class is bound under that name.

    Use a binding that the application declares; `kubeactor check` lists them.
    """

    status = 404
    started: Started = "no"


class ActorUnknownMethodError(ActorError):
    """Raised when the class has no callable method of that name.

    Call a public `async def` method of the class; for a renamed one give `@method(aliases=[...])`.
    """

    status = 404
    started: Started = "no"


class ActorReentrancyError(ActorError):
    """Raised when a call would wait for itself: its chain, or a cycle of chains, comes back to the instance.

    Let one of the two `ctx.send` instead of calling; the ingress repeats a broken cycle by itself.
    """

    status = 409
    started: Started = "no"


class IdempotencyConflictError(ActorError):
    """Raised when an idempotency key is used again for another method or body.

    Take a new key for another call, and the same arguments for a repeated one.
    """

    status = 409
    started: Started = "no"


class BodyTooLargeError(ActorError):
    """Raised when a call's body or result is above 4 MiB.

    Split it over several calls, or keep large objects elsewhere and pass their address.
    """

    status = 413
    started: Started = "no"


class ActorQuotaError(ActorError):
    """Raised when an instance has recorded as many keyed results as it may hold.

    Call again later without a key, or spread the calls over more names.
    """

    status = 429
    retryable = True
    started: Started = "no"


class ActorMethodError(ActorError):
    """Raised at the caller when the method raised something that is no ActorError; `cause` is its class name.

    Read the traceback in the host's log, under the request id.
    """

    status = 500
    cause: str = ""

    def members(self) -> dict[str, Any]:
        """The class name of what the method raised."""
        return {"cause": self.cause}


class ActorUnawaitedCallError(ActorError):
    """Raised when a turn ends with a stub call that nobody awaited; the detail names file and line.

    Write `await` before the call, or use `ctx.send`.
    """


class BlockConcurrencyTimeoutError(ActorError):
    """Raised when the function given to `block_concurrency_while` takes more than 30 s.

    Do the slow part before, outside, or in an alarm.
    """


class ActorOverloadedError(ActorError):
    """Raised when a queue is full; nothing was started.

    Repeat it after `Retry-After`; spread hot names if it lasts.
    """

    status = 503
    retryable = True
    overloaded = True
    started: Started = "no"
    retry_after_s = 1


class ActorFencedError(ActorError):
    """Raised when the shard is not this host's at that epoch, or when code acts for a turn that has ended.

    Clients repeat it. In your own code: await what the turn starts before it returns.
    """

    status = 503
    retryable = True
    started: Started = "no"
    retry_after_s = 1


class ActorShardUnavailableError(ActorError):
    """Raised when a shard has had no owner, or none that can be reached, until the call's deadline.

    Repeat it; look why the host of that shard is away (`/readyz`).
    """

    status = 503
    retryable = True
    started: Started = "no"
    retry_after_s = 5


class ActorQuarantinedError(ActorError):
    """Raised for an instance whose turns killed three workers within ten minutes, until it is released by hand.

    Mend what ends the worker in its methods, then `kubeactor release`.
    """

    status = 503
    started: Started = "no"
    retry_after_s = 60


class ActorMethodTimeoutError(ActorError):
    """Raised when a turn used up its budget, or a call its deadline.

    Split the work over alarms, or raise `@method(timeout_s=...)` or the call's `Kubeactor-Timeout`.
    """

    status = 504


class ActorFetchTimeoutError(ActorMethodTimeoutError):
    """Raised when an instance's `fetch` used up its budget.

    As for a method.
    """


class ActorOutputGateError(ActorError):
    """Raised when a turn's batch was written but its sync failed or did not end in time.

    Repeat it under the same key: it is applied once, whatever became of the first.
    """

    status = 504
    retryable = True
    started: Started = "unknown"


class StorageLimitError(ActorError):
    """Raised at the storage operation that would pass a bound; 507 when the disk is nearly full.

    Split the value, page with `scan`, or make room on the volume when the status is 507.
    """

    status = 413
    disk: bool = False

    def http_status(self) -> int:
        """507 when the disk is the bound, else 413."""
        return 507 if self.disk else self.status


_BUILT_IN: dict[str, type[ActorError]] = {
    cls.__name__: cls for cls in list(globals().values()) if isinstance(cls, type) and issubclass(cls, ActorError)
}


# Of a problem document on the wire or on disk.
DOCUMENT_BYTES: Final = 32 * 1024
_KEPT: Final = ("type", "title", "status", "name", "retryable", "overloaded", "started", "epoch", "retry_after_s")


def to_document(error: ActorError) -> bytes:
    """The problem document as JSON (msgpack has no large integers), cut down when it is too large or can't be encoded.

    An error must reach the caller, or the disk, whatever a user put into its members.
    """
    document = error.to_wire()
    try:
        encoded = msgspec.json.encode(document, enc_hook=repr)
    except (ValueError, TypeError, RecursionError):
        encoded = b""
    if not 0 < len(encoded) <= DOCUMENT_BYTES:
        kept: dict[str, Any] = {name: document[name] for name in _KEPT if name in document}
        kept["detail"] = error.detail[:1000].encode(errors="replace").decode()
        encoded = msgspec.json.encode(kept)
    return encoded


def from_document(document: bytes) -> ActorError:
    """The error that `to_document` wrote down.

    Raises:
        ValueError: when it is no problem document.
    """
    try:
        return from_wire(msgspec.json.decode(document, type=dict[str, Any]))
    except (msgspec.MsgspecError, TypeError) as error:
        raise ValueError(f"not a problem document: {error}") from error


def _problems(cls: type[Problem]) -> dict[str, type[Problem]]:
    found: dict[str, type[Problem]] = {}
    for sub in cls.__subclasses__():
        found[sub.__name__] = sub
        found |= _problems(sub)
    return found


def from_wire(document: dict[str, Any]) -> ActorError:
    """The error that a problem document describes, as the same class where it is imported here, else `Problem`.

    Members are converted to their annotated types where that works; one that this side does not declare is dropped.
    """
    name = document.get("name", "")
    cls = _BUILT_IN.get(name) or _problems(Problem).get(name)
    error = (cls or Problem).__new__(cls or Problem)
    ActorError.__init__(error, document.get("detail", ""))
    for field in ("retryable", "overloaded", "started", "request_id", "instance", "epoch", "retry_after_s", "cause"):
        if field in document:
            setattr(error, field, document[field])
    if isinstance(error, StorageLimitError):
        error.disk = document.get("status") == 507
    if isinstance(error, Problem):
        if cls is None:
            error._adopt(name, document)
        for member in error._members:
            if member in document:
                setattr(error, member, _converted(type(error), member, document[member]))
    return error


def _check_member(cls: type[Problem], member: str, value: Any) -> None:
    """Refuse a member that is not of its type or has no JSON form, where it is raised and not where it is read."""
    try:
        plain = msgspec.to_builtins(value)
        msgspec.convert(plain, _member_hints(cls).get(member, Any))
    except (msgspec.ValidationError, TypeError, RecursionError) as error:
        raise TypeError(f"{cls.__name__}.{member}: {error}") from error


def _member_hints(cls: type[Problem]) -> dict[str, Any]:
    """The types of a class's members; those that can't be resolved here are not checked."""
    if "_hints" not in cls.__dict__:
        try:
            hints = typing.get_type_hints(cls, include_extras=True)
        except NameError:
            hints = {}
        cls._hints = {name: hints[name] for name in cls._members if name in hints}
    return cls._hints


def _converted(cls: type[Problem], member: str, value: Any) -> Any:
    hint = _member_hints(cls).get(member, Any)
    try:
        return msgspec.convert(value, hint, strict=False)
    except (msgspec.ValidationError, TypeError):
        return value
    return value
