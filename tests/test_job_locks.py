"""What one process holds: by the kernel's lock, and on file systems that have none."""

import errno
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lib.errors import UserError
from lib.head.owner import RunOwner
from lib.jobs import locks
from lib.jobs.journal import Journal
from lib.jobs.locks import OwnerFile, TakenError, locked

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
HOLD = """
import sys
from pathlib import Path
from lib.jobs.locks import OwnerFile
OwnerFile(Path(sys.argv[1])).take()
print("holds", flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def no_locks(request, monkeypatch):
    """A file system that refuses flock, as Lustre mounted without it does."""

    def refuse(stream, operation):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def holder(path):
    """Another process of this machine that holds a file."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "holds\n"
    return process


def on_another_machine(path, seconds_ago):
    """Makes it seem that the owner is on another machine, and when it was last heard of."""
    owner = json.loads(path.read_text())
    path.write_text(json.dumps(owner | {"machine": "another", "host": "node7"}))
    os.utime(path, (time.time() - seconds_ago,) * 2)


def test_a_journal_is_written_and_held_where_the_file_system_has_no_locks(tmp_path, no_locks):
    path = tmp_path / "work/j.jsonl"
    for number in range(2):
        with Journal(path, "rank_images") as journal:
            journal.add(f"key{number}", "art-0", seconds=0, result={"score": number})
            with pytest.raises(UserError, match=rf"another job .*process {os.getpid()} on"):
                Journal(path, "rank_images").__enter__()
    with Journal(path, "rank_images") as journal:
        assert [journal.finished(f"key{number}") for number in range(2)] == [
            {"score": 0},
            {"score": 1},
        ]
    assert [each.name for each in path.parent.iterdir()] == ["j.jsonl"]


@pytest.mark.usefixtures("no_locks")
def test_what_a_killed_job_held_without_locks_is_free_at_once(tmp_path):
    process = holder(tmp_path / "j.jsonl.owner")
    with pytest.raises(TakenError), locked(tmp_path / "j.jsonl"):
        pass
    process.kill()
    process.wait()
    with locked(tmp_path / "j.jsonl"):
        pass


def test_a_run_whose_owner_lives_is_refused_and_taken_over_when_it_is_dead(tmp_path):
    root = tmp_path / "run"
    process = holder(root / "work/run.owner")
    for refused in (RunOwner(root).begin, RunOwner(root).refuse_while_at_work):
        with pytest.raises(UserError, match=rf"process {process.pid} on {socket.gethostname()}"):
            refused()
    process.kill()
    process.wait()
    RunOwner(root).refuse_while_at_work()
    owner = RunOwner(root)
    owner.begin()
    owner.end()
    assert not root.exists(), "an empty folder was left behind"


def test_an_owner_on_another_machine_lives_while_it_is_heard_of(tmp_path):
    path = tmp_path / "work/run.owner"
    process = holder(path)
    process.kill()
    process.wait()
    on_another_machine(path, seconds_ago=60)
    with pytest.raises(UserError, match="on node7"):
        RunOwner(tmp_path).begin()
    on_another_machine(path, seconds_ago=locks.SECONDS_OF_LIFE + 1)
    RunOwner(tmp_path).begin()


def test_an_owner_is_heard_of_while_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "SECONDS_BETWEEN_BEATS", 0.01)
    held = OwnerFile(tmp_path / "run.owner").take()
    os.utime(held.path, (0, 0))
    while held.path.stat().st_mtime == 0:
        time.sleep(0.01)
    held.release()


def test_letting_go_leaves_the_file_of_another_owner_alone(tmp_path):
    held = OwnerFile(tmp_path / "run.owner").take()
    on_another_machine(held.path, seconds_ago=0)
    held.release()
    assert held.path.exists()


SHIM = """
#include <errno.h>
int flock(int descriptor, int operation) { errno = REFUSAL; return -1; }
"""
USE = """
import sys
from pathlib import Path
from lib.jobs.journal import Journal
from lib.patches.file_locks import allow_no_locks
allow_no_locks()
from filelock import FileLock
folder = Path(sys.argv[1])
with FileLock(folder / "cache.lock", timeout=10):
    with Journal(folder / "j.jsonl", "rank_images") as journal:
        journal.add("key", "art-0", seconds=0, result={"score": 1})
with Journal(folder / "j.jsonl", "rank_images") as journal:
    assert journal.finished("key") == {"score": 1}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("refusal", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def test_our_locks_and_those_of_datasets_work_where_the_kernel_refuses_flock(tmp_path, refusal):
    (tmp_path / "shim.c").write_text(SHIM)
    shim = tmp_path / "shim.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", f"-DREFUSAL={refusal}", "-o", shim, tmp_path / "shim.c"],
        check=True,
    )
    subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS), "LD_PRELOAD": str(shim)},
        check=True,
    )
