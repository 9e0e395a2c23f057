"""Jobs with a model that run as copies of a process which has their libraries loaded."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lib.head import job_server
from lib.head.job_server import WITH_MODEL, JobServer
from lib.jobs.copies import LOADS_MODELS

RULES = job_server.SCRIPTS.parent / "rules"


@pytest.fixture(scope="module")
def server() -> Iterator[JobServer]:
    server = JobServer(LOADS_MODELS)
    yield server
    server.end()


@pytest.fixture
def run(server: JobServer, tmp_path: Path) -> Callable[..., int]:
    """Runs the text of a script; returns its exit code."""

    def run(text: str, **environment: str) -> int:
        script = tmp_path / "script.py"
        script.write_text(text, encoding="utf-8")
        return server.run(str(script), {**os.environ, **environment})

    return run


def test_a_job_has_the_environment_the_folder_and_the_name_of_a_process_of_its_own(
    run: Callable[..., int], tmp_path: Path
) -> None:
    text = (
        "import os, sys; from pathlib import Path\n"
        f"told = [__name__, sys.argv, os.getcwd(), os.environ['ONLY_HERE'], __file__]\n"
        f"Path({str(tmp_path / 'told')!r}).write_text(repr(told))\n"
    )
    assert run(text, ONLY_HERE="yes") == 0
    script = str(tmp_path / "script.py")
    told = ["__main__", [script], os.getcwd(), "yes", script]
    assert (tmp_path / "told").read_text(encoding="utf-8") == repr(told)


def test_torch_is_there_already_and_what_few_models_use_is_not(run: Callable[..., int]) -> None:
    """What is loaded is put on record as what computed."""
    text = (
        "import sys\n"
        "there = {name for name in ('torch', 'transformers') if name in sys.modules}\n"
        "few = {'diffusers', 'peft', 'trl', 'vllm', 'deepspeed', 'sklearn'}\n"
        "besides = few & set(sys.modules)\n"
        "sys.exit(0 if len(there) == 2 and not besides else f'{there} {besides}')\n"
    )
    assert run(text) == 0


def test_a_server_for_other_jobs_has_no_library_that_goes_on_their_record(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; from lib.jobs.versions import loaded_versions\n"
        "assert 'snakemake.script' in sys.modules\n"
        "sys.exit(0 if list(loaded_versions()) == ['python'] else str(loaded_versions()))\n",
        encoding="utf-8",
    )
    server = JobServer()
    try:
        assert server.run(str(script), os.environ) == 0
    finally:
        server.end()


#: What a program finds: whether torch was there, its words, folder, input and environment.
FOUND = """
import json, os, sys
from pathlib import Path
from huggingface_hub import is_offline_mode
found = {
    "torch": "torch" in sys.modules, "words": sys.argv[1:], "folder": Path.cwd().name,
    "read": sys.stdin.read(), "told": os.environ.get("TOLD"), "offline": is_offline_mode(),
    "name": __name__, "modules": Path(__file__).name,
}
Path("found.json").write_text(json.dumps(found))
print("said", flush=True)
os.system("echo said by another")
sys.exit("a message")
"""
STARTS = """
import logging, os, signal, sys
from pathlib import Path
from lib.jobs.copies import start_python
logging.basicConfig(filename="job.log")
signal.signal(signal.SIGTERM, lambda *_: None)
folder = Path("program")
with open("output", "wb") as output:
    environment = {**os.environ, "TOLD": "yes", "HF_HUB_OFFLINE": "1"}
    script = Path("found.py").resolve()
    started = start_python(script, ["a", "b c"], environment, folder, output.fileno())
code = started.wait()
assert "TOLD" not in os.environ and Path.cwd() != folder.resolve()
sys.exit(code + 40)
"""


@pytest.mark.parametrize("is_copy", [True, False])
def test_a_program_of_a_job_that_is_a_copy_is_one_too_and_finds_what_a_new_one_would(
    server: JobServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_copy: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program").mkdir()
    (tmp_path / "found.py").write_text(FOUND, encoding="utf-8")
    starts = tmp_path / "starts.py"
    starts.write_text(STARTS, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(job_server.SCRIPTS), "HF_HUB_OFFLINE": ""}
    if is_copy:
        code = server.run(str(starts), environment)
    else:
        code = subprocess.run([sys.executable, starts], env=environment, check=False).returncode
    assert code == 41
    assert json.loads((tmp_path / "program/found.json").read_text(encoding="utf-8")) == {
        "torch": is_copy,
        "words": ["a", "b c"],
        "folder": "program",
        "read": "",
        "told": "yes",
        "offline": True,
        "name": "__main__",
        "modules": "found.py",
    }
    output = (tmp_path / "output").read_text(encoding="utf-8").splitlines()
    assert output == ["said", "said by another", "a message"]
    assert (tmp_path / "job.log").read_text(encoding="utf-8") == ""


def test_a_program_ends_with_the_job_that_started_it(
    server: JobServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, a job can end nothing by itself."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "waits.py").write_text(
        "import os, time; from pathlib import Path\n"
        "Path('part').write_text(str(os.getpid())); os.rename('part', 'pid'); time.sleep(600)\n",
        encoding="utf-8",
    )
    (tmp_path / "starts.py").write_text(
        "import os, time; from pathlib import Path; from lib.jobs.copies import start_python\n"
        "start_python(Path('waits.py').resolve(), [], os.environ, Path.cwd(), 1)\n"
        "while not Path('pid').exists(): time.sleep(0.01)\n"
        "os.kill(os.getpid(), 9)\n",
        encoding="utf-8",
    )
    assert server.run("starts.py", os.environ) == 137
    pid = int((tmp_path / "pid").read_text(encoding="utf-8"))
    end = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "the program runs on"
        time.sleep(0.01)


def test_the_seconds_of_jobs_are_told_to_whoever_waits_for_the_run(tmp_path: Path) -> None:
    """`time make demo` is of all jobs."""
    (tmp_path / "works.py").write_text(
        "import time\nwhile time.process_time() < 1: pass\n", encoding="utf-8"
    )
    program = (
        "import os, resource\nfrom lib.head.job_server import JobServer\n"
        "server = JobServer()\nassert server.run('works.py', os.environ) == 0\n"
        "assert server.run('works.py', os.environ) == 0\nserver.end()\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "assert used.ru_utime + used.ru_stime > 2\n"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(job_server.SCRIPTS)},
        check=True,
    )


def test_a_job_computes_with_the_threads_that_it_is_given(run: Callable[..., int]) -> None:
    text = "import sys, torch; torch.ones(999, 999) @ torch.ones(999, 999); sys.exit(3)\n"
    assert run(text) == 3


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("import sys; sys.exit(7)", 7),
        ("import sys; sys.exit('a message')", 1),
        ("1 / 0", 1),
        ("import os; os.kill(os.getpid(), 9)", 137),
        ("import os; os.kill(os.getpid(), 15)", 143),
        ("import os; os.kill(os.getpid(), 2)", 130),
        ("import os; os._exit(5)", 5),
    ],
)
def test_a_job_ends_with_the_code_that_a_shell_would_tell(
    run: Callable[..., int], text: str, code: int
) -> None:
    assert run(text) == code


#: What is still to be done when a script's last line has run.
LEAVES_WORK = """
import atexit, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from lib.jobs.copies import start_python

def note(what):
    with open("done", "a") as file:
        file.write(what + "\\n")

def late(what):
    time.sleep(0.2)
    note(what)

atexit.register(note, "at exit")
threading.Thread(target=late, args=["a thread"]).start()
ThreadPoolExecutor(1).submit(late, "a pool")
if len(sys.argv) == 1 and {starts}:
    script = Path(__file__).resolve()
    with open("output", "wb") as output:
        assert start_python(script, ["again"], {{}}, Path.cwd(), output.fileno()).wait() == 0
print("not flushed yet", end="")
"""


@pytest.mark.parametrize("starts", [False, True], ids=["a job", "a job and its program"])
def test_what_a_job_leaves_to_its_end_is_done_once(
    server: JobServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starts: bool
) -> None:
    """Its modules are not taken down; all else is as at any Python's end."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text(LEAVES_WORK.format(starts=starts), encoding="utf-8")
    assert server.run("script.py", {**os.environ, "PYTHONPATH": str(job_server.SCRIPTS)}) == 0
    done = Counter((tmp_path / "done").read_text(encoding="utf-8").split("\n"))
    assert done == Counter(
        {"at exit": 1 + starts, "a thread": 1 + starts, "a pool": 1 + starts, "": 1}
    )
    if starts:
        assert (tmp_path / "output").read_text(encoding="utf-8") == "not flushed yet"


def test_jobs_run_side_by_side(server: JobServer, tmp_path: Path) -> None:
    """Each waits for the other's file."""
    codes: list[int] = []

    def job(own: str, other: str) -> None:
        script = tmp_path / f"{own}.py"
        script.write_text(
            "import sys, time; from pathlib import Path\n"
            f"Path({str(tmp_path / own)!r}).touch()\n"
            "end = time.monotonic() + 60\n"
            f"while not Path({str(tmp_path / other)!r}).exists():\n"
            "    time.monotonic() < end or sys.exit(1)\n"
            "    time.sleep(0.01)\n",
            encoding="utf-8",
        )
        codes.append(server.run(str(script), os.environ))

    threads = [threading.Thread(target=job, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0, 0]


def waiting_job(server: JobServer, tmp_path: Path) -> tuple[threading.Thread, list[int], int]:
    """A job that waits: the thread that waits for it, what it will have returned, its pid."""
    script, started, codes = tmp_path / "wait.py", tmp_path / "pid", []
    script.write_text(
        "import os, time; from pathlib import Path\n"
        f"Path({str(started)!r} + '.part').write_text(str(os.getpid()))\n"
        f"os.rename({str(started)!r} + '.part', {str(started)!r})\n"
        "time.sleep(600)\n",
        encoding="utf-8",
    )
    thread = threading.Thread(target=lambda: codes.append(server.run(str(script), os.environ)))
    thread.start()
    while not started.exists():
        time.sleep(0.01)
    return thread, codes, int(started.read_text(encoding="utf-8"))


def test_where_the_server_is_killed_its_jobs_end_and_the_next_one_has_a_new_server(
    tmp_path: Path, run: Callable[..., int], server: JobServer
) -> None:
    thread, codes, pid = waiting_job(server, tmp_path)
    assert server._server
    server._server.kill()
    thread.join(timeout=60)
    assert codes == [137]
    end = time.monotonic() + 30
    while psutil.pid_exists(pid):
        assert time.monotonic() < end, "the job runs on"
        time.sleep(0.01)
    assert run("import sys; sys.exit(4)") == 4


def test_what_is_sent_to_the_process_group_reaches_jobs_and_not_the_server(
    server: JobServer, tmp_path: Path, run: Callable[..., int]
) -> None:
    thread, codes, pid = waiting_job(server, tmp_path)
    job = psutil.Process(pid)
    for process in [*job.parents()[:1], job]:
        process.send_signal(signal.SIGTERM)
    thread.join(timeout=60)
    assert codes == [143]
    assert run("import sys; sys.exit(4)") == 4


def test_no_job_outlives_a_killed_head_process(tmp_path: Path) -> None:
    script, started = tmp_path / "wait.py", tmp_path / "pid"
    script.write_text(
        "import os, time; from pathlib import Path\n"
        f"Path({str(started)!r} + '.part').write_text(str(os.getpid()))\n"
        f"os.rename({str(started)!r} + '.part', {str(started)!r})\n"
        "time.sleep(600)\n",
        encoding="utf-8",
    )
    program = (
        "import os; from lib.head.job_server import JobServer\n"
        f"JobServer().run({str(script)!r}, os.environ)\n"
    )
    head = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(job_server.SCRIPTS)},
    )
    while not started.exists():
        assert head.poll() is None
        time.sleep(0.01)
    job = psutil.Process(int(started.read_text(encoding="utf-8")))
    head.kill()
    head.wait()
    gone, _ = psutil.wait_procs([job], timeout=30)
    assert gone == [job]


def test_the_scripts_with_a_model_are_those_of_rules_that_may_ask_for_a_gpu() -> None:
    asking = set()
    for file in RULES.glob("*.smk"):
        for rule in file.read_text(encoding="utf-8").split("\nrule ")[1:]:
            needs = next((line for line in rule.splitlines() if " gpu=" in line), " gpu=0")
            if "GPU" in needs or "gpus_of(" in needs:
                asking |= set(re.findall(r"scripts/(\w+)\.py", rule))
    assert asking == WITH_MODEL | {"write_instructions"}
