"""A client of a real API server for tests: one call, its answer, nothing hidden."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path
from typing import Any

import httpx
import yaml

Object = dict[str, Any]
GROUPS = {
    "v1": "/api/v1",
    "apps/v1": "/apis/apps/v1",
    "policy/v1": "/apis/policy/v1",
    "networking.k8s.io/v1": "/apis/networking.k8s.io/v1",
    "rbac.authorization.k8s.io/v1": "/apis/rbac.authorization.k8s.io/v1",
    "kubeactor.io/v1alpha1": "/apis/kubeactor.io/v1alpha1",
    "apiextensions.k8s.io/v1": "/apis/apiextensions.k8s.io/v1",
}
PLURALS = {"NetworkPolicy": "networkpolicies"}


class Refused(Exception):
    """The API server said no; the text is its message."""

    def __init__(self, answer: httpx.Response) -> None:
        json = answer.headers.get("content-type", "").startswith("application/json")
        super().__init__(f"{answer.status_code} {answer.json().get('message') if json else answer.text}")
        self.status = answer.status_code


class Rest:
    """Objects are given and returned as plain data."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context()
        if "certificate-authority" in cluster:
            context.load_verify_locations(cluster["certificate-authority"])
        elif "certificate-authority-data" in cluster:
            context.load_verify_locations(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        else:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        if "client-certificate" in user:
            context.load_cert_chain(user["client-certificate"], user["client-key"])
        self.http = httpx.Client(base_url=cluster["server"], headers=headers, verify=context, timeout=60)

    def __enter__(self) -> Rest:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Object:
        """Any request. Raises Refused for a status of 400 or more."""
        answer = self.http.request(method, path, json=body, **options)
        if answer.status_code >= 400:
            raise Refused(answer)
        found: Object = answer.json()
        return found

    def create(self, body: Object, *, dry_run: bool = False) -> Object:
        """Create it, with strict validation: an unknown or doubled field is an error."""
        params = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        return self.call("POST", path_of(body, name=False), body, params=params)

    def replace(self, body: Object) -> Object:
        return self.call("PUT", path_of(body), body, params={"fieldValidation": "Strict"})

    def patch(self, body: Object, patch: Any, kind: str = "merge", subresource: str = "") -> Object:
        headers = {"Content-Type": f"application/{kind}-patch+json"}
        return self.call("PATCH", path_of(body) + subresource, patch, headers=headers)

    def apply(self, body: Object, manager: str = "test", *, dry_run: bool = False) -> Object:
        """Server-side apply, with strict validation."""
        params = {"fieldManager": manager, "fieldValidation": "Strict", "force": "true"}
        params |= {"dryRun": "All"} if dry_run else {}
        headers = {"Content-Type": "application/apply-patch+yaml"}
        return self.call("PATCH", path_of(body), body, params=params, headers=headers)

    def read(self, body: Object) -> Object:
        return self.call("GET", path_of(body))

    def delete(self, body: Object) -> Object:
        return self.call("DELETE", path_of(body))


def path_of(body: Object, *, name: bool = True) -> str:
    """Where the object is, or with name=False its collection."""
    metadata, kind = body["metadata"], body["kind"]
    inside = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    plural = PLURALS.get(kind, kind.lower() + "s")
    return f"{GROUPS[body['apiVersion']]}{inside}/{plural}" + (f"/{metadata['name']}" if name else "")
