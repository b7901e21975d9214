"""What a user writes into an ActorNamespace, and what the operator writes back, as typed data.

The CRD (crds/actornamespaces.yaml) is checked by the API server, this model by mypy; a test compares the two field by
field: names, types, defaults and bounds. The API server has defaulted and checked an object before it is read here, so
`ActorNamespace.of` fails only for objects that were stored under another version of the CRD.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from kubeactor_operator import names

__all__ = [
    "ActorNamespace",
    "Binding",
    "Code",
    "Condition",
    "Hosts",
    "Ingress",
    "IngressService",
    "Limits",
    "PodSettings",
    "Spec",
    "SpecError",
    "Status",
    "Storage",
]

Raw = dict[str, Any]  # a nested Kubernetes type: the API server checks it in a dry run of the child that carries it

DNS_LABEL: Final = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_TARGET: Final = (
    r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
)

Label = Annotated[str, Meta(min_length=1, max_length=63, pattern=DNS_LABEL)]
ObjectName = Annotated[str, Meta(min_length=1, max_length=253, pattern=DNS_SUBDOMAIN)]
Target = Annotated[str, Meta(min_length=3, max_length=253, pattern=_TARGET)]
Port = Annotated[int, Meta(ge=1, le=65535)]
LabelValues = Annotated[dict[str, Annotated[str, Meta(max_length=63)]], Meta(max_length=32)]
Annotations = Annotated[dict[str, Annotated[str, Meta(max_length=4096)]], Meta(max_length=32)]


class SpecError(ValueError):
    """Raised when a stored ActorNamespace can't be read; the text says which field and what it must be."""


class _Model(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Unknown fields are ignored: a newer CRD may have them."""


class Binding(_Model, frozen=True):
    """One actor class and the name that it is reached by."""

    binding: Annotated[str, Meta(min_length=1, max_length=63, pattern="^[A-Z][A-Z0-9_]*$")]
    class_: Target = msgspec.field(name="class")

    @property
    def argument(self) -> str:
        """As the command line takes it: `ACCOUNT=bank:Account`."""
        return f"{self.binding}={self.class_}"


class Code(_Model, frozen=True):
    """Where the code is when it is not in the image."""

    config_map: ObjectName


class Storage(_Model, frozen=True):
    """The volume of each host."""

    size: Annotated[str, Meta(min_length=1, max_length=32)] = "1Gi"
    storage_class_name: ObjectName | None = None
    reclaim: Literal["Retain", "Delete"] = "Retain"
    adopt: bool = False


class SecretReference(_Model, frozen=True):
    """A Secret by its name."""

    name: ObjectName


class PodSettings(_Model, frozen=True):
    """What a user may set of the pods, the same for hosts and ingresses."""

    pod_labels: LabelValues = {}
    pod_annotations: Annotations = {}
    resources: Raw = {}
    node_selector: LabelValues = {}
    affinity: Raw = {}
    tolerations: Annotated[tuple[Raw, ...], Meta(max_length=32)] = ()
    topology_spread_constraints: Annotated[tuple[Raw, ...], Meta(max_length=8)] = ()
    priority_class_name: ObjectName | None = None
    runtime_class_name: ObjectName | None = None
    service_account_name: ObjectName | None = None
    image_pull_secrets: Annotated[tuple[SecretReference, ...], Meta(max_length=8)] = ()
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    termination_grace_period_seconds: Annotated[int, Meta(ge=1, le=3600)] = 30
    volumes: Annotated[tuple[Raw, ...], Meta(max_length=16)] = ()
    volume_mounts: Annotated[tuple[Raw, ...], Meta(max_length=16)] = ()


class Hosts(PodSettings, frozen=True):
    """The pods that own shards."""

    replicas: Annotated[int, Meta(ge=0, le=1000)] = 3
    storage: Storage = Storage()
    network_policy: bool = True


class HttpPort(_Model, frozen=True):
    """The port of the public Service."""

    port: Port = 80
    node_port: Port | None = None


class Ports(_Model, frozen=True):
    """The ports of the public Service."""

    http: HttpPort = HttpPort()


class IngressService(_Model, frozen=True):
    """The public Service."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    annotations: Annotations = {}
    load_balancer_class: Annotated[str, Meta(min_length=1, max_length=253)] | None = None
    ports: Ports = Ports()


class Ingress(PodSettings, frozen=True):
    """The pods that take calls. `replicas` None: not the operator's, an autoscaler may own it."""

    replicas: Annotated[int, Meta(ge=0, le=1000)] | None = 2
    service: IngressService = IngressService()
    api: Literal["Internal", "Public", "Off"] | None = None


class Limits(_Model, frozen=True):
    """Bounds of turns, in seconds."""

    method_timeout_seconds: Annotated[int, Meta(ge=1, le=300)] = 30
    alarm_timeout_seconds: Annotated[int, Meta(ge=1, le=900)] = 30


class Spec(_Model, frozen=True):
    """What the user wants."""

    actors: Annotated[tuple[Binding, ...], Meta(min_length=1, max_length=64)]
    image: Annotated[str, Meta(min_length=1, max_length=512, pattern=r"^[^\s]+$")] | None = None
    version: (
        Annotated[str, Meta(min_length=5, max_length=32, pattern=r"^[0-9]+\.[0-9]+\.[0-9]+[-.0-9A-Za-z]*$")] | None
    ) = None
    code: Code | None = None
    front_door: Target | None = None
    shards: Annotated[int, Meta(ge=1, le=4096)] = 256
    hosts: Hosts = Hosts()
    ingress: Ingress = Ingress()
    env: Annotated[tuple[Raw, ...], Meta(max_length=128)] = ()
    env_from: Annotated[tuple[Raw, ...], Meta(max_length=16)] = ()
    limits: Limits = Limits()

    @property
    def api(self) -> Literal["Internal", "Public", "Off"]:
        """Where `/v1` is served. A front door guards it, so then it is public only if the user says so."""
        return self.ingress.api or ("Internal" if self.front_door else "Public")

    @property
    def program(self) -> tuple[str, ...]:
        """The arguments that tell host, ingress and preflight what to run."""
        door = ("--front-door", self.front_door) if self.front_door else ()
        return (*door, *(actor.argument for actor in self.actors))


class Condition(_Model, frozen=True):
    """One condition of the status; kubeactor_operator.conditions has the types and reasons."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0


class Status(_Model, frozen=True):
    """What the operator writes back."""

    conditions: tuple[Condition, ...] = ()
    observed_generation: int = 0
    image: str = ""
    version: str = ""
    code_hash: str = ""
    hosts: int = 0
    ready_hosts: int = 0
    shards: int = 0
    moving_shards: int = 0
    url: str = ""
    selector: str = ""


class _Metadata(_Model, frozen=True):
    name: str
    namespace: str
    uid: str
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    annotations: dict[str, str] = {}


class ActorNamespace(_Model, frozen=True):
    """An ActorNamespace as the API server has it."""

    metadata: _Metadata
    spec: Spec
    status: Status = Status()

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> ActorNamespace:
        """Read an object of the API.

        Raises:
            SpecError: when it does not fit, with one sentence that names the field.
        """
        try:
            return msgspec.convert(dict(body), cls)
        except msgspec.ValidationError as error:
            what, _, where = str(error).partition(" - at `$.")
            raise SpecError(f"{where.rstrip('`') or 'the object'}: {what}") from error

    @property
    def name(self) -> str:
        """The name that those of all children begin with."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """The Kubernetes namespace."""
        return self.metadata.namespace

    @property
    def uid(self) -> str:
        """What volumes, hello frames and the table carry: a namespace of the same name made anew is another one."""
        return self.metadata.uid

    @property
    def paused(self) -> bool:
        """Whether the user asked the operator to leave everything as it is."""
        return self.metadata.annotations.get(names.PAUSED) == "true"
