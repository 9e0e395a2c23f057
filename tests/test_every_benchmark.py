"""What every benchmark promises, each held to it with its example (`EXAMPLES`): whoever adds one to
the registry adds its line there, and this file does the rest.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from PIL import Image
from pydantic import ValidationError

import score_answers
from lib.benchmarks.answers import Answers, to_rows
from lib.benchmarks.base import Benchmark
from lib.benchmarks.judged import JudgedBenchmark
from lib.benchmarks.language import LanguageBenchmark
from lib.benchmarks.mentions import MentionsBenchmark
from lib.benchmarks.questions import Form, PublishedQuestion, QuestionsBenchmark, prompt_of
from lib.benchmarks.questions import read_questions as read_questions_of
from lib.benchmarks.registry import BENCHMARKS, load_benchmark, names_of
from lib.benchmarks.rows import answers_from, read_json, read_rows
from lib.benchmarks.scores import Score, match
from lib.config.evaluation import QuestionBenchmark, TaskBenchmark
from lib.config.run import load_config
from lib.contents import digest_path
from lib.errors import UserError
from lib.files import write_jsonl
from lib.head import evaluation, preflight
from lib.head.plan import Plan

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
SENTENCE = "Yes, there is a circle, and I see two triangles."
JUDGE = {"base_url": "http://127.0.0.1:1/v1", "model": "judge", "api_key_variable": None}


@dataclass(frozen=True)
class Example:
    """A benchmark's files.

    files      of `demo/benchmarks/<name>` (None) or the texts of tiny ones by name
    reference  the files of it that answers are held against, each of which is read
    questions  the files of it that hold the questions; none where lmms-eval asks them
    images     its folder of images, where the questions do not hold them
    ids        of its questions, where no questions are read
    """

    reference: Sequence[str]
    questions: Sequence[str] = ()
    images: str | None = None
    files: Mapping[str, str] | None = None
    ids: Sequence[str] = ()


POPE_FILES = [f"coco_pope_{split}.json" for split in ("adversarial", "popular", "random")]
EXAMPLES = {
    "pope": Example(POPE_FILES, POPE_FILES, "images"),
    "chair": Example(["synonyms.txt", "objects.json"], ["questions.jsonl"], "images"),
    "amber": Example(
        ["data/annotations.json", "data/relation.json", "data/safe_words.txt"],
        ["data/query_all.json"],
        "images",
    ),
    "object_halbench": Example(["synonyms_refine.txt", "objects.json"], ["questions.jsonl"]),
    "mmhal_bench": Example(["response_template.json"], ["response_template.json"], "images"),
    "mm_vet": Example(
        ["mm-vet.json"],
        files={
            "mm-vet.json": json.dumps(
                {
                    f"v1_{number}": {"question": "Where?", "answer": "here", "capability": ["ocr"]}
                    for number in range(3)
                }
            )
        },
        ids=["v1_0", "v1_1", "v1_2"],
    ),
}
#: What a judge's verdict is kept as, of benchmarks that have no score without one.
VERDICTS: dict[str, dict[str, Any]] = {
    "mmhal_bench": {"judgement": "Well said. Rating: 5, informative"},
    "mm_vet": {"grades": [0.5, 0.75]},
}


class Case:
    """A benchmark with its example in a folder of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.example = EXAMPLES[name]
        self.benchmark: Benchmark[Any] = load_benchmark(name, "stand-in")

    def paths(self, names: Sequence[str]) -> list[Path]:
        return [self.folder / name for name in names]

    def reference(self) -> Any:
        return self.benchmark.read_reference(*self.paths(self.example.reference))

    def questions(self) -> list[PublishedQuestion]:
        assert isinstance(self.benchmark, QuestionsBenchmark)
        images = self.folder / self.example.images if self.example.images else None
        return read_questions_of(self.benchmark, self.paths(self.example.questions), images)

    def ids(self) -> list[str]:
        if self.example.ids:
            return list(self.example.ids)
        return [question.id for question in self.questions()]

    def write_answers(self, rows: Sequence[Mapping[str, Any]], name: str = "answers") -> Path:
        path = self.folder / f"{name}.jsonl"
        write_jsonl(path, rows)
        return path

    def rows(self) -> list[dict[str, Any]]:
        verdict = VERDICTS.get(self.name, {})
        return [{"id": name, "response": SENTENCE, **verdict} for name in self.ids()]

    def answers(self) -> Answers:
        """An answer to every question, judged where there is no score without a judge."""
        read = self.benchmark.read_answers(self.write_answers(self.rows()))
        return self.benchmark.read_free_answers(read)


@pytest.fixture
def case(request: pytest.FixtureRequest, demo_benchmarks: Path, tmp_path: Path) -> Case:
    name = request.param
    assert name in EXAMPLES, f"add the files of '{name}' to EXAMPLES"
    folder = tmp_path / name
    files = EXAMPLES[name].files
    if files is None:
        shutil.copytree(demo_benchmarks / name, folder)
    else:
        folder.mkdir()
        for file, text in files.items():
            (folder / file).write_text(text)
    return Case(name, folder)


def of(names: Sequence[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", names, indirect=True)


every = of(list(BENCHMARKS.kinds))
every_of_questions = of(names_of(QuestionsBenchmark))
every_of_mentions = of(names_of(MentionsBenchmark))


def message_of(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text, "one message is one line"
    assert len(text) > 20
    return text


# --- what is written of a benchmark


@every
def test_a_class_says_its_name_its_version_and_what_its_files_look_like(case: Case) -> None:
    benchmark = case.benchmark
    assert benchmark.name == case.name
    assert benchmark.VERSION >= 1
    assert benchmark.title
    assert re.match(r"answers: .*\nreference: ", benchmark.formats, re.DOTALL)
    assert all(len(line) <= 100 for line in benchmark.formats.splitlines())


@every
def test_scores_are_named_with_their_units_the_headline_first(case: Case) -> None:
    first, *others = case.benchmark.names.values()
    assert "(headline)" in first or "headline" in first
    assert not [text for text in others if "headline" in text]
    for text in case.benchmark.names.values():
        # A share, a range, or a sum of scores that have one.
        assert re.search(r"\bpercent\b|\b\d to \d\b|^\(100 - ", text), text


@every
def test_a_benchmark_is_asked_by_our_rule_or_has_a_task_of_lmms_eval_s(case: Case) -> None:
    assert isinstance(case.benchmark, QuestionsBenchmark) or case.benchmark.kept_tasks


# --- its questions


@every_of_questions
def test_its_own_questions_are_read_with_their_images_and_put_in_its_form(case: Case) -> None:
    assert isinstance(case.benchmark, QuestionsBenchmark)
    form = case.benchmark.form
    questions = case.questions()
    assert len(questions) > 2
    assert len({question.id for question in questions}) == len(questions)
    assert form.max_new_tokens > 0 < form.beams
    assert {question.kind for question in questions} == form.prompts.keys()
    for question in questions:
        assert question.text in prompt_of(question, form.prompts)
        image = question.embedded if question.image is None else question.image.read_bytes()
        assert image


@every_of_questions
def test_the_questions_are_those_that_the_reference_expects_answers_to(case: Case) -> None:
    score = case.benchmark.score(case.answers(), case.reference(), samples=0)
    assert (score.extra["answers"], score.extra["missing"]) == (len(case.questions()), 0)


def test_forms_of_questions_are_had_without_language_tools_and_without_models() -> None:
    """Rule answer_questions is in the models' environment, the configuration on a login node."""
    heavy = "nltk", "textblob", "spacy", "torch", "transformers", "vllm", "datasets", "pandas"
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({heavy!r}))\n"
        "from lib.benchmarks.questions import QuestionsBenchmark\n"
        "from lib.benchmarks.registry import load_questions_benchmark, names_of\n"
        "names = names_of(QuestionsBenchmark)\n"
        "print(*[load_questions_benchmark(name).form.max_new_tokens for name in names])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=SCRIPTS,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.split()) == len(names_of(QuestionsBenchmark))


# --- its scores


@every
def test_answers_to_all_questions_have_every_score_and_no_problem(case: Case) -> None:
    score = case.benchmark.score(case.answers(), case.reference(), samples=50)
    assert list(score.scores) == [name for name in case.benchmark.names if name in score.scores]
    assert score.scores.keys() == case.benchmark.names.keys()
    assert (score.benchmark, score.version) == (case.name, case.benchmark.VERSION)
    assert score.extra["answers"] == score.extra["expected"] == len(case.ids())
    assert (score.extra["missing"], score.problems) == (0, [])
    headline = next(iter(case.benchmark.names))
    low, high = score.intervals[headline]
    assert low <= high
    assert score.parser
    assert bool(score.language_tools) == isinstance(case.benchmark, LanguageBenchmark)


@every
def test_a_score_depends_neither_on_the_order_of_answers_nor_on_the_run(case: Case) -> None:
    reference = case.reference()
    first = case.benchmark.score(case.answers(), reference, samples=20)
    backwards = replace(case.answers(), rows=case.answers().rows[::-1])
    assert case.benchmark.score(case.answers(), reference, samples=20) == first
    assert case.benchmark.score(backwards, reference, samples=0).scores == first.scores


@every
def test_answers_are_read_back_as_they_were_scored(case: Case) -> None:
    reference = case.reference()
    answers = case.answers()
    again = case.benchmark.read_answers(case.write_answers(to_rows(answers), "again"))
    score = case.benchmark.score(answers, reference, samples=0)
    assert case.benchmark.score(again, reference, samples=0).scores == score.scores


@every
def test_a_missing_answer_is_told_and_the_others_are_scored(case: Case) -> None:
    answers = case.answers()
    fewer = replace(answers, rows=answers.rows[1:])
    score = case.benchmark.score(fewer, case.reference(), samples=0)
    assert score.extra["missing"] == 1
    assert any(answers.rows[0].id in str(problem) for problem in score.problems)
    assert score.scores


@every_of_mentions
def test_the_mentions_are_those_that_the_score_counts(case: Case) -> None:
    assert isinstance(case.benchmark, MentionsBenchmark)
    answers, reference = case.answers(), case.reference()
    mentions = case.benchmark.mentions(answers, reference).values()
    extra = case.benchmark.score(answers, reference, samples=0).extra
    assert sum(len(one.each) for one in mentions) == extra["mentions"] > 0
    assert sum(one.hallucinated for one in mentions) == extra["hallucinated_mentions"]


#: What each question's score adds up to, as a share of the questions, beside a score of all.
SUMS = {
    "pope": ("accuracy", 100),
    "mmhal_bench": ("score", 1),
    "mm_vet": ("total", 100),
}


@every
def test_each_answer_has_a_score_of_its_own_with_the_line_that_it_stands_in(case: Case) -> None:
    answers, reference = case.answers(), case.reference()
    found = case.benchmark.by_question(answers, reference)
    assert found
    assert len({each["id"] for each in found}) == len(found)
    rows = case.rows()
    assert all(rows[each["line"] - 1]["id"] == each["id"] for each in found)
    if case.name in SUMS:
        name, factor = SUMS[case.name]
        mean = factor * sum(each["score"] for each in found) / len(found)
        score = case.benchmark.score(answers, reference, samples=0)
        assert mean == pytest.approx(score.scores[name], abs=0.05)


# --- its judge


@every
def test_who_needs_a_judge_has_no_score_without_one_and_says_so(case: Case) -> None:
    bare = [{"id": name, "response": SENTENCE} for name in case.ids()]
    answers = case.benchmark.read_answers(case.write_answers(bare))
    answers = case.benchmark.read_free_answers(answers)
    if isinstance(case.benchmark, JudgedBenchmark) and case.benchmark.needs_judge:
        with pytest.raises(UserError) as error:
            case.benchmark.score(answers, case.reference())
        assert "judge" in message_of(error)
    else:
        assert case.benchmark.score(answers, case.reference(), samples=0).judge is None


@every_of_questions
def test_the_configuration_takes_a_judge_just_where_one_is_asked(case: Case) -> None:
    values = {
        "scorer": case.name,
        "questions": [str(path) for path in case.paths(case.example.questions)],
        "reference": str(case.folder),
        "judge": JUDGE,
    }
    if isinstance(case.benchmark, JudgedBenchmark):
        assert QuestionBenchmark.model_validate(values).judge is not None
    else:
        with pytest.raises(ValidationError, match=f"scorer '{case.name}' asks none"):
            QuestionBenchmark.model_validate(values)


# --- wrong and incomplete files


@every
@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": 1}\n', '{"id": "of another one"}\n'])
def test_a_wrong_file_of_answers_is_one_message(case: Case, content: str) -> None:
    path = case.folder / "wrong"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        case.benchmark.read_answers(path)
    assert str(path) in message_of(error)


@every
def test_answers_of_another_benchmark_are_one_message(case: Case) -> None:
    rows = [{"id": f"other-{number}", "response": SENTENCE} for number in range(3)]
    answers = case.benchmark.read_answers(case.write_answers(rows))
    with pytest.raises(UserError, match="3 of its 3 ids are not in the reference") as error:
        case.benchmark.score(answers, case.reference())
    assert case.benchmark.title in message_of(error)


@every
def test_a_reference_that_is_not_there_or_is_damaged_is_one_message(case: Case) -> None:
    with pytest.raises(UserError) as error:
        case.benchmark.read_reference(case.folder / "nowhere")
    message_of(error)
    for path in case.paths(case.example.reference):
        whole = path.read_bytes()
        for damaged in (b"", b"\xff\xfe", whole[: len(whole) // 2] + b"\x00{"):
            path.write_bytes(damaged)
            if path.suffix == ".txt" and damaged.startswith(whole[:5]):
                continue  # half of a list of words is a list of words
            with pytest.raises(UserError) as error:
                case.reference()
            assert path.name in message_of(error)
        path.write_bytes(whole)
    case.reference()


@every_of_questions
def test_questions_without_an_image_or_an_end_are_one_message_with_the_line(case: Case) -> None:
    path = case.paths(case.example.questions)[0]
    whole = path.read_text()
    path.write_text(whole.rstrip()[:-3])
    with pytest.raises(UserError) as error:
        case.questions()
    assert re.match(rf"{re.escape(str(path))}, line \d+: ", message_of(error))
    path.write_text(whole)
    if case.example.images:
        images = case.folder / case.example.images
        shutil.rmtree(images)
        images.mkdir()
        with pytest.raises(UserError) as error:
            case.questions()
        assert re.match(rf"{re.escape(str(path))}, line \d+: ", message_of(error))


# --- the configuration's `scorer`


def test_an_unknown_scorer_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    values = {"scorer": "ambr", "questions": str(tmp_path / "file"), "reference": str(tmp_path)}
    with pytest.raises(ValidationError, match=r"there is no scorer 'ambr'\. Did you mean 'amber'"):
        QuestionBenchmark.model_validate(values)


def test_a_scorer_of_lmms_eval_s_answers_alone_has_no_questions(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    values = {"scorer": "mm_vet", "questions": str(tmp_path / "file"), "reference": str(tmp_path)}
    with pytest.raises(ValidationError, match=r"'mm_vet' has no questions .* pope, chair, amber"):
        QuestionBenchmark.model_validate(values)


def test_a_task_takes_only_a_scorer_of_its_own_answers() -> None:
    values = {"metrics": {"score": "x"}}
    with pytest.raises(ValidationError, match="'mm_vet' scores answers of task 'mmvet', not of"):
        TaskBenchmark.model_validate(values | {"task": "mme", "scorer": "mm_vet"})
    with pytest.raises(ValidationError, match="'chair' scores no answers of lmms-eval"):
        TaskBenchmark.model_validate(values | {"task": "mme", "scorer": "chair"})


class Twins(QuestionsBenchmark[dict[str, str]]):
    """Somebody's own benchmark: a name is right or wrong."""

    VERSION: ClassVar[int] = 3
    name = "twins"
    title = "Twins"
    names: ClassVar[dict[str, str]] = {"right": "answers that are the name, percent (headline)"}
    formats = "answers: lines\nreference: {id: name}"
    form = Form({"": "{question} Say a name."}, max_new_tokens=8)

    def read_answers(self, path: Path) -> Answers:
        return answers_from(path, read_rows(path), ("id",))

    def read_reference(self, *paths: Path) -> dict[str, str]:
        return dict(read_json(paths[0]))

    def score(
        self, answers: Answers, reference: dict[str, str], *, samples: int = 1000, seed: int = 0
    ) -> Score:
        matched, problems, counts = match(answers, list(reference), self.title)
        right = [reference[name] == answer.text for name, answer in matched.items()]
        scores = {"right": 100 * sum(right) / len(right)}
        return Score(self.name, scores, counts, {}, {}, problems, "as it is", self.VERSION)


def change_bytes(path: Path) -> None:
    """Another content of the same length, and an older time, as `mv` and `rsync -t` leave it."""
    status = path.stat()
    path.write_bytes(bytes(path.read_bytes()[::-1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 10**12))


@pytest.mark.parametrize(
    ("changed", "seen_in"),
    [
        ("truths/more/truths.json", "reference_contents"),
        ("questions.jsonl", "question_contents"),
        ("images/asked.png", "question_contents"),
        ("images/not asked.png", None),
    ],
)
def test_a_benchmark_s_files_count_by_their_content_whatever_their_times_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str, seen_in: str | None
) -> None:
    """Snakemake is told it as a parameter of the rules that read them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for name in ("asked", "not asked"):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/truths.json").write_text('{"1": "yes"}')
    (tmp_path / "truths").mkdir()
    (tmp_path / "truths/more").symlink_to(tmp_path / "elsewhere")
    question = {"question_id": 1, "text": "Is there a cat?", "image": "asked.png"}
    write_jsonl(Path("questions.jsonl"), [question])
    block = {
        "scorer": "pope",
        "questions": "questions.jsonl",
        "images": "images",
        "reference": "truths",
    }

    def found() -> dict[str, Any]:
        """As another process would find it."""
        digest_path.cache_clear()
        evaluation._asked_images.cache_clear()
        plan = Plan(load_config({"evaluation": {"benchmarks": {"mine": block}}}, []))
        return {
            "question_contents": evaluation.question_contents(plan, "mine"),
            "reference_contents": evaluation.reference_contents(plan, "mine"),
            "local_contents": evaluation.local_contents(plan),
        }

    before = found()
    change_bytes(tmp_path / changed)
    differing = {name for name, contents in found().items() if contents != before[name]}
    expected = {None: set(), "reference_contents": {"reference_contents"}}
    assert differing == expected.get(seen_in, {"question_contents", "local_contents"})


def test_a_benchmark_of_one_s_own_is_one_class_and_one_line_of_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule_object: Callable[..., SimpleNamespace]
) -> None:
    monkeypatch.setitem(BENCHMARKS.kinds, "twins", "test_every_benchmark:Twins")
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("ann.png")
    write_jsonl(Path("questions.jsonl"), [{"id": 1, "text": "Who is this?", "image": "ann.png"}])
    Path("names.json").write_text('{"1": "Ann"}')
    block = {
        "scorer": "twins",
        "questions": "questions.jsonl",
        "images": str(tmp_path),
        "reference": "names.json",
    }
    plan = Plan(load_config({"evaluation": {"benchmarks": {"twins": block}}}, []))
    twins = evaluation.question_sets(plan)["twins"]
    assert preflight.problem_with_benchmark("twins", twins) == []
    asked = evaluation.question_job(plan, "twins")
    assert (asked.prompt, asked.max_new_tokens) == ({"": "{question} Say a name."}, 8)
    assert evaluation.made_by_scorer(plan, "twins") == {"version": 3}

    write_jsonl(Path("answers.jsonl"), [{"id": "1", "question": "Who?", "response": "Ann"}])
    about: dict[str, Any] = dict.fromkeys(("model", "benchmark", "model_identity", "limit"), "x")
    about |= {"questions": 1, "questions_in_data": 1, "environment": {}}
    Path("asked.json").write_text(json.dumps(about))
    score_answers.main(
        rule_object(
            "score_answers",
            {"model": "base", "benchmark": "twins"},
            SimpleNamespace(answers="answers.jsonl", asked="asked.json"),
            SimpleNamespace(
                scores="scores.json", scored="scored.jsonl", by_question="by_question.jsonl"
            ),
            settings=plan.params(evaluation.score_answers_job(plan, "twins")),
        )
    )
    scores = json.loads(Path("scores.json").read_text())
    assert scores["scores"] == {"right": 100}
    assert scores["computed_by"]["scorer"].endswith("test_every_benchmark.py, version 3")
