"""What people said of pairs: the files that they download from the report and put into the
project's folder `reviews/`, and what becomes of a pair.
"""

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NotRequired, cast, get_args

from typing_extensions import TypedDict

from lib.data.blind_verdicts import KINDS, TIE, VERDICT_COLUMNS, BlindVerdict
from lib.data.review_tables import files_in, name_of_seen, read_table
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
    note    the reviewer's, where there is one
    """

    reviewer: str
    verdict: Verdict
    pair: str
    sample: str
    note: NotRequired[str]


#: Reviews by prompt id.
Reviews = dict[str, list[Review]]


def pair_name(row: PairRow, pair: Pair) -> str:
    """What a pair is known by in reviews: a digest of all that a reviewer sees of it, whichever of
    its sides is the chosen one.
    """
    sides = sorted(pair[side]["text"] for side in ("chosen", "rejected"))
    return name_of_seen([row["image"]["sha256"], row["instruction"], *sides])


class ReviewFiles:
    """The review files of a folder, for one run.

    reviews   by prompt id, in the order of files and lines
    verdicts  of the blind mode, in that order
    """

    def __init__(self, folder: Path, run: str, prompts: Container[str]) -> None:
        """`prompts`: the ids of all prompts of the run. Errors: UserError, with file and line."""
        self.run = run
        self.prompts = prompts
        self.reviews: Reviews = {}
        self.verdicts: list[BlindVerdict] = []
        self._of_other_runs: Counter[tuple[Path, str]] = Counter()
        self._gone: defaultdict[Path, list[int]] = defaultdict(list)
        self._places: dict[tuple[str, ...], str] = {}
        files, self._others = files_in(folder)
        for path in files:
            self._add_file(path)

    def tell_passed_over(self) -> list[str]:
        """What was passed over, a line for each file and reason."""
        return [
            *(
                f"{path}: is no .csv file and does not count. Save it as CSV, or move it out of"
                " this folder."
                for path in self._others
            ),
            *(
                f"{path}: {count} of its reviews are of run '{run}' and do not count in this one,"
                f" '{self.run}'."
                for (path, run), count in self._of_other_runs.items()
            ),
            *(
                f"{path}: {len(lines)} of its reviews are of prompts that run '{self.run}' has no"
                f" more, edited or deleted since, and do not count (line {_few(lines)})."
                for path, lines in self._gone.items()
            ),
        ]

    def _add_file(self, path: Path) -> None:
        known = 0
        for number, line in read_table(path, refuse_other_columns):
            if line["run"] != self.run:
                self._of_other_runs[path, line["run"]] += 1
            elif line["prompt_id"] not in self.prompts:
                self._gone[path].append(number)
            else:
                known += 1
                self._add(f"{path}, line {number}", line)
        if not known and path in self._gone:
            raise UserError(
                f"{path}, line {_few(self._gone[path])}: run '{self.run}' has none of the prompts"
                " that it names. Download the file again from this run's report, or move it out of"
                " this folder."
            )

    def _add(self, where: str, line: Mapping[str, str]) -> None:
        if "kind" in line:
            self._add_blind(where, line)
            return
        name, verdict = line["prompt_id"], line["verdict"].lower()
        refuse_other_words(where, "verdict", verdict, VERDICTS)
        self._refuse_doubled(where, line["reviewer"], name)
        if line["sample"] and not line["sample"].isdecimal():
            raise UserError(f"{where}: the sample '{line['sample']}' is no whole number.")
        review: Review = {
            "reviewer": line["reviewer"],
            "verdict": cast("Verdict", verdict),
            "pair": line["pair"],
            "sample": line["sample"],
        }
        if line["note"]:
            review["note"] = line["note"]
        self.reviews.setdefault(name, []).append(review)

    def _add_blind(self, where: str, line: Mapping[str, str]) -> None:
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


def _few(lines: Sequence[int]) -> str:
    """The first of these numbers of lines."""
    return ", ".join(map(str, lines[:5])) + (", ..." if len(lines) > 5 else "")


def refuse_other_words(where: str, what: str, word: str, known: Sequence[str]) -> None:
    """A UserError where a word is none of the known ones."""
    if word not in known:
        raise UserError(f"{where}: the {what} '{word}' is none. Write {', '.join(known)}.")


def refuse_other_columns(path: Path, header: Sequence[str]) -> None:
    """A UserError where a file's header is neither that of reviews nor that of verdicts."""
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
        " (or, of the blind mode, verdicts.csv) from the report, or move the file out of this"
        " folder."
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


def reviews_of_pair(row: PairRow | MissingRow, reviews: Sequence[Review]) -> list[Review]:
    """Those of a prompt's reviews that are of the pair that it has now."""
    if is_missing(row) or "pair" not in row:
        return []
    name = pair_name(row, row["pair"])
    return [each for each in reviews if each["pair"] == name]


def reviewed(row: PairRow | MissingRow, reviews: Sequence[Review]) -> PairRow | MissingRow:
    """A prompt's row after its reviews: a pair that was rejected, or that reviewers disagree about,
    is left out; one that was swapped has its sides swapped. Reviews of another pair than the row's
    do not count.
    """
    counting = reviews_of_pair(row, reviews)
    if not counting or is_missing(row):
        return row
    pair = row["pair"]
    verdict = decide(each["verdict"] for each in counting)
    review: PairReview = {
        "verdict": verdict,
        "by": {each["reviewer"]: each["verdict"] for each in counting},
        "sample": max(int(each["sample"] or 0) for each in counting),
    }
    if notes := {each["reviewer"]: each["note"] for each in counting if "note" in each}:
        review["notes"] = notes
    if verdict == "accept":
        return {**row, "review": review}
    if verdict == "swap":
        return {**row, "review": review, "pair": swapped(pair)}
    without = cast("PairRow", {name: value for name, value in row.items() if name != "pair"})
    reason = REJECTED if verdict == "reject" else DISAGREE
    return {**without, "review": review, "left_out": pair, "no_pair": reason}


def swapped(pair: Pair) -> Pair:
    """A pair whose rejected response is the chosen one. What else is told of it stays."""
    sides: Pair = {
        "chosen": pair["rejected"],
        "rejected": pair["chosen"],
        "margin": -pair["margin"],
    }
    return {**pair, **sides}


def say_review(review: PairReview) -> str:
    """Who said what of a pair, with their notes."""
    notes = review.get("notes", {})
    return ", ".join(
        f"{who or 'unnamed'}: {verdict}" + (f" ({notes[who]})" if who in notes else "")
        for who, verdict in review["by"].items()
    )
