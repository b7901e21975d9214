"""The command line."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import msgspec
import typer

from kubeactor import call_command, parked_commands, scaffold, terminal
from kubeactor.application import Application, UserCodeError
from kubeactor.child import Timing
from kubeactor.errors import ActorError
from kubeactor.limits import CALL_DEFAULT_S, CALL_MAX_S, SHARDS_DEFAULT, SHARDS_MAX
from kubeactor.listeners import ListenError, Listeners
from kubeactor.namespace import Namespace, claim, ignore
from kubeactor.parked import Retry
from kubeactor.placement import PlacementError
from kubeactor.pod.identity import Pod, PodError
from kubeactor.pod.peers import Peers
from kubeactor.ports import API, DRAIN_S, FRONT, INTERNAL, PUBLIC
from kubeactor.project import ProjectError, read_project
from kubeactor.reload import Reload, trial_command
from kubeactor.sources import Sources
from kubeactor.supervisor import Supervisor
from kubeactor.tracebacks import DevFormatter
from kubeactor.worker import WorkerFatalError, WorkerSpec

__all__ = ["main"]

HOSTS_MAX: Final = 16
# Ctrl-C ends `dev` within a second: what runs may go on for a while, then its connections are cut, then it is killed.
DEV_GRACE_S: Final = 0.4
DEV_KILL_S: Final = 0.9
KILLED: Final = 1
DEV_LOG: Final = "%(asctime)s %(levelname)s %(where)s%(name)s: %(message)s"
# From SIGTERM on, in a pod: kubelet's default of 30 s less the 5 s in which the nodes hear that the pod is going.
INGRESS_GRACE_S: Final = 15.0
USAGE: Final = 2
REFUSED: Final = (UserCodeError, ProjectError, ListenError, WorkerFatalError, PlacementError, PodError, OSError)

app = typer.Typer(
    name="kubeactor",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Actors = Annotated[
    list[str],
    typer.Argument(help="module:Env, with all its bindings; module:Class, bound as CLASS; or BINDING=module:Class."),
]
ProjectActors = Annotated[
    list[str] | None,
    typer.Argument(
        help="module:Env, with all its bindings; module:Class, bound as CLASS; or BINDING=module:Class."
        " Without any, what [tool.kubeactor] of pyproject.toml names."
    ),
]
FrontDoorOption = Annotated[str | None, typer.Option("--front-door", help="module:app (ASGI) or module:fetch.")]
DataOption = Annotated[Path, typer.Option("--data", help="The folder that holds everything.")]
AddressOption = Annotated[str, typer.Option("--address", help="The address to listen on.")]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="The port to listen on.")]
ShardsOption = Annotated[
    int | None,
    typer.Option("--shards", min=1, max=SHARDS_MAX, help=f"Of a new namespace, {SHARDS_DEFAULT} if not given; fixed."),
]
MetricsPortOption = Annotated[
    int | None,
    typer.Option("--metrics-port", min=0, max=65535, help="Serve /healthz, /readyz and /metrics over HTTP there."),
]


KubernetesOption = Annotated[
    bool,
    typer.Option("--kubernetes", help="Run in a pod: who it is from the environment, the placement from the API."),
]


def _version(wanted: bool) -> None:
    if wanted:
        from kubeactor import check

        print(check.version_line())
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the versions and exit.")
    ] = False,
) -> None:
    """Stateful actors in plain Python: one owner, one turn at a time, durable before reply, applied once."""


@app.command()
def init(name: Annotated[str, typer.Argument(help="Of the folder and the module, such as bank.")]) -> None:
    """Write a folder with an actor, its test, a pyproject.toml, and a namespace.yaml for Kubernetes.

    Example: kubeactor init bank
    """
    try:
        scaffold.create(name, Path.cwd())
    except scaffold.ScaffoldError as error:
        _refuse(str(error))
    print("\n".join(scaffold.next_steps(name)))


@app.command()
def check(
    actors: ProjectActors = None,
    front_door: FrontDoorOption = None,
    json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Import the actors and the front door, check them and the environment, and print what would be served.

    Example: kubeactor check bank:Account --front-door bank:app
    """
    from kubeactor import check as checking

    try:
        with contextlib.redirect_stdout(sys.stderr):  # what the code prints while it is imported
            actors, front_door = _served(actors, front_door)
            found = checking.report(_load(actors, front_door), front_door)
    except REFUSED as error:
        _refuse(str(error))
    if json:
        print(msgspec.json.encode(found).decode())
    else:
        print("\n".join(checking.lines(found)))


@app.command()
def dev(
    actors: ProjectActors = None,
    front_door: FrontDoorOption = None,
    port: PortOption = 8080,
    data: DataOption = Path(".kubeactor"),
    hosts: Annotated[
        int | None, typer.Option("--hosts", min=1, max=HOSTS_MAX, help="Run that many host processes and an ingress.")
    ] = None,
    shards: ShardsOption = None,
    address: AddressOption = "127.0.0.1",
    reload: Annotated[bool, typer.Option(help="Start anew when the code changes; storage stays.")] = True,
    idle_s: Annotated[float, typer.Option("--idle", min=0.1, help="Seconds until an idle instance is evicted.")] = 60.0,
    calls: Annotated[bool | None, typer.Option(help="Print a line a call; on a terminal that is the default.")] = None,
) -> None:
    """Serve actors on this machine: one process without an inner socket, or `--hosts N` with an ingress.

    Example: kubeactor dev bank:Account --front-door bank:app
    """
    try:
        actors, front_door = _served(actors, front_door)
    except REFUSED as error:
        _refuse(str(error))
    coloured = terminal.has_colours(sys.stdout)
    options: dict[str, Any] = {"detail": True, "grace_s": DEV_GRACE_S, "idle_s": idle_s, "declared_only": True}
    if sys.stdout.isatty() if calls is None else calls:
        options["calls"] = {"colours": coloured}
    arguments: dict[str, Any] = {
        "folder": str(data.absolute()),
        "actors": actors,
        "front_door": front_door,
        "options": options,
    }
    listeners = Listeners()
    sources = Sources(Path.cwd())
    try:
        if not listeners.reexecuted:  # code that was changed may be broken now: `preload` tells, and waits
            _load(actors, front_door)
        workers = _dev_workers(listeners, Namespace(data, shards), address, port, hosts, arguments)
        ignore(data)
    except REFUSED as error:
        _refuse(str(error))

    def preload() -> None:
        sources.add(_load(actors, front_door).source_files())

    def greet() -> None:
        from kubeactor.processes import application_of

        url = f"http://{_host_text(address)}:{workers[-1].sockets[0].getsockname()[1]}"
        bindings = application_of(tuple(actors), front_door).bindings
        lines = terminal.greeting(bindings, url, str(data), terminal.paint(coloured))
        print("\n".join(lines), flush=True)

    watch = Reload(sources.changed, trial_command(actors, front_door)) if reload else None
    timing = Timing(grace_s=DEV_KILL_S)
    on_open = None if listeners.reexecuted else greet
    supervisor = Supervisor(workers, listeners=listeners, preload=preload, timing=timing, on_open=on_open, watch=watch)
    try:
        _supervise(supervisor, dev=True)
    finally:
        if watch is not None:
            watch.close()


def _host_text(address: str) -> str:
    """An address as a URL has it."""
    return f"[{address}]" if ":" in address else address


def _dev_workers(
    listeners: Listeners, namespace: Namespace, address: str, port: int, hosts: int | None, arguments: dict[str, Any]
) -> list[WorkerSpec]:
    names = [f"host-{n}" for n in range(hosts or 1)]
    _hold_all(namespace, names)
    public = listeners.listen(address, port)
    folders = {name: claim(namespace.data(name)) for name in names}
    if hosts is None:
        return [WorkerSpec("worker", "kubeactor.processes:embedded_main", arguments, (public,), folders["host-0"])]
    specs = []
    addresses = {}
    for name, folder in folders.items():
        inner = listeners.listen("127.0.0.1", 0)
        addresses[name] = f"127.0.0.1:{inner.getsockname()[1]}"
        own = {**arguments, "host": name}
        specs.append(WorkerSpec(name, "kubeactor.processes:host_main", own, (inner,), folder))
    own = {**arguments, "hosts": addresses}
    specs.append(WorkerSpec("ingress", "kubeactor.processes:ingress_main", own, (public,)))
    return specs


def _hold_all(namespace: Namespace, names: list[str]) -> None:
    """Refuse to start with fewer hosts than there are shards on."""
    table = namespace.table()
    owners = [host for host in sorted(table.volumes) if table.shards_of(host)] if table else []
    if not set(owners) <= set(names):
        raise UserCodeError(
            f"the shards in {namespace.folder} are on {', '.join(owners)}:"
            f" start with --hosts {len(owners)} or more, or with another data folder"
        )


@app.command()
def host(
    actors: Actors,
    data: DataOption,
    port: PortOption = 7000,
    name: Annotated[str, typer.Option("--name", help="The host's id in the placement table.")] = "host-0",
    front_door: FrontDoorOption = None,
    shards: ShardsOption = None,
    address: AddressOption = "127.0.0.1",
    metrics_port: MetricsPortOption = None,
    kubernetes: KubernetesOption = False,
    idle_s: Annotated[float, typer.Option("--idle", min=0.1, help="Seconds until an idle instance is evicted.")] = 60.0,
) -> None:
    """Run one host: it listens for frames and serves the shards that its volume owns.

    Example: kubeactor host bank:Account --data /var/lib/bank --name host-0 --port 7000
    """
    listeners = Listeners()
    try:
        pod = _pod(host=True) if kubernetes else None
        _load(actors, front_door)
        if pod is not None:
            name = pod.host or ""
            namespace = Namespace(data, pod.shards, pod.uid)
        else:
            namespace = Namespace(data, shards)
        sockets = [listeners.listen(address, port)]
        if metrics_port is not None:
            sockets.append(listeners.listen(address, metrics_port))
        folder = namespace.data(name)
        if pod is None:
            claim(folder)
        else:  # a pod waits for its force-deleted predecessor, by the lock of the database, and says so in /readyz
            folder.mkdir(parents=True, exist_ok=True)
    except REFUSED as error:
        _refuse(str(error))
    arguments: dict[str, Any] = {
        "folder": str(data.absolute()),
        "host": name,
        "actors": actors,
        "front_door": front_door,
        "options": {"idle_s": idle_s},
        "kubernetes": kubernetes,
    }
    worker = WorkerSpec(name, "kubeactor.processes:host_main", arguments, sockets, folder)
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
    shards: ShardsOption = None,
    address: AddressOption = "127.0.0.1",
    api_port: Annotated[
        int | None,
        typer.Option(
            "--api-port",
            min=0,
            max=65535,
            help="Serve /v1 there instead of beside the front door; 0 serves it nowhere.",
        ),
    ] = None,
    metrics_port: MetricsPortOption = None,
    kubernetes: KubernetesOption = False,
) -> None:
    """Run an ingress by the placement table in the data folder, or in a pod by that of the API server.

    Example: kubeactor ingress bank:Account --data /var/lib/bank --host host-0=127.0.0.1:7000
    """
    listeners = Listeners()
    try:
        addresses = dict(_pair(text) for text in hosts or ())
        pod = _pod(host=False) if kubernetes else None
        ports = _ports(port, api_port, metrics_port, front_door)
        _load(actors, front_door)
        Namespace(data, pod.shards, pod.uid) if pod else Namespace(data, shards)
        sockets = [listeners.listen(address, number) for _, number in ports]
    except REFUSED as error:
        _refuse(str(error))
    arguments: dict[str, Any] = {
        "folder": str(data.absolute()),
        "actors": actors,
        "front_door": front_door,
        "hosts": addresses,
        "options": {"grace_s": INGRESS_GRACE_S} if kubernetes else {},
        "ports": [name for name, _ in ports],
        "kubernetes": kubernetes,
    }
    worker = WorkerSpec("ingress", "kubeactor.processes:ingress_main", arguments, sockets)
    timing = Timing(grace_s=DRAIN_S + INGRESS_GRACE_S + 3.0) if kubernetes else None
    _supervise(Supervisor([worker], listeners=listeners, timing=timing))


def _pod(*, host: bool) -> Pod:
    """The pod that this process is, checked before anything serves.

    Raises:
        PodError: when it is none, or can't be one.
    """
    try:
        import kubernetes.aio.client
        import kubernetes.aio.config  # noqa: F401  (the workers have it when they are forked)
    except ImportError as error:
        raise PodError("--kubernetes needs its client: install kubeactor[kubernetes]") from error
    pod = Pod.of(os.environ, host=host)
    Peers(pod.peer_dir)
    return pod


def _ports(port: int, api_port: int | None, metrics_port: int | None, front_door: str | None) -> list[tuple[str, int]]:
    """What is served where: (kind, port), the public one first."""
    if api_port is not None and front_door is None:
        raise UserCodeError("--api-port is for /v1 beside a front door: without --front-door /v1 is on --port")
    ports = [(PUBLIC if api_port is None else FRONT, port)]
    if api_port:
        ports.append((API, api_port))
    if metrics_port is not None:
        ports.append((INTERNAL, metrics_port))
    return ports


DEV_URL: Final = "http://127.0.0.1:8080"
UrlOption = Annotated[str, typer.Option("--url", help="Where the API is served.")]


@app.command(context_settings={"ignore_unknown_options": True})
def call(
    binding: Annotated[str, typer.Argument(help="Such as ACCOUNT.")],
    name: Annotated[str, typer.Argument(help="Of the instance, such as alice.")],
    method: Annotated[str, typer.Argument(help="Such as debit.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="amount=30 by name, 30 by position: JSON, or else a text.")
    ] = None,
    url: UrlOption = DEV_URL,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.001, max=CALL_MAX_S, help="Seconds that the call may take.")
    ] = CALL_DEFAULT_S,
    key: Annotated[
        str | None, typer.Option("--key", help="Idempotency-Key: repeated with it, it is applied once.")
    ] = None,
    unique: Annotated[bool, typer.Option("--id", help="The name is a unique id, 32 hex digits.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One line of JSON, also for an error.")] = False,
) -> None:
    """Call a method of an instance and print its result as JSON; an error ends with status 1.

    Example: kubeactor call ACCOUNT alice debit amount=30
    """
    target = call_command.Target(binding, name, method, unique)
    try:
        body = call_command.arguments(arguments or [])
        result = call_command.make(url, target, body, timeout_s=timeout_s, key=key)
        print(call_command.shown(result, one_line=json))
    except ActorError as error:
        print(
            msgspec.json.encode(error.to_wire()).decode() if json else f"{error.name}: {error.detail}", file=sys.stderr
        )
        sys.exit(1)
    except call_command.CallError as error:
        _refuse(str(error))


@app.command()
def parked(url: UrlOption = DEV_URL) -> None:
    """List alarms and messages that failed for good and wait for you.

    Example: kubeactor parked --url http://127.0.0.1:8080
    """
    try:
        for line in parked_commands.lines(parked_commands.fetch(url)):
            print(line)
    except parked_commands.ParkedError as error:
        _refuse(str(error))


@app.command()
def retry(
    kind: Annotated[str, typer.Argument(help="alarm or message.")],
    instance: Annotated[str, typer.Argument(help="As listed: ACCOUNT/alice.")],
    number: Annotated[int, typer.Argument(help="Of a message, as listed.")] = 0,
    url: UrlOption = DEV_URL,
) -> None:
    """Try a parked alarm or message again; a message is sent under a new number.

    Example: kubeactor retry message ACCOUNT/alice 7
    """
    try:
        if not parked_commands.retry(url, Retry(kind, instance, number)):
            _refuse(f"nothing of that kind and number is parked at {instance}")
    except parked_commands.ParkedError as error:
        _refuse(str(error))


@app.command()
def release(
    instance: Annotated[str, typer.Argument(help="The quarantined one: ACCOUNT/alice.")],
    data: DataOption = Path(".kubeactor"),
) -> None:
    """End the quarantine of an instance that ended its worker three times; its host notices within a second.

    Example: kubeactor release ACCOUNT/alice --data .kubeactor
    """
    try:
        if not parked_commands.release(data, instance):
            _refuse(f"{instance} is not quarantined in {data}")
    except parked_commands.ParkedError as error:
        _refuse(str(error))


NamespaceOption = Annotated[
    str | None, typer.Option("--namespace", "-n", help="The Kubernetes namespace; the context's own if not given.")
]


@app.command()
def where(
    name: Annotated[str, typer.Argument(help="The ActorNamespace.")],
    instance: Annotated[str, typer.Argument(help="The instance's name.")],
    binding: Annotated[str, typer.Option("--binding", help="Of its actor class: ACCOUNT.")] = "",
    namespace: NamespaceOption = None,
) -> None:
    """Tell shard, host, pod and epoch of an instance in a cluster.

    Example: kubeactor where bank alice
    """
    from kubeactor.pod import commands

    try:
        print("\n".join(commands.where(name, instance, binding, namespace)))
    except commands.CommandError as error:
        _refuse(str(error))


@app.command()
def forget(
    name: Annotated[str, typer.Argument(help="The ActorNamespace.")],
    host: Annotated[str, typer.Argument(help="The host whose volume is lost: host-1.")],
    namespace: NamespaceOption = None,
    accept: Annotated[bool, typer.Option("--accept-data-loss", help="Yes, what was on the volume is gone.")] = False,
) -> None:
    """Give up the shards of a lost volume: they begin empty, under a higher epoch. Tells first what that would be.

    Shards without an owner begin once every host that might hold them is forgotten.

    Example: kubeactor forget bank host-1 --accept-data-loss
    """
    from kubeactor.pod import commands

    try:
        if not accept:
            _refuse(commands.loss(name, host, namespace))
        volume = commands.forget(name, host, namespace)
    except commands.CommandError as error:
        _refuse(str(error))
    what = f"volume {volume} of {host}" if volume else f"whatever {host} held"
    print(f"the operator of {name} is told to forget {what}; kubectl describe actorns {name} tells")


def _pair(text: str) -> tuple[str, str]:
    name, equals, address = text.partition("=")
    if not (name and equals and address):
        raise UserCodeError(f"--host takes name=address:port, not {text!r}")
    return name, address


def _served(actors: list[str] | None, front_door: str | None) -> tuple[list[str], str | None]:
    """What is named on the command line, else what the pyproject.toml here names.

    Raises:
        UserCodeError: when neither does.
        ProjectError: when the file says something else.
    """
    if actors:
        return actors, front_door
    project = read_project(Path.cwd())
    if project is None:
        raise UserCodeError(
            'name what to serve, as in bank:Account, or write [tool.kubeactor] env = "bank:Bank" into pyproject.toml'
        )
    return [project.env], front_door or project.front_door


def _load(actors: list[str], front_door: str | None) -> Application:
    """Import all that a worker runs, the user's code too: forked workers have it then, and a restart imports nothing.

    Raises:
        UserCodeError: when the user's code or its configuration can't be served.
    """
    sys.path.insert(0, "")
    from kubeactor.processes import application_of

    application = application_of(tuple(actors), front_door)
    application.make_env(_no_dispatcher)
    return application


def _no_dispatcher() -> NoReturn:
    raise UserCodeError("the code makes a call while it is imported: make it in a method, or in the Env's lifespan")


def _supervise(supervisor: Supervisor, *, dev: bool = False) -> None:
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    handler = logging.StreamHandler()
    handler.setFormatter(DevFormatter(DEV_LOG, "%H:%M:%S") if dev else plain)
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    if dev:  # that a worker ended when it was told to is no news to who typed Ctrl-C
        logging.getLogger("kubeactor.child").setLevel(logging.WARNING)
    try:
        status = supervisor.run()
    except REFUSED as error:
        _refuse(str(error))
    if supervisor.message:
        _refuse(supervisor.message)
    # Whoever types Ctrl-C does not wait for a worker that is slow to end: it loses nothing that was acknowledged.
    sys.exit(0 if dev and status == KILLED else status)


def _refuse(message: str) -> NoReturn:
    print(f"kubeactor: {message}", file=sys.stderr)
    sys.exit(USAGE)


def main() -> None:
    """The entry point."""
    app()
