"""A throw-away Slurm cluster on this machine: the real slurmctld and slurmd, three nodes, four GPUs
that are scheduled and not there.

    python tests/slurm/cluster.py --install          # Debian's packages, as root
    python tests/slurm/cluster.py -- snakemake ...   # runs a command on a new cluster, and takes
    the cluster down when it ends

Nodes gpu1 and gpu2 have two GPUs each, cpu1 has none. Nothing is written outside a private folder,
no port or file of an installed Slurm is touched, and several such clusters can stand side by side.
A GPU is a link to /dev/null: Slurm hands it out, counts it and sets CUDA_VISIBLE_DEVICES as it does
for a real one. Commands find the cluster by SLURM_CONF; the executor plugin drops that variable
before its inner srun, for which a `srun` that sets it again stands first on PATH.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo", "scontrol")
SBIN = "/usr/sbin:/sbin"
SECONDS_TO_START = 600  # a slow machine that is busy with other things, too
NODES = {"gpu1": 2, "gpu2": 2, "cpu1": 0}
CPUS, MEMORY_MB = 8, 200_000

SLURM_CONF = """\
ClusterName=throwaway
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[ctld]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n/slurmd.pid
SlurmdSpoolDir={folder}/%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n/slurmd.log
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
MinJobAge=86400
KillWait=5
SlurmctldTimeout=20
SlurmdTimeout=10
MessageTimeout=20
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
PropagateResourceLimits=NONE
EnforcePartLimits=ALL
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=gpu Nodes=gpu1,gpu2 MaxTime=2-00:00:00 State=UP PriorityTier=1
PartitionName=cpu Nodes=cpu1 Default=YES MaxTime=1-00:00:00 State=UP PriorityTier=1
PartitionName=members Nodes=cpu1 AllowAccounts=members MaxTime=1:00:00 State=UP PriorityTier=1
PartitionName=urgent Nodes=gpu1,gpu2 MaxTime=1:00:00 State=UP PriorityTier=10
"""


def missing_programs() -> list[str]:
    """The programs of Slurm that are not on this machine."""
    path = f"{os.environ['PATH']}:{SBIN}"
    return [program for program in PROGRAMS if not shutil.which(program, path=path)]


def install() -> None:
    """Installs what is missing, as root on Debian; otherwise says what is missing."""
    if not (missing := missing_programs()):
        return
    if os.geteuid() or not shutil.which("apt-get"):
        sys.exit(
            f"These programs of Slurm are missing: {', '.join(missing)}. As root on Debian or"
            " Ubuntu: apt-get install slurm-wlm"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "slurm-wlm"],
    ):
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Cluster:
    """A running cluster; a context manager that always takes it down, with every process that it
    started.
    """

    def __init__(self, folder: Path) -> None:
        """`folder`: private to the cluster, made if need be; its path must hold no spaces."""
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._taken_down = threading.Event()
        self._starting = threading.Lock()

    @property
    def conf(self) -> Path:
        """slurm.conf."""
        return self.folder / "slurm.conf"

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment in which Slurm's commands, and Snakemake, find this cluster."""
        base = os.environ if base is None else base
        return {
            **base,
            "SLURM_CONF": str(self.conf),
            "PATH": f"{self.folder}/bin:{base['PATH']}:{SBIN}",
        }

    def __enter__(self) -> Self:
        self._write_files()
        try:
            self.start("slurmctld")
            threading.Thread(target=self._restart_crashed_controller, daemon=True).start()
            for node in NODES:
                self.start(node)
            self._wait_until(lambda: self.nodes_in("idle") == set(NODES), "the nodes to be idle")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._taken_down.set()
        if "slurmctld" in self.daemons:
            # Jobs first: what a killed slurmd leaves behind would run on.
            subprocess.run(
                ["scancel", "--full", "--user", "root"],
                env=self.environment(),
                check=False,
                capture_output=True,
            )
            deadline = time.monotonic() + 10
            while (
                time.monotonic() < deadline
                and self.run("squeue", "--noheader", check=False).strip()
            ):
                time.sleep(0.2)
        for name in list(self.daemons):
            self.kill(name)
        for pid in self._left_behind():
            _send(pid, signal.SIGKILL)

    def _left_behind(self) -> list[int]:
        """Processes of jobs that Slurm lost sight of, whose parents died before them: they are
        known by the cluster that their environment names.
        """
        mark = f"SLURM_CONF={self.conf}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended meanwhile
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append(int(process.name))
        return [pid for pid in found if pid != os.getpid()]

    def _write_files(self) -> None:
        host = socket.gethostname().split(".")[0]
        ports = dict(zip(("ctld", *NODES), _free_ports(1 + len(NODES)), strict=True))
        for name in ("state", "bin", "dev", *NODES):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        lines, gres = [], []
        for node, gpus in NODES.items():
            has = f" Gres=gpu:a100:{gpus}" if gpus else ""
            address = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[node]}"
            lines.append(
                f"NodeName={node} {address} CPUs={CPUS} RealMemory={MEMORY_MB} State=UNKNOWN{has}"
            )
            if gpus:
                for number in range(gpus):
                    (self.folder / "dev" / f"nvidia{number}").unlink(missing_ok=True)
                    (self.folder / "dev" / f"nvidia{number}").symlink_to("/dev/null")
                gres.append(
                    f"NodeName={node} Name=gpu Type=a100"
                    f" File={self.folder}/dev/nvidia[0-{gpus - 1}]"
                )
        self.conf.write_text(
            SLURM_CONF.format(host=host, ports=ports, folder=self.folder, nodes="\n".join(lines))
        )
        (self.folder / "gres.conf").write_text("\n".join(gres) + "\n")
        srun = self.folder / "bin" / "srun"
        srun.write_text(
            f"#!/bin/sh\nSLURM_CONF={self.conf} exec"
            f' {shutil.which("srun", path=os.environ["PATH"])} "$@"\n'
        )
        srun.chmod(0o755)

    def start(self, name: str) -> None:
        """Starts slurmctld, or the slurmd of a node."""
        command = ["slurmctld", "-D"] if name == "slurmctld" else ["slurmd", "-D", "-N", name]
        with open(self.folder / f"{name}.out", "ab") as log:
            self.daemons[name] = subprocess.Popen(
                command,
                cwd=self.folder,  # where a daemon that crashes leaves its core file
                env=self.environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _restart_crashed_controller(self) -> None:
        """Does what systemd does on a real cluster: a slurmctld that ended by itself is started
        again. Debian's has crashed now and then when a node was lost.
        """
        while not self._taken_down.wait(0.5):
            with self._starting:
                daemon = self.daemons.get("slurmctld")
                if daemon and daemon.poll() is not None and not self._taken_down.is_set():
                    self.start("slurmctld")

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Ends slurmctld or the slurmd of a node; with SIGKILL a node dies as in a power cut, with
        the jobs on it.
        """
        with self._starting:
            daemon = self.daemons.pop(name)
        if name in NODES and number == signal.SIGKILL:
            self._cut_power(name, daemon.pid)
        daemon.send_signal(number)
        daemon.wait()

    def _cut_power(self, node: str, daemon: int) -> None:
        """Kills all processes of a node. They are stopped first: none is to see another one die,
        and tell the controller.
        """
        for send in (signal.SIGSTOP, signal.SIGKILL):
            _send(daemon, send)
            for pid in self._step_daemons(node):
                _send(pid, send)
            for pid in self._processes_of_jobs(node):
                _send(pid, send)
        while left := self._processes_of_jobs(node):
            for pid in left:
                _send(pid, signal.SIGKILL)

    def _marks(self, node: str) -> set[bytes]:
        """What stands in the environment of each process of a job on a node."""
        return {f"SLURMD_NODENAME={node}".encode(), f"SLURM_CONF={self.conf}".encode()}

    def _processes_of_jobs(self, node: str) -> list[int]:
        """The processes that a node's jobs have started, and that are not dead yet."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                environment = (process / "environ").read_bytes().split(b"\0")
                if self._marks(node) <= set(environment):
                    found.append(int(process.name))
        return found

    def _step_daemons(self, node: str) -> list[int]:
        """The slurmstepd of a node: they leave slurmd's family, and are known by the environment of
        what they run.
        """
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                is_step_daemon = b"slurmstepd" in (process / "cmdline").read_bytes()
            except OSError:
                continue
            environments = _environments(int(process.name)) if is_step_daemon else b""
            if self._marks(node) <= set(environments.split(b"\0")):
                found.append(int(process.name))
        return found

    def run(self, *command: str, check: bool = True) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(
            command,
            env=self.environment(),
            text=True,
            capture_output=True,
            check=False,
            timeout=600,
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def _ask(self, *command: str) -> str:
        """What a command of Slurm prints once the controller answers: it may be starting."""
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                return self.run(*command)
            except RuntimeError:
                if "slurmctld" not in self.daemons or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def nodes_in(self, state: str) -> set[str]:
        """The nodes in a state, as sinfo names it."""
        return {
            line.split()[0]
            for line in self.run("sinfo", "-h", "-N", "-o", "%N %T", check=False).splitlines()
            if state in line
        }

    def is_idle(self) -> bool:
        """Whether no job is left and all nodes wait for one, as far as the controller answers."""
        left = self.run(
            "squeue", "-h", "-o", "%i", "--states=PENDING,RUNNING,COMPLETING", check=False
        )
        return not left.strip() and self.nodes_in("idle") == set(NODES)

    def jobs(self, states: str = "all") -> list[dict[str, str]]:
        """Every job that slurmctld remembers: id, name, comment, state, node, partition, working
        directory, GPUs asked for, user, start and end.
        """
        names = (
            "id",
            "name",
            "comment",
            "state",
            "node",
            "partition",
            "folder",
            "gpus",
            "reason",
            "restarts",
            "memory",
            "limit",
            "user",
            "start",
            "end",
        )
        lines = self._ask(
            "squeue",
            "-h",
            f"--states={states}",
            "-O",
            "JobID:20|,Name:90|,Comment:120|,State:20|,NodeList:20|,Partition:20|,WorkDir:300|,"
            "tres-per-job:40|,Reason:60|,RestartCnt:10|,MinMemory:20|,TimeLimit:20|,UserName:20|,"
            "StartTime:30|,EndTime:30",
        ).splitlines()
        return [
            dict(zip(names, (cell.strip() for cell in line.split("|")), strict=True))
            for line in lines
        ]

    def _wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + SECONDS_TO_START
        while not condition():
            if time.monotonic() > deadline:
                logs = "\n".join(
                    path.read_text(errors="replace")[-1500:]
                    for path in self.folder.rglob("slurm*.log")
                )
                raise TimeoutError(
                    f"waited {SECONDS_TO_START} s for {what};"
                    f" {self.run('sinfo', '-N', '-l', check=False)}\n{logs}"
                )
            time.sleep(0.2)


def _descendants(pid: int) -> list[int]:
    """The processes below one, the youngest last."""
    try:
        children = [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []
    return [each for child in children for each in (child, *_descendants(child))]


def _environments(pid: int) -> bytes:
    """The environments of a process and of those below it."""
    found = b""
    for each in (pid, *_descendants(pid)):
        try:
            found += Path(f"/proc/{each}/environ").read_bytes()
        except OSError:
            continue
    return found


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@contextmanager
def throw_away_cluster() -> Iterator[Cluster]:
    """A cluster in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        Path(folder).chmod(0o755)  # other users submit too
        with Cluster(Path(folder)) as cluster:
            yield cluster


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--install",
        action="store_true",
        help="install Slurm's packages if they are missing (as root)",
    )
    parser.add_argument("command", nargs="*", help="what to run on the cluster, after --")
    arguments = parser.parse_args()
    if arguments.install:
        install()
    if missing := missing_programs():
        sys.exit(
            f"These programs of Slurm are missing: {', '.join(missing)}. `make test-slurm` installs"
            " them as root."
        )
    if not arguments.command:
        return 0
    with throw_away_cluster() as cluster:
        return subprocess.run(arguments.command, env=cluster.environment(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
