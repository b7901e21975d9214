"""An ActorNamespace is read as typed data; what can't be read names its field."""

from __future__ import annotations

from typing import Any

import pytest
from tests.operator.user_errors import GONE, bank

from kubeactor_operator import names
from kubeactor_operator.spec import ActorNamespace, SpecError, Status


def read(**changes: Any) -> ActorNamespace:
    given = {name.replace("__", "."): value for name, value in changes.items()}
    return ActorNamespace.of(bank({"metadata.namespace": "default", "metadata.uid": "5a7c"} | given))


def test_the_least_that_a_user_writes_has_the_defaults() -> None:
    spec = read(spec__shards=GONE).spec
    assert (spec.shards, spec.hosts.replicas, spec.ingress.replicas) == (256, 3, 2)
    assert (spec.hosts.storage.size, spec.hosts.storage.reclaim, spec.hosts.storage.adopt) == ("1Gi", "Retain", False)
    assert spec.ingress.service.ports.http.port == 80


def test_the_identity_comes_from_the_metadata() -> None:
    found = read()
    assert (found.name, found.namespace, found.uid) == ("bank", "default", "5a7c")
    assert found.status == Status()


@pytest.mark.parametrize(("value", "paused"), [("true", True), ("false", False), ("True", False), ("", False)])
def test_it_is_paused_by_the_annotation_true(value: str, paused: bool) -> None:
    assert read(metadata__annotations={names.PAUSED: value}).paused is paused
    assert not read().paused


@pytest.mark.parametrize(
    ("door", "api", "expected"),
    [
        (GONE, GONE, "Public"),
        ("bank:app", GONE, "Internal"),
        ("bank:app", "Public", "Public"),
        ("bank:app", "Off", "Off"),
        (GONE, "Public", "Public"),
    ],
)
def test_a_front_door_guards_the_api_unless_the_user_says_otherwise(door: Any, api: Any, expected: str) -> None:
    assert read(spec__frontDoor=door, spec__ingress__api=api).spec.api == expected


def test_the_program_is_what_host_ingress_and_check_take() -> None:
    actors = [{"binding": "ACCOUNT", "class": "bank:Account"}, {"binding": "SHOP", "class": "shop.main:Shop"}]
    assert read(spec__actors=actors).spec.program == ("ACCOUNT=bank:Account", "SHOP=shop.main:Shop")
    assert read(spec__frontDoor="bank:app").spec.program == ("--front-door", "bank:app", "ACCOUNT=bank:Account")


def test_fields_of_a_newer_crd_are_ignored() -> None:
    assert read(spec__hosts__turbo=True, spec__later={"a": 1}, status={"later": 1}).spec == read().spec


def test_the_status_is_read_back() -> None:
    condition = {"type": "Ready", "status": "True", "reason": "Serving", "message": "", "lastTransitionTime": "x"}
    found = read(status={"conditions": [condition], "readyHosts": 2, "codeHash": "0a"}).status
    assert (found.conditions[0].reason, found.ready_hosts, found.code_hash) == ("Serving", 2, "0a")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"spec__shards": 0}, "spec.shards: Expected `int` >= 1"),
        ({"spec__hosts__replicas": "3"}, "spec.hosts.replicas: Expected `int`, got `str`"),
        ({"spec__actors": GONE}, "spec: Object missing required field `actors`"),
        ({"spec__actors": []}, "spec.actors: Expected `array` of length >= 1"),
        ({"spec": GONE}, "the object: Object missing required field `spec`"),
        ({"spec__hosts__storage__reclaim": "Recycle"}, "spec.hosts.storage.reclaim: Invalid enum value 'Recycle'"),
        ({"spec__frontDoor": "app"}, "spec.frontDoor: Expected `str` matching regex"),
    ],
)
def test_what_can_not_be_read_is_told_with_its_field(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError) as error:
        read(**changes)
    assert says in str(error.value)
