"""The command that scores files of one's own: what it prints, and one clear message for every
mistake.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lib.endpoint
import score
from chat_server import ChatServer, closed_port, error
from lib.benchmarks.language import LanguageBenchmark
from lib.benchmarks.registry import BENCHMARKS, load_benchmark

SCRIPT = Path(score.__file__)


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


LABELS = lines(
    *(
        {
            "question_id": n,
            "image": f"{n % 2}.jpg",
            "text": "Is there?",
            "label": ["no", "yes"][n % 2],
        }
        for n in range(1, 5)
    )
)
ANSWERS = lines(*({"id": f"popular/{n}", "response": ["No", "Yes"][n % 2]} for n in range(1, 5)))
FILES = {
    "labels/coco_pope_popular.json": LABELS,
    "good.jsonl": ANSWERS,
    "amber/annotations.json": json.dumps(
        [
            {"id": 1, "type": "generative", "truth": ["dog"], "hallu": ["cat"]},
            {"id": 2, "type": "discriminative-relation", "truth": "no"},
        ]
    ),
    "amber/relation.json": json.dumps({"dog": ["puppy"], "cat": []}),
    "amber/safe_words.txt": "sign\n",
    "objects/vocab.json": json.dumps(
        {
            "inverse_synonym_dict": {"dog": "dog", "cat": "cat"},
            "double_word_dict": {"hot dog": "hot dog"},
        }
    ),
    "objects/objects.json": json.dumps({"1": ["dog"], "2": ["cat"]}),
    "mm-vet.json": json.dumps({"v1_0": {"question": "Q?", "answer": "A", "capability": ["ocr"]}}),
    "mmhal.json": json.dumps(
        [{"question": "Q?", "gt_answer": "A", "image_content": ["Dog"], "question_type": "other"}]
    ),
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lib.endpoint, "FIRST_WAIT", 0.01)
    return tmp_path


def run(capsys, command):
    """Exit code, standard output and standard error of the command."""
    code: str | int | None
    try:
        code = score.main(command.split())
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


POPE = "pope --answers {} --reference labels"

# --------------------------------------------------------------------------------------------------


def sample(number, response, target, metric, **told):
    """A line of lmms-eval's samples, as version 0.7 writes it."""
    return {
        "doc_id": number,
        "target": target,
        "filtered_resps": response,
        "token_counts": [{"output_tokens": 2}],
        "doc_hash": "74234e98",
        metric: told,
        "input": "Is there?",
    }


def test_lmms_eval_s_own_samples_of_pope_are_scored_by_splits_as_their_own_reference(files, capsys):
    """The data number each split's questions from 1; lmms-eval does not say which split it is."""
    said = [("1", "Yes", "yes"), ("2", "No, none.", "no"), ("1", "yes", "yes"), ("2", "Yes", "no")]
    (files / "samples.jsonl").write_text(
        lines(
            *(
                sample(number, response, target, "pope_accuracy", question_id=name, score=1.0)
                for number, (name, response, target) in enumerate(said)
            )
        )
    )
    code, out, err = run(
        capsys, "pope --answers samples.jsonl --reference samples.jsonl --json --samples 0"
    )
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert {split: each["f1"] for split, each in found["per_type"].items()} == {
        "1": 100.0,
        "2": pytest.approx(200 / 3),
    }
    assert found["scores"]["f1"] == pytest.approx((100 + 200 / 3) / 2)
    code, _, err = run(capsys, "pope --answers samples.jsonl")
    assert (code, "lmms-eval's samples hold their own" in err) == (1, True)


def test_samples_of_older_versions_with_their_documents_are_read(files, capsys):
    """Before `doc` was left out, and with each response in lists."""
    (files / "samples.jsonl").write_text(
        lines(
            *(
                {
                    "doc_id": number,
                    "doc": {"question_id": "1", "category": split, "answer": "yes"},
                    "target": "yes",
                    "arguments": ["Is there?"],
                    "resps": [["Yes"]],
                    "filtered_resps": ["yes"],
                }
                for number, split in enumerate(("popular", "random"))
            )
        )
    )
    code, out, _ = run(capsys, "pope --answers samples.jsonl --reference samples.jsonl --json")
    assert (code, set(json.loads(out)["per_type"])) == (0, {"popular", "random"})


def test_scores_of_stand_in_language_tools_are_marked_as_not_comparable(files, capsys):
    (files / "captions.jsonl").write_text(lines({"id": 1, "response": "a dog"}))
    code, out, _ = run(
        capsys, "chair --answers captions.jsonl --reference objects --language stand-in"
    )
    assert code == 0
    assert "not comparable with published scores" in " ".join(out.replace("│", " ").split())
    assert "stand-in language tools (tokenizer)" in out


def test_lmms_eval_s_own_samples_of_captions_are_scored_by_their_image(files, capsys):
    told = {"answer": ["dog"], "pred": ["cat"], "image_id": 2}
    (files / "samples.jsonl").write_text(
        lines(sample(0, "a dog and a cat", "['cat']", "coco_cap_chair_i", **told))
    )
    code, out, _ = run(capsys, "chair --answers samples.jsonl --reference objects --json")
    assert (code, json.loads(out)["scores"]["chair_i"]) == (0, 50.0)


def test_lmms_eval_s_own_samples_of_mm_vet_are_graded_by_our_judge(files):
    told = {
        "question_id": "v1_0",
        "question": "Q?",
        "gt_answer": "A",
        "capabilities": "ocr,math",
        "score": 0.3,
        "eval_model": "gpt-4o",
    }
    (files / "samples.jsonl").write_text(lines(sample(0, "B", "A", "gpt_eval_score", **told)))
    benchmark = load_benchmark("mm_vet")
    reference = benchmark.read_reference(files / "samples.jsonl")
    [answer] = benchmark.read_answers(files / "samples.jsonl").rows
    assert (answer.id, answer.text, "grades" in answer.details) == ("v1_0", "B", False)
    question = reference["v1_0"]
    assert (question.question, question.answer, question.capabilities) == (
        "Q?",
        "A",
        ("math", "ocr"),
    )


def test_samples_that_do_not_say_which_question_they_answer_are_refused(files, capsys):
    """lmms-eval's `amber_g` numbers its own rows only."""
    (files / "samples.jsonl").write_text(lines(sample(1, "a dog", "[]", "amber_chair", chair=0)))
    code, out, err = run(capsys, "amber --answers samples.jsonl --reference amber")
    assert (code, out) == (1, "")
    assert "it has no id" in err


def test_it_prints_a_table_for_people(files, capsys):
    code, out, err = run(capsys, POPE.format("good.jsonl"))
    assert (code, err) == (0, "")
    assert re.search(r"f1 +│ +100\.00", out)
    for name in ("unparsed", "popular", "accuracy", "precision", "recall", "yes_ratio"):
        assert re.search(rf"\b{name}\b", out)
    assert "…" not in out


def test_it_prints_json_that_holds_the_whole_score(files, capsys):
    code, out, _ = run(capsys, POPE.format("good.jsonl") + " --json --samples 10")
    found = json.loads(out)
    assert (code, found["scores"]["f1"], found["benchmark"]) == (0, 100.0, "pope")
    fields = {
        "scores",
        "extra",
        "per_type",
        "intervals",
        "problems",
        "parser",
        "version",
        "language_tools",
        "judge",
    }
    assert fields <= found.keys()
    assert found["intervals"]["f1"] == [100.0, 100.0]


def test_it_runs_as_people_type_it(files):
    done = subprocess.run(
        [sys.executable, SCRIPT, *POPE.format("good.jsonl").split()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "POPE" in done.stdout


def test_help_explains_the_formats_of_every_benchmark(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for scorer in map(load_benchmark, BENCHMARKS.kinds):
        assert scorer.title in out
        for line in scorer.formats.splitlines():
            assert line in out


def test_bad_rows_are_listed_with_their_lines_and_the_others_are_scored(files, capsys):
    (files / "some.jsonl").write_text(
        lines(
            {"id": "popular/1", "response": "Yes"},
            {"id": "popular/1", "response": "No"},
            {"response": "Yes"},
            {"id": "popular/2", "response": 5},
            {"id": "popular/2"},
            ["popular/2", "No"],
            {"id": ["popular/2"], "response": "No"},
            {"id": "popular/9", "response": "No"},
            {"id": "popular/3", "response": ""},
        )
    )
    code, out, err = run(capsys, POPE.format("some.jsonl") + " --json")
    found = json.loads(out)
    assert (code, found["extra"]["answers"], found["extra"]["missing"]) == (0, 2, 2)
    assert "9 problem(s)" in err
    told = {(problem["line"], problem["what"]) for problem in found["problems"]}
    for line, what in [
        (2, "id 'popular/1' again: line 1 has it already, and that one is scored"),
        (3, "it has no id ('id' or 'question_id'); not scored"),
        (4, "the answer of id 'popular/2' is a number, not text; not scored"),
        (
            5,
            (
                "id 'popular/2' has no answer ('response' or 'text' or 'answer' or 'caption' or"
                " 'model_answer'); not scored"
            ),
        ),
        (6, "the row is an array, not an object; not scored"),
        (7, "its 'id' is an array, not an id; not scored"),
        (8, "id 'popular/9' is not in the reference; not scored"),
        (9, "the answer of id 'popular/3' is empty; scored as the reference scores it"),
        (None, "2 of 4 ids have no answer and are left out: popular/2, popular/4"),
    ]:
        assert (line, what) in told
    assert len(told) == 9


def test_strict_makes_bad_rows_a_failure(files, capsys):
    (files / "some.jsonl").write_text(ANSWERS + lines({"id": "popular/1", "response": "No"}))
    assert run(capsys, POPE.format("some.jsonl"))[0] == 0
    code, out, err = run(capsys, POPE.format("some.jsonl") + " --strict")
    assert code == 1
    assert "100.00" in out
    assert "some.jsonl, line 5: id 'popular/1' again" in err


@pytest.mark.parametrize(
    "content",
    [
        json.dumps([json.loads(line) for line in ANSWERS.splitlines()]),
        json.dumps([json.loads(line) for line in ANSWERS.splitlines()], indent=1),
        "\n\n".join(json.dumps(json.loads(line), indent=2) for line in ANSWERS.splitlines()),
        "\ufeff" + ANSWERS.replace("\n", "\r\n"),
    ],
    ids=[
        "array",
        "indented array",
        "indented objects one after the other",
        "Windows lines with a mark",
    ],
)
def test_arrays_lines_and_indented_objects_are_all_read(files, capsys, content):
    (files / "some.json").write_text(content, encoding="utf-8")
    code, out, err = run(capsys, POPE.format("some.json") + " --json")
    assert (code, json.loads(out)["scores"]["f1"], err) == (0, 100.0, "")


def test_the_line_of_a_bad_row_is_right_in_an_indented_array_too(files, capsys):
    rows = [json.loads(line) for line in ANSWERS.splitlines()]
    rows[2]["response"] = None
    (files / "some.json").write_text(json.dumps(rows, indent=1))
    _, out, _ = run(capsys, POPE.format("some.json") + " --json")
    line = json.loads(out)["problems"][0]["line"]
    assert (files / "some.json").read_text().splitlines()[line - 1 : line + 1] == [
        " {",
        '  "id": "popular/3",',
    ]


def test_a_bad_row_of_an_array_on_one_line_is_told_by_its_place(files, capsys):
    rows = [json.loads(line) for line in ANSWERS.splitlines()]
    rows[2]["response"] = None
    (files / "some.json").write_text(json.dumps(rows))
    code, _, err = run(capsys, POPE.format("some.json"))
    assert code == 0
    assert (
        "some.json, line 1: row 3: the answer of id 'popular/3' is null, not text; not scored"
        in err
    )


def test_what_files_hold_is_printed_as_data(files, capsys):
    name = "popular/[bold red]\x1b[31m\ud800"
    (files / "some.jsonl").write_text(ANSWERS + lines({"id": name, "response": "No"}))
    code, out, err = run(capsys, POPE.format("some.jsonl"))
    assert code == 0
    assert "[bold red]\\x1b[31m\\ud800" in err
    assert "\x1b[31m" not in out + err


# --------------------------------------------------------------------------------------------------

BAD_FILES = {
    "truncated line": (
        POPE,
        ANSWERS[:-20],
        r"some, line 4: not valid JSON \(the file ends in the middle of a value\)",
    ),
    "truncated array": (
        POPE,
        json.dumps([{"id": 1}, {"id": 2}])[:-1],
        r"some, line 1: not valid JSON \(the file ends too early\)",
    ),
    "no comma in an array": (
        POPE,
        '[{"id": 1} {"id": 2}]',
        r"not valid JSON \('\{' instead of a comma\)",
    ),
    "not JSON": (POPE, "id,answer\n1,yes\n", r"some, line 1: not valid JSON \(Expecting value\)"),
    "two arrays in one file": (POPE, "[1]\n[2]\n", r"some, line 2: more text after the end"),
    "not a number": (
        POPE,
        '{"id": "popular/1", "response": NaN}',
        r"some, line 1: not valid JSON \(NaN is no JSON number\)",
    ),
    "empty": (POPE, "", r"some: the file is empty"),
    "nothing but blanks": (POPE, " \n\n", r"some: the file is empty"),
    "an empty array": (POPE, "[]", r"some: the file holds no rows"),
    "not Unicode": (
        POPE,
        b'{"id": "popular/1",\n"response": "\xff"}',
        r"some, line 2: not UTF-8 text \(byte 0xff\)",
    ),
    "no ids at all": (
        POPE,
        lines({"response": "Yes"}),
        r"line 1: it has no id \('id' or 'question_id'\); not scored \(and so with all",
    ),
    "answers that are no text": (
        POPE,
        lines({"id": "popular/1", "response": 1}),
        r"is a number, not text; not scored \(and so with all",
    ),
    "ids of another benchmark": (
        POPE,
        lines({"id": "v1_0", "response": "No"}),
        r"1 of its 1 ids are not in the reference .*answers to POPE",
    ),
    "the questions for the answers": (
        POPE,
        LABELS,
        r"every row is a question \(the first: 'Is there\?'\)",
    ),
    "an answer with two texts": (
        POPE,
        ANSWERS.splitlines()[0] + '\n{"id": "popular/2", "response": "No", "response": "Yes"}',
        r"some, line 2: not valid JSON \(the key 'response' stands twice in one object; delete",
    ),
    "a key that is the same but for its escapes": (
        POPE,
        '[{"id": "popular/1", "response": "No"}, {"id": 2, "respons\\u0065": "", "response": ""}]',
        r"some, line 1: not valid JSON \(the key 'response' stands twice",
    ),
    "equal keys deep inside": (
        "mm_vet --answers {}",
        '{"v1_0": {"model": ["m"], "score": [0.5], "content": [{"a": 1, "a": 2}]}}',
        r"the key 'a' stands twice in one object",
    ),
    "nested without end": (POPE, "[" * 100_000, r"some, line 1: not valid JSON"),
    "AMBER's annotations for answers": (
        "amber --answers {} --reference amber",
        FILES["amber/annotations.json"],
        r"id '1' has no answer",
    ),
    "POPE's answers for AMBER": (
        "amber --answers {} --reference amber",
        ANSWERS,
        r"4 of its 4 ids are not in the reference",
    ),
    "MM-Vet as a list": (
        "mm_vet --answers {}",
        "[1]",
        r"line 1: the row is a number, not an object",
    ),
    "MM-Vet without grades": ("mm_vet --answers {}", '{"v1_0": "x"}', r"no grades.*--judge-url"),
    "MM-Vet's members that are neither": (
        "mm_vet --answers {}",
        '{"v1_0": 3}',
        r"neither text nor grades; not scored \(and so with all rows\)",
    ),
    "MMHal-Bench without judgements": (
        "mmhal_bench --answers {}",
        lines({"id": 0, "response": "x"}),
        r"no judgements.*--judge-url",
    ),
    "a log that is none": (
        "mmhal_bench --answers {}",
        "Dear diary\n",
        r"neither JSON nor a judge's log of MMHal-Bench",
    ),
}


@pytest.mark.parametrize(
    ("file", "old", "new", "command", "message"),
    [
        (
            "labels/coco_pope_popular.json",
            '"label": "yes"',
            '"label": "yes", "label": "no"',
            POPE.format("good.jsonl"),
            r"coco_pope_popular\.json, line 1: .*the key 'label' stands twice",
        ),
        (
            "amber/relation.json",
            '"cat": []',
            '"cat": [], "dog": []',
            "amber --answers good.jsonl --reference amber",
            r"relation\.json, line 1: .*the key 'dog' stands twice",
        ),
        (
            "amber/annotations.json",
            '"id": 2',
            '"id": 1',
            "amber --answers good.jsonl --reference amber",
            r"annotations\.json, line 1: id '1' again",
        ),
        (
            "objects/objects.json",
            '"2"',
            '"1"',
            "chair --answers good.jsonl --reference objects",
            r"objects\.json, line 1: .*the key '1' stands twice",
        ),
        (
            "objects/objects.json",
            '"2"',
            '"COCO_val2014_000000000001.jpg"',
            "chair --answers good.jsonl --reference objects",
            r"objects\.json: image 'COCO_val2014_000000000001\.jpg' again \(1\)",
        ),
        (
            "mm-vet.json",
            "}}",
            '}, "v1_0": {"question": "?", "answer": "B", "capability": []}}',
            "mm_vet --answers good.jsonl --reference mm-vet.json",
            r"mm-vet\.json, line 1: .*the key 'v1_0' stands twice",
        ),
    ],
)
def test_what_a_reference_says_twice_is_told_and_never_the_last_taken(
    files, capsys, file, old, new, command, message
):
    text = (files / file).read_text()
    assert old in text
    (files / file).write_text(text.replace(old, new, 1))
    code, out, err = run(capsys, command)
    assert (code, out) == (1, "")
    assert re.search(message, err), err


def test_a_parameter_of_the_judge_that_stands_twice_is_told(files, capsys):
    command = "mmhal_bench --answers good.jsonl --judge-url http://localhost:1/v1 --judge-model m"
    code, _, err = run(capsys, command + ' --judge-parameters {"seed":1,"seed":2}')
    assert code == 1
    assert "--judge-parameters: not valid JSON (the key 'seed' stands twice in one object" in err


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_of_answers_ends_with_one_message(files, capsys, case):
    command, content, message = BAD_FILES[case]
    (files / "some").write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = run(capsys, command.format("some"))
    assert (code, out) == (1, "")
    assert re.search(message, err), err
    assert len(err.splitlines()) == 1


JUDGED = "mm_vet --answers good.jsonl --judge-url http://h/v1 --judge-model m"
BAD_COMMANDS = {
    "no such answers": (
        POPE.format("nowhere.jsonl"),
        r"nowhere\.jsonl: cannot be read \(No such file or directory\)",
    ),
    "a folder for answers": (POPE.format("labels"), r"labels: cannot be read \(Is a directory\)"),
    "no reference": ("pope --answers good.jsonl", r"POPE needs its labels"),
    "no such reference": (
        "pope --answers good.jsonl --reference nowhere",
        r"nowhere: cannot be read",
    ),
    "a folder without labels": (
        "pope --answers good.jsonl --reference amber",
        r"amber: holds no coco_pope_\*\.json",
    ),
    "labels missing": (
        "pope --answers good.jsonl --reference good.jsonl",
        r"good\.jsonl, line 1: no label that is yes or no \(None\)",
    ),
    "AMBER's folder without its files": (
        "amber --answers good.jsonl --reference labels",
        r"AMBER's annotations\.json is missing",
    ),
    "annotations of another kind": (
        "amber --answers good.jsonl --reference strange",
        r"annotations\.json, line 1: no annotation of AMBER",
    ),
    "CHAIR without a vocabulary": (
        "chair --answers good.jsonl --reference objects/objects.json",
        r"CHAIR needs its synonym vocabulary",
    ),
    "CHAIR without objects": (
        "chair --answers good.jsonl --reference objects/vocab.json",
        r"CHAIR needs its objects of the images",
    ),
    "a vocabulary of another kind": (
        "chair --answers good.jsonl --reference strange",
        r"vocab\.json: no vocabulary",
    ),
    "questions of another kind": (
        "mm_vet --answers good.jsonl --reference amber/relation.json",
        r"no question of MM-Vet",
    ),
    "an unknown benchmark": ("popo --answers good.jsonl", r"invalid choice: 'popo'"),
    "no answers named": ("pope", r"--answers"),
    "a judge where none is needed": (
        POPE.format("good.jsonl") + " --judge-url http://h/v1 --judge-model m",
        r"POPE needs no judge",
    ),
    "half a judge": (
        "mm_vet --answers good.jsonl --judge-model m",
        r"give both, --judge-url and --judge-model",
    ),
    "an address that is none": (
        "mm_vet --answers good.jsonl --judge-url h --judge-model m",
        r"--judge-url: String should match",
    ),
    "parameters that are no JSON": (
        JUDGED + " --judge-parameters {max_tokens}",
        r"--judge-parameters: not valid JSON",
    ),
    "parameters that are no object": (
        JUDGED + " --judge-parameters 5",
        r"--judge-parameters: Input should be a valid dictionary",
    ),
    "a password in an address": (
        "mm_vet --answers good.jsonl --judge-url http://a:b@h --judge-model m",
        r"holds a name or password",
    ),
    "language tools where none are used": (
        POPE.format("good.jsonl") + " --language exact",
        r"POPE uses no language tools",
    ),
    "a negative number of samples": (
        POPE.format("good.jsonl") + " --samples -1",
        r"--samples and --seed are 0 or more",
    ),
}


@pytest.mark.parametrize("case", BAD_COMMANDS)
def test_a_bad_command_ends_with_one_message(files, capsys, case):
    command, message = BAD_COMMANDS[case]
    (files / "strange").mkdir()
    for name in ("annotations.json", "relation.json", "vocab.json", "objects.json"):
        (files / "strange" / name).write_text("{}")
    (files / "strange/safe_words.txt").write_text("sign\n")
    code, out, err = run(capsys, command)
    assert (code, out) == (1, "")
    assert re.search(message, err), err
    assert "Traceback" not in err


texts = st.sampled_from(
    ["", "Yes", "No.", "a dog", "Rating: 3", "\ud800", "v1_0", "1", "popular/1", "0.5"]
)
scalars = st.none() | st.booleans() | st.integers(-2, 10**20) | st.floats(allow_nan=False) | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(
    [
        "id",
        "question_id",
        "image_id",
        "response",
        "text",
        "model_answer",
        "objects",
        "judgement",
        "grades",
        "score",
        "model",
        "choices",
        "label",
        "target",
        "category",
        "reason",
        "judge",
        "v1_0",
        "v1_1",
        "type",
        "truth",
        "hallu",
        "question",
        "answer",
        "capability",
        "doc_id",
        "filtered_resps",
        "resps",
        "gpt_eval_score",
    ]
)
documents = st.lists(
    st.dictionaries(keys, values, max_size=5) | values, max_size=4
) | st.dictionaries(keys, values, max_size=4)
REFERENCES = {
    "pope": "labels",
    "chair": "objects",
    "amber": "amber",
    "object_halbench": "objects objects/synonyms.txt",
    "mmhal_bench": "mmhal.json",
    "mm_vet": "mm-vet.json",
}


@pytest.mark.parametrize("benchmark", REFERENCES)
@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(document=documents, as_lines=st.booleans(), also_the_reference=st.booleans())
def test_whatever_json_a_file_holds_it_ends_with_a_score_or_one_message(
    files, capsys, benchmark, document, as_lines, also_the_reference
):
    (files / "objects/synonyms.txt").write_text("dog\ncat\n")
    rows = document if isinstance(document, list) else [document]
    (files / "some.json").write_text(
        "\n".join(map(json.dumps, rows)) if as_lines else json.dumps(document)
    )
    reference = "some.json" if also_the_reference else REFERENCES[benchmark]
    language = (
        " --language exact" if isinstance(load_benchmark(benchmark), LanguageBenchmark) else ""
    )
    code, out, err = run(
        capsys,
        f"{benchmark} --answers some.json --reference {reference} --json --samples 5{language}",
    )
    assert code in (0, 1)
    if out:
        json.loads(out)
    else:
        assert re.fullmatch(r"score\.py: [^\n]+\n", err)


# --------------------------------------------------------------------------------------------------


@pytest.fixture
def judge():
    server = ChatServer(
        lambda body: "0.5",
        model="judge",
        version="judge-2026-01-01",
        retries=0,
        api_key_variable=None,
    )
    yield server
    server.close()


def judged(server, more=""):
    return (
        f"mm_vet --answers vet.json --reference mm-vet.json --judge-url {server.url} --judge-model"
        f" judge --judge-runs 2 --json {more}"
    )


def test_a_judge_is_asked_once_and_named(files, capsys, judge):
    (files / "vet.json").write_text('{"v1_0": "an answer"}')
    for asked in (2, 0):
        code, out, err = run(capsys, judged(judge))
        assert (code, json.loads(out)["scores"]["total"], json.loads(out)["judge"]) == (
            0,
            50.0,
            "judge (answered as judge-2026-01-01)",
        )
        assert f"{asked} asked, {2 - asked} from vet.json.judge.jsonl" in err
    assert len(judge.bodies()) == 2


def test_judged_answers_are_written_on_demand_and_can_be_scored_alone(files, capsys, judge):
    (files / "vet.json").write_text('{"v1_0": "an answer"}')
    run(capsys, judged(judge, "--judged kept.jsonl"))
    code, out, _ = run(capsys, "mm_vet --answers kept.jsonl --json")
    assert (code, json.loads(out)["scores"]["total"], json.loads(out)["judge"]) == (
        0,
        50.0,
        "judge (answered as judge-2026-01-01)",
    )


def test_a_judge_that_answers_nonsense_leaves_no_score_and_says_why(files, capsys, judge):
    judge.reply = lambda body: "quite good"
    (files / "vet.json").write_text('{"v1_0": "an answer"}')
    code, out, _ = run(capsys, judged(judge))
    found = json.loads(out)
    assert (code, found["scores"], found["extra"]["graded"]) == (1, {}, 0)
    assert (
        "id 'v1_0' has no grades (the judge's reply is unusable: no grade of 0 to 1: 'quite good')"
        in found["problems"][0]["what"]
    )


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (error(401, "who are you"), r"refuses the key"),
        (error(404, "no such model"), r"knows no model 'judge'"),
    ],
)
def test_a_judge_that_cannot_be_used_ends_with_one_message(files, capsys, judge, reply, message):
    judge.reply = lambda body: reply
    (files / "vet.json").write_text('{"v1_0": "an answer"}')
    code, out, err = run(capsys, judged(judge))
    assert (code, out) == (1, "")
    assert re.search(message, err)
    assert len(err.splitlines()) == 1


def test_a_judge_that_is_down_ends_with_its_address(files, capsys, judge, monkeypatch):
    monkeypatch.setattr(lib.endpoint, "LONGEST_WAIT", 0.01)
    judge.url = f"http://127.0.0.1:{closed_port()}/v1"
    (files / "vet.json").write_text('{"v1_0": "an answer"}')
    code, out, err = run(capsys, judged(judge))
    assert (code, out) == (1, "")
    assert f"score.py: the endpoint {judge.url} cannot be reached" in err


def test_a_judge_s_parameters_are_sent_as_they_are(files, capsys, judge):
    (files / "vet.json").write_text('{"v1_0": "an answer"}')
    command = [
        *judged(judge).split(),
        "--judge-parameters",
        '{"max_tokens": null, "max_completion_tokens": 200}',
    ]
    assert score.main(command) == 0
    assert all(
        body["max_completion_tokens"] == 200 and "max_tokens" not in body for body in judge.bodies()
    )


def test_a_judge_without_the_questions_is_told_what_is_missing(files, capsys, judge):
    (files / "vet.json").write_text('{"v1_0": "an answer"}')
    code, _, err = run(capsys, judged(judge).replace("--reference mm-vet.json", ""))
    assert code == 1
    assert "name mm-vet.json with --reference" in err


def test_a_key_that_is_not_set_is_named_and_one_that_is_set_is_sent_and_shown_nowhere(
    files, capsys, judge, monkeypatch
):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    (files / "vet.json").write_text('{"v1_0": "an answer"}')
    code, _, err = run(capsys, judged(judge, "--judge-key-variable JUDGE_KEY"))
    assert (code, "JUDGE_KEY is not set" in err) == (1, True)
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    code, out, err = run(capsys, judged(judge, "--judge-key-variable JUDGE_KEY"))
    assert code == 0
    assert "sk-secret" not in out + err + (files / "vet.json.judge.jsonl").read_text()
