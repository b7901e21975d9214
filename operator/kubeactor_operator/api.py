"""The few verbs of the Kubernetes API that the operator needs, on plain JSON objects.

kopf brings the login (service account or kubeconfig) and aiohttp; the official client would add some 50 MB of generated
models that are then turned back into these very dictionaries.

Every write carries what it was decided on: `create` refuses what exists, `apply` and `replace` what has another
resourceVersion than the one observed, `delete` what has another uid or resourceVersion. So a leader that was paused and
wakes up with an old view is refused (409) and looks again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp
import kopf
import msgspec

from kubeactor_operator import names
from kubeactor_operator.observed import Object

__all__ = ["Api", "ApiError", "Kind", "KINDS"]

TIMEOUT_S: Final = 15.0
ANSWER_BYTES: Final = 32 * 1024 * 1024
MESSAGE_CHARACTERS: Final = 1000
TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class Kind(NamedTuple):
    """A resource: its apiVersion and the plural in its path."""

    api_version: str
    plural: str


KINDS: Final[dict[str, Kind]] = {
    names.KIND: Kind(names.API_VERSION, names.PLURAL),
    names.PLACEMENT_KIND: Kind(names.API_VERSION, names.PLACEMENT_PLURAL),
    "ConfigMap": Kind("v1", "configmaps"),
    "Deployment": Kind("apps/v1", "deployments"),
    "Event": Kind("v1", "events"),
    "Lease": Kind("coordination.k8s.io/v1", "leases"),
    "NetworkPolicy": Kind("networking.k8s.io/v1", "networkpolicies"),
    "PersistentVolumeClaim": Kind("v1", "persistentvolumeclaims"),
    "Pod": Kind("v1", "pods"),
    "PodDisruptionBudget": Kind("policy/v1", "poddisruptionbudgets"),
    "Role": Kind("rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": Kind("rbac.authorization.k8s.io/v1", "rolebindings"),
    "Secret": Kind("v1", "secrets"),
    "Service": Kind("v1", "services"),
    "ServiceAccount": Kind("v1", "serviceaccounts"),
    "StatefulSet": Kind("apps/v1", "statefulsets"),
    "StorageClass": Kind("storage.k8s.io/v1", "storageclasses"),
}


class ApiError(Exception):
    """Raised when the API server refuses a request, or (status 0) does not answer; the text is its own message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def stale(self) -> bool:
        """What it was decided on has changed: look again. Nothing is wrong."""
        return self.status in (404, 409)

    @property
    def refused(self) -> bool:
        """The request itself will not do: trying it again as it is helps nothing."""
        return self.status in (400, 403, 413, 422)


class Api:
    """One API server, one identity. `async with` it."""

    def __init__(self, connection: kopf.ConnectionInfo) -> None:
        self._connection = connection
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Api:
        self._session = aiohttp.ClientSession(
            base_url=self._connection.server.rstrip("/") + "/",
            connector=aiohttp.TCPConnector(ssl=self._connection.as_ssl_context(), limit=32),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session:
            await self._session.close()

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object, or None if there is none."""
        try:
            return await self._ask("GET", _path(kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, kind: str, namespace: str | None, labels: str = "") -> list[Object]:
        """All objects with these labels; every one has its `kind`, which the API leaves out in lists."""
        answer = await self._ask("GET", _path(kind, namespace), params={"labelSelector": labels} if labels else {})
        return [{"kind": kind, "apiVersion": KINDS[kind].api_version, **item} for item in answer["items"]]

    async def create(self, manifest: Object) -> Object:
        """Create it; 409 if it exists."""
        path = _path(manifest["kind"], manifest["metadata"]["namespace"])
        return await self._ask("POST", path, manifest, params=_WRITE)

    async def apply(self, manifest: Object, *, force: bool) -> Object:
        """Server-side apply. With `force` only over the resourceVersion that the manifest names."""
        meta = manifest["metadata"]
        assert not force or meta.get("resourceVersion"), "what was observed decides"
        return await self._ask(
            "PATCH",
            _path(manifest["kind"], meta["namespace"], meta["name"]),
            manifest,
            params={**_WRITE, "force": "true" if force else "false"},
            content_type="application/apply-patch+yaml",
        )

    async def replace(self, manifest: Object) -> Object:
        """Plain update over the resourceVersion that it names."""
        meta = manifest["metadata"]
        assert meta.get("resourceVersion"), "what was observed decides"
        return await self._ask("PUT", _path(manifest["kind"], meta["namespace"], meta["name"]), manifest, params=_WRITE)

    async def patch(self, manifest: Object, subresource: str = "") -> Object:
        """Merge these fields over the resourceVersion that the manifest names."""
        meta = manifest["metadata"]
        assert meta.get("resourceVersion"), "what was observed decides"
        path = _path(manifest["kind"], meta["namespace"], meta["name"]) + (f"/{subresource}" if subresource else "")
        return await self._ask("PATCH", path, manifest, params=_WRITE, content_type="application/merge-patch+json")

    async def delete(self, manifest: Object, *, orphan: bool = False) -> None:
        """Delete that very object: with its grace period, and only as it was observed."""
        meta = manifest["metadata"]
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]},
            "propagationPolicy": "Orphan" if orphan else "Background",
        }
        await self._ask("DELETE", _path(manifest["kind"], meta["namespace"], meta["name"]), body)

    async def _ask(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        assert self._session, "use it as a context manager"
        data = None if body is None else msgspec.json.encode(body)
        try:
            async with self._session.request(
                method, path, params=params, data=data, headers={**self._headers(), "Content-Type": content_type}
            ) as response:
                answer = await response.content.read(ANSWER_BYTES + 1)
                while len(answer) <= ANSWER_BYTES and (more := await response.content.read(ANSWER_BYTES)):
                    answer += more
                status = response.status
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ApiError(0, f"no answer to {method} {path}: {error or type(error).__name__}") from error
        return _read(status, answer)

    def _headers(self) -> dict[str, str]:
        # Tokens of a service account are valid for an hour; kubelet renews the file.
        if self._connection.token and TOKEN.exists() and not self._connection.certificate_path:
            return {"Authorization": f"Bearer {TOKEN.read_text().strip()}"}
        return self._connection.as_http_headers()


_WRITE: Final = {"fieldManager": names.FIELD_MANAGER, "fieldValidation": "Strict"}


def _path(kind: str, namespace: str | None, name: str = "") -> str:
    version, plural = KINDS[kind]
    root = f"apis/{version}" if "/" in version else f"api/{version}"
    return "/".join(filter(None, (root, f"namespaces/{namespace}" if namespace else "", plural, name)))


def _read(status: int, answer: bytes) -> Object:
    if len(answer) > ANSWER_BYTES:
        raise ApiError(0, f"an answer above {ANSWER_BYTES} bytes")
    try:
        read = msgspec.json.decode(answer, type=Object)
    except msgspec.MsgspecError:
        read = {"message": answer[:MESSAGE_CHARACTERS].decode(errors="replace")}
    if status >= 400:
        raise ApiError(status, str(read.get("message", ""))[:MESSAGE_CHARACTERS] or f"status {status}")
    return read
