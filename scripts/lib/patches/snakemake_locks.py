"""Snakemake's locks of the files that a run makes and reads."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

#: What is called back, by the folder of the run (why so: `snakemake_records`).
_refuse_while_at_work: dict[str, Callable[[], object]] = {}


def hold_own_locks(root: str, refuse_while_at_work: Callable[[], object]) -> None:
    """Has a run hold and remove its own lock files, those of a dead Snakemake of its own included,
    and no others.

    By itself Snakemake removes the folder of all of them when a run ends: another run in the same
    clone loses its locks, or dies of the missing folder if it was just about to begin. And it asks
    a user to unlock after each crash, since it cannot tell whether the other lives.

    `root`: the run's folder. `refuse_while_at_work`: raises what a user is told if a Snakemake that
    makes this run lives.
    """
    from snakemake.persistence.file import FilePersistence

    _refuse_while_at_work[root] = refuse_while_at_work
    write, delete_all = FilePersistence._write_locks, FilePersistence._delete_locks
    lock = FilePersistence.lock
    if lock.__module__ == __name__:
        return

    def lock_if_alone(self: Any) -> Any:
        for refuse in _refuse_while_at_work.values():
            refuse()
        for file in Path(self._lockdir).glob("*.lock"):
            held = map(Path, file.read_text(encoding="utf-8").splitlines())
            if any(path.is_relative_to(own) for path in held for own in _refuse_while_at_work):
                file.unlink(missing_ok=True)
        return lock(self)

    def write_into_folder(self: Any, lock_type: str, keys: Iterable[str]) -> None:
        Path(self._lockdir).mkdir(parents=True, exist_ok=True)
        write(self, lock_type, keys)

    def delete_own(self: Any) -> None:
        for file in self._lockfile.values():
            Path(file).unlink(missing_ok=True)
        self._lockfile.clear()
        with suppress(OSError):  # those of another run are in it
            Path(self._lockdir).rmdir()

    FilePersistence.lock = lock_if_alone
    FilePersistence._write_locks, FilePersistence._delete_locks = write_into_folder, delete_own
    # `--unlock` is asked for all of them.
    FilePersistence.cleanup_locks = delete_all
