"""Checks preference pairs, whoever made them: `python scripts/check_pairs.py --help`. The rule of
the same name checks a run's own.
"""

import argparse
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lib.data.pair_forms.base import Picture, PreferencePair
from lib.data.pair_forms.ours import pair_of_row
from lib.data.pair_forms.registry import FORMS, known_forms
from lib.data.pair_forms.sources import PairSource, open_source
from lib.data.rows import PairRow
from lib.errors import UserError, printable
from lib.files import write_json
from lib.pair_checks.base import LookedAt, PictureFacts
from lib.pair_checks.checker import Checker, CheckOptions, Report
from lib.pair_checks.names import ALL_CHECKS, problem_with_name
from lib.pair_checks.overlap import read_index
from lib.pair_checks.pictures import look_at
from lib.pair_checks.truncation import Truncation, count_with, count_words

if TYPE_CHECKING:
    from lib.config.quality import CheckPairsJob
    from lib.jobs.job import Job

VERSION = 1
#: The checks that another rule makes of a run's own pairs, as exact as can be.
OF_OTHER_RULES = {
    "equal when cut": "build_pairs leaves such pairs out, by the base model's tokenizer",
    "benchmark overlap": "check_contamination finds them, and list_overlaps lists them",
}
#: Pictures are decoded on so many threads, and no more pairs wait for theirs than `AHEAD`.
THREADS = 2
AHEAD = 16
PAGE = 120


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(
        prog="check_pairs.py",
        description="Says what is wrong with preference pairs. No model is loaded.",
        epilog=(
            f"Forms:\n{known_forms()}\n\nExit codes: 0 nothing is over what is allowed; 1 something"
            " is; 2 the pairs cannot be read."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument(
        "pairs",
        metavar="FILE_OR_FOLDER_OR_HUB",
        help="a file, a folder, or a data set on the hub (owner/name)",
    )
    _add_options_of_source(command)
    _add_options_of_checks(command)
    return command


def _add_options_of_source(command: argparse.ArgumentParser) -> None:
    command.add_argument("--form", choices=[*FORMS], help="which form, where there are several")
    command.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="where pictures are, or their archive (default: beside the file)",
    )
    command.add_argument("--files", metavar="PATTERN", help="which files of a folder or data set")
    command.add_argument("--revision", default="main", help="commit, tag or branch on the hub")
    command.add_argument("--no-pictures", action="store_true", help="do not look at pictures")


def _add_options_of_checks(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="CHECK=SHARE",
        help="the share of pairs (0 to 1) that a check may find something in, or `any`; repeatable",
    )
    command.add_argument(
        "--benchmarks",
        type=Path,
        metavar="FILE",
        help="a run's contamination/benchmarks.jsonl, to find their questions and pictures",
    )
    command.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="tokenizer.json, or its folder (default: a word or sign is a token)",
    )
    command.add_argument(
        "--max-length",
        type=int,
        default=2048,
        metavar="N",
        help="tokens that training reads of a pair, at which it cuts (default: 2048)",
    )
    command.add_argument(
        "--image-tokens",
        type=int,
        default=576,
        metavar="N",
        help="tokens of a picture (default: 576, LLaVA-1.5's)",
    )
    command.add_argument(
        "--ids",
        type=int,
        default=3,
        metavar="N",
        help="findings shown of each check (default: 3); --json has all",
    )
    command.add_argument("--json", action="store_true", help="print JSON in place of tables")


def allowed_shares(words: Sequence[str]) -> dict[str, float | None]:
    """What --allow says, by check. Errors: UserError."""
    shares: dict[str, float | None] = {}
    for word in words:
        name, _, value = word.rpartition("=")
        if problem := problem_with_name(name):
            raise UserError(f"--allow {word}: {problem}")
        shares[name] = None if value == "any" else _share(value, word)
    return shares


def _share(value: str, word: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UserError(f"--allow {word}: give a share from 0 to 1, or `any`.")
    return share


def options_of(arguments: argparse.Namespace) -> CheckOptions:
    """How the command line has pairs checked. Errors: UserError."""
    if arguments.max_length < 1 or arguments.image_tokens < 0 or arguments.ids < 0:
        raise UserError("--max-length is 1 or more, --image-tokens and --ids 0 or more.")
    count = count_with(arguments.tokenizer) if arguments.tokenizer else count_words
    return CheckOptions(
        allowed=allowed_shares(arguments.allow),
        pictures=not arguments.no_pictures,
        truncation=Truncation(arguments.max_length, arguments.image_tokens, count),
        index=read_index(arguments.benchmarks) if arguments.benchmarks else None,
    )


def with_pictures(pairs: Iterable[PreferencePair]) -> Iterator[LookedAt]:
    """The pairs with what looking at their pictures says, in their order."""
    waiting: deque[tuple[PreferencePair, list[Future[PictureFacts]]]] = deque()
    with ThreadPoolExecutor(THREADS) as threads:
        for pair in pairs:
            waiting.append((pair, [threads.submit(look_at, picture) for picture in pair.images]))
            if len(waiting) > AHEAD:
                yield _settled(*waiting.popleft())
        while waiting:
            yield _settled(*waiting.popleft())


def _settled(pair: PreferencePair, pictures: Sequence[Future[PictureFacts]]) -> LookedAt:
    return LookedAt(pair, tuple(picture.result() for picture in pictures))


def check(source: PairSource, options: CheckOptions) -> Report:
    """Checks all pairs of a source. Errors: UserError where there is none."""
    checker = Checker(options)
    pairs = source.pairs(checker.add_bad_record)
    for each in with_pictures(pairs) if options.pictures else (LookedAt(p, None) for p in pairs):
        checker.add(each)
    report = checker.report()
    if not report["records"]:
        raise UserError(f"{source.files[0]}: holds no pair. Name a file with pairs.")
    return report


def show(report: Report, source: PairSource, ids: int, console: Console) -> None:
    """Prints a report for people. Everything from files is printed as data, never as markup."""
    files = source.files[0].name if len(source.files) == 1 else f"{len(source.files)} files"
    console.print(f"{_counted(report['pairs'], 'pair')} in {files}, read as {source.form.title}.")
    console.print(_table_of_checks(report, ids))
    for line in lines_of(report):
        console.print(Text(line))


def _table_of_checks(report: Report, ids: int) -> Table:
    table = Table()
    table.add_column("check", no_wrap=True)
    for name in ("pairs", "share", "allowed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("what is counted, and where", overflow="fold")
    for name, found in report["checks"].items():
        if not found["found"]:
            continue
        allowed = "any" if found["allowed"] is None else f"{found['allowed']:.1%}"
        mark = "✗ " if found["is_over"] else "  "
        shown = [found["what"], *map(_told, found["findings"][:ids])]
        if (more := len(found["findings"]) - ids) > 0 and ids:
            shown.append(f"... and {more} more")
        table.add_row(
            f"{mark}{name}",
            str(found["found"]),
            f"{found['share']:.2%}",
            allowed,
            Text("\n".join(shown)),
        )
    return table


def _told(finding: dict[str, str]) -> str:
    place = finding["where"]
    name = "" if place.endswith(finding["id"]) else f"{finding['id']} "
    return f"  {name}({place}): {finding['detail']}"


def lines_of(report: Report) -> list[str]:
    """What is said of a set besides its checks."""
    clean = [name for name, found in report["checks"].items() if not found["found"]]
    lines = [f"Nothing found by: {', '.join(clean)}."]
    if lengths := report.get("lengths"):
        low, high = lengths["interval"]
        lines.append(
            f"Words: {lengths['chosen']:.1f} chosen, {lengths['rejected']:.1f} rejected (Cohen's d"
            f" {lengths['effect_size']:+.2f}). A rule by which the {lengths['rule']} answer wins is"
            f" right in {lengths['right']:.1%} of the pairs ({low:.1%} to {high:.1%})."
        )
    if policies := report["policies"]:
        told = ", ".join(
            f"{name} {_percent(count['chosen'], report)} / {_percent(count['rejected'], report)}"
            for name, count in policies.items()
        )
        lines.append(f"Policies, of chosen / of rejected: {told}.")
    if languages := report["languages"]:
        answers = sum(languages.values())
        told = ", ".join(f"{name} {count / answers:.1%}" for name, count in languages.items())
        lines.append(f"Languages of the answers: {told}.")
    for name, why in report["not_checked"].items():
        lines.append(f"Not checked: {name} ({why}).")
    return lines


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _percent(count: int, report: Report) -> str:
    return f"{count / report['pairs']:.0%}"


def run(arguments: argparse.Namespace) -> int:
    """Does what the command line asks for; the exit code. Errors: UserError."""
    options = options_of(arguments)
    source = open_source(
        arguments.pairs,
        form=arguments.form,
        images=arguments.images,
        revision=arguments.revision,
        contents=options.pictures,
        files=arguments.files,
    )
    report = check(source, options)
    if arguments.json:
        told = {"files": list(map(str, source.files)), "form": source.form.name, **report}
        print(json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        width = None if sys.stdout.isatty() else PAGE
        console = Console(markup=False, highlight=False, width=width)
        show(report, source, arguments.ids, console)
    return int(any(found["is_over"] for found in report["checks"].values()))


def pictures_of_run(job: "Job[CheckPairsJob]", rows: Sequence[PairRow]) -> dict[str, PictureFacts]:
    """What looking at the picture of each row says, by the row's id; a picture that was looked at
    is not decoded again.
    """
    from lib.data.image_files import check_image
    from lib.jobs.batches import Batches
    from lib.jobs.streams import Item

    def check_file(item: Item[PairRow]) -> None:
        image = item.inputs["image"]
        check_image(job.root / image["file"], image["sha256"])

    def look(_: None, batch: Sequence[Item[PairRow]]) -> list[dict[str, str]]:
        files = [job.root / item.inputs["image"]["file"] for item in batch]
        facts = [
            look_at(Picture(file.name, file), job.settings.max_image_megapixels) for file in files
        ]
        return [{"problem": each.problem, "hash": each.hash} for each in facts]

    items = [Item(row["id"], job.key(image=row["image"]["sha256"]), row) for row in rows]
    batches = Batches(job, load=lambda: None, compute=look, check=check_file, batch_size=32)
    outcomes = batches.run(items)
    files = {row["id"]: row["image"]["file"] for row in rows}
    results = {name: outcome.result or {} for name, outcome in outcomes.items()}
    return {
        name: PictureFacts(result.get("problem", "unreadable"), files[name], result.get("hash", ""))
        for name, result in results.items()
    }


def check_run(job: "Job[CheckPairsJob]", rows: Sequence[PairRow]) -> Report:
    """Checks the pairs of a run. `rows`: those with a pair."""
    settings = job.settings
    allowed = {name: settings.max_share.get(name) for name in ALL_CHECKS}
    pictures = pictures_of_run(job, rows) if settings.pictures else {}
    options = CheckOptions(allowed, settings.pictures, truncation=None, left_out=OF_OTHER_RULES)
    checker = Checker(options)
    for number, row in enumerate(rows, start=1):
        facts = (pictures[row["id"]],) if settings.pictures else None
        checker.add(LookedAt(pair_of_row(row, job.root, number), facts))
    return checker.report()


def refuse_poor_pairs(report: Report, kept: Path) -> None:
    """A UserError where more is wrong with a run's pairs than it allows. `kept`: where the report
    is kept, since the run has none then.
    """
    over = {name: found for name, found in report["checks"].items() if found["is_over"]}
    if not over:
        return
    write_json(kept, report)
    told = [
        f"  {name}: {found['found']} of {report['pairs']} pairs ({found['share']:.2%}, allowed"
        f" {found['allowed']:.2%}), {', '.join(each['id'] for each in found['findings'][:3])}"
        for name, found in over.items()
    ]
    raise UserError(
        "pairs.quality.max_share: more is wrong with the pairs than is allowed:\n"
        + "\n".join(line.removesuffix(", ") for line in told)
        + f"\n{kept} has all of it. Change what these pairs come from, or raise the share; no data"
        " set was made of them."
    )


def main_of_rule(snakemake: Any) -> None:
    """The rule of the same name."""
    from lib.config.quality import CheckPairsJob
    from lib.data.shards import present, read_whole_shards
    from lib.jobs.job import Job

    with Job(snakemake, CheckPairsJob, VERSION) as job:
        rows = present(read_whole_shards(job, snakemake.input.pairs, PairRow).values())
        report = check_run(job, [row for row in rows if "pair" in row])
        refuse_poor_pairs(report, job.work / "refused.json")
        write_json(Path(snakemake.output[0]), report)


def main(words: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    arguments = parser().parse_args(words)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # ids and file names may hold what no terminal shows
            stream.reconfigure(errors="backslashreplace")
    try:
        return run(arguments)
    except UserError as error:
        print(f"check_pairs.py: {printable(str(error))}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    # Snakemake puts its object before a script's first line.
    if "snakemake" in vars(sys.modules["__main__"]):
        from lib.jobs.script import run_script

        run_script(main_of_rule)
    else:
        sys.exit(main())
