"""The scripts that make the cluster, and what the plugin says of a machine that can't have it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cluster.machine import HERE, ROOT

MINIMAL = "bash sh dirname cut sha256sum mkdir cat id basename flock grep sed head"


def tools(folder: Path, names: str) -> str:
    """A PATH with just these commands."""
    for name in names.split():
        found = subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout.strip()
        (folder / name).symlink_to(found)
    return str(folder)


@pytest.mark.parametrize("verb", ["up", "down"])
def test_a_machine_without_go_is_told_so_in_one_line(tmp_path: Path, verb: str) -> None:
    (tmp_path / "bin").mkdir()
    environment = {"PATH": tools(tmp_path / "bin", MINIMAL), "HOME": str(tmp_path), "DOCKER_HOST": "unix:///nowhere"}
    script = ["bash", HERE / "cluster.sh", verb]
    done = subprocess.run(script, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    expected = "install Go 1.26" if os.getuid() == 0 and Path("/etc/debian_version").exists() else "install Docker"
    assert expected in done.stderr


def pytest_run(folder: Path, *arguments: str, ci: str = "false") -> subprocess.CompletedProcess[str]:
    """Run pytest with the plugin over three small tests."""
    (folder / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\n"
        "markers = ['cluster: .', 'kindnodes: .', 'timeout: .']\n"
        "addopts = '--import-mode=importlib'\n"
    )
    (folder / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.kindnodes\ndef test_nodes(): pass\n"
        "@pytest.mark.cluster\ndef test_any(): pass\n"
        "def test_plain(): pass\n"
    )
    (folder / "config").write_text("")
    command = [sys.executable, "-m", "pytest", "-p", "tests.cluster.plugin", "--rootdir", folder, folder]
    environment = {**os.environ, "CI": ci, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [*command, *arguments], cwd=folder, capture_output=True, text=True, env=environment, check=False
    )


def test_tests_that_need_the_nodes_engine_are_listed_when_another_cluster_is_given(tmp_path: Path) -> None:
    done = pytest_run(tmp_path, "--kubeconfig", "config")
    assert done.returncode == 0, done.stdout
    assert "2 passed, 1 deselected" in done.stdout
    assert "not run on this cluster" in done.stdout
    assert "\ntest_it.py::test_nodes\n" in done.stdout.split("not run on this cluster")[1]


def test_make_test_cluster_takes_a_kubeconfig_from_anywhere(tmp_path: Path) -> None:
    config = tmp_path / "config"  # as an argument of its own pytest would look for its settings above it
    config.write_text("")
    given = [f"KUBECONFIG={config}", "IMAGE_PREFIX=registry.example/me/"]
    environment = {**os.environ, "CI": "", "MAKEFLAGS": ""}
    done = subprocess.run(
        ["make", "test-cluster", *given, "ARGS=--markers"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "@pytest.mark.kindnodes" in done.stdout


def test_under_ci_they_are_required(tmp_path: Path) -> None:
    done = pytest_run(tmp_path, "--kubeconfig", "config", ci="true")
    assert done.returncode == 4
    assert "kindnodes are required" in done.stderr


def test_tests_of_the_cluster_run_last_and_can_be_left_out(tmp_path: Path) -> None:
    done = pytest_run(tmp_path, "--collect-only", "-q")
    assert done.stdout.splitlines()[:3] == ["test_it.py::test_plain", "test_it.py::test_nodes", "test_it.py::test_any"]
    assert "2 deselected" in pytest_run(tmp_path, "-m", "not cluster and not kindnodes").stdout


def test_a_step_that_fails_shows_the_end_of_its_log() -> None:
    code = f'. {HERE}/common.sh; bad() {{ echo "the reason"; false; echo "never here"; }}; step "doing it" bad; echo no'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the reason" in done.stderr
    assert "never here" not in done.stderr
    assert "doing it: failed" in done.stderr
    assert not done.stdout
