"""The folder of a namespace: its identity is made once, and a host's folder has one supervisor."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kubeactor.limits import SHARDS_DEFAULT
from kubeactor.namespace import Namespace, claim
from kubeactor.placement import Table
from kubeactor.placement_file import save
from kubeactor.worker import WorkerFatalError

HOLD = "import sys; from pathlib import Path; from kubeactor.namespace import claim; claim(Path(sys.argv[1]))"


def test_the_identity_is_made_once(tmp_path: Path) -> None:
    first, second = Namespace(tmp_path / "data"), Namespace(tmp_path / "data")
    assert (first.uid, first.shards) == (second.uid, SHARDS_DEFAULT)
    assert len(first.uid) == 32
    assert Namespace(tmp_path / "other").uid != first.uid


def test_all_who_make_it_at_the_same_time_get_the_same_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for run in range(20):
            assert len({made.uid for made in pool.map(Namespace, [tmp_path / str(run)] * 8)}) == 1


def test_the_number_of_shards_is_that_of_the_first_time(tmp_path: Path) -> None:
    assert Namespace(tmp_path, 7).shards == Namespace(tmp_path, 7).shards == Namespace(tmp_path).shards == 7
    with pytest.raises(WorkerFatalError, match="has 7 shards, which never changes"):
        Namespace(tmp_path, 8)


def test_a_placement_table_is_the_identity_where_there_is_one(tmp_path: Path) -> None:
    made = Namespace(tmp_path, 3)
    assert made.table() is None
    save(made.placement, Table.empty("uid-of-the-table", 5), {})
    again = Namespace(tmp_path)
    assert (again.uid, again.shards) == ("uid-of-the-table", 5)
    assert again.table() == Table.empty("uid-of-the-table", 5)


@pytest.mark.parametrize("text", ["", "no", "uid many", "a b c"])
def test_a_damaged_identity_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "namespace").write_text(text)
    with pytest.raises(WorkerFatalError, match="can't be used: its file 'namespace' is damaged; start with another"):
        Namespace(tmp_path)


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "placement.json").write_text("{")
    with pytest.raises(WorkerFatalError, match="can't be used"):
        Namespace(tmp_path)


def test_a_folder_is_held_until_its_holder_ends(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "host-0"
    command = [sys.executable, "-c", f"{HOLD}; print('held', flush=True); sys.stdin.read()", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(WorkerFatalError, match=f"{tmp_path / 'data'} is in use by another kubeactor"):
            claim(folder)
        holder.kill()
    assert subprocess.run([sys.executable, "-c", HOLD, str(folder)], check=True).returncode == 0
