"""The command line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from kubeactor.application import Application, UserCodeError
from kubeactor.child import Timing
from kubeactor.limits import SHARDS_DEFAULT, SHARDS_MAX
from kubeactor.listeners import ListenError, Listeners

# Imported here so that a forked worker has it already: a restart imports nothing.
from kubeactor.processes import Namespace
from kubeactor.supervisor import Supervisor
from kubeactor.worker import WorkerFatalError, WorkerSpec

__all__ = ["main"]

HOSTS_MAX: Final = 16
USAGE: Final = 2

app = typer.Typer(
    name="kubeactor",
    help="Stateful actors in plain Python: one owner, one turn at a time, durable before reply, applied once.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Actors = Annotated[list[str], typer.Argument(help="module:Class, bound as CLASS; or BINDING=module:Class.")]
FrontDoorOption = Annotated[str | None, typer.Option("--front-door", help="module:app (ASGI) or module:fetch.")]
DataOption = Annotated[Path, typer.Option("--data", help="The folder that holds everything.")]
AddressOption = Annotated[str, typer.Option("--address", help="The address to listen on.")]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="The port to listen on.")]
ShardsOption = Annotated[
    int, typer.Option("--shards", min=1, max=SHARDS_MAX, help="Of a new namespace; fixed for ever.")
]


@app.command()
def dev(
    actors: Actors,
    front_door: FrontDoorOption = None,
    port: PortOption = 8080,
    data: DataOption = Path(".kubeactor"),
    hosts: Annotated[
        int | None, typer.Option("--hosts", min=1, max=HOSTS_MAX, help="Run that many host processes and an ingress.")
    ] = None,
    shards: ShardsOption = SHARDS_DEFAULT,
    address: AddressOption = "127.0.0.1",
    reload: Annotated[bool, typer.Option(help="Start anew when the code changes; storage stays.")] = True,
    idle_s: Annotated[float, typer.Option("--idle", min=0.1, help="Seconds until an idle instance is evicted.")] = 60.0,
) -> None:
    """Serve actors on this machine: one process without an inner socket, or `--hosts N` with an ingress.

    Example: kubeactor dev bank:Account --front-door bank:app
    """
    sys.path.insert(0, "")
    arguments: dict[str, Any] = {
        "folder": str(data.absolute()),
        "actors": actors,
        "front_door": front_door,
        "shards": shards,
        "options": {"detail": True, "grace_s": 1.0, "idle_s": idle_s},
    }
    listeners = Listeners()
    try:
        application = Application.load(actors, front_door)
        workers = _dev_workers(listeners, data, address, port, hosts, arguments)
    except (UserCodeError, ListenError, WorkerFatalError, OSError) as error:
        _refuse(str(error))
    if not listeners.reexecuted:
        _greet(application, address, workers[-1].sockets[0].getsockname()[1])
    watch = _changed(application) if reload else None
    _supervise(Supervisor(workers, listeners=listeners, timing=Timing(grace_s=2.0), watch=watch))


def _dev_workers(
    listeners: Listeners, data: Path, address: str, port: int, hosts: int | None, arguments: dict[str, Any]
) -> list[WorkerSpec]:
    public = listeners.listen(address, port)
    Namespace(data, arguments["shards"])  # before the workers, which would each make one of their own
    if hosts is None:
        folder = _folder(data / "host-0")
        return [
            WorkerSpec("worker", "kubeactor.processes:embedded_main", arguments, (public,), folder),
        ]
    specs = []
    addresses = {}
    for n in range(hosts):
        name = f"host-{n}"
        inner = listeners.listen("127.0.0.1", 0)
        addresses[name] = f"127.0.0.1:{inner.getsockname()[1]}"
        folder = _folder(data / name)
        own = {**arguments, "host": name}
        specs.append(WorkerSpec(name, "kubeactor.processes:host_main", own, (inner,), folder))
    own = {**arguments, "hosts": addresses}
    specs.append(WorkerSpec("ingress", "kubeactor.processes:ingress_main", own, (public,)))
    return specs


@app.command()
def host(
    actors: Actors,
    data: DataOption,
    port: PortOption = 7000,
    name: Annotated[str, typer.Option("--name", help="The host's id in the placement table.")] = "host-0",
    front_door: FrontDoorOption = None,
    shards: ShardsOption = SHARDS_DEFAULT,
    address: AddressOption = "127.0.0.1",
    idle_s: Annotated[float, typer.Option("--idle", min=0.1, help="Seconds until an idle instance is evicted.")] = 60.0,
) -> None:
    """Run one host: it listens for frames and serves the shards that its volume owns.

    Example: kubeactor host bank:Account --data /var/lib/bank --name host-0 --port 7000
    """
    sys.path.insert(0, "")
    listeners = Listeners()
    try:
        Application.load(actors, front_door)
        inner = listeners.listen(address, port)
        folder = _folder(data / name)
    except (UserCodeError, ListenError, WorkerFatalError, OSError) as error:
        _refuse(str(error))
    arguments: dict[str, Any] = {
        "folder": str(data.absolute()),
        "host": name,
        "actors": actors,
        "front_door": front_door,
        "shards": shards,
        "options": {"idle_s": idle_s},
    }
    worker = WorkerSpec(name, "kubeactor.processes:host_main", arguments, (inner,), folder)
    _supervise(Supervisor([worker], listeners=listeners))


@app.command()
def ingress(
    actors: Actors,
    data: DataOption,
    front_door: FrontDoorOption = None,
    port: PortOption = 8080,
    hosts: Annotated[
        list[str] | None,
        typer.Option("--host", help="host-0=127.0.0.1:7000; give all of them to place the shards first."),
    ] = None,
    shards: ShardsOption = SHARDS_DEFAULT,
    address: AddressOption = "127.0.0.1",
) -> None:
    """Run an ingress by the placement table in the data folder.

    Example: kubeactor ingress bank:Account --data /var/lib/bank --host host-0=127.0.0.1:7000
    """
    sys.path.insert(0, "")
    listeners = Listeners()
    try:
        Application.load(actors, front_door)
        public = listeners.listen(address, port)
        addresses = dict(_pair(text) for text in hosts or ())
    except (UserCodeError, ListenError, WorkerFatalError, OSError) as error:
        _refuse(str(error))
    arguments: dict[str, Any] = {
        "folder": str(data.absolute()),
        "actors": actors,
        "front_door": front_door,
        "shards": shards,
        "hosts": addresses,
        "options": {},
    }
    worker = WorkerSpec("ingress", "kubeactor.processes:ingress_main", arguments, (public,))
    _supervise(Supervisor([worker], listeners=listeners))


def _pair(text: str) -> tuple[str, str]:
    name, equals, address = text.partition("=")
    if not (name and equals and address):
        raise UserCodeError(f"--host takes name=address:port, not {text!r}")
    return name, address


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _changed(application: Application) -> Callable[[], bool]:
    """Whether a file of the user's code has another time of change than at the start."""
    seen = {path: _stamp(path) for path in application.source_files()}
    return lambda: any(_stamp(path) != stamp for path, stamp in seen.items())


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _greet(application: Application, address: str, port: int) -> None:
    print(f"kubeactor serves http://{address}:{port}")
    for binding, bound in application.bindings.items():
        print(f"  {binding}  {', '.join(sorted(bound.methods))}")
    binding, bound = next(iter(application.bindings.items()))
    example = next(iter(bound.methods), "")
    print(f"  curl -X POST http://{address}:{port}/v1/actors/{binding}/alice/{example}", flush=True)


def _supervise(supervisor: Supervisor) -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.INFO)
    status = supervisor.run()
    if supervisor.message:
        _refuse(supervisor.message)
    sys.exit(status)


def _refuse(message: str) -> Any:
    print(f"kubeactor: {message}", file=sys.stderr)
    sys.exit(USAGE)


def main() -> None:
    """The entry point."""
    app()
