"""Checks preference pairs, whoever made them: `python scripts/check_pairs.py --help`. The rule of
the same name checks a run's own.
"""

import argparse
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lib.data.pair_forms.base import PreferencePair
from lib.data.pair_forms.registry import FORMS, known_forms
from lib.data.pair_forms.sources import PairSource, open_source
from lib.errors import UserError, printable
from lib.pair_checks.base import LookedAt, PictureFacts
from lib.pair_checks.checker import Checker, CheckOptions, Report, problem_with_name
from lib.pair_checks.overlap import read_index
from lib.pair_checks.pictures import look_at
from lib.pair_checks.truncation import Truncation, count_with, count_words

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
        help="where pictures are (default: beside the file)",
    )
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
        default=1024,
        metavar="N",
        help="tokens that training reads of a pair, at which it cuts (default: 1024, TRL's)",
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
    console.print(f"{report['pairs']} pairs in {files}, read as {source.form.title}.")
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


def main(words: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    arguments = parser().parse_args(words)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # ids and file names may hold what no terminal shows
    try:
        return run(arguments)
    except UserError as error:
        print(f"check_pairs.py: {printable(str(error))}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
