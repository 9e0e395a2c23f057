"""The configuration: its documentation is in step, the paper's file says what it claims, and
messages say where a mistake is.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from make_configuration import blocks_of, heading

from lib.config.run import Config, load_config
from lib.config.yaml_files import read_yaml
from lib.errors import UserError
from lib.models.image_generators.registry import IMAGE_GENERATORS
from lib.models.image_scorers.registry import IMAGE_SCORERS
from lib.models.instruction_authors.registry import INSTRUCTION_AUTHORS
from lib.models.response_rewards.registry import RESPONSE_REWARDS

REPOSITORY = Path(__file__).resolve().parent.parent


def test_the_documentation_of_the_configuration_is_in_step():
    code = (
        "import sys; sys.path[:0] = ['docs', 'scripts']; import make_configuration;"
        " sys.stdout.write(make_configuration.page())"
    )
    page = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert (REPOSITORY / "docs/configuration.md").read_text(encoding="utf-8") == page, (
        "docs/configuration.md is old: run `make docs`"
    )


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
        "evaluation.questions_per_batch",
        "responses.prompts_per_batch",
    ]


def test_the_paper_s_numbers_are_the_paper_s():
    config = Config()
    assert config.images.guidance_scales == [5, 7, 9, 11]
    assert len(config.topics) == 10
    assert len(config.responses.policy_models) == 4
    assert config.pairs.sizes == [2000, 5000, 7000, 9000]
    settings = config.training.settings
    assert (
        settings.epochs,
        settings.learning_rate,
        settings.batch_size,
        settings.gradient_accumulation,
    ) == (2, 1e-5, 1, 4)
    assert (settings.zero_stage, settings.processes) == (2, 2)


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
    assert load_config({"images": {"model": "owner/other"}}, []).images.revision == "main"
    assert load_config({"images": {"steps": 3}}, []).images.revision == Config().images.revision


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
