"""A run holds its results folder: of two Snakemakes that make the same run, from one clone or from
two, on one machine or on two, the second is told so before it touches anything.
"""

from contextlib import suppress
from pathlib import Path

from lib.errors import UserError
from lib.jobs.locks import SECONDS_OF_LIFE, Owner, OwnerFile, TakenError
from lib.progress import duration


class RunOwner:
    """The Snakemake that makes a run, as the others see it."""

    def __init__(self, root: Path) -> None:
        """`root`: the run's folder."""
        self.root = root
        self._file = OwnerFile(root / "work" / "run.owner")

    def begin(self) -> None:
        """Takes hold of the folder. Errors: UserError if another Snakemake has it."""
        try:
            self._file.take()
        except TakenError as error:
            raise self._refusal(error.owner) from error

    def end(self) -> None:
        """Lets go of the folder, which is not left behind empty."""
        self._file.release()
        with suppress(OSError):
            self._file.path.parent.rmdir()
            self.root.rmdir()

    def refuse_while_at_work(self) -> None:
        """A UserError if another Snakemake that makes the run lives."""
        if owner := self._file.living_owner():
            raise self._refusal(owner)

    def _refusal(self, owner: Owner | None) -> UserError:
        return UserError(
            f"{self.root}: another run is at work in this results folder ({owner}). Nothing was"
            " touched. Wait for it to end, or stop it there, and run again; if that machine is"
            f" down, wait {duration(SECONDS_OF_LIFE)} first. To run beside it, name another `run`"
            " or another `results` folder in the configuration."
        )
