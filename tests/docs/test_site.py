"""The site builds, and a link that leads nowhere fails the build."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs import errors_page, spec_page, user_errors_page

import kubeactor
import kubeactor.client
import kubeactor.testing
from kubeactor import errors

ROOT = Path(__file__).resolve().parents[2]


def build(folder: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(folder / "mkdocs.yml")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        [*command, "--site-dir", str(target)], capture_output=True, text=True, env=environment, timeout=100, check=False
    )


def test_the_site_builds_and_has_every_page(tmp_path: Path) -> None:
    result = build(ROOT, tmp_path / "site")
    assert result.returncode == 0, result.stdout + result.stderr
    pages = {page.relative_to(ROOT / "docs").with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")}
    built = {page.relative_to(tmp_path / "site") for page in (tmp_path / "site").rglob("*.html")}
    assert {Path(str(page).replace("README.html", "index.html")) for page in pages} <= built


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "host").symlink_to(ROOT / "host")
    page = tmp_path / "docs" / "guide.md"
    page.write_text(page.read_text() + "\n[nowhere](nowhere.md)\n")
    result = build(tmp_path, tmp_path / "site")
    assert result.returncode != 0
    assert "nowhere.md" in result.stdout + result.stderr


def test_the_security_page_says_what_the_right_to_make_an_actor_namespace_is_worth() -> None:
    (row,) = re.findall(
        r"^\| create or change an ActorNamespace \|.*$", (ROOT / "docs/security.md").read_text(), re.MULTILINE
    )
    assert "run any code in its Kubernetes namespace, **with any Secret" in row


def test_the_page_of_errors_is_made_from_the_tree() -> None:
    assert errors_page.PAGE.read_text() == errors_page.render(), "run: make docs"


def test_the_page_of_the_spec_is_made_from_the_crds() -> None:
    assert spec_page.PAGE.read_text() == spec_page.render(), "run: make docs"


def test_the_page_of_user_errors_is_made_from_what_the_tests_try() -> None:
    assert user_errors_page.PAGE.read_text() == user_errors_page.render(), "run: make docs"


def test_the_reference_lists_every_public_name() -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    listed = set(re.findall(r"^::: (\S+)$", page, re.MULTILINE))
    on_their_own_page = {f"kubeactor.{name}" for name in errors.__all__ if name not in ("ActorError", "Problem")}
    public = {
        f"{module.__name__}.{name}"
        for module in (kubeactor, kubeactor.client, kubeactor.testing)
        for name in module.__all__
    }
    assert listed == public - on_their_own_page
