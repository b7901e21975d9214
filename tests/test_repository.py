"""What holds for the repository as a whole and no linter checks."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [path for path in ROOT.rglob("*.md") if not {".venv", "results"} & set(path.parts)]


def test_nothing_hides_the_operator_module_of_python() -> None:
    assert not list((ROOT / "operator").glob("*.py"))


def test_locks_have_hashes_and_no_addresses() -> None:
    locks = list((ROOT / "requirements").glob("*.txt"))
    assert {lock.name for lock in locks} == {"run.txt", "host.txt", "operator.txt", "dev.txt"}
    for lock in locks:
        text = lock.read_text()
        assert "://" not in text
        assert not re.search(r"^\s*--(?!hash=sha256:)", text, re.MULTILINE)
        for entry in re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]:
            assert re.match(r"[\w.-]+==\S+", entry), entry
            assert "--hash=sha256:" in entry, entry


def test_what_runs_is_the_same_in_all_locks() -> None:
    run, host, operator, dev = (
        set(re.findall(r"^([\w.-]+==[\w.+]+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))
        for name in ("run.txt", "host.txt", "operator.txt", "dev.txt")
    )
    assert run <= host <= operator <= dev


def test_every_package_that_is_installed_with_kubeactor_is_imported_by_it() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[^\w-]", one)[0].replace("-", "_") for one in declared}
    code = "".join(path.read_text() for path in (ROOT / "host").rglob("*.py"))
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", code, re.MULTILINE))
    assert names - imported == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_page_of_the_docs_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached or not page.is_file():
            continue
        reached.add(page)
        if page.suffix == ".md":
            links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text())
            todo += [(page.parent / target).resolve() for target in links]
    assert not set((ROOT / "docs").rglob("*.md")) - reached


def test_make_alone_lists_every_target_with_a_line_of_help() -> None:
    result = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert re.findall(r"^  make ([\w-]+)  +\S+", result.stdout, re.MULTILINE) == phony[1].split()


@pytest.mark.parametrize("heavy", ["rocksdict", "uvicorn", "kopf", "kubernetes", "kubeactor_operator"])
def test_importing_the_library_loads_nothing_heavy(heavy: str) -> None:
    code = f"import sys, kubeactor; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_name_in_all_of_the_library_exists_and_is_documented() -> None:
    import kubeactor

    for name in kubeactor.__all__:
        assert getattr(kubeactor, name).__doc__, name


def test_functions_and_files_stay_small() -> None:
    """Functions of at most 70 lines, files of at most 600 (CONTRIBUTING.md)."""
    import ast

    for path in [*(ROOT / "host").rglob("*.py"), *(ROOT / "operator").rglob("*.py")]:
        text = path.read_text()
        assert len(text.splitlines()) <= 600, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 70, f"{path}: {node.name}"
