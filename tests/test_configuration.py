"""The configuration: its documentation is in step, the paper's file says what it claims, and
messages say where a mistake is.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from make_configuration import blocks_of, heading

from lib.config.run import Config, load_config
from lib.config.yaml_files import read_yaml
from lib.errors import UserError
from lib.files import write_text
from lib.models.image_generators.registry import IMAGE_GENERATORS
from lib.models.image_scorers.registry import IMAGE_SCORERS
from lib.models.instruction_authors.registry import INSTRUCTION_AUTHORS
from lib.models.policy_models.registry import POLICY_MODELS
from lib.models.response_rewards.registry import RESPONSE_REWARDS
from lib.planning.graph import _update
from lib.weights import folder_of

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def made_from_the_models() -> dict[str, str]:
    """What `make docs` writes, in a process of its own: tests add kinds to the registries."""
    code = (
        "import sys; sys.path[:0] = ['docs', 'scripts', 'demo']; import json, make_configuration,"
        " make_models, make_schema; json.dump({'configuration.md': make_configuration.page(),"
        " 'config.schema.json': make_schema.text(), 'models.md': make_models.page()}, sys.stdout)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("file", ["configuration.md", "config.schema.json", "models.md"])
def test_what_is_made_from_the_configurations_models_is_in_step(made_from_the_models, file):
    is_there = (REPOSITORY / "docs" / file).read_text(encoding="utf-8")
    assert is_there == made_from_the_models[file], f"docs/{file} is old: run `make docs`"


@pytest.fixture(scope="module")
def schema() -> Any:
    """The schema for editors, as a validator."""
    values = json.loads((REPOSITORY / "docs/config.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(values)
    return jsonschema.Draft202012Validator(values)


#: The files that `--configfile` may name by themselves.
SHIPPED = [
    path.relative_to(REPOSITORY).as_posix()
    for path in sorted([*REPOSITORY.glob("*.yaml"), *REPOSITORY.glob("demo/*.yaml")])
    if path.name != "claims.yaml"  # for other files to be joined with
]


@pytest.mark.parametrize("file", SHIPPED)
def test_an_editor_finds_the_schema_in_the_first_line_of_a_configuration_and_no_mistake_in_it(
    file, schema
):
    path = REPOSITORY / file
    first = path.read_text(encoding="utf-8").splitlines()[0]
    named = first.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / named).resolve() == REPOSITORY / "docs/config.schema.json"
    assert [error.message for error in schema.iter_errors(read_yaml(path))] == []


@pytest.mark.parametrize(
    ("values", "is_valid"),
    [
        ({}, True),
        ({"imagez": {}}, False),
        ({"images": {"steps": 20}}, True),  # of the default kind, which need not be named
        ({"images": {"steps": "many"}}, False),
        ({"images": {"kind": "dall-e"}}, False),
        ({"images": {"guidance_scale": [5.0]}}, False),
        ({"image_ranking": {"scorers": {"a": {"kind": "clip", "model": "m/n"}}}}, True),
        # Of which kind, its files may say.
        ({"image_ranking": {"scorers": {"a": {"model": "m/n"}}}}, True),
        ({"image_ranking": {"scorers": {"a": {"model": "m/n", "power": 2}}}}, False),
        ({"image_ranking": {"judge": None}}, True),
        ({"instructions": {"backend": "template", "templates": ["What is it?"]}}, True),
        # Another backend's settings may stay in the file.
        ({"instructions": {"backend": "template", "templates": ["What?"], "llm": {}}}, True),
        ({"instructions": {"backend": "file"}}, False),
        ({"training": {"experiments": {"a": {}}}}, False),
        ({"training": {"experiments": {"a": {"size": 2000}}}}, True),
        ({"responses": {"policy_models": {"a": {"model": "m/n", "samples": 2}}}}, True),
        ({"responses": {"policy_models": {"a": "base", "b": {"model": "base"}}}}, True),
        ({"responses": {"policy_models": {"a": "another"}}}, False),
        ({"seed": True}, False),
        ({"evaluation": {"benchmarks": {"a": {"task": "pope", "metrics": {"f1": "x"}}}}}, True),
        ({"evaluation": {"benchmarks": {"a": {"scorer": "pope"}}}}, False),
        (
            {
                "evaluation": {
                    "benchmarks": {"a": {"scorer": "chair", "questions": "q", "reference": ["r"]}}
                }
            },
            True,
        ),
    ],
    ids=str,
)
def test_an_editor_marks_what_is_wrong_in_a_configuration_and_nothing_else(
    values, is_valid, schema
):
    assert schema.is_valid(values) == is_valid


def test_every_key_is_documented():
    page = (REPOSITORY / "docs/configuration.md").read_text(encoding="utf-8")
    blocks = blocks_of(Config)
    keys = [(block, name) for block in blocks for name in block.model_fields]
    assert len(keys) > 90
    sections = {text.split("\n")[0]: text for text in page.split("\n## ")}
    assert [
        (block, name)
        for block, name in keys
        if f"| `{name}` |" not in sections.get(heading(block), "")
    ] == []
    for registry in (
        IMAGE_GENERATORS,
        IMAGE_SCORERS,
        INSTRUCTION_AUTHORS,
        POLICY_MODELS,
        RESPONSE_REWARDS,
    ):
        assert set(registry.blocks()) <= set(blocks), registry.role


def test_the_paper_s_file_is_the_defaults_but_for_what_its_comments_say():
    """Whoever leaves a key out gets the paper's value."""
    paper = load_config(
        read_yaml(REPOSITORY / "config.yaml"), [REPOSITORY / "config.yaml"]
    ).model_dump()
    defaults = Config().model_dump()

    def differences(ours, theirs, path=""):
        if isinstance(ours, dict) and isinstance(theirs, dict):
            keys = ours.keys() | theirs.keys()
            return [
                found
                for key in sorted(keys)
                for found in differences(ours.get(key), theirs.get(key), f"{path}.{key}".strip("."))
            ]
        return [] if ours == theirs else [path]

    assert differences(paper, defaults) == [
        "evaluation.benchmarks.vqav2.shards",
        "evaluation.prefix_caching",
        "evaluation.questions_per_batch",
        "evaluation.task_backend",
        "evaluation.together",  # in how many jobs
        "generate_prompts.count",
        "responses.prompts_per_batch",
        "shards.generate_responses",  # in how many jobs: no result depends on it
        "shards.rank_images",
        "training.prompt_template",  # the chat template's own form
        "training.system_prompt",
    ]


def test_the_paper_s_numbers_are_the_paper_s():
    config = Config()
    assert config.images.scales == [5, 7, 9, 11]
    assert len(config.topics) == 10
    assert len(config.responses.policy_models) == 4
    assert config.pairs.sizes == [2000, 5000, 7000, 9000, "all"]
    settings = config.training.settings
    assert (
        settings.epochs,
        settings.learning_rate,
        settings.batch_size,
        settings.gradient_accumulation,
    ) == (2, 1e-5, 1, 4)
    assert (settings.zero_stage, settings.processes) == (2, 2)


def test_weights_in_4_bits_are_refused_without_a_gpu():
    experiment = {"size": 2000, "settings": {"tuning": "qlora"}}
    asked = {"training": {"experiments": {"a": experiment}}}
    assert Config.model_validate(asked).training.experiments_in_4_bits() == ["a"]
    with pytest.raises(ValueError, match=r"experiment 'a' has `tuning: qlora`.*`device` is cpu"):
        Config.model_validate(asked | {"device": "cpu"})


def test_hub_models_are_pinned_to_commits():
    from lib.head.preflight import hub_models
    from lib.weights import COMMIT

    models = hub_models(Config())
    assert len(models) == 12
    assert {key for key, model in models.items() if not COMMIT.fullmatch(model.revision)} == set()


def test_the_benchmarks_data_on_the_hub_are_pinned_to_commits():
    """All but MM-Vet's, whose commit could not be found out where this was written."""
    from lib.weights import COMMIT

    tasks = Config().evaluation.benchmarks.items()
    revisions = {name: str(task.model_dump()["data_revision"]) for name, task in tasks}
    assert revisions.pop("mm_vet") == "None"
    assert len(revisions) == 6
    assert all(COMMIT.fullmatch(revision) for revision in revisions.values())


def test_the_lines_to_take_comments_from_are_a_valid_configuration(tmp_path, monkeypatch):
    """What config.yaml says of benchmarks that a user downloads, with the files in place."""
    lines = (REPOSITORY / "config.yaml").read_text(encoding="utf-8").splitlines()
    first = next(
        number for number, line in enumerate(lines) if line.startswith("    # Download these")
    )
    last = next(
        number
        for number, line in enumerate(lines)
        if line.startswith("  backend: vllm") and number > first
    )
    lines[first + 1 : last] = [line.replace("# ", "", 1) for line in lines[first + 1 : last]]
    path = tmp_path / "config.yaml"
    path.write_text(
        "\n".join(line.replace("      # judge", "      judge") for line in lines), encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    for folder in (
        "amber/data/query",
        "amber/image",
        "object_halbench",
        "mmhal_bench/images",
        "chair",
        "coco/annotations",
        "coco/val2014",
    ):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for file in (
        "amber/data/query/query_all.json",
        "object_halbench/obj_halbench_300_with_image.jsonl",
        "object_halbench/synonyms_refine.txt",
        "mmhal_bench/response_template.json",
        "chair/chair-500.jsonl",
        "chair/synonyms.txt",
    ):
        (tmp_path / "data" / file).touch()
    benchmarks = load_config(read_yaml(path), [path]).evaluation.benchmarks
    assert {
        "amber",
        "object_halbench",
        "mmhal_bench",
        "chair",
        "pope",
        "mm_vet",
    } <= benchmarks.keys()
    assert benchmarks["mmhal_bench"].judge
    assert benchmarks["mm_vet"].judge


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            "{task: pope, metrics: {f1: x}, dat: {test: x}}",
            r"pope\.dat: unknown key\. Did you mean `data`\?",
        ),
        (
            "{scorer: pope, questons: x, reference: y}",
            r"pope\.questons: unknown key\. Did you mean `questions`\?",
        ),
        (
            "{scorer: pop, questions: x, reference: y}",
            r"pope\.scorer: there is no scorer 'pop'\. Did you mean 'pope'\?",
        ),
        (
            "{scorer: pope, questions: none.json, reference: y}",
            r"pope: `questions`: there is no file 'none\.json'",
        ),
        (
            "{scorer: pope, questions: c.yaml, reference: none}",
            r"pope: `reference`: there is no file or folder 'none'",
        ),
        (
            "{scorer: pope, questions: c.yaml, reference: c.yaml, images: c.yaml}",
            r"pope: `images`: there is no folder 'c\.yaml'",
        ),
        (
            "{scorer: pope, questions: c.yaml, reference: c.yaml, prompt: hi}",
            r"pope: `prompt` has no `\{question\}`",
        ),
        (
            (
                "{scorer: pope, questions: c.yaml, reference: c.yaml, judge: {base_url: 'http://x',"
                " model: m}}"
            ),
            r"pope: `judge`: scorer 'pope' asks none; those that do: object_halbench, mmhal_bench",
        ),
        (
            "{task: pope, metrics: {f1: x}, judge: {base_url: 'http://x', model: m}}",
            r"pope: `judge`: lmms-eval's task 'pope' is given none; those that are: mmvet",
        ),
        (
            "{task: mme, metrics: {f1: x}, scorer: mm_vet}",
            r"pope: `scorer`: 'mm_vet' scores answers of task 'mmvet', not of 'mme'",
        ),
        (
            "{task: mmvet, metrics: {score: x}, judge: {base_url: 'http://x', modl: m}}",
            r"pope\.judge\.modl: unknown key\. Did you mean `model`\?",
        ),
    ],
)
def test_a_mistake_in_a_benchmark_is_told_with_its_line(tmp_path, monkeypatch, block, message):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(f"evaluation:\n  benchmarks:\n    pope: {block}\n")
    with pytest.raises(UserError, match=rf"c\.yaml, line 3: evaluation\.benchmarks\.{message}"):
        load_config(read_yaml(Path("c.yaml")), [Path("c.yaml")])


def test_another_model_does_not_inherit_the_default_model_s_commit():
    default: Any = Config().images
    other: Any = load_config({"images": {"model": "owner/other"}}, []).images
    same: Any = load_config({"images": {"steps": 3}}, []).images
    assert other.revision == "main"
    assert same.revision == default.revision


def test_one_answer_of_two_policy_models_is_as_good_as_two_of_one() -> None:
    model = {"model": "a/model", "temperature": 1.0}
    told = {"responses": {"policy_models": {"a": {**model, "samples": 2}, "b": model}}}
    responses = load_config(told, []).responses
    assert responses.answer_names == ["a#1", "a#2", "b"]
    assert [responses.job_of(name).first_sample for name in "ab"] == [1, 3]
    alone = {"responses": {"policy_models": {"a": {**model, "samples": 2}}}}
    assert load_config(alone, []).responses.answer_names == ["a#1", "a#2"]


@pytest.mark.parametrize(
    "shape", ["base", {"model": "base"}, {"model": "base", "samples": 2, "temperature": 0.7}]
)
@pytest.mark.parametrize(
    "training", [{}, {"base_model": {"model": "a/b", "revision": "1.0", "dtype": "float32"}}]
)
def test_the_base_model_answers_as_it_is_configured_for_training(shape, training) -> None:
    told = {
        "training": training,
        "responses": {"policy_models": {"on": shape, "off": {"model": "c/d"}}},
    }
    config = load_config(told, [])
    base, policy = config.training.base_model, config.responses.policy_models["on"]
    assert base.model_dump().items() <= policy.model_dump().items()


def test_what_answers_is_said_once_or_by_each_policy_model(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").touch()
    policies = {
        "own": {"file": str(tmp_path / "mine.jsonl")},
        "base": {"model": "base", "backend": "transformers"},
    }
    told = {"responses": {"backend": "file", "policy_models": policies}}
    found = load_config(told, []).responses.policy_models
    assert {name: policy.backend for name, policy in found.items()} == {
        "own": "file",
        "base": "transformers",
    }
    del policies["base"]["backend"]
    with pytest.raises(UserError, match=r"policy_models\.base.*Say what runs it"):
        load_config(told, [])
    with pytest.raises(UserError, match="`backend: file` is of no model that is here by default"):
        load_config({"responses": {"backend": "file"}}, [])


def test_a_policy_model_may_be_drawn_in_another_way_than_the_others() -> None:
    policies = {
        "mine": {"model": "base", "samples": 4, "temperature": 0.7},
        "greedy": {"model": "c/d"},
        "narrow": {"model": "e/f", "top_p": 0.5},
    }
    responses = load_config(
        {"responses": {"temperature": 0, "policy_models": policies}}, []
    ).responses
    jobs = [responses.job_of(name) for name in policies]
    assert [(job.temperature, job.top_p) for job in jobs] == [(0.7, 1.0), (0.0, 1.0), (0.0, 0.5)]


def test_the_base_model_answers_in_another_number_format_but_in_no_other_revision() -> None:
    def policies(**of_base: Any) -> dict[str, Any]:
        return {"policy_models": {"on": {"model": "base", **of_base}, "off": {"model": "c/d"}}}

    of_base = load_config({"responses": policies(dtype="float32")}, []).responses.policy_models[
        "on"
    ]
    assert of_base.model_dump()["dtype"] == "float32"
    with pytest.raises(UserError, match=r"policy_models\.on.*Take `revision` out"):
        load_config({"responses": policies(revision="main")}, [])


def test_a_base_model_that_is_none_is_told_where_it_is_configured() -> None:
    values = {
        "training": {"base_model": {"model": "nowhere"}},
        "responses": {"policy_models": {"on": "base", "off": {"model": "c/d"}}},
    }
    with pytest.raises(UserError, match=r"training\.base_model.*there is no folder 'nowhere'"):
        load_config(values, [])


def test_an_experiment_s_settings_override_the_shared_ones():
    config = load_config(
        {
            "training": {
                "settings": {"beta": 0.3},
                "experiments": {"mine": {"size": 2000, "settings": {"epochs": 1}}},
            }
        },
        [],
    )
    settings = config.training.settings_of("mine")
    assert (settings.beta, settings.epochs, settings.learning_rate) == (0.3, 1, 1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("images:\n  steps: x\n", r"c\.yaml, line 2: images\.steps: "),
        ("topics:\n  - art\n  - A/B\n", r"c\.yaml, line 3: topics\.1: "),
        (
            "responses:\n  policy_models:\n    one: {model: ./none}\n    two: {model: a/b}\n",
            r"c\.yaml, line 3: responses\.policy_models\.one: ",
        ),
        (
            "pairs: {size: [3]}\n",
            r"c\.yaml, line 1: pairs\.size: unknown key\. Did you mean `sizes`\?",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(read_yaml(path), [path])


def test_a_mistake_on_the_command_line_is_told_without_a_line():
    with pytest.raises(UserError, match=r"^--config: images\.steps: "):
        load_config({"images": {"steps": "x"}}, [])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": "x"}, r"^--config: seed: .*found 'x'"),
        ({"imagez": 1}, r"^--config: imagez: unknown key"),
        ({"images": {"steps": "x"}}, r"^--config: images\.steps: "),
        ({"topics": ["art", "B C"]}, r"^--config: topics\.1: "),
        ({"results": "a\0b"}, r"^--config: results: holds the character U\+0000"),
    ],
)
def test_a_mistake_on_the_command_line_is_not_blamed_on_a_file_that_has_the_key(
    tmp_path, given, message
):
    path = tmp_path / "c.yaml"
    path.write_text("seed: 3\nresults: r\ntopics: [art, nature]\nimages:\n  steps: 4\n")
    values = read_yaml(path)
    _update(values, given)
    with pytest.raises(UserError, match=message):
        load_config(values, [path], given)


def test_a_mistake_in_a_file_is_not_blamed_on_what_the_command_line_says_beside_it(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("seed: 3\nimages:\n  steps: x\n  guidance_scales: [7]\n")
    values, given = read_yaml(path), {"seed": 4, "images": {"guidance_scales": [5]}}
    _update(values, given)
    with pytest.raises(UserError, match=r"c\.yaml, line 3: images\.steps: "):
        load_config(values, [path], given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 010\n", r"c\.yaml, line 1: YAML reads `010` as the number 8\. Write the number"),
        ("seed: 1:30\n", r"c\.yaml, line 1: YAML reads `1:30` as the number 90\."),
        ("a:\n- 1:30.5\n", r"c\.yaml, line 2: YAML reads `1:30\.5` as the number 90\.5"),
        ("seed: 0x10\n", r"c\.yaml, line 1: YAML reads `0x10` as the number 16"),
        ("seed: 0b11\n", r"c\.yaml, line 1: YAML reads `0b11` as the number 3"),
        ("seed: 1_000\n", r"c\.yaml, line 1: YAML reads `1_000` as the number 1000"),
        ('run: "a\0b"\n', r"c\.yaml, line 1: holds the character U\+0000.*Delete it"),
        ("seed: 1\nrun: a\x07\n", r"c\.yaml, line 2: holds the character U\+0007"),
        ("seed: 1\n".encode("utf-16"), r"c\.yaml, line 1: not UTF-8 .*Save the file as UTF-8"),
        ("seed: 1\n".encode("utf-16-le"), r"c\.yaml, line 1: .*U\+0000.*Save the file as UTF-8"),
        ("seed: 1\n".encode("utf-32"), r"c\.yaml, line 1: not UTF-8"),
        (b"seed: 1\nrun: \xff\n", r"c\.yaml, line 2: not UTF-8 \(byte 0xff\)"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(
                f"{after}: &{after} [{', '.join([f'*{name}'] * 10)}]\n"
                for name, after in zip("abcdefgh", "bcdefghi", strict=True)
            ),
            r"c\.yaml, line 5: with its aliases .* more than 100,000 values\. Write out",
        ),
        ("topics: &t\n- *t\n", r"c\.yaml, line 1: an alias .* stands in what it names"),
        ("topics: [*t]\n", r"c\.yaml, line 1: not valid YAML: found undefined alias"),
        ("? [a, b]\n: c\n", r"c\.yaml, line 1: not valid YAML: found unhashable key"),
        ("run: 2024-13-01\n", r"c\.yaml: not valid YAML: month must be in 1\.\.12"),
        ("seed: 1\n---\nseed: 2\n", r"c\.yaml, line 2: not valid YAML: but found another doc"),
        ("topics: " + "[" * 20_000, r"c\.yaml.*: not valid YAML: nested too deeply"),
    ],
)
def test_yaml_that_says_another_thing_than_it_seems_to_is_told_with_file_and_line(
    tmp_path, text, message
):
    path = tmp_path / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        read_yaml(path)


def test_a_file_of_json_is_read_as_json_reads_it(tmp_path):
    path = tmp_path / "c.json"
    values = {"a": "🐈 \U00020000 \u2028 \x85 é", "🐈": [1, 2.5, None, True, "010"]}
    path.write_text(json.dumps(values), encoding="utf-8")
    assert read_yaml(path) == json.loads(path.read_text(encoding="utf-8")) == values


def test_plain_numbers_texts_in_quotes_and_aliases_are_read_as_they_are(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "a: [0, -7, +3, 1.5, .5, 2., 1.0e-5, 5e-7, 007.5]\n"
        "b: &b ['010', \"1:30\", 08]\nc: [*b, *b]\n"
    )
    texts = ["010", "1:30", "08"]
    assert read_yaml(path) == {
        "a": [0, -7, 3, 1.5, 0.5, 2.0, 1e-5, "5e-7", 7.5],
        "b": texts,
        "c": [texts, texts],
    }


ENDPOINT = "instructions: {endpoint: {base_url: 'http://x', model: m, parameters:"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: true\n", r"c\.yaml, line 1: seed: a truth value .* stands where a number"),
        ("max_failed_fraction: yes\n", r"line 1: max_failed_fraction: a truth value"),
        ("topics:\n- art\n- no\n", r"c\.yaml, line 1: topics: a truth value"),
        ("images:\n  guidance_scales: [true, 5]\n", r"line 2: images\.guidance_scales: a truth"),
        ("training:\n  settings: {zero_stage: true}\n", r"settings\.zero_stage: a truth value"),
        ("training:\n  settings: {beta: on}\n", r"line 2: training\.settings\.beta: a truth value"),
        (
            "training:\n  experiments: {a: {size: 2000, settings: {epochs: true}}}\n",
            r"experiment 'a' overrides `epochs`: a truth value",
        ),
        ("scheduler_patience: .inf\n", r"line 1: scheduler_patience: .*finite number"),
        ("training:\n  settings: {beta: .inf}\n", r"settings\.beta: .*finite number"),
        ("training:\n  settings: {learning_rate: 1.0e+999}\n", r"learning_rate: .*finite number"),
        ("seed: .inf\n", r"line 1: seed: .*finite number"),
        ("max_failed_fraction: .nan\n", r"max_failed_fraction: .*finite number"),
        (f"{ENDPOINT} {{a: .inf}}}}}}\n", r"no JSON can hold this: .*Write a finite number"),
        (f"{ENDPOINT} {{a: 2024-01-01}}}}}}\n", r"\.parameters: no JSON can hold this: .*date"),
        ('results: "a\\0b"\n', r"c\.yaml, line 1: results: holds the character U\+0000"),
    ],
)
def test_infinity_and_truth_values_are_no_numbers(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(read_yaml(path), [path])


def test_what_may_be_true_or_false_still_may(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "training: {settings: {gradient_checkpointing: no}}\n"
        "evaluation: {benchmarks: {a: {task: t, metrics: {x: y}, prompt: {ocr: true}}}}\n"
        f"{ENDPOINT} {{think: true}}}}}}\n"
    )
    config = load_config(read_yaml(path), [path])
    assert config.training.settings.gradient_checkpointing is False
    assert config.instructions.model_dump()["endpoint"]["parameters"] == {"think": True}


def test_a_home_and_environment_variables_in_results_are_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    for results, root in (
        ("~/x", "/home/me/x/paper"),
        ("$SCRATCH/x", "/scratch/me/x/paper"),
        ("${SCRATCH}/x", "/scratch/me/x/paper"),
        ("results", "results/paper"),
    ):
        assert Config.model_validate({"results": results}).root == Path(root)


@pytest.fixture
def scratch(tmp_path, monkeypatch, demo_benchmarks):
    """Files of all kinds that a configuration names, in the folder $SCRATCH."""
    for name in ("prompts/art.txt", "file", "images/a.png", "model/config.json"):
        write_text(tmp_path / name, "{}")
    (tmp_path / "pope").symlink_to(demo_benchmarks / "pope.parquet")
    (tmp_path / "model/work").mkdir()
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    return tmp_path


OWN_BENCHMARK = {
    "scorer": "chair",
    "questions": "$SCRATCH/file",
    "images": "$SCRATCH/images",
    "reference": "${SCRATCH}/file",
}
TASK = {"task": "pope", "metrics": {"f1": "pope_f1_score"}, "data": {"test": "$SCRATCH/pope"}}


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"prompts": "$SCRATCH/prompts"}, lambda config: config.prompts),
        (
            {"instructions": {"backend": "file", "file": "$SCRATCH/file"}},
            lambda config: config.instructions.file,
        ),
        (
            {
                "responses": {
                    "policy_models": {
                        "own": {"backend": "file", "file": "$SCRATCH/file"},
                        "base": "base",
                    }
                }
            },
            lambda config: config.responses.policy_models["own"].file,
        ),
        ({"reuse_from": ["$SCRATCH/model"]}, lambda config: config.runs_to_reuse[0]),
        *(
            (
                {"evaluation": {"benchmarks": {"own": OWN_BENCHMARK}}},
                lambda config, name=name: getattr(config.evaluation.benchmarks["own"], name),
            )
            for name in ("questions", "images", "reference")
        ),
        (
            {"evaluation": {"benchmarks": {"task": TASK}}},
            lambda config: config.evaluation.benchmarks["task"].data["test"],
        ),
        (
            {"training": {"base_model": {"model": "$SCRATCH/model"}}},
            lambda config: folder_of(config.training.base_model.model),
        ),
    ],
    ids=[
        "prompts",
        "instructions",
        "answers",
        "run",
        "questions",
        "images",
        "reference",
        "data",
        "model",
    ],
)
def test_every_file_and_folder_may_begin_with_an_environment_variable(scratch, values, found):
    config = Config.model_validate(values)
    value = found(config)
    path = Path(value[0] if isinstance(value, list) else value)
    assert path.exists()
    assert path.is_relative_to(scratch)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"results": "$NOWHERE/x"}, "results"),
        ({"prompts": "${NOWHERE}/x"}, "prompts"),
        ({"training": {"base_model": {"model": "$NOWHERE/x"}}}, "training.base_model"),
    ],
)
def test_a_variable_that_is_not_set_is_refused(monkeypatch, values, key):
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(UserError, match=rf"{key}.*the environment has no \$.?NOWHERE"):
        load_config(values, [])


def test_a_user_in_results_or_reuse_from_that_is_not_there_is_refused():
    for given in ({"results": "~nobody-here/x"}, {"reuse_from": ["~nobody-here/x"]}):
        with pytest.raises(UserError, match="'~nobody-here/x' begins with a user that is not"):
            load_config(given, [])
