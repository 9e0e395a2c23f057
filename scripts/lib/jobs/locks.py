"""What one process holds at a time: a journal, a training's folder, a run's results.

Where the file system has locks, the kernel keeps them, and drops them with the process. Lustre may
be mounted without, and says so; there, a file beside the held one names its owner, who touches it
while alive. That one is looked for on other machines too.
"""

import atexit
import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from lib.files import make_folder, mendable_storage_errors

#: What a file system without locks answers.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
#: An owner of another machine that has not touched its file for so long is dead.
SECONDS_OF_LIFE = 180.0
SECONDS_BETWEEN_BEATS = 20.0


def _machine() -> str:
    """Tells machines apart, and containers on them, whose process numbers mean nothing outside."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _start_of(pid: int) -> str:
    """When a process of this machine started, in the kernel's own words, so that a pid used anew is
    told apart; "" if there is none.
    """
    try:
        state, *others = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return "" if state in "ZX" else others[18]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return ""
    try:  # a system without /proc
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "running"


@dataclass(frozen=True)
class Owner:
    """Who holds something: a process, and its working directory for people to know it by."""

    host: str = field(default_factory=socket.gethostname)
    machine: str = field(default_factory=_machine)
    pid: int = field(default_factory=os.getpid)
    started: str = field(default_factory=lambda: _start_of(os.getpid()))
    folder: str = field(default_factory=lambda: str(Path.cwd()))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, started in {self.folder}"


UNKNOWN = Owner("another machine", "", 0, "", "an unknown folder")


class TakenError(Exception):
    """Somebody else holds it; `owner`: who, where that is known."""

    def __init__(self, owner: Owner | None = None) -> None:
        super().__init__(str(owner))
        self.owner = owner


class OwnerFile:
    """A file that names the process that holds something, and is touched while that lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stop = threading.Event()
        self._content = b""

    def living_owner(self) -> Owner | None:
        """Who holds it, be it this process; None if nobody does, or who did is dead."""
        try:
            content, touched = self.path.read_bytes(), self.path.stat().st_mtime
        except FileNotFoundError:
            return None
        try:
            owner = Owner(**json.loads(content))
        except (ValueError, TypeError):
            owner = UNKNOWN  # being written, or cut by a power cut
        if owner.machine == _machine():
            is_alive = bool(owner.started) and _start_of(owner.pid) == owner.started
        else:
            is_alive = time.time() - touched < SECONDS_OF_LIFE
        return owner if is_alive else None

    def take(self, patience: float = 0) -> Self:
        """Takes hold. Errors: TakenError if another process, or this one, has it.

        `patience`: seconds to wait for an owner on another machine, who may just have been killed.
        """
        with mendable_storage_errors(self.path):
            make_folder(self.path.parent)
        self._content = json.dumps(asdict(Owner())).encode()
        deadline = time.monotonic() + patience
        while not self._create():
            owner = self.living_owner()
            if owner is None:
                self._put_aside()
            elif owner.machine == _machine() or time.monotonic() > deadline:
                raise TakenError(owner)
            else:
                time.sleep(1)
        threading.Thread(target=self._beat, daemon=True).start()
        atexit.register(self.release)
        return self

    def release(self) -> None:
        """Lets go, if it is still held."""
        self._stop.set()
        atexit.unregister(self.release)
        with suppress(FileNotFoundError):
            if self._content and self.path.read_bytes() == self._content:
                self.path.unlink()

    def _create(self) -> bool:
        try:
            with mendable_storage_errors(self.path), open(self.path, "xb") as stream:
                stream.write(self._content)
        except FileExistsError:
            return False
        return True

    def _put_aside(self) -> None:
        """Takes a dead owner's file away, and no other: another process may have been faster."""
        aside = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):
            self.path.rename(aside)
            if OwnerFile(aside).living_owner() and not self.path.exists():
                aside.rename(self.path)
            aside.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(SECONDS_BETWEEN_BEATS):
            with suppress(OSError):
                os.utime(self.path)


class Lock:
    """One process's hold of an open file; by the kernel's lock, or by an owner file beside it."""

    def __init__(self, stream: IO[Any], path: Path) -> None:
        """`path`: the stream's. Errors: TakenError if another process holds it."""
        self._owner_file: OwnerFile | None = None
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TakenError from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            owner_file = OwnerFile(path.with_name(f"{path.name}.owner"))
            self._owner_file = owner_file.take(patience=SECONDS_OF_LIFE)

    def release(self) -> None:
        """Lets go of an owner file; the kernel's lock goes with the stream's end."""
        if self._owner_file:
            self._owner_file.release()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a file, which is made where there is none. Errors: TakenError."""
    with mendable_storage_errors(path):
        make_folder(path.parent)
        path.touch()
    with open(path, "ab") as stream:
        lock = Lock(stream, path)
        try:
            yield
        finally:
            lock.release()
