"""Scores files of answers that you already have, without the workflow: `python scripts/score.py
--help`.

Exit codes: 0 scored (bad rows, if any, are listed); 1 a mistake that you can mend, nothing that
could be scored, or, with --strict, bad rows.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lib.benchmarks.answers import Answers, to_rows
from lib.benchmarks.base import Benchmark
from lib.benchmarks.judged import JudgedBenchmark
from lib.benchmarks.language import CHOICES, LanguageBenchmark
from lib.benchmarks.registry import BENCHMARKS, load_benchmark
from lib.benchmarks.scores import Score
from lib.blocks import Endpoint, say_mistake
from lib.errors import UserError
from lib.files import STRICT_JSON, write_jsonl
from lib.judge import Judge
from lib.progress import PrintableFormatter

#: So many bad rows are printed for people; --json gives all.
PROBLEMS_SHOWN = 20
#: Columns of a page where the output is no terminal, so that no name of a score is cut.
PAGE = 110
#: Seconds that a judge may take; some think for a while.
JUDGE_TIMEOUT = 300


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes end with exit code 1, as all mistakes of users do."""

    def error(self, message: str) -> NoReturn:
        """Prints the usage and the mistake."""
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    formats = "\n\n".join(map(_formats_of, BENCHMARKS.kinds))
    command = Parser(
        prog="score.py",
        description=(
            "Scores answers to a benchmark as the benchmark's own script does. Sources and"
            " differences: docs/evaluation.md."
        ),
        epilog=(
            f"What each benchmark reads and gives:\n\n{formats}\n\nExit codes: 0 scored; 1 a"
            " mistake or, with --strict, bad rows."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_options(command)
    _add_judge_options(command)
    return command


def _add_options(command: Parser) -> None:
    names = list(BENCHMARKS.kinds)
    command.add_argument("benchmark", choices=names, metavar="BENCHMARK", help=", ".join(names))
    command.add_argument(
        "--answers",
        type=Path,
        required=True,
        metavar="FILE",
        help="the answers (or kept judgements), in a format below",
    )
    command.add_argument(
        "--reference",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE_OR_FOLDER",
        help="what they are held against, in a format below",
    )
    command.add_argument(
        "--json", action="store_true", help="print JSON, with every bad row, in place of tables"
    )
    command.add_argument(
        "--strict",
        action="store_true",
        help="exit code 1 where there are bad rows or missing answers",
    )
    command.add_argument(
        "--language",
        choices=CHOICES,
        help="language tools of CHAIR, AMBER and Object HalBench (default: auto)",
    )
    command.add_argument(
        "--samples",
        type=int,
        default=1000,
        metavar="N",
        help="resamples of the 95%% intervals; 0 for none (default: 1000)",
    )
    command.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the resamples (default: 0)"
    )


def _add_judge_options(command: Parser) -> None:
    judge = command.add_argument_group(
        "judge, for MMHal-Bench, MM-Vet, and Object HalBench if wanted"
    )
    judge.add_argument(
        "--judge-url",
        metavar="URL",
        help="an OpenAI-compatible endpoint, ending in /v1 for most servers",
    )
    judge.add_argument("--judge-model", metavar="NAME", help="the judge's name there")
    judge.add_argument(
        "--judge-key-variable",
        metavar="NAME",
        help="environment variable with the key, e.g. OPENAI_API_KEY (default: no key is sent)",
    )
    judge.add_argument(
        "--judge-cache",
        type=Path,
        metavar="FILE",
        help="where replies are kept, so that nothing is asked twice (default: beside the answers)",
    )
    judge.add_argument(
        "--judge-runs",
        type=int,
        metavar="N",
        help="gradings of each answer of MM-Vet (default: 5, as its authors)",
    )
    judge.add_argument(
        "--judge-parameters",
        metavar="JSON",
        default="{}",
        help=(
            'request parameters sent as they are; null leaves one out, e.g. \'{"max_tokens": null,'
            ' "max_completion_tokens": 2000}\''
        ),
    )
    judge.add_argument(
        "--judge-concurrency",
        type=int,
        default=8,
        metavar="N",
        help="requests under way at once (default: 8)",
    )
    judge.add_argument(
        "--judged",
        type=Path,
        metavar="FILE",
        help="write the answers with their judgements here; it can be scored again",
    )


def _formats_of(name: str) -> str:
    """What a benchmark reads and gives."""
    benchmark = load_benchmark(name)
    scores = _indented(_scores_of(benchmark))
    return f"{name}: {benchmark.title}\n{_indented(benchmark.formats)}\n{scores}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _scores_of(benchmark: Benchmark[Any]) -> str:
    return "\n".join(
        f"{'scores:    ' if not number else ' ' * 11}{name}: {what}"
        for number, (name, what) in enumerate(benchmark.names.items())
    )


def judge_of(arguments: argparse.Namespace) -> Judge:
    """The judge that the command line names. Errors: UserError."""
    if not (arguments.judge_url and arguments.judge_model):
        raise UserError(
            "a judge has an address and a name: give both, --judge-url and --judge-model."
        )
    try:
        parameters = STRICT_JSON.decode(arguments.judge_parameters)
    except ValueError as error:
        raise UserError(f"--judge-parameters: not valid JSON ({error}).") from None
    try:
        endpoint = Endpoint(
            base_url=arguments.judge_url,
            model=arguments.judge_model,
            api_key_variable=arguments.judge_key_variable,
            concurrency=arguments.judge_concurrency,
            timeout=JUDGE_TIMEOUT,
            parameters=parameters,
        )
    except ValidationError as error:
        raise UserError(
            "; ".join(f"{_option(each['loc'])}: {say_mistake(each)}" for each in error.errors())
        ) from None
    beside = arguments.answers.with_name(f"{arguments.answers.name}.judge.jsonl")
    return Judge(endpoint, arguments.judge_cache or beside)


def add_judgements(
    arguments: argparse.Namespace, benchmark: Benchmark[Any], answers: Answers, reference: Any
) -> Answers:
    """The answers with the judgements of the judge that the command line names."""
    title = benchmark.title
    if not isinstance(benchmark, JudgedBenchmark):
        raise UserError(f"{title} needs no judge: leave out --judge-url and --judge-model.")
    judge = judge_of(arguments)
    if arguments.judge_runs and benchmark.gradings == 1:
        raise UserError(f"--judge-runs belongs to MM-Vet; {title} is judged once.")
    judged = benchmark.add_judgements(answers, reference, judge, arguments.judge_runs)
    print(
        f"judge {judge.name}: {judge.asked} asked, {judge.reused} from {judge.cache}",
        file=sys.stderr,
    )
    if arguments.judged:
        write_jsonl(arguments.judged, to_rows(judged))
    return judged


def _option(location: tuple[int | str, ...]) -> str:
    names = {"base_url": "url", "api_key_variable": "key-variable"}
    return f"--judge-{names.get(str(location[0]), str(location[0]))}" if location else "the judge"


def refuse_senseless_numbers(arguments: argparse.Namespace) -> None:
    """A UserError where a number makes no sense."""
    if (
        arguments.samples < 0
        or arguments.seed < 0
        or arguments.judge_concurrency < 1
        or (arguments.judge_runs or 1) < 1
    ):
        raise UserError(
            "--samples and --seed are 0 or more, --judge-concurrency and --judge-runs 1 or more."
        )


def run(arguments: argparse.Namespace) -> Score:
    """Reads, has judged if asked to, and scores. Errors: UserError."""
    refuse_senseless_numbers(arguments)
    benchmark = load_benchmark(arguments.benchmark, arguments.language or "auto")
    if arguments.language and not isinstance(benchmark, LanguageBenchmark):
        raise UserError(f"{benchmark.title} uses no language tools: leave out --language.")
    answers = benchmark.read_answers(arguments.answers)
    reference = benchmark.read_reference(*arguments.reference)
    if arguments.judge_url or arguments.judge_model:
        answers = add_judgements(arguments, benchmark, answers, reference)
    return benchmark.score(answers, reference, samples=arguments.samples, seed=arguments.seed)


def show(score: Score, console: Console) -> None:
    """Prints a score for people. Everything from files is printed as data, never as markup."""
    console.print(_table_of_scores(score))
    if score.per_type:
        console.print(_table_of_types(score))
    console.print(_table_of_doubts(score))


def _table_of_scores(score: Score) -> Table:
    benchmark = load_benchmark(score.benchmark)
    table = Table(title=benchmark.title, title_justify="left")
    for name in ("score", "value", "95 % interval", "what it is"):
        table.add_column(name, justify="right" if name in ("value", "95 % interval") else "left")
    for name, value in score.scores.items():
        low_high = score.intervals.get(name)
        interval = f"{low_high[0]:.2f} to {low_high[1]:.2f}" if low_high else ""
        what = benchmark.names[name]
        if name in score.not_comparable:
            what += " (not comparable with published scores)"
        table.add_row(name, f"{value:.2f}", interval, Text(what))
    return table


def _table_of_types(score: Score) -> Table:
    columns = list(dict.fromkeys(name for values in score.per_type.values() for name in values))
    table = Table(title="By type", title_justify="left")
    table.add_column("type", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    for kind, values in score.per_type.items():
        table.add_row(Text(kind), *(_number(values.get(name)) for name in columns))
    return table


def _table_of_doubts(score: Score) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in score.extra.items():
        table.add_row(name, Text(_number(value)))
    table.add_row("parser", Text(score.parser))
    for name, used in (("language tools", score.language_tools), ("judge", score.judge)):
        if used:
            table.add_row(name, Text(used))
    for why in dict.fromkeys(score.not_comparable.values()):
        names = [name for name, each in score.not_comparable.items() if each == why]
        table.add_row(", ".join(names), Text(why))
    return table


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def print_problems(score: Score, everything_is_in_the_json: bool) -> None:
    """Prints the bad rows to standard error."""
    if not score.problems:
        return
    shown = [] if everything_is_in_the_json else score.problems[:PROBLEMS_SHOWN]
    where = ", in `problems`" if everything_is_in_the_json else ":"
    print(f"{len(score.problems)} problem(s) with the rows{where}", file=sys.stderr)
    for problem in shown:
        print(f"  {problem}", file=sys.stderr)
    if len(shown) < len(score.problems) and not everything_is_in_the_json:
        print(
            f"  ... and {len(score.problems) - len(shown)} more; --json lists all", file=sys.stderr
        )


def main(words: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    arguments = parser().parse_args(words)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # ids and file names may hold what no terminal shows
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("workflow").setLevel(
        logging.INFO
    )  # how far a judge is, and that it is waited for
    try:
        score = run(arguments)
    except UserError as error:
        print(f"score.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "score.py: stopped; what a judge has judged is kept, run again to go on",
            file=sys.stderr,
        )
        return 130
    if arguments.json:
        print(json.dumps(score.to_json(), indent=2, allow_nan=False))
    else:
        show(
            score,
            Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else PAGE),
        )
    print_problems(score, arguments.json)
    return 1 if not score.scores or (arguments.strict and score.problems) else 0


if __name__ == "__main__":
    sys.exit(main())
