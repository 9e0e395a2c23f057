"""Pairs that experiments bring of their own, as the report's gallery shows them: beside the run's,
under the data set that they come from. No reward of the run rated them, and no review changes them:
that is done in their own file.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from lib.data.export_forms.trl_parquet import text_of
from lib.data.parquet_images import PictureInGroup, RowGroup, read_group, row_groups
from lib.errors import UserError
from lib.report.page_overview import FlowStep, step
from lib.report.page_rows import CandidateEntry, PromptDetails, PromptEntry, drawn
from lib.report.thumbnails import Pictures, name_of

#: Pairs of a data set that are shown, about: they are drawn in whole groups of rows, since no
#: picture can be read without its group.
SHOWN = 1000
#: What the page calls the outcome of such a pair.
OWN = "own pair"
TEXTS = ("id", "prompt", "chosen", "rejected")


@dataclass(frozen=True)
class OwnPairEntry:
    """A pair as the gallery shows it; `id`: in the report."""

    id: str
    question: str
    chosen: str
    rejected: str
    picture: PictureInGroup


def draw_groups(groups: Sequence[RowGroup], seed: int) -> list[RowGroup]:
    """Groups with about `SHOWN` rows, drawn with the run's seed; in the order of the files."""
    names = {f"{group.file.name}/{group.number}": group for group in groups}
    chosen: set[str] = set()
    rows = 0
    for name in drawn(names, seed):
        if rows < SHOWN:
            chosen.add(name)
            rows += names[name].rows
    return [group for name, group in names.items() if name in chosen]


class OwnPairsShown:
    """The pairs of one data set, `own_pairs/<name>/` of a run, that the gallery shows.

    experiments  that are trained on them
    """

    def __init__(self, folder: Path, experiments: Sequence[str], seed: int) -> None:
        """Errors: UserError where a file is damaged."""
        import pyarrow

        self.name, self.experiments = folder.name, experiments
        self.about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        try:
            files = sorted((folder / "data").glob("*.parquet"))
            groups = [group for file in files for group in row_groups(file)]
            self.groups = draw_groups(groups, seed)
            self.pairs = list(self._read())
        except (pyarrow.ArrowException, OSError, LookupError, TypeError) as error:
            raise UserError(
                f"{folder / 'data'}: a file is damaged ({error}). Delete {folder / 'dataset.json'}"
                " and run again: import_pairs makes it anew."
            ) from error

    def _read(self) -> Iterator[OwnPairEntry]:
        known: Counter[str] = Counter()
        for group in self.groups:
            for number, row in enumerate(read_group(group, [*TEXTS, "images"])):
                known[row["id"]] += 1
                again = f"#{known[row['id']]}" if known[row["id"]] > 1 else ""
                question, chosen, rejected = (text_of(row[name]) for name in TEXTS[1:])
                digest = sha256(row["images"][0]["bytes"]).hexdigest()
                picture = PictureInGroup(group, number, digest)
                name = f"{self.name}/{row['id']}{again}"
                yield OwnPairEntry(name, question, chosen, rejected, picture)

    @property
    def source(self) -> str:
        """Where they come from."""
        return str(self.about["origin"]["source"])

    def step(self) -> FlowStep:
        """How many there are, and how many of them are shown."""
        size = int(self.about["size"])
        shown = f", of which {len(self.pairs)} are shown" if len(self.pairs) < size else ""
        name = f"Own pairs of {', '.join(self.experiments)}: {self.source}{shown}"
        return step(name, size, self.about.get("left_out", {}))

    def pictures(self) -> Iterator[Pictures]:
        """Their pictures, those of a group together."""
        for group in self.groups:
            each = [pair.picture for pair in self.pairs if pair.picture.group == group]
            yield Pictures(f"own_pairs/{self.name}/{group.file.name}/{group.number}", each)

    def entry(self, pair: OwnPairEntry, place: int, chunk: int) -> PromptEntry:
        """A pair as filters and sorting see it; `place`, `chunk`: of the entry."""
        return {
            "id": pair.id,
            "topic": f"own pairs: {self.source}",
            "prompt": pair.question,
            "instruction": pair.question,
            "outcome": OWN,
            "pair": "",
            "chosen": "",
            "rejected": "",
            "margin": None,
            "score": None,
            "image": None,
            "longer": len(pair.chosen) - len(pair.rejected),
            "picks": 0,
            "against": None,
            "spread": None,
            "picture": name_of(pair.picture.sha256),
            "draw": None,
            "place": place,
            "chunk": chunk,
            "reviewed": "",
            "compared": None,
            "pictures": "",
            "turned": [],
        }

    def details(self, pair: OwnPairEntry) -> PromptDetails:
        """A pair as it is looked at."""
        sides = {"chosen": pair.chosen, "rejected": pair.rejected}
        shown: CandidateEntry = {
            "of": "",
            "seed": None,
            "file": "",
            "picture": name_of(pair.picture.sha256),
            "blank": False,
            "isPicked": True,
            "scores": [],
        }
        return {
            "id": pair.id,
            "candidates": [shown],
            "responses": [
                {"name": name, "text": text, "parts": []} for name, text in sides.items()
            ],
            "pair": None,
            "why": "",
            "review": "",
            "comparison": None,
            "own": f"{self.source}, of which {', '.join(self.experiments)} learns",
        }


def own_pairs_shown(
    root: Path, experiments: dict[str, list[str]], seed: int
) -> list[OwnPairsShown]:
    """The data sets of own pairs that are there. `experiments`: by the names of their folders."""
    folders = {root / "own_pairs" / name: names for name, names in experiments.items()}
    return [
        OwnPairsShown(folder, names, seed)
        for folder, names in folders.items()
        if (folder / "dataset.json").is_file()
    ]
