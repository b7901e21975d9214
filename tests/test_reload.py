"""When `kubeactor dev` starts anew: when the changed code can be loaded, not before."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import pytest

from kubeactor import reload
from kubeactor.reload import Reload, trial_command

PASSES = "print('{}')"
FAILS = "import sys; sys.exit('kubeactor: there is no module')"
HANGS = "import time; time.sleep(60)"


class Changes:
    """Whether there was one, as `Sources.changed` tells."""

    def __init__(self) -> None:
        self.pending = False

    def __call__(self) -> bool:
        pending, self.pending = self.pending, False
        return pending


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def asked(watch: Reload, log: pytest.LogCaptureFixture, within_s: float = 30.0) -> bool:
    """Ask as the supervisor does, until there is an answer."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if watch():
            return True
        if log.records:
            return False
        time.sleep(0.005)  # between questions
    raise AssertionError("no answer")


def test_without_a_change_nothing_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    watch = Reload(Changes(), ["/no/such/program"])
    assert not any(watch() for _ in range(5))
    assert not caplog.records


def test_code_that_can_be_loaded_takes_over(caplog: pytest.LogCaptureFixture) -> None:
    changes = Changes()
    watch = Reload(changes, python(PASSES))
    changes.pending = True
    assert asked(watch, caplog)
    assert not watch()


def test_code_that_cannot_be_loaded_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    changes = Changes()
    watch = Reload(changes, python(FAILS))
    changes.pending = True
    assert not asked(watch, caplog)
    assert [record.getMessage() for record in caplog.records] == [
        "the changed code can't be loaded, the one before serves on: there is no module"
    ]
    assert not watch()
    assert len(caplog.records) == 1


def test_a_change_during_a_trial_begins_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    changes = Changes()
    code = tmp_path / "code"
    code.write_text(HANGS)
    watch = Reload(changes, python(f"exec(open({str(code)!r}).read())"))
    changes.pending = True
    assert not watch()
    code.write_text(PASSES)
    changes.pending = True
    assert not watch()
    assert asked(watch, caplog, 30.0)


def test_a_trial_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(reload, "TRIAL_S", 0.3)
    changes = Changes()
    watch = Reload(changes, python(HANGS))
    changes.pending = True
    assert not asked(watch, caplog)
    assert "did not end within 0 s" in caplog.text


def test_output_without_bound_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    changes = Changes()
    watch = Reload(changes, python("import sys; sys.stderr.write('x' * 1_000_000 + 'the end'); sys.exit(1)"))
    changes.pending = True
    assert not asked(watch, caplog)
    message = caplog.records[0].getMessage()
    assert message.endswith("the end")
    assert len(message) < 70_000


def test_what_is_tried_is_what_is_served() -> None:
    assert trial_command(["a:B", "C=a:D"], "a:app")[1:] == [
        "-m", "kubeactor", "check", "--json", "--front-door", "a:app", "--", "a:B", "C=a:D",
    ]  # fmt: skip
    assert trial_command(["a:B"], None)[1:] == ["-m", "kubeactor", "check", "--json", "--", "a:B"]


def test_a_trial_that_runs_ends_with_the_supervisor() -> None:
    changes = Changes()
    watch = Reload(changes, python(HANGS))
    changes.pending = True
    watch()
    assert watch._trial is not None
    process = watch._trial._process
    watch.close()
    assert process.returncode is not None
