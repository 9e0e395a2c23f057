"""The scorers on released answers: the known score, ours, and the seconds of both; and what a table
of similarities saves AMBER.

    PYTHONPATH=scripts python benchmarks/scorers.py [--golden FOLDER] [--references FOLDER]
    [--vectors en_core_web_lg]

`--references`: a folder with clones of the references' repositories (LLaVA, Hallucination, AMBER,
RLHF-V, MM-Vet, as far as they are there). Their own scripts then run on the same files, in this
process, with the same declared stand-ins in place of the language tools that they import, so that
both sides do the same work. Seconds are of CPU, medians of three runs that read the files and score
them; imports are left out on both sides.
`--vectors`: a spaCy model with word vectors, by name or path, if spaCy is installed: similarities
one at a time as AMBER's script computes them are then measured on it, too.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import re
import runpy
import shutil
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lib.benchmarks import amber
from lib.benchmarks.base import LanguageChoice
from lib.benchmarks.language import LanguageTools, similar_by_vectors
from lib.benchmarks.registry import load_benchmark
from lib.benchmarks.scores import Score

REPOSITORY = Path(__file__).resolve().parent.parent
REPEATS = 3
#: Dimensions of spaCy's English vectors.
DIMENSIONS = 300
#: Similarities that are measured one at a time through a whole spaCy pipeline; the rest is
#: extrapolated, and said so.
SINGLE = 200


@dataclass(frozen=True)
class Line:
    """One golden file. `reference` runs the reference's own script and gives its score in the words
    of `ours`, or is None.
    """

    file: str
    known: str
    score: Callable[[int], Score]
    ours: Callable[[Score], str]
    reference: Callable[[], str] | None = None


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and the median CPU seconds of some runs."""
    seconds = []
    for _ in range(REPEATS):
        began = time.process_time()
        result = run()
        seconds.append(time.process_time() - began)
    return result, statistics.median(seconds)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as the docs have it; columns of seconds and of factors are numbers, on the right."""
    rule = ["---:" if name.endswith((", s", " s", "faster")) else "---" for name in columns]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, rule, *rows))


def scoring(
    benchmark: str,
    answers: Path,
    *reference: Path,
    first: int | None = None,
    language: LanguageChoice = "auto",
) -> Callable[[int], Score]:
    """Reads and scores with so many resamples; `first`: only so many answers."""

    def run(samples: int) -> Score:
        # A new one each time: its language tools remember words.
        scorer = load_benchmark(benchmark, language)
        found = scorer.read_answers(answers)
        kept = replace(found, rows=found.rows[:first])
        return scorer.score(kept, scorer.read_reference(*reference), samples=samples)

    return run


# --------------------------------------------------------------------------------------------------


def module(name: str, **members: Any) -> types.ModuleType:
    """A module to import in place of one that is not installed."""
    made = types.ModuleType(name)
    vars(made).update(members)
    return made


def exact_words(text: str) -> list[str]:
    """The tokenizer of the `exact` language tools."""
    return re.findall(r"[a-z]+", text.lower())


@contextlib.contextmanager
def stand_ins(
    folder: Path,
    arguments: list[str],
    words: Callable[[str], list[str]] = exact_words,
    **more: types.ModuleType,
) -> Iterator[io.StringIO]:
    """Runs a reference's script in `folder` with stand-ins for NLTK (`words` for its tokenizer) and
    spaCy; gives what it prints.

    `more`: further modules that the script imports.
    """

    class Word:
        def __init__(self, text: str) -> None:
            self.text = text

        def similarity(self, other: "Word") -> float:
            return float(self.text == other.text)

    class Lemmatizer:
        def lemmatize(self, word: str) -> str:
            return word

    class Lines:
        def __init__(self, stream: Any) -> None:
            self.rows = map(json.loads, stream)

        def __iter__(self) -> Iterator[Any]:
            return self.rows

    stem = module("nltk.stem", WordNetLemmatizer=Lemmatizer)
    wordnet = module("nltk.wordnet", WordNetLemmatizer=Lemmatizer)
    modules = {
        "nltk": module(
            "nltk",
            word_tokenize=words,
            pos_tag=lambda tokens: [(token, "NN") for token in tokens],
            stem=stem,
            wordnet=wordnet,
        ),
        "nltk.stem": stem,
        "nltk.wordnet": wordnet,
        "spacy": module("spacy", load=lambda name: Word),
        "tqdm": module("tqdm", tqdm=lambda rows: rows),
        "jsonlines": module("jsonlines", Reader=Lines),
        "gpt4_grpc": module("gpt4_grpc", Chat=lambda **options: None),
        **more,
    }
    before = {name: sys.modules.get(name) for name in modules}
    place, typed = Path.cwd(), sys.argv
    sys.modules.update(modules)
    sys.argv = ["script.py", *arguments]
    os.chdir(folder)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            yield printed
    finally:
        os.chdir(place)
        sys.argv = typed
        for name, was in before.items():
            sys.modules.pop(name) if was is None else sys.modules.update({name: was})


def reference_pope(references: Path, golden: Path) -> str:
    """LLaVA's eval_pope.py: F1 by split."""
    script = references / "LLaVA" / "llava" / "eval" / "eval_pope.py"
    files = {
        "annotation-dir": "ann",
        "question-file": "llava_pope_test.jsonl",
        "result-file": "llava-v1.5-13b.jsonl",
    }
    arguments = [
        word for name, file in files.items() for word in (f"--{name}", str(golden / "pope" / file))
    ]
    with stand_ins(golden, arguments) as printed:
        runpy.run_path(str(script), run_name="__main__")
    found = dict(
        zip(
            re.findall(r"Category: (\w+)", printed.getvalue()),
            re.findall(r"F1 score: (\S+)", printed.getvalue()),
            strict=True,
        )
    )
    return " / ".join(f"{100 * float(found[split]):.2f}" for split in sorted(found))


def reference_chair(captions: str) -> Callable[[Path, Path], str]:
    """CHAIR's utils/chair.py on one file of captions, with the words and the singulariser that
    stand in on our side.
    """

    def run(references: Path, golden: Path) -> str:
        rows = load_benchmark("chair").read_answers(golden / captions).rows
        objects = json.loads((golden / "chair/coco_gt_objects_2000.json").read_text())
        synonyms: dict[str, list[str]] = {}
        for word, name in json.loads((golden / "chair/chair_vocab.json").read_text())[
            "inverse_synonym_dict"
        ].items():
            synonyms.setdefault(name, [name])
            synonyms[name] += [word] if word != name else []
        nothing = dict.fromkeys(
            ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "CIDEr", "SPICE", "ROUGE_L"), 0
        )
        told = {row.id: {"image_id": row.id, "caption": row.text, **nothing} for row in rows}
        tools = LanguageTools("stand-in")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "data").mkdir()
            (folder / "data/synonyms.txt").write_text(
                "".join(", ".join(words) + "\n" for words in synonyms.values())
            )
            (folder / "captions.json").write_text(
                json.dumps({"overall": nothing, "imgToEval": told})
            )
            # The script is of Python 2; its statements `print` are the only thing that Python 3
            # does not take.
            text = (references / "Hallucination/utils/chair.py").read_text()
            (folder / "chair.py").write_text(
                re.sub(r"^(\s*)print (.+)$", r"\1print(\2)", text, flags=re.MULTILINE)
            )
            singulariser = {
                "pattern": module("pattern"),
                "pattern.en": module("pattern.en", singularize=tools.singulariser.run),
            }
            with stand_ins(
                folder, [], tools.tokenizer.run, misc=module("misc", os=os), **singulariser
            ):
                evaluator = runpy.run_path("chair.py")["CHAIR"](set(told), "")
                evaluator.imid_to_objects = {row.id: set(objects[row.id]) for row in rows}
                found = evaluator.compute_chair("captions.json")["overall_metrics"]
        return f"{100 * found['CHAIRi']:.1f} / {100 * found['CHAIRs']:.1f}"

    return run


def reference_mm_vet(references: Path, golden: Path) -> str:
    """MM-Vet's mm-vet_evaluator.py on the kept grades: mean, deviation and totals of the runs. Its
    questions are not needed for that.
    """
    grades = json.loads((golden / "mmvet/mmvet-grade-7b-3runs.json").read_text())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mm-vet.json").write_text(
            json.dumps({each: {"capability": []} for each in grades})
        )
        (folder / "model.json").write_text("{}")
        (folder / "model_gpt-4-0613-grade-3runs.json").write_text(json.dumps(grades))
        arguments = [
            "--mmvet_path",
            ".",
            "--result_file",
            "model.json",
            "--result_path",
            ".",
            "--num_run",
            "3",
            "--openai_api_key",
            "none",
        ]
        with stand_ins(folder, arguments):
            runpy.run_path(str(references / "MM-Vet/mm-vet_evaluator.py"), run_name="__main__")
        (row,) = csv.DictReader(
            (folder / "model_gpt-4-0613-cap-score-3runs.csv").read_text().splitlines()
        )
    return (
        f"{row['total']} ± {row['std']}; {', '.join(re.findall(r'[0-9]+[.][0-9]+', row['runs']))}"
    )


def reference_amber(references: Path, golden: Path) -> str:
    """AMBER's inference.py: everything that it prints, as numbers."""
    arguments = [
        "--inference_data",
        str(golden / "amber" / "responses.json"),
        "--evaluation_type",
        "a",
    ]
    with stand_ins(golden / "amber", arguments) as printed:
        runpy.run_path(str(references / "AMBER" / "inference.py"), run_name="__main__")
    values = re.findall(r"(\d+\.\d)", printed.getvalue())
    return f"{values[4]} / {values[7]}; " + " / ".join(values[:4])


def reference_object_halbench(references: Path, golden: Path) -> str:
    """RLHF-V's eval_gpt_obj_halbench.py without its LLM, on the first 300 captions."""
    rows = (
        load_benchmark("object_halbench")
        .read_answers(golden / "chair/Instruction1_llava.json")
        .rows[:300]
    )
    objects = json.loads((golden / "chair/coco_gt_objects_2000.json").read_text())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "eval" / "data").mkdir(parents=True)
        shutil.copy(golden / "objhal/synonyms_refine.txt", folder / "eval/data/synonyms_refine.txt")
        captions = folder / "captions.jsonl"
        captions.write_text(
            "".join(
                json.dumps({"image_id": int(row.id), "question": "", "text": row.text}) + "\n"
                for row in rows
            )
        )
        with stand_ins(folder, []):
            script = runpy.run_path(str(references / "RLHF-V/eval/eval_gpt_obj_halbench.py"))
            evaluator = script["CHAIR"]({int(row.id) for row in rows}, "", "")
            evaluator.imid_to_objects = {int(row.id): set(objects[row.id]) for row in rows}
            found = evaluator.compute_chair(str(captions), -1)["overall_metrics"]
    return f"{100 * found['CHAIRs_refine']:.2f} / {100 * found['CHAIRi']:.2f}"


def reference_mmhal(references: Path, golden: Path) -> str:
    """MMHal-Bench's arithmetic as RLHF-V has it, on the judgements of the log."""
    log = load_benchmark("mmhal_bench").read_answers(
        golden / "mmhal/mmhal_llava_onevision_0.5b.txt"
    )
    completions = [
        {"choices": [{"message": {"content": answer.details["judgement"]}}]} for answer in log.rows
    ]
    with tempfile.TemporaryDirectory() as name, stand_ins(Path(name), []) as printed:
        Path("evaluation.json").write_text(json.dumps(completions))
        runpy.run_path(str(references / "RLHF-V/eval/summarize_gpt_mmhal_review.py"))[
            "cal_mmhalscore"
        ]("evaluation.json")
    return " / ".join(re.findall(r": (\d\.\d\d)$", printed.getvalue(), re.MULTILINE))


def lines(golden: Path, references: Path | None) -> list[Line]:
    """All golden files with what is known of them."""

    def script(run: Callable[[Path, Path], str], repository: str) -> Callable[[], str] | None:
        return (
            (lambda: run(references, golden))
            if references and (references / repository).is_dir()
            else None
        )

    chair_known = {
        "Instruction2_llava": "10.5 / 32.7",
        "Instruction1_llava": "18.8 / 62.7",
        "Instruction1_mplug": "30.2 / 76.8",
        "Instruction2_instructblip": "2.6 / 3.7",
    }
    known_amber = json.loads((golden / "amber/golden.json").read_text())["exact"]["stdout"]
    amber_values = re.findall(r"(\d+\.\d)", known_amber)
    known_objects = json.loads((golden / "objhal/golden.json").read_text())["Instruction1_llava"][
        "no_gpt_branch"
    ]
    found = [
        Line(
            "pope/llava-v1.5-13b.jsonl: F1 adversarial / popular / random",
            "84.46 / 86.25 / 87.14",
            scoring("pope", golden / "pope/llava-v1.5-13b.jsonl", golden / "pope"),
            lambda score: " / ".join(f"{values['f1']:.2f}" for values in score.per_type.values()),
            script(reference_pope, "LLaVA"),
        )
    ]
    for name, known in chair_known.items():
        run = scoring("chair", golden / f"chair/{name}.json", golden / "chair", language="stand-in")
        found.append(
            Line(
                f"chair/{name}.json: CHAIR_i / CHAIR_s",
                known,
                run,
                lambda each: f"{each.scores['chair_i']:.1f} / {each.scores['chair_s']:.1f}",
                script(reference_chair(f"chair/{name}.json"), "Hallucination"),
            )
        )
    return [
        *found,
        Line(
            "amber/responses.json: accuracy / F1; CHAIR / Cover / Hal / Cog",
            f"{amber_values[4]} / {amber_values[7]}; " + " / ".join(amber_values[:4]),
            scoring("amber", golden / "amber/responses.json", golden / "amber", language="exact"),
            lambda score: (
                f"{score.scores['accuracy']} / {score.scores['f1']}; "
                + " / ".join(str(score.scores[name]) for name in ("chair", "cover", "hal", "cog"))
            ),
            script(reference_amber, "AMBER"),
        ),
        Line(
            "chair/Instruction1_llava.json, first 300, as Object HalBench: response / mention",
            f"{100 * known_objects['CHAIRs_refine']:.2f} / {100 * known_objects['CHAIRi']:.2f}",
            scoring(
                "object_halbench",
                golden / "chair/Instruction1_llava.json",
                golden / "objhal",
                golden / "chair/coco_gt_objects_2000.json",
                first=300,
                language="exact",
            ),
            lambda score: f"{score.scores['response']:.2f} / {score.scores['mention']:.2f}",
            script(reference_object_halbench, "RLHF-V"),
        ),
        Line(
            "mmhal/mmhal_llava_onevision_0.5b.txt: score / hallucination",
            "2.08 / 0.62",
            scoring("mmhal_bench", golden / "mmhal/mmhal_llava_onevision_0.5b.txt"),
            lambda score: (
                f"{score.scores['score']:.2f} / {score.scores['hallucination'] / 100:.2f}"
            ),
            script(reference_mmhal, "RLHF-V"),
        ),
        Line(
            "mmvet/mmvet-grade-7b-3runs.json: total ± std; runs",
            "31.1 ± 0.2; 31.2, 30.8, 31.2",
            scoring("mm_vet", golden / "mmvet/mmvet-grade-7b-3runs.json"),
            lambda score: (
                f"{score.scores['total']} ± {score.scores['std']};"
                f" {', '.join(map(str, score.extra['totals_of_runs']))}"
            ),
            script(reference_mm_vet, "MM-Vet"),
        ),
    ]


# --------------------------------------------------------------------------------------------------


class Vector:
    """A word with a vector, as spaCy's documents have it."""

    def __init__(self, word: str, vector: Any) -> None:
        self.word, self.vector, self.vector_norm = word, vector, float(np.linalg.norm(vector))

    def similarity(self, other: "Vector") -> float:
        """Cosine."""
        return (
            1.0
            if self.word == other.word
            else float(np.dot(self.vector, other.vector) / (self.vector_norm * other.vector_norm))
        )


def pairs_of_amber(golden: Path) -> list[tuple[str, str]]:
    """The pairs that AMBER's script asks for, where only equal words are similar: for each noun,
    its scene's words up to a hit.
    """
    scorer = amber.Amber()
    reference = scorer.read_reference(golden / "amber")
    language = LanguageTools("exact")
    vocabulary = {
        word for name, others in reference.association.items() for word in (name, *others)
    }
    pairs = []
    for answer in scorer.read_answers(golden / "amber/responses.json").rows:
        scene = reference.items[answer.id]
        if not isinstance(scene, amber.Scene):
            continue
        truth, hallu = (
            [*(word for name in names for word in reference.association.get(name, ())), *names]
            for names in (scene.truth, scene.hallu)
        )
        for noun in language.nouns(answer.text):
            if noun in vocabulary and noun not in reference.safe_words and noun not in truth:
                asked = hallu[: hallu.index(noun) + 1] if noun in hallu else hallu
                pairs += [(noun, word) for word in (*asked, *truth)]
    return pairs


def similarity_table(golden: Path, vectors: str | None) -> str:
    """What one similarity at a time costs, and what a table costs."""
    pairs = pairs_of_amber(golden)
    words, others = ({pair[side] for pair in pairs} for side in (0, 1))
    generator = np.random.default_rng(0)
    made = {
        word: Vector(word, generator.standard_normal(DIMENSIONS).astype(np.float32))
        for word in sorted(words | others)
    }
    _, single = timed(
        lambda: [made[noun].similarity(made[word]) > amber.THRESHOLD for noun, word in pairs]
    )
    _, table = timed(
        lambda: similar_by_vectors(made.__getitem__, sorted(words), sorted(others), amber.THRESHOLD)
    )
    about = f"random, {DIMENSIONS} dimensions; one at a time is `numpy.dot`"
    rows = [(about, f"{single:.2f}", f"{table:.4f}", f"{single / table:,.0f}")]
    if vectors:
        import spacy

        pipeline = spacy.load(vectors)
        name = f"{pipeline.meta['lang']}_{pipeline.meta['name']} {pipeline.meta['version']}"
        sample = pairs[:: max(1, len(pairs) // SINGLE)]
        _, seconds = timed(
            lambda: [pipeline(noun).similarity(pipeline(word)) for noun, word in sample]
        )
        single = seconds / len(sample) * len(pairs)
        _, table = timed(
            lambda: similar_by_vectors(
                pipeline.make_doc, sorted(words), sorted(others), amber.THRESHOLD
            )
        )
        about = (
            f"spaCy `{name}`; one at a time as AMBER's script computes them (from {len(sample)}"
            " pairs, extrapolated)"
        )
        rows.append((about, f"{single:,.0f}", f"{table:.4f}", f"{single / table:,.0f}"))
    title = f"AMBER's similarities: {len(pairs):,} asked for, {len(set(pairs)):,} distinct pairs"
    columns = ("vectors", "one at a time, s", "as a table, s", "times faster")
    return f"{title}\n\n{markdown(columns, rows)}"


def main() -> None:
    """Prints the tables; exits with 1 where ours differs from what is known or from the reference's
    script.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--golden",
        type=Path,
        default=Path(os.environ.get("GOLDEN_DIR") or REPOSITORY.parent / "shared" / "golden"),
    )
    parser.add_argument(
        "--references",
        type=Path,
        help="folder with clones of LLaVA, Hallucination, AMBER, RLHF-V, MM-Vet",
    )
    parser.add_argument("--vectors", help="a spaCy model, by name or path")
    arguments = parser.parse_args()
    golden: Path = arguments.golden.resolve()
    if not golden.is_dir():
        sys.exit(f"{golden}: no released answers here; name their folder with --golden.")
    rows = []
    different = []
    for line in lines(golden, arguments.references.resolve() if arguments.references else None):
        line.score(0)  # imports, once
        score, seconds = timed(partial(line.score, 0))
        _, with_intervals = timed(partial(line.score, 1000))
        theirs, their_seconds = timed(line.reference) if line.reference else ("not run", None)
        ours = line.ours(score)
        shown = [
            f"{seconds:.2f}",
            f"{with_intervals:.2f}",
            theirs,
            "" if their_seconds is None else f"{their_seconds:.2f}",
        ]
        rows.append((line.file, line.known, ours, *shown))
        if ours != line.known or theirs not in ("not run", ours):
            different.append(line.file)
    print(
        markdown(
            (
                "golden file",
                "known",
                "ours",
                "ours, s",
                "with intervals, s",
                "the reference's script",
                "its s",
            ),
            rows,
        )
    )
    print(f"\n{similarity_table(golden, arguments.vectors)}")
    sys.exit("different: " + "; ".join(different) if different else 0)


if __name__ == "__main__":
    main()
