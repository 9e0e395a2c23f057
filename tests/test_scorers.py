"""Scorers: each equals its reference on released answers whose scores are known, to the last digit."""

import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lib.scorers import SCORERS
from lib.scorers.language import LanguageTools

GOLDEN = Path(os.environ.get("GOLDEN_DIR") or Path(__file__).resolve().parent.parent.parent / "shared/golden")
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no released answers at {GOLDEN} (GOLDEN_DIR names another place)")


def scored(benchmark, answers, *reference, **options):
    scorer = SCORERS[benchmark]
    return scorer.score(scorer.read_answers(answers), scorer.read_reference(*reference), **options)


# -------------------------------------------------------------------------------------------------------------------------- golden


@needs_golden
def test_pope_equals_the_reference_on_llava_s_released_answers():
    score = scored("pope", GOLDEN / "pope/llava-v1.5-13b.jsonl", GOLDEN / "pope")
    found = {
        split: [values[name] for name in ("tp", "fp", "tn", "fn")]
        + [
            round(values[name] / 100, digits)
            for name, digits in (("accuracy", 4), ("precision", 4), ("recall", 3), ("f1", 4), ("yes_ratio", 3))
        ]
        for split, values in score.per_type.items()
    }
    assert found == {
        "adversarial": [1182, 117, 1383, 318, 0.8550, 0.9099, 0.788, 0.8446, 0.433],
        "popular": [1182, 59, 1441, 318, 0.8743, 0.9525, 0.788, 0.8625, 0.414],
        "random": [1182, 31, 1379, 318, 0.8801, 0.9744, 0.788, 0.8714, 0.417],
    }
    assert round(score.scores["f1"], 1) == 85.9
    assert not score.problems


@needs_golden
@pytest.mark.parametrize(
    ("captions", "chair_i", "chair_s"),
    [
        ("Instruction2_llava", "10.5", "32.7"),
        ("Instruction1_llava", "18.8", "62.7"),
        ("Instruction1_mplug", "30.2", "76.8"),
        ("Instruction2_instructblip", "2.6", "3.7"),
    ],
)
def test_chair_equals_the_published_scores_of_released_captions(captions, chair_i, chair_s):
    score = scored("chair", GOLDEN / f"chair/{captions}.json", GOLDEN / "chair", samples=0)
    assert (f"{score.scores['chair_i']:.1f}", f"{score.scores['chair_s']:.1f}") == (chair_i, chair_s)
    assert not score.problems


def printed_like_amber(score):
    """The lines of AMBER's own script from our scores, spelling mistakes and all."""
    lines = ["Generative Task:"]
    lines += [f"{name}:\t\t {score.scores[key]}" for name, key in (("CHAIR", "chair"), ("Cover", "cover"), ("Hal", "hal"))]
    lines += [f"Cog:\t\t {score.scores['cog']} ", ""]
    groups = {"Descriminative Task": score.scores} | {
        {"existence": "Exsitence"}.get(kind, kind.capitalize()): values for kind, values in score.per_type.items()
    }
    for name, values in groups.items():
        numbers = (("Accuracy:\t", "accuracy"), ("Precision:\t", "precision"), ("Recall:\t\t", "recall"), ("F1:\t\t", "f1"))
        lines += [f"{name}:", *(f"{label} {values[key]}" for label, key in numbers)]
        lines[-1] += " "
        lines += [""]
    return "\n".join(lines[:-1]).rstrip() + "\n"


@needs_golden
def test_amber_prints_what_the_reference_prints_for_its_15220_answers_in_under_10_seconds():
    began = time.perf_counter()
    score = scored("amber", GOLDEN / "amber/responses.json", GOLDEN / "amber", language=LanguageTools("exact"))
    assert time.perf_counter() - began < 10
    assert printed_like_amber(score) == json.loads((GOLDEN / "amber/golden.json").read_text())["exact"]["stdout"]
    assert not score.problems


@needs_golden
@pytest.mark.parametrize("branch", ["no_gpt_branch", "extracted_objects_branch"])
def test_object_halbench_equals_the_reference_s_arithmetic_with_either_extractor(branch):
    scorer, language = SCORERS["object_halbench"], LanguageTools("exact")
    answers = scorer.read_answers(GOLDEN / "chair/Instruction1_llava.json")
    reference = scorer.read_reference(GOLDEN / "objhal", GOLDEN / "chair/coco_gt_objects_2000.json")
    rows = answers.rows[:300]
    if branch == "extracted_objects_branch":
        known = reference.vocabulary.objects.keys()
        rows = [
            replace(row, details={"objects": sorted(known & set(language.tokenizer.run(row.text))) if len(row.text.split()) > 3 else []})
            for row in rows
        ]
    score = scorer.score(replace(answers, rows=rows), reference, language=language, samples=0)
    golden = json.loads((GOLDEN / "objhal/golden.json").read_text())["Instruction1_llava"][branch]
    assert score.scores == {"response": 100 * golden["CHAIRs_refine"], "mention": 100 * golden["CHAIRi"]}
    assert {
        "response_of_all_answers": 100 * golden["CHAIRs"],
        "recall": 100 * golden["obj_rec"],
        "scored": golden["sentence_num"],
        "answers_with_objects": golden["coco_sentence_num"],
        "objects_found": golden["coco_word_count"],
        "objects_shown": golden["gt_word_count"],
        "words_per_answer": golden["avg_word_len"],
    }.items() <= score.extra.items()


@needs_golden
@pytest.mark.parametrize("reference", [[], ["mmhal/response_template.json"]], ids=["without the questions", "with the questions"])
def test_mmhal_bench_reads_a_real_judge_s_log_as_the_reference_does(reference):
    log = GOLDEN / "mmhal/mmhal_llava_onevision_0.5b.txt"
    score = scored("mmhal_bench", log, *(GOLDEN / name for name in reference))
    rates = [f"{score.scores['score']:.2f}", f"{score.scores['hallucination'] / 100:.2f}"]
    by_type = ",".join(str(round(values["score"], 2)) for values in score.per_type.values())
    end = re.search(r"Average score: (.*)\nHallucination rate: (.*)\nAverage score for each question type: (.*)", log.read_text())
    assert [*rates, by_type] == [end[1], end[2], end[3].strip()] == ["2.08", "0.62", "2.58,1.5,2.58,1.17,2.17,2.0,2.17,2.5"]
    assert (score.extra["unparsed"], score.problems) == (0, [])


@needs_golden
def test_mm_vet_equals_the_published_total_of_three_runs():
    score = scored("mm_vet", GOLDEN / "mmvet/mmvet-grade-7b-3runs.json", GOLDEN / "mmvet")
    assert (score.scores, score.extra["totals_of_runs"], score.judge) == ({"total": 31.1, "std": 0.2}, [31.2, 30.8, 31.2], "gpt-4")
