"""What people said of pairs: the files that they download from the report and put into the
project's folder `reviews/`, and what becomes of a pair.
"""

import csv
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Literal, cast, get_args

from typing_extensions import TypedDict

from lib.data.blind_verdicts import KINDS, TIE, VERDICT_COLUMNS, BlindVerdict
from lib.data.rows import MissingRow, Pair, PairReview, PairRow
from lib.data.shards import is_missing
from lib.errors import UserError

Verdict = Literal["accept", "reject", "swap"]
VERDICTS = get_args(Verdict)
#: The columns of a file, as the report's page writes them (lib/report/page/reviews.js).
COLUMNS = (*("run", "prompt_id", "pair", "verdict", "note", "reviewer", "sample", "reviewed_at"),)
REJECTED = "rejected by reviewers"
DISAGREE = "reviewers disagree"


class Review(TypedDict):
    """What a reviewer said of a prompt's pair.

    pair    what the pair is known by (`pair_name`)
    sample  the size of the drawn sample that the pair was looked at as one of; empty where it was
            looked at otherwise
    """

    reviewer: str
    verdict: Verdict
    pair: str
    sample: str


#: Reviews by prompt id.
Reviews = dict[str, list[Review]]


def pair_name(row: PairRow, pair: Pair) -> str:
    """What a pair is known by in reviews: a digest of all that a reviewer sees of it, whichever of
    its sides is the chosen one.
    """
    sides = sorted(pair[side]["text"] for side in ("chosen", "rejected"))
    seen = "\x00".join([row["image"]["sha256"], row["instruction"], *sides])
    return sha256(seen.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class ReviewFiles:
    """The review files of a folder, for one run.

    reviews      by prompt id, in the order of files and lines
    verdicts     of the blind mode, in that order
    passed_over  how many lines each file has of other runs, by file and run
    """

    def __init__(self, folder: Path, run: str, prompts: Container[str]) -> None:
        """`prompts`: the ids of all prompts of the run. Errors: UserError, with file and line."""
        self.run = run
        self.prompts = prompts
        self.reviews: Reviews = {}
        self.verdicts: list[BlindVerdict] = []
        self.passed_over: Counter[tuple[str, str]] = Counter()
        self._places: dict[tuple[str, ...], str] = {}
        for path in sorted(folder.glob("*.csv")):
            for number, line in _lines_of(path):
                self._add(path, number, line)

    def tell_passed_over(self) -> list[str]:
        """What was passed over, a line for each file and run."""
        return [
            f"{path}: {count} of its reviews are of run '{run}' and do not count in this one,"
            f" '{self.run}'."
            for (path, run), count in self.passed_over.items()
        ]

    def _add(self, path: Path, number: int, line: Mapping[str, str]) -> None:
        if line["run"] != self.run:
            self.passed_over[str(path), line["run"]] += 1
            return
        where, name = f"{path}, line {number}", line["prompt_id"]
        if name not in self.prompts:
            raise UserError(
                f"{where}: run '{self.run}' has no prompt '{name}'. If the prompt was edited or"
                " deleted since, delete this line; otherwise download the file again from this"
                " run's report."
            )
        if "kind" in line:
            self._add_verdict(where, line)
            return
        refuse_other_words(where, "verdict", line["verdict"], VERDICTS)
        self._refuse_doubled(where, line["reviewer"], name)
        review: Review = {
            "reviewer": line["reviewer"],
            "verdict": cast("Verdict", line["verdict"]),
            "pair": line["pair"],
            "sample": line["sample"],
        }
        self.reviews.setdefault(name, []).append(review)

    def _add_verdict(self, where: str, line: Mapping[str, str]) -> None:
        kind, name = line["kind"], line["prompt_id"]
        refuse_other_words(where, "kind", kind, KINDS)
        refuse_other_words(where, "verdict", line["verdict"], (line["first"], line["second"], TIE))
        self._refuse_doubled(where, line["reviewer"], name, kind)
        verdict: BlindVerdict = {
            "kind": kind,
            "prompt_id": name,
            "shown": line["shown"],
            "verdict": line["verdict"],
            "reviewer": line["reviewer"],
        }
        self.verdicts.append(verdict)

    def _refuse_doubled(self, where: str, reviewer: str, name: str, kind: str = "") -> None:
        before = self._places.setdefault((reviewer, name, kind), where)
        if before == where:
            return
        who = f"reviewer '{reviewer}'" if reviewer else "a reviewer without a name"
        raise UserError(
            f"{where}: {who} says of {name} what stands in {before} already. Keep one of the two"
            " (of two downloads the newer file, which has all of the older one's reviews); where"
            " two people reviewed, give each a name in the column `reviewer`."
        )


def refuse_other_words(where: str, what: str, word: str, known: Sequence[str]) -> None:
    """A UserError where a word is none of the known ones."""
    if word not in known:
        raise UserError(f"{where}: the {what} '{word}' is none. Write {', '.join(known)}.")


def _lines_of(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a review file below its header, with their numbers. Errors: UserError."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8, or"
            " download it again."
        ) from error
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        _refuse_other_columns(path, header)
        for values in reader:
            if not any(values):
                continue
            if len(values) != len(header):
                raise UserError(
                    f"{path}, line {reader.line_num}: has {len(values)} values for {len(header)}"
                    " columns. Put texts with commas or quotes in double quotes."
                )
            yield reader.line_num, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: is no CSV ({error}). Download it again."
        ) from error


def _refuse_other_columns(path: Path, header: Sequence[str]) -> None:
    if sorted(header) in (sorted(COLUMNS), sorted(VERDICT_COLUMNS)):
        return
    missing = [name for name in COLUMNS if name not in header]
    others = [name for name in header if name not in COLUMNS]
    problem = " and ".join(
        f"{verb} the column{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"
        for verb, names in (("lacks", missing), ("has", others))
        if names
    )
    raise UserError(
        f"{path}: is no file of reviews: it {problem or 'has a column twice'}. Download reviews.csv"
        " (or, of the blind mode, verdicts.csv) from the report, separated by commas, or move the"
        " file out of this folder."
    )


def ranked_pair(row: PairRow | MissingRow) -> Pair | None:
    """A prompt's pair as it was ranked, whatever reviewers did to it: what a verdict speaks of.
    None where there was none.
    """
    if is_missing(row):
        return None
    is_swapped = "review" in row and row["review"]["verdict"] == "swap"
    return swapped(row["pair"]) if is_swapped else row.get("pair", row.get("left_out"))


def decide(verdicts: Iterable[str]) -> str:
    """What most reviewers say; `DISAGREE` where none is said by more than each other."""
    (first, most), *others = Counter(verdicts).most_common()
    return DISAGREE if others and others[0][1] == most else first


def reviewed(row: PairRow | MissingRow, reviews: Sequence[Review]) -> PairRow | MissingRow:
    """A prompt's row after its reviews: a pair that was rejected, or that reviewers disagree about,
    is left out; one that was swapped has its sides swapped. Reviews of another pair than the row's
    do not count.
    """
    if is_missing(row) or "pair" not in row:
        return row
    pair = row["pair"]
    counting = [each for each in reviews if each["pair"] == pair_name(row, pair)]
    if not counting:
        return row
    verdict = decide(each["verdict"] for each in counting)
    review: PairReview = {
        "verdict": verdict,
        "by": {each["reviewer"]: each["verdict"] for each in counting},
        "sample": any(bool(each["sample"]) for each in counting),
    }
    if verdict == "accept":
        return {**row, "review": review}
    if verdict == "swap":
        return {**row, "review": review, "pair": swapped(pair)}
    without = cast("PairRow", {name: value for name, value in row.items() if name != "pair"})
    reason = REJECTED if verdict == "reject" else DISAGREE
    return {**without, "review": review, "left_out": pair, "no_pair": reason}


def swapped(pair: Pair) -> Pair:
    """A pair whose rejected response is the chosen one."""
    return {"chosen": pair["rejected"], "rejected": pair["chosen"], "margin": -pair["margin"]}
