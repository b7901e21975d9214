"""The health script that docs/helm.md gives to Argo CD, run as it runs it: `obj` in, `status` and `message` out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from tests.chart.helm import ROOT

from kubeactor_operator.conditions import REASONS, TYPES


def script() -> str:
    page = (ROOT / "docs" / "helm.md").read_text()
    block = page.partition("## Argo CD")[2].partition("```yaml\n")[2].partition("```")[0]
    found: str = yaml.safe_load(block)["data"]["resource.customizations.health.kubeactor.io_ActorNamespace"]
    return found


def literal(value: Any) -> str:
    """The value as a table of Lua."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{json.dumps(key)}] = {literal(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ", ".join(literal(each) for each in value) + "}"
    return json.dumps(value)


@pytest.fixture
def health(require: Callable[[str], str]) -> Callable[..., str]:
    def run(obj: dict[str, Any]) -> str:
        function = f"local health = (function()\n{script()}\nend)()"
        program = f'local obj = {literal(obj)}\n{function}\nprint(health.status .. "|" .. health.message)'
        command = [require("lua5.4"), "-"]
        return subprocess.run(command, input=program, capture_output=True, text=True, check=True, timeout=30).stdout

    return run


def seen(generation: int = 2, observed: int = 2, **reasons: str) -> dict[str, Any]:
    """An ActorNamespace with conditions of these reasons."""
    conditions = [
        {"type": kind, "status": REASONS[reason].status, "reason": reason, "message": f"about {kind}"}
        for kind, reason in reasons.items()
    ]
    assert set(reasons) <= set(TYPES)
    return {
        "metadata": {"generation": generation},
        "status": {"observedGeneration": observed, "conditions": conditions},
    }


WELL = {"Ready": "Serving", "Progressing": "UpToDate", "Degraded": "AsExpected"}


@pytest.mark.parametrize(
    ("obj", "status", "said"),
    [
        ({"metadata": {"generation": 1}}, "Progressing", "the operator has not seen it yet"),
        ({"metadata": {"generation": 1}, "status": {}}, "Progressing", "the operator has not seen it yet"),
        (seen(**WELL), "Healthy", "Serving: about Ready"),
        (seen(generation=3, **WELL), "Progressing", "the operator has not seen it yet"),
        (seen(**WELL | {"Ready": "Starting", "Progressing": "Creating"}), "Progressing", "Creating: about Progressing"),
        (seen(**WELL | {"Ready": "Starting"}), "Progressing", "Starting: about Ready"),
        (seen(**WELL | {"Progressing": "RollingOut"}), "Progressing", "RollingOut: about Progressing"),
        (seen(**WELL | {"Degraded": "PreflightFailed"}), "Degraded", "PreflightFailed: about Degraded"),
        (seen(**WELL | {"Degraded": "HostDown", "Progressing": "RollingOut"}), "Degraded", "HostDown: about Degraded"),
        (seen(**WELL | {"Ready": "HostsNotServing"}), "Degraded", "HostsNotServing: about Ready"),
        (seen(**WELL | {"Ready": "IngressUnreachable"}), "Progressing", "IngressUnreachable: about Ready"),
        (seen(**WELL | {"Ready": "Hibernated"}), "Suspended", "Hibernated: about Ready"),
        (
            seen(generation=3, **WELL | {"Paused": "PausedByAnnotation"}),
            "Suspended",
            "PausedByAnnotation: about Paused",
        ),
    ],
)
def test_argo_cd_is_told_how_an_actor_namespace_is(
    health: Callable[..., str], obj: dict[str, Any], status: str, said: str
) -> None:
    assert health(obj) == f"{status}|{said}\n"
