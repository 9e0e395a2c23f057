"""What the reference model says of the pairs: computed once, kept beside the trainings of a run,
and read by every other that meets the same pairs. Nothing here imports torch.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from lib.blocks import Block
from lib.jobs.journal import Journal, read_lines

RULE = "train_dpo"
FOLDER = "reference"


class ReferencePlace(Block):
    """Where a training keeps the reference's log-probabilities, and finds those of others.

    key        of all that determines them but what the model is shown: its weights, and how it is
               computed
    own        the training's folder for its journals, one a process
    elsewhere  the folders of rule train_dpo under work/, of this run and of those in `REUSE_FROM`
    """

    key: str
    own: Path
    elsewhere: list[Path]

    def journal(self, rank: int) -> Path:
        """The journal of a training's process."""
        return self.own / f"{self.key[:16]}.{rank}.journal.jsonl"

    def journals(self) -> Iterator[Path]:
        """The journals of all trainings that say what this one may ask, its own too."""
        for folder in self.elsewhere:
            yield from sorted(folder.glob(f"*/{FOLDER}/{self.key[:16]}.*.journal.jsonl"))


class LogProbabilities(NamedTuple):
    """Of the chosen and the rejected responses of a batch, in nats, in the order of its pairs; and
    torch's name of the number format that they were computed in.
    """

    chosen: list[float]
    rejected: list[float]
    dtype: str


class Reference:
    """The reference's log-probabilities by the key of a batch. Those of other trainings are read
    when they are asked for, also of such as are at work at the same time.
    """

    def __init__(self, place: ReferencePlace, rank: int) -> None:
        """`rank`: the number of this process among the training's."""
        self.computed = self.found = 0
        self._place = place
        self._journal = Journal(place.journal(rank), RULE)
        self._known: dict[str, LogProbabilities] = {}
        self._read: dict[Path, int] = {}

    def __enter__(self) -> Self:
        self._journal.__enter__()
        for key in self._journal.entries:
            self._known[key] = LogProbabilities(**self._journal.finished(key) or {})
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._journal.__exit__(kind, error, trace)

    def find(self, key: str) -> LogProbabilities | None:
        """Those of a batch; None where they have to be computed."""
        if key not in self._known:
            self._read_others()
        return self._known.get(key)

    def add(self, key: str, values: LogProbabilities, seconds: float) -> None:
        """Keeps those of a batch, which took so many seconds; not such as are no numbers, which
        stop the training.
        """
        if key not in self._known and all(map(math.isfinite, (*values.chosen, *values.rejected))):
            self._known[key] = values
            self._journal.add(key, key[:16], seconds=seconds, result=values._asdict())

    def _read_others(self) -> None:
        """Reads what has been added to the other journals since they were read last."""
        for path in self._place.journals():
            read = self._read.get(path, 0)
            if path == self._journal.path or path.stat().st_size <= read:
                continue
            with open(path, "rb") as stream:
                stream.seek(read)
                lines = stream.read()
            whole = lines[: lines.rfind(b"\n") + 1]
            self._read[path] = read + len(whole)
            for line in read_lines(whole):
                if (entry := line.entry) and entry.get("status") == "ok":
                    self._known.setdefault(entry["key"], LogProbabilities(**entry["result"]))
