"""Who may do what after an install, asked of a real API server: the operator, and people with view, edit and admin."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from tests.chart.helm import CHART, NAME, ROOT, Helm, Kubectl, Manifest, namespace

HOME = "kubeactor-system"
TEAMS = ("team-a", "team-b")
ELSEWHERE = "team-c"
BANK_ROLE = {  # what hosts and ingresses get, by a Role that the operator makes
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "bank-host"},
    "rules": [
        {
            "apiGroups": ["kubeactor.io"],
            "resources": ["actorplacements"],
            "resourceNames": ["bank"],
            "verbs": ["get", "list", "watch"],
        },
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]},
    ],
}


class Ask(NamedTuple):
    """One question. `where` None: the whole cluster."""

    verb: str
    group: str
    resource: str
    where: str | None
    name: str = ""


def allowed(kubectl: Kubectl, user: str, asks: Sequence[Ask], groups: Sequence[str] = ()) -> dict[Ask, bool]:
    """What the API server says to each, by SubjectAccessReviews."""
    reviews = []
    for ask in asks:
        resource, _, sub = ask.resource.partition("/")
        attributes = {"verb": ask.verb, "group": ask.group, "resource": resource, "subresource": sub, "name": ask.name}
        spec = {"user": user, "groups": [*groups, "system:authenticated"]}
        spec["resourceAttributes"] = attributes | ({"namespace": ask.where} if ask.where else {})
        reviews.append({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec})
    text = "".join(json.dumps(review) + "\n---\n" for review in reviews)
    told = kubectl.run("create", "--filename=-", "--output=jsonpath={.status.allowed}{'\\n'}", text=text).stdout.split()
    assert len(told) == len(asks)
    return {ask: answer == "true" for ask, answer in zip(asks, told, strict=True)}


def account(name: str = NAME, where: str = HOME) -> str:
    return f"system:serviceaccount:{where}:{name}"


def rules(name: str, where: str | None) -> list[Ask]:
    """Every right that the chart's template lists under that name, as questions."""
    spec = importlib.util.spec_from_file_location("charts_generate", ROOT / "charts" / "generate.py")
    assert spec
    assert spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    return [
        Ask(verb, rule["apiGroups"][0], resource, where)
        for rule in generate.rules(name)
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def never(where: str | None) -> list[Ask]:
    """What the operator must not be able to do in a namespace, served or not."""
    return [
        *(Ask(verb, "", "secrets", where) for verb in ("list", "watch", "update", "delete", "deletecollection")),
        *(
            Ask(verb, "", f"pods/{sub}", where)
            for sub in ("exec", "attach", "portforward")
            for verb in ("get", "create")
        ),
        *(
            Ask("create", "", sub, where)
            for sub in ("pods/eviction", "pods/ephemeralcontainers", "serviceaccounts/token")
        ),
        *(Ask(verb, "", "persistentvolumeclaims", where) for verb in ("create", "update", "deletecollection")),
        *(Ask(verb, "rbac.authorization.k8s.io", "roles", where) for verb in ("escalate", "bind", "update")),
        *(Ask(verb, "kubeactor.io", "actornamespaces", where) for verb in ("create", "update", "delete")),
        *(Ask(verb, "kubeactor.io", "actornamespaces/finalizers", where) for verb in ("update", "patch")),
        *(Ask(verb, "kubeactor.io", "actorplacements", where) for verb in ("delete", "patch", "deletecollection")),
        *(Ask(verb, "", "serviceaccounts", where) for verb in ("impersonate", "list")),
        *(Ask(verb, "apps", kind, where) for kind in ("daemonsets", "replicasets") for verb in ("get", "create")),
        *(Ask(verb, "batch", "jobs", where) for verb in ("get", "create")),
        Ask("update", "", "endpoints", where),
        Ask("create", "discovery.k8s.io", "endpointslices", where),
    ]


CLUSTER = [
    *(Ask(verb, "", "nodes", None) for verb in ("get", "list", "patch", "delete")),
    *(Ask(verb, "", "persistentvolumes", None) for verb in ("get", "list", "patch", "delete")),
    *(Ask(verb, "", "namespaces", None) for verb in ("create", "patch", "delete")),
    *(Ask(verb, "rbac.authorization.k8s.io", "clusterroles", None) for verb in ("create", "bind", "escalate", "patch")),
    *(Ask(verb, "apiextensions.k8s.io", "customresourcedefinitions", None) for verb in ("create", "patch", "delete")),
    *(Ask(verb, "storage.k8s.io", "storageclasses", None) for verb in ("create", "patch", "delete")),
    Ask("impersonate", "", "users", None),
    Ask("create", "admissionregistration.k8s.io", "validatingwebhookconfigurations", None),
]
LEASE = "coordination.k8s.io"


@pytest.fixture(scope="module", params=["whole cluster", "some namespaces"])
def installed(request: pytest.FixtureRequest, helm: Helm, kubectl: Kubectl) -> Iterator[tuple[Kubectl, bool]]:
    """A cluster with the chart, and whether it was installed for some namespaces only."""
    some = request.param == "some namespaces"
    kubectl.apply([namespace(name) for name in (HOME, *TEAMS, ELSEWHERE)])
    live = Helm(helm.path, kubectl.kubeconfig)
    where = ("--namespace", HOME)
    teams = ("--set", f"watch.namespaces={{{','.join(TEAMS)}}}") if some else ()
    live.run("install", NAME, str(CHART), *where, *teams, "--take-ownership", "--force-conflicts")
    yield kubectl, some
    live.run("uninstall", NAME, *where)


def wrong(answers: dict[Ask, bool], expected: bool) -> list[Ask]:
    return [ask for ask, answer in answers.items() if answer is not expected]


def test_the_operator_may_do_what_the_chart_lists_where_it_serves(installed: tuple[Kubectl, bool]) -> None:
    kubectl, some = installed
    for where in TEAMS if some else (*TEAMS, None):
        asks = rules("rules", where)
        assert len(asks) > 40
        assert wrong(allowed(kubectl, account(), asks), True) == []


def test_the_operator_may_do_nothing_else_there(installed: tuple[Kubectl, bool]) -> None:
    kubectl, _ = installed
    assert wrong(allowed(kubectl, account(), [*never("team-a"), *never(None), *CLUSTER]), False) == []


def test_the_operator_may_do_nothing_where_it_does_not_serve(installed: tuple[Kubectl, bool]) -> None:
    kubectl, some = installed
    beyond = [each for where in (ELSEWHERE, HOME, None) for each in rules("rules", where)]
    beyond += rules("clusterRules", None)
    assert wrong(allowed(kubectl, account(), beyond), not some) == []


def test_the_operator_s_lease_is_its_own_alone(installed: tuple[Kubectl, bool]) -> None:
    kubectl, _ = installed
    may = [
        Ask("create", LEASE, "leases", HOME),
        *(Ask(verb, LEASE, "leases", HOME, NAME) for verb in ("get", "update")),
    ]
    must_not = [
        *(Ask(verb, LEASE, "leases", HOME, "another") for verb in ("get", "update", "patch", "delete")),
        *(
            Ask(verb, LEASE, "leases", where)
            for verb in ("get", "list", "watch", "create")
            for where in ("team-a", None)
        ),
        Ask("delete", LEASE, "leases", HOME, NAME),
    ]
    assert wrong(allowed(kubectl, account(), may), True) == []
    assert wrong(allowed(kubectl, account(), must_not), False) == []


def test_the_operator_can_give_hosts_their_role_and_no_greater_one(installed: tuple[Kubectl, bool]) -> None:
    kubectl, _ = installed
    as_operator = ("--namespace", "team-a", "--as", account(), "--dry-run=server")
    kubectl.run("create", "--filename=-", *as_operator, text=json.dumps(BANK_ROLE))
    greater: Manifest = json.loads(json.dumps(BANK_ROLE))
    greater["rules"][0]["verbs"].append("delete")
    refused = kubectl.run("create", "--filename=-", *as_operator, text=json.dumps(greater), check=False)
    assert "attempting to grant RBAC permissions not currently held" in refused.stderr


def test_another_account_of_that_namespace_may_do_nothing(installed: tuple[Kubectl, bool]) -> None:
    kubectl, _ = installed
    asks = [*rules("rules", "team-a"), *never("team-a")]
    assert wrong(allowed(kubectl, account("default"), asks), False) == []


READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch", "delete")


def people(role: str) -> tuple[list[Ask], list[Ask]]:
    """What someone with that role of ours may do, and what not."""
    namespaces = [Ask(verb, "kubeactor.io", "actornamespaces", "team-a") for verb in (*WRITE, "deletecollection")]
    namespaces += [Ask(verb, "kubeactor.io", "actornamespaces/scale", "team-a") for verb in ("update", "patch")]
    placements = [Ask(verb, "kubeactor.io", "actorplacements", "team-a") for verb in WRITE]
    read = [
        Ask(verb, "kubeactor.io", kind, "team-a") for kind in ("actornamespaces", "actorplacements") for verb in READ
    ]
    read += [Ask("get", "kubeactor.io", f"actornamespaces/{sub}", "team-a") for sub in ("status", "scale")]
    status = [Ask(verb, "kubeactor.io", "actornamespaces/status", "team-a") for verb in ("update", "patch")]
    may = {"view": read, "edit": namespaces, "admin": placements}[role]
    return may, [each for each in (*read, *namespaces, *placements, *status) if each not in may]


@pytest.mark.parametrize("role", ["view", "edit", "admin"])
def test_the_cluster_s_own_roles_take_in_ours(installed: tuple[Kubectl, bool], role: str) -> None:
    """A bare API server does not aggregate: what is bound here is the part that view, edit or admin takes in."""
    kubectl, some = installed
    label = f"rbac.authorization.k8s.io/aggregate-to-{role}=true,app.kubernetes.io/name=kubeactor"
    found: list[dict[str, Any]] = kubectl.get("clusterroles", "--selector", label)["items"]
    if some:
        assert found == []
        return
    (ours,) = found
    name = f"somebody-{role}"
    kubectl.run(
        "create",
        "rolebinding",
        name,
        "--namespace=team-a",
        f"--clusterrole={ours['metadata']['name']}",
        f"--user={name}",
    )
    may, must_not = people(role)
    answers = allowed(
        kubectl, name, [*may, *must_not, *(Ask(verb, "kubeactor.io", "actornamespaces", "team-b") for verb in READ)]
    )
    kubectl.run("delete", "rolebinding", name, "--namespace=team-a")
    assert {ask for ask, answer in answers.items() if answer} == set(may)
