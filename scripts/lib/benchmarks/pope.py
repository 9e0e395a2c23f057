"""POPE: is an object in the image, yes or no? (Li et al. 2023; the arithmetic of LLaVA's
llava/eval/eval_pope.py.)

The parser keeps the text before the first full stop, takes commas out and splits at blanks; "No",
"no" or "not" among the words is a no, all else a yes. The positive class is yes. The headline is
the mean of the three splits' F1, which is what papers print as POPE. lmms-eval's task `pope`
compares the whole lower-cased answer, so that "No." is neither, and its yes ratio is that of the
labels.

Questions are put as in llava_pope_test.jsonl of LLaVA's eval.zip and scripts/v1_5/eval/pope.sh:
"<question>\\nAnswer the question using a single word or phrase."; 128 new tokens
(llava/eval/model_vqa_loader.py). POPE's own coco_pope_*.json have the bare question, and get the
same form.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lib.benchmarks.answers import Answer, Answers, yes_or_no
from lib.benchmarks.base import Better
from lib.benchmarks.joining import (
    KEPT,
    QUESTION_KEYS,
    UNSAID,
    Asked,
    Questions,
    asked_in,
    joined,
)
from lib.benchmarks.lmms_eval.samples import read_answer_rows
from lib.benchmarks.questions import Form, QuestionsBenchmark
from lib.benchmarks.rows import FileRow, answers_from, id_of
from lib.benchmarks.scores import Score, finite, match, question_score
from lib.bootstrap import Floats, intervals
from lib.data.evaluation_files import QuestionScore
from lib.errors import UserError

#: How LLaVA's file of POPE's questions ends each of them.
SINGLE_WORD = "\nAnswer the question using a single word or phrase."
#: Words of every question of POPE's; the others name an object.
FRAME = frozenset(("is", "there", "a", "an", "the", "in", "image"))
#: What LLaVA adds to the numbers of POPE's splits in its one file.
SPLIT_SIZE = 10_000_000
PARSER = (
    "text before the first full stop, commas removed, split at blanks; No, no or not is a no, all"
    " else a yes"
)
NAMES = {
    "f1": "F1 of yes, mean of the splits, percent (headline)",
    "accuracy": "accuracy, mean of the splits, percent",
    "precision": "precision of yes, mean of the splits, percent",
    "recall": "recall of yes, mean of the splits, percent",
    "yes_ratio": "answers that are yes, mean of the splits, percent",
}
SPLITS = ("adversarial", "popular", "random")
#: LLaVA numbers the questions of all splits in one file: split -> what is added to the label's
#: number.
_OFFSETS = {0: "adversarial", 10_000_000: "random", 20_000_000: "popular"}
FORMATS = """\
answers:   JSON lines {"id": "<split>/<question_id>", "response": "..."}; LLaVA's answers file
           {"question_id", "text"}, whose numbers tell the split (20000001 is popular/1); or
           lmms-eval's own ..._samples_pope.jsonl, or its kept answers {"id", "question_id",
           "response", "target"}; they do not name the splits, which begin where the question ids
           begin again, and are called 1, 2 and 3. Answers that say their "question" and
           "image" are joined with the labels by these, others by their ids
reference: a folder with coco_pope_adversarial.json, coco_pope_popular.json,
           coco_pope_random.json ({"question_id", "image", "text", "label"} lines), or one such
           file; or any JSON lines {"id", "label" or "target", "category"}, the answers file
           itself if it keeps its targets, as lmms-eval's do"""


@dataclass(frozen=True)
class Label:
    """What is right: `image` names the image, as far as the reference tells, and `asked` is the
    question, as far as it tells that.
    """

    split: str
    yes: bool
    image: str
    asked: Asked = UNSAID


Labels = Mapping[str, Label]


def _our_id(name: str, row: Mapping[str, Any]) -> str:
    category = row.get("category")
    if isinstance(category, str) and "/" not in name:
        return f"{category}/{name}"
    if not row.keys() & {"id", "image_id"} and name.isdecimal():
        offset = int(name) // 10_000_000 * 10_000_000
        if offset in _OFFSETS:
            return f"{_OFFSETS[offset]}/{int(name) - offset}"
    return name


def _read(file: Path) -> list[FileRow]:
    """The rows of a file of answers or labels, lmms-eval's with the split as their category."""
    rows = read_answer_rows(file)
    if not all(_is_of_lmms_eval(row.value) for row in rows):
        return rows
    seen: Counter[str | int] = Counter()
    rounds = []
    for row in rows:
        seen[row.value["question_id"]] += 1
        rounds.append(str(seen[row.value["question_id"]]))
    if len(seen) == len(rows):
        return rows
    return [
        replace(row, value={**row.value, "category": split})
        for row, split in zip(rows, rounds, strict=True)
    ]


def _is_of_lmms_eval(value: Any) -> bool:
    """Whether a row is lmms-eval's, which has numbered all questions and says no split."""
    return (
        isinstance(value, dict)
        and value.keys() >= {"id", "question_id", "target"}
        and "category" not in value
        and isinstance(value["question_id"], str | int)
    )


def _read_labels(file: Path, labels: dict[str, Label]) -> None:
    for row in _read(file):
        name, label = _label(file, row)
        if name in labels:
            raise UserError(
                f"{file}, line {row.line}: label of {name!r} again. Each question has one label."
            )
        labels[name] = label


def _label(file: Path, row: FileRow) -> tuple[str, Label]:
    value = row.value if isinstance(row.value, dict) else {}
    name = id_of(value.get("id", value.get("question_id")))
    label = value.get("label", value.get("target"))
    word = label.strip().lower() if isinstance(label, str) else None
    if name is None or word not in ("yes", "no"):
        what = "no id" if name is None else f"no label that is yes or no ({label!r})"
        raise UserError(
            f"{file}, line {row.line}: {what}. POPE's labels are lines with `question_id`, `image`,"
            " `text` and `label`."
        )
    split = value.get("category") or _split_of(file, name)
    full_name = name if "/" in name or split == "all" else f"{split}/{name}"
    asked = asked_in(value, (*QUESTION_KEYS, "text"))
    return full_name, Label(split, word == "yes", str(value.get("image", name)), asked)


def _split_of(file: Path, name: str) -> str:
    """The split of a label that says none."""
    if by_file := re.fullmatch(r"coco_pope_(\w+)\.json", file.name):
        return by_file[1]
    return name.split("/")[0] if "/" in name else "all"


def said_yes(text: str) -> bool:
    """The published parser."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return not ("No" in words or "not" in words or "no" in words)


def is_unparsed(text: str) -> bool:
    """Whether an answer is not plainly yes or no, or is read against its plain word: "NO" and "no!"
    are a yes to the published parser.
    """
    return yes_or_no(text) != ("yes" if said_yes(text) else "no")


#: Columns of the counts.
TP, FP, TN, FN = range(4)


def _rates(counts: Floats) -> dict[str, Floats]:
    """Rates of 1 from counts [..., (TP, FP, TN, FN)], as the reference computes them; NaN where
    there is nothing to divide by. F1 is 0 where no yes is right, also if nothing was answered yes,
    and NaN only where nothing was to be, either.
    """
    tp, fp, tn, fn = (counts[..., column] for column in (TP, FP, TN, FN))
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    total = tp + fp + tn + fn
    f1 = np.where((tp == 0) & (fp + fn > 0), 0.0, 2 * precision * recall / (precision + recall))
    return {
        "f1": f1,
        "accuracy": (tp + tn) / total,
        "precision": precision,
        "recall": recall,
        "yes_ratio": (tp + fp) / total,
    }


def _counts(matched: Mapping[str, Answer], labels: Labels, splits: list[str]) -> Floats:
    """Counts [image, split, (TP, FP, TN, FN)] of answers."""
    names = dict.fromkeys(labels[name].image for name in matched)
    images = {image: index for index, image in enumerate(names)}
    table = np.zeros((len(images), len(splits), 4))
    for name, answer in matched.items():
        label, yes = labels[name], said_yes(answer.text)
        column = (TP if label.yes else FP) if yes else (FN if label.yes else TN)
        table[images[label.image], splits.index(label.split), column] += 1
    return table


def _of_split(counts: Floats, rates: Mapping[str, Floats], index: int) -> dict[str, float]:
    """The rates of one split in percent, and its counts."""
    columns = {"tp": TP, "fp": FP, "tn": TN, "fn": FN}
    return finite({name: 100 * values[index] for name, values in rates.items()}) | {
        name: int(counts[index, column]) for name, column in columns.items()
    }


class Pope(QuestionsBenchmark[Labels]):
    """POPE."""

    VERSION: ClassVar[int] = 4
    name = "pope"
    title = "POPE"
    names = NAMES
    better: ClassVar[Mapping[str, Better]] = {
        "f1": "higher",
        "accuracy": "higher",
        "precision": "higher",
        "recall": "higher",
    }
    formats = FORMATS
    no_score = "in a split no answer is a yes, or no label is"
    #: Any whose answers are kept with targets that are yes or no.
    kept_tasks = ("*",)
    form = Form({"": "{question}" + SINGLE_WORD}, max_new_tokens=128)

    def question_id(self, path: Path, row: Mapping[str, Any], position: int) -> str | None:
        """`<split>/<number>`."""
        name = super().question_id(path, row, position)
        if name is None or "/" in name:
            return name
        split = row.get("category") or path.stem.removeprefix("coco_pope_")
        return f"{split}/{int(name) % SPLIT_SIZE if name.isdecimal() else name}"

    def question_text(self, row: Mapping[str, Any]) -> str | None:
        """The question without what LLaVA's file adds to it."""
        text = super().question_text(row)
        return None if text is None else text.removesuffix(SINGLE_WORD)

    def read_answers(self, path: Path) -> Answers:
        """A file of answers. Errors: UserError also where they are the questions."""
        answers = answers_from(path, _read(path), ("id", "question_id"), _our_id, KEPT)
        if all("?" in answer.text for answer in answers.rows):
            raise UserError(
                f"{path}: every row is a question (the first: {answers.rows[0].text[:60]!r}). Name"
                " the file with a model's answers."
            )
        return answers

    def read_reference(self, *paths: Path) -> Labels:
        """The labels by id. Errors: UserError where there are none, or a row has no label."""
        labels: dict[str, Label] = {}
        for path in map(Path, paths):
            files = sorted(path.rglob("coco_pope_*.json")) if path.is_dir() else [path]
            if not files:
                raise UserError(
                    f"{path}: holds no coco_pope_*.json. Name the folder with POPE's labels, or a"
                    " file of labels."
                )
            for file in files:
                _read_labels(file, labels)
        if not labels:
            raise UserError(
                "POPE needs its labels: name their folder or file with --reference; lmms-eval's"
                " samples hold their own: name them twice."
            )
        return labels

    def _joined(self, answers: Answers, reference: Labels) -> Answers:
        asked = {name: label.asked for name, label in reference.items()}
        return joined(answers, Questions(asked, FRAME), self.title)

    def by_question(self, answers: Answers, reference: Labels) -> list[QuestionScore]:
        """1 for a right answer, 0 for a wrong one."""
        matched, *_ = match(self._joined(answers, reference), list(reference), self.title)
        labels = {name: reference[name] for name in matched}
        return [
            question_score(
                answer,
                said_yes(answer.text) == labels[name].yes,
                labels[name].image,
                "yes" if labels[name].yes else "no",
            )
            for name, answer in matched.items()
        ]

    def score(
        self, answers: Answers, reference: Labels, *, samples: int = 1000, seed: int = 0
    ) -> Score:
        """POPE's scores. The unit of the bootstrap is the image, with all its questions in all
        splits.
        """
        answers = self._joined(answers, reference)
        matched, problems, counts = match(answers, list(reference), self.title)
        labels = {name: reference[name] for name in matched}
        splits = sorted({label.split for label in labels.values()})
        table = _counts(matched, labels, splits)

        def means(sums: Floats) -> dict[str, Floats]:
            by_split = _rates(sums.reshape(*sums.shape[:-1], len(splits), 4))
            return {name: 100 * values.mean(axis=-1) for name, values in by_split.items()}

        flat, sums = table.reshape(len(table), -1), table.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            overall, by_split = means(flat.sum(axis=0)), _rates(sums)
        return Score(
            benchmark=self.name,
            scores=finite(overall),
            extra={
                **counts,
                "unparsed": sum(is_unparsed(answer.text) for answer in matched.values()),
                "yes_ratio_of_labels": 100
                * sum(label.yes for label in labels.values())
                / len(labels),
            },
            per_type={
                split: _of_split(sums, by_split, index) for index, split in enumerate(splits)
            },
            intervals=intervals([flat], lambda sums: means(sums[0]), samples=samples, seed=seed),
            problems=problems,
            parser=PARSER,
            version=self.VERSION,
        )
