"""Type-checks, with mypy and pyright, what users write: the examples, the program, and the file of wrong uses.

python tests/typing/check.py
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
PROGRAM: Final = HERE / "program"
WRONG: Final = HERE / "wrong_uses.py"
SHOWN: Final = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): error: (?P<text>.*?)  \[(?P<rule>[a-z-]+)\]$", re.MULTILINE)


class Report(NamedTuple):
    """What a checker said."""

    file: str
    line: int
    rule: str
    text: str


def mypy(folder: Path, *paths: Path) -> list[Report]:
    """Of the files, with the folder on their path."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file=", *map(str, paths)]
    environment = {**os.environ, "MYPYPATH": f"{folder}:{ROOT / 'host'}"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    found = [
        Report(each["file"], int(each["line"]), each["rule"], each["text"]) for each in SHOWN.finditer(result.stdout)
    ]
    if result.returncode not in (0, 1) or (result.returncode and not found):
        raise SystemExit(f"mypy failed:\n{result.stdout}{result.stderr}")
    return found


def pyright(folder: Path, mode: str, *paths: Path) -> list[Report]:
    """The same; `mode` is standard or strict."""
    config = folder / f".pyright-{os.getpid()}-{mode}.json"
    config.write_text(
        json.dumps(
            {
                "include": [str(path) for path in paths],
                "extraPaths": [str(folder), str(ROOT / "host")],
                "typeCheckingMode": mode,
                "pythonVersion": "3.11",
                "failOnWarnings": False,
            }
        )
    )
    try:
        command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
        command += ["-p", str(config)]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    finally:
        config.unlink()
    if result.returncode not in (0, 1):
        raise SystemExit(f"pyright failed:\n{result.stdout}{result.stderr}")
    reports = json.loads(result.stdout)["generalDiagnostics"]
    return [
        Report(each["file"], each["range"]["start"]["line"] + 1, each.get("rule", "syntax"), each["message"])
        for each in reports
        if each["severity"] == "error"
    ]


def wrong_uses(checker: str, reports: list[Report]) -> list[str]:
    """Where the reports on the file of wrong uses differ from what its comments say."""
    wanted = {
        (number, rule)
        for number, line in enumerate(WRONG.read_text().splitlines(), 1)
        for rule in re.findall(rf"\b{checker}: ([\w-]+)", line.partition("  # ")[2])
    }
    found = {(report.line, report.rule) for report in reports if Path(report.file).name == WRONG.name}
    told = [f"{WRONG.name}:{line}: {checker} does not report {rule}" for line, rule in sorted(wanted - found)]
    told += [f"{WRONG.name}:{line}: {checker} reports {rule}" for line, rule in sorted(found - wanted)]
    told += [] if len(wanted) >= 20 else [f"only {len(wanted)} wrong uses name a rule of {checker}"]
    return told


def clean(checker: str, reports: list[Report]) -> list[str]:
    """Reports where there must be none."""
    return [f"{each.file}:{each.line}: {checker}: {each.text} [{each.rule}]" for each in reports]


def main() -> int:
    """Run all, tell what is wrong."""
    examples = sorted(path for path in (ROOT / "examples").iterdir() if path.is_dir())
    program = sorted(PROGRAM.glob("*.py"))
    jobs: list[Callable[[], list[str]]] = [
        lambda: clean("mypy", mypy(PROGRAM, *program)),
        lambda: wrong_uses("mypy", mypy(PROGRAM, WRONG)),
        lambda: clean("pyright", pyright(PROGRAM, "strict", *program)),
        lambda: wrong_uses("pyright", pyright(PROGRAM, "standard", WRONG)),
        *((lambda folder=folder: clean("pyright", pyright(folder, "standard", folder))) for folder in examples),
    ]
    with ThreadPoolExecutor(2) as pool:
        told = [line for lines in pool.map(lambda job: job(), jobs) for line in lines]
    print("\n".join(told) if told else f"program, wrong uses and {len(examples)} examples: as expected")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
