"""The paper's claims in the small world, through the product itself: three seeds, each with its
negative controls.

    python demo/claims.py                          runs what is missing (36 minutes on two cores),
    measures, and prints the tables
    python demo/claims.py --tables                 prints the tables of the kept figures, as
    docs/microworld.md has them
    python demo/claims.py --agreement RUN          measures who scores in the oracle's order in a
    run of demo/config.yaml, keeps that table, and prints it
    python demo/claims.py --check results/demo     fails where DPO does not do in a run what it
    should, or a control is none

A seed is two runs of the ordinary workflow: `seed-<n>`, and `seed-<n>-random-picture`, which is the
same but for the picture, a random one of the four. Their configurations are demo/config.yaml with
demo/claims.yaml's values, written to results/claims/. The oracle judges their pictures afterwards;
no run knows of it. The figures are kept in demo/world/claims.json.
"""

import argparse
import copy
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from story import read_json_lines, rows_of, scores_of
from world.pictures import Picture

HERE = Path(__file__).resolve().parent
RESULTS = Path("results/claims")
KEPT = HERE / "world" / "claims.json"
CHAIR = HERE / "world" / "benchmarks" / "chair"
SEEDS = (1, 2, 3)
PROMPTS_PER_TOPIC = 216
SCORERS = ("image-reward", "clip", "blip")
MAIN = "dpo-160"
RANDOM_PICTURE = "random-picture"

#: Columns of the tables of models: a benchmark's score -> how it is headed; an arrow says which way
#: is better.
SCORES = {
    "chair/chair_s": "CHAIR_s ↓",
    "chair/chair_i": "CHAIR_i ↓",
    "chair/recall": "cover ↑",
    "object_halbench/response": "Object HalBench, response ↓",
    "pope/reference_accuracy": "POPE accuracy ↑",
    "pope/reference_f1": "POPE F1 ↑",
}
EXACT = "description exact (oracle), % ↑"
MODELS = {
    "base": "base",
    MAIN: "DPO, 160 pairs",
    "random-control": "control: chosen and rejected drawn by a coin",
    "swapped-control": "control: chosen and rejected exchanged",
}
SIZES = {"base": "0", "dpo-40": "40", "dpo-80": "80", "dpo-160": "160", "dpo-320": "320"}

FIT, WHOLE = "fit of the pick (oracle), %", "whole scene exact (oracle), %"
RANDOM_PICK, BEST_PICK = "a random one of the four", "the best of the four"

#: table -> row -> column -> one value a seed.
Figures = dict[str, dict[str, dict[str, list[float]]]]
#: Row, column and value of one run, in the order of the table.
Cells = Iterator[tuple[str, str, float]]
#: Of a picture: the share of objects right, whether the whole scene is, and the oracle's fit.
Verdict = tuple[float, bool, float]


# --- the runs


def merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with another's values; experiments are taken whole."""
    result = copy.deepcopy(base)
    for key, value in over.items():
        whole = key == "experiments" or not isinstance(value, dict)
        result[key] = copy.deepcopy(value) if whole else merged(result.get(key, {}), value)
    return result


def configuration(seed: int, random_picture: bool) -> dict[str, Any]:
    """The configuration of one run."""
    base, over = (
        yaml.safe_load((HERE / name).read_text(encoding="utf-8"))
        for name in ("config.yaml", "claims.yaml")
    )
    name = f"seed-{seed}-{RANDOM_PICTURE}" if random_picture else f"seed-{seed}"
    config = merged(base, over) | {"run": name, "results": str(RESULTS), "seed": seed}
    config["training"]["settings"]["seed"] = seed
    if random_picture:
        config["image_ranking"]["pick"] = "random"
        config["reuse_from"] = [f"seed-{seed}"]
        config["training"]["experiments"] = {MAIN: config["training"]["experiments"][MAIN]}
        config["pairs"]["sizes"] = [config["training"]["experiments"][MAIN]["size"]]
    return config


def run(seed: int, random_picture: bool) -> None:
    """One run of the workflow, as a user types it; ends the program where it fails."""
    config = configuration(seed, random_picture)
    file = RESULTS / f"{config['run']}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    snakemake = Path(sys.executable).with_name("snakemake")
    command = [str(snakemake), "--profile", "profiles/local", "--configfile", str(file)]
    print(f"== {' '.join(command[1:])}", flush=True)
    started = time.monotonic()
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(code)
    print(f"== {config['run']}: {(time.monotonic() - started) / 60:.1f} min", flush=True)


# --- what they show


@cache
def things_in_benchmark() -> dict[str, Counter[tuple[str, str]]]:
    """What the oracle sees in each of CHAIR's pictures, by question id."""
    from world import oracle

    questions = read_json_lines(CHAIR / "questions.jsonl")
    readings = oracle.read_pictures(
        np.stack([pixels(CHAIR / "images" / question["image"]) for question in questions])
    )
    shown = [Counter(thing.name for thing in reading.scene.things) for reading in readings]
    return {
        str(question["image_id"]): names for question, names in zip(questions, shown, strict=True)
    }


def exact_descriptions(root: Path, model: str) -> float:
    """Answers to CHAIR's questions that name every thing with its colour as often as it is there,
    and nothing else, in percent.
    """
    from world.words import read

    return percent(
        read(answer["response"]).names() == things_in_benchmark()[answer["id"]]
        for answer in read_json_lines(root / "evaluation" / model / "chair" / "answers.jsonl")
    )


def model_table(
    models: Mapping[str, str], roots: Sequence[Path]
) -> dict[str, dict[str, list[float]]]:
    """Rows of models, columns of `SCORES`, and the oracle's own verdict, which counts and knows
    colours as CHAIR does not.
    """
    table: dict[str, dict[str, list[float]]] = {}
    seeds = [scores_of(root) for root in roots]
    for model, name in models.items():
        table[name] = {
            head: [scores[score][model] for scores in seeds] for score, head in SCORES.items()
        }
        table[name][EXACT] = [exact_descriptions(root, model) for root in roots]
    return table


def whole_rows(root: Path, stage: str) -> dict[str, dict[str, Any]]:
    """The published rows of a stage that have no failure in them, by prompt id."""
    return {row["id"]: row for row in rows_of(root, stage) if "missing" not in row}


def judged_by_oracle(root: Path) -> dict[str, list[Verdict]]:
    """Of each prompt its candidates in order: the share of objects right, whether the whole scene
    is, and the oracle's fit.
    """
    from world import oracle
    from world.words import read

    by_prompt = {}
    for prompt_id, row in whole_rows(root, "images").items():
        pictures = [pixels(root / candidate["file"]) for candidate in row["candidates"]]
        statement = read(row["prompt"])
        judged = []
        for reading in oracle.read_pictures(np.stack(pictures)):
            verdict = oracle.judge_picture(reading, statement)
            judged.append(
                (verdict.right / verdict.wanted, verdict.whole, oracle.fit(row["prompt"], reading))
            )
        by_prompt[prompt_id] = judged
    return by_prompt


def pixels(path: Path) -> Picture:
    """A picture's file as an array (height, width, 3)."""
    from lib.data.image_files import read_image

    return np.asarray(read_image(path))


def percent(values: Iterable[float | bool]) -> float:
    """The mean in percent."""
    return 100 * float(np.mean(list(values)))


class PictureRun:
    """What a run published about its pictures, and the oracle's verdicts on them.

    Attributes:
        prompts: ids of the prompts that every scorer ranked.
        verdicts: of each prompt its candidates', as `judged_by_oracle` gives them.
        scales: the guidance scales of the candidates, in order.
        rankings: of each scorer, by prompt, the candidates from best to worst.
        winners: of each scorer, by prompt, the number of the picked candidate.
    """

    def __init__(self, root: Path) -> None:
        self.verdicts = judged_by_oracle(root)
        rows = {scorer: whole_rows(root, f"image_ranking/{scorer}") for scorer in SCORERS}
        self.prompts = sorted(set(self.verdicts).intersection(*rows.values()))
        candidates = whole_rows(root, "images")[self.prompts[0]]["candidates"]
        self.scales = [candidate["guidance_scale"] for candidate in candidates]
        self.rankings, self.winners = (
            {
                scorer: {prompt: rows[scorer][prompt][field] for prompt in self.prompts}
                for scorer in SCORERS
            }
            for field in ("ranking", "winner")
        )

    def picked(self, scorer: str) -> list[Verdict]:
        """The oracle's verdicts on a scorer's picks, in the order of the prompts."""
        return [self.verdicts[prompt][self.winners[scorer][prompt]] for prompt in self.prompts]


def guidance_cells(run: PictureRun) -> Cells:
    """The table of guidance: which scale's candidate is picked, and how right it is."""
    for number, scale in enumerate(run.scales):
        row = f"{scale:g}"
        for scorer in SCORERS:
            picks = (run.winners[scorer][prompt] == number for prompt in run.prompts)
            yield row, f"picked by {scorer}, %", percent(picks)
        verdicts = [run.verdicts[prompt][number] for prompt in run.prompts]
        yield row, "objects right (oracle), %", percent(right for right, _, _ in verdicts)
        yield row, WHOLE, percent(whole for _, whole, _ in verdicts)


def common_selection_cells(run: PictureRun) -> Cells:
    """The table of common selections: how often scorers share a pick."""
    from common_selections_table import common_selection

    for group in [*combinations(SCORERS, 2), SCORERS]:
        for top in (1, 2, 3):
            share = common_selection([run.rankings[scorer] for scorer in group], top)
            yield " & ".join(group), f"top {top}, %", float("nan") if share is None else share


def pick_cells(run: PictureRun) -> Cells:
    """The table of picks: what each scorer's are worth, between a random one's and the best's."""
    for scorer in SCORERS:
        yield scorer, FIT, percent(fit for _, _, fit in run.picked(scorer))
    every = [run.verdicts[prompt] for prompt in run.prompts]
    fits = [[fit for _, _, fit in verdicts] for verdicts in every]
    yield RANDOM_PICK, FIT, percent(float(np.mean(values)) for values in fits)
    yield BEST_PICK, FIT, percent(max(values) for values in fits)
    for scorer in SCORERS:
        yield scorer, WHOLE, percent(whole for _, whole, _ in run.picked(scorer))
    wholes = [[whole for _, whole, _ in verdicts] for verdicts in every]
    yield RANDOM_PICK, WHOLE, percent(whole for values in wholes for whole in values)
    yield BEST_PICK, WHOLE, percent(any(values) for values in wholes)


def image_judge_cells(run: PictureRun) -> Cells:
    """The table of ImageReward against CLIP, on the prompts where their picks differ."""
    gains = np.array(
        [
            reward[2] - clip[2]
            for prompt, reward, clip in zip(
                run.prompts, run.picked("image-reward"), run.picked("clip"), strict=True
            )
            if run.winners["image-reward"][prompt] != run.winners["clip"][prompt]
        ]
    )
    row = "image-reward against clip, where their picks differ"
    yield row, "prompts", float(len(gains))
    yield row, "ImageReward's is better, %", percent(gains > 0)
    yield row, "as good, %", percent(gains == 0)
    yield row, "CLIP's is better, %", percent(gains < 0)


PICTURE_TABLES: dict[str, Callable[[PictureRun], Cells]] = {
    "guidance": guidance_cells,
    "common selections": common_selection_cells,
    "picks": pick_cells,
    "image judge": image_judge_cells,
}


def picture_tables(roots: Sequence[Path]) -> Figures:
    """The tables about pictures, a value a run."""
    tables: Figures = {name: {} for name in PICTURE_TABLES}
    for run in map(PictureRun, roots):
        for name, cells in PICTURE_TABLES.items():
            for row, column, value in cells(run):
                tables[name].setdefault(row, {}).setdefault(column, []).append(value)
    return tables


def agreement_table(roots: Sequence[Path]) -> dict[str, dict[str, list[float]]]:
    """Who scores pictures and answers in the oracle's order, a value a run."""
    sys.path[:0] = [str(HERE.parent / "scripts")]
    from world.agreement import cells

    table: dict[str, dict[str, list[float]]] = {}
    for root in roots:
        for row, column, value in cells(root, HERE / "world/models"):
            table.setdefault(row, {}).setdefault(column, []).append(round(value, 2))
    return table


def keep_agreement(root: Path) -> None:
    """Measures one run, and puts its table in place of the kept one."""
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    kept["agreement_of"] = "one run of demo/config.yaml: demo/claims.py --agreement RUN"
    kept["tables"]["agreement"] = agreement_table([root])
    KEPT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(markdown("agreement", kept["tables"]["agreement"]))


def measure_tables() -> Figures:
    """All tables of the runs that are there."""
    sys.path[:0] = [str(HERE.parent / "scripts")]
    roots = [RESULTS / f"seed-{seed}" for seed in SEEDS]
    random_roots = [RESULTS / f"seed-{seed}-{RANDOM_PICTURE}" for seed in SEEDS]
    filtering = model_table({"base": "base", MAIN: "pairs from the picked picture"}, roots)
    filtering |= model_table({MAIN: "control: pairs from a random one of the four"}, random_roots)
    tables = {
        "hallucination": model_table(MODELS, roots),
        "size": model_table(SIZES, roots),
        **picture_tables(roots),
        "image filtering": filtering,
        "agreement": agreement_table(roots),
    }
    return {
        table: {
            row: {column: [round(value, 2) for value in values] for column, values in cells.items()}
            for row, cells in rows.items()
        }
        for table, rows in tables.items()
    }


# --- tables

HEADS = {
    "hallucination": "model",
    "size": "pairs",
    "guidance": "guidance scale",
    "common selections": "scorers",
    "picks": "who picks",
    "image judge": "",
    "image filtering": "model",
    "agreement": "who scores",
}


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over the seeds."""
    return (
        f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
        if len(values) > 1
        else f"{values[0]:.1f}"
    )


def markdown(table: str, rows: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """One table."""
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    lines = [f"| {' | '.join([HEADS[table], *columns])} |", f"|---{'|---:' * len(columns)}|"]
    for row, cells in rows.items():
        shown = [mean_and_spread(cells[name]) if name in cells else "" for name in columns]
        lines.append(f"| {' | '.join([row, *shown])} |")
    return "\n".join(lines)


def tables() -> dict[str, str]:
    """The tables of the kept figures, in Markdown."""
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    return {table: markdown(table, rows) for table, rows in kept["tables"].items()}


# --- the check of one run


def problems(root: Path) -> list[str]:
    """What of the claims does not hold in a run with the experiments of demo/config.yaml; empty if
    all do.

    DPO has to lower CHAIR_s by a third of the base model's at least, pairs drawn by a coin by less
    than half of what DPO does, and exchanged pairs must not lower it.
    """
    values = scores_of(root).get("chair/chair_s", {})
    if absent := [
        model
        for model in ("base", "dpo", "random-control", "swapped-control")
        if model not in values
    ]:
        return [f"{root}: there is no CHAIR_s of {absent[0]}. Run `make demo` first."]
    sys.path[:0] = [str(HERE.parent / "scripts")]
    from lib.report.digits import told_apart

    base = values["base"]
    shown = dict(zip(values, told_apart([*values.values()], 1), strict=True))
    gain = base - values["dpo"]
    failures = []
    if gain < base / 3:
        failures.append(
            f"DPO lowers CHAIR_s from {shown['base']} to {shown['dpo']}, which is less than by a"
            " third."
        )
    if base - values["random-control"] >= gain / 2:
        failures.append(
            f"Pairs drawn by a coin lower CHAIR_s from {shown['base']} to"
            f" {shown['random-control']}, half of what DPO does or more."
        )
    if values["swapped-control"] < base:
        failures.append(
            f"Exchanged pairs lower CHAIR_s from {shown['base']} to {shown['swapped-control']}."
        )
    return failures


def main(arguments: list[str] | None = None) -> int:
    """Runs, tells or checks, as the command line asks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--tables", action="store_true", help="print the tables of the kept figures, run nothing"
    )
    parser.add_argument(
        "--check", type=Path, metavar="RUN", help="check a run of demo/config.yaml, run nothing"
    )
    parser.add_argument(
        "--agreement",
        type=Path,
        metavar="RUN",
        help="measure who scores as the oracle does in a run",
    )
    options = parser.parse_args(arguments)
    if options.agreement:
        keep_agreement(options.agreement)
        return 0
    if options.check:
        failures = problems(options.check)
        print(
            "\n".join(failures)
            if failures
            else (
                f"{options.check}: DPO lowers CHAIR_s by a third or more, and the controls are"
                " controls."
            )
        )
        return 1 if failures else 0
    if not options.tables:
        started = time.monotonic()
        prompts = yaml.safe_load((HERE / "claims.yaml").read_text(encoding="utf-8"))["prompts"]
        build = [
            sys.executable,
            str(HERE / "build_world.py"),
            "--prompts",
            prompts,
            "--prompts-per-topic",
            str(PROMPTS_PER_TOPIC),
        ]
        subprocess.run(build, check=True)
        for number, seed in enumerate(SEEDS):
            for random_picture in (False, True):
                run(seed, random_picture)
            minutes = (time.monotonic() - started) / 60
            left = minutes / (number + 1) * (len(SEEDS) - number - 1)
            print(
                f"== {number + 1} of {len(SEEDS)} seeds in {minutes:.0f} min; about {left:.0f} min"
                " left",
                flush=True,
            )
        record = {
            "command": "make claims",
            "seeds": list(SEEDS),
            "prompts": 3 * PROMPTS_PER_TOPIC,
            "tables": measure_tables(),
        }
        KEPT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for table, text in tables().items():
        print(f"\n{table}\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
