"""Mistakes that users make: each ends with one message that says what, where and how to mend it,
and changes nothing.

What the Snakefile finds in configuration and prompts is looked for by the same calls; everything
else runs the command that a user types in a clone of its own.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from chat_server import ChatServer, Reply
from conftest import REPOSITORY, Project
from lib.config.run import load_config
from lib.errors import UserError
from lib.head.plan import Plan

CONFIG = "demo/random.yaml"


def setting(path, value):
    """Sets one key of the configuration; a list index is a number in the path."""

    def change(values):
        *above, last = path.split(".")
        for part in above:
            values = values[part]
        values[last] = value

    return lambda project: project.edit_config(change)


def without(path):
    def change(values):
        *above, last = path.split(".")
        for part in above:
            values = values[part]
        del values[last]

    return lambda project: project.edit_config(change)


def line_of_config(old, new):
    def change(project):
        path = project.folder / CONFIG
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def prompts(content, topic="art"):
    return lambda project: (project.folder / f"demo/random_prompts/{topic}.txt").write_bytes(
        content
    )


def delete(path):
    return lambda project: (project.folder / path).unlink()


def policy(name, of_stage=None, **model):
    """`of_stage`: changes of the stage's block."""

    def change(values):
        values["responses"]["policy_models"][name] = model
        values["responses"] |= of_stage or {}

    return lambda project: project.edit_config(change)


def only_policies(*names):
    def change(values):
        policies = values["responses"]["policy_models"]
        values["responses"]["policy_models"] = {name: policies[name] for name in names}

    return lambda project: project.edit_config(change)


def not_a_model(project):
    (project.folder / "empty").mkdir()
    (project.folder / "empty/readme.txt").write_text("nothing")
    setting("images.model", "empty")(project)


MISTAKES = {
    "an unknown key": (
        setting("imagez", {}),
        r"demo/random\.yaml, line \d+: imagez: unknown key\. Did you mean `images`\?",
    ),
    "a misspelt key in a block": (
        setting("images.guidance_scale", [5]),
        r"line \d+: images\.guidance_scale: .*Did you mean `guidance_scales`\?",
    ),
    "a misspelt key two blocks down": (
        setting("training.settings.learning_rat", 1),
        r"training\.settings\.learning_rat: .*Did you mean `learning_rate`\?",
    ),
    "a key that is like no other": (
        setting("pairs.zzz", 1),
        r"pairs\.zzz: unknown key\. Known here: .*min_margin",
    ),
    "a missing key": (
        without("figures.answers.experiment"),
        r"figures\.answers\.experiment: this key is missing",
    ),
    "an experiment on nothing": (
        without("training.experiments.random-8.size"),
        r"line \d+: training\.experiments\.random-8: .*`size` pairs of this run, or on `pairs`",
    ),
    "text where a number belongs": (
        setting("images.steps", "many"),
        r"line \d+: images\.steps: .*integer.*'many'",
    ),
    "a number where a list belongs": (setting("topics", 3), r"line \d+: topics: .*list"),
    "a guidance scale of one": (
        setting("images.guidance_scales", [1.0, 5.0]),
        r"images\.guidance_scales\.0: .*greater than 1",
    ),
    "a guidance scale below one": (
        setting("images.guidance_scales", [5.0, 0.5]),
        r"images\.guidance_scales\.1: .*greater than 1",
    ),
    "the same guidance scale twice": (
        setting("images.guidance_scales", [5.0, 5.0]),
        r"images: the same guidance scale stands twice",
    ),
    "no guidance scale": (
        setting("images.guidance_scales", []),
        r"images\.guidance_scales: .*at least 1",
    ),
    "an image size that the pipeline refuses": (
        setting("images.height", 72),
        r"line \d+: images\.height: .*multiple of 16 \(found 72\)",
    ),
    "an unknown image format": (
        setting("images.format", "tiff"),
        r"images\.format: .*'png'.*found 'tiff'",
    ),
    "no topic": (setting("topics", []), r"topics: .*at least 1"),
    "an unknown topic": (
        setting("topics", ["art", "nowhere"]),
        r"demo/random_prompts/nowhere\.txt: there is no such file\. Topic 'nowhere' needs it",
    ),
    "a topic with a slash": (
        setting("topics", ["art/../nature"]),
        r"topics\.0: .*pattern.*art/\.\./nature",
    ),
    "a topic with dots": (setting("topics", ["../art"]), r"topics\.0: .*pattern"),
    "the same topic twice": (setting("topics", ["art", "art"]), r"the same topic stands twice"),
    "a run name that leaves the folder": (setting("run", "../other"), r"line \d+: run: .*pattern"),
    "a key that stands twice": (
        line_of_config("device: cpu\n", "device: cpu\nrun: again\n"),
        r"line \d+: the key 'run' stands here and on line \d+",
    ),
    "the same policy model twice by name": (
        line_of_config(
            "    llava-v1.6-vicuna-7b: {",
            "    llava-v1.6-mistral: {model: demo/models/clip}\n    llava-v1.6-vicuna-7b: {",
        ),
        r"the key 'llava-v1\.6-mistral' stands here and on line \d+",
    ),
    "no policy model": (
        setting("responses.policy_models", {}),
        r"responses\.policy_models: .*at least 2",
    ),
    "one policy model": (
        only_policies("llava-v1.6-mistral"),
        r"responses\.policy_models: .*at least 2",
    ),
    "the same policy model twice, which answers greedily": (
        policy("copy", of_stage={"temperature": 0}, model="./demo/models/llava-v1.6-mistral"),
        r"'llava-v1\.6-mistral' and 'copy' are the same, .*or give one a `temperature`",
    ),
    "samples of a policy model that answers greedily": (
        policy("copy", of_stage={"temperature": 0}, model="demo/models/llava-1.5", samples=2),
        r"policy model 'copy' has `samples: 2`, and with `temperature: 0`",
    ),
    "a misspelt key of a policy model": (
        policy("copy", modle="demo/models/llava-1.5"),
        r"policy_models\.copy\.modle: unknown key\. Did you mean `model`\?",
    ),
    "a policy model with the keys of another backend": (
        policy("copy", of_stage={"backend": "openai"}, model="m", endpoint={"model": "m"}),
        r"policy_models\.copy\.model: unknown key\. Known here: .*endpoint",
    ),
    "a file of answers that is not there": (
        lambda project: project.edit_config(
            lambda values: values["responses"]["policy_models"].update(
                copy={"backend": "file", "file": "nowhere.jsonl"}
            )
        ),
        r"policy_models\.copy\.file: there is no file 'nowhere\.jsonl'\. Correct the path",
    ),
    "no samples": (
        policy("copy", model="demo/models/llava-1.5", samples=0),
        r"policy_models\.copy\.samples: .*greater than or equal to 1|samples: .*greater than 0",
    ),
    "a backend that is not there": (
        setting("responses.backend", "transformer"),
        r"line \d+: responses\.backend: .*Did you mean 'transformers'\?",
    ),
    "a policy model's backend that is not there": (
        policy("copy", model="demo/models/llava-1.5", backend="vlm"),
        r"policy_models\.copy\.backend: .*Did you mean 'vllm'\?",
    ),
    "a scorer that is not there": (
        setting("image_ranking.select_by", "pickscore"),
        r"image_ranking: `select_by` is 'pickscore', but `scorers` has",
    ),
    "no data set that is not larger than the prompts": (
        lambda project: (
            setting("pairs.sizes", [5000])(project),
            setting("training.experiments", {})(project),
            setting("figures.answers", None)(project),
        ),
        r"pairs\.sizes: no data set of these sizes can be made: there are 12 prompts",
    ),
    "an experiment of a size that is not made": (
        setting("training.experiments.random-8.size", 9),
        r"experiment 'random-8' has size 9, which is not in `pairs\.sizes`",
    ),
    "an experiment called base": (
        setting("training.experiments", {"base": {"size": 8}}),
        r"an experiment cannot be called 'base'",
    ),
    "a prompt template without a place for the instruction": (
        setting("training.prompt_template", "USER: <image> ASSISTANT:"),
        r"`prompt_template` needs both `<image>` and `\{instruction\}`",
    ),
    "a model folder that is missing": (
        setting("images.model", "./no/such/model"),
        r"line \d+: images: `model`: there is no folder '\./no/such/model'",
    ),
    "a model folder without a model": (
        not_a_model,
        r"images: `model`: the folder 'empty' holds no model",
    ),
    "instructions from a file that is missing": (
        setting("instructions", {"backend": "file", "file": "mine.jsonl"}),
        r"instructions: .*there is no file 'mine\.jsonl'",
    ),
    "a backend without its settings": (
        setting("instructions", {"backend": "transformers"}),
        r"instructions: backend 'transformers' needs `llm`",
    ),
    "an instruction template without the prompt": (
        setting("instructions.template", "Ask something."),
        r"instructions: `template` has no `\{prompt\}`",
    ),
    "a template with a placeholder that nothing fills in": (
        setting(
            "instructions",
            {"backend": "template", "templates": ["What is in the image?", "Is it {topic}?"]},
        ),
        (
            r"line \d+: instructions: `templates`: text 2 .* `\{topic\}`, which nothing fills"
            r" in.*Correct it"
        ),
    ),
    "a prompt that a template cannot have filled in": (
        lambda project: (
            prompts(b"one cat\nan <image> of a cat\n")(project),
            setting(
                "instructions", {"backend": "template", "templates": ["Does it show {prompt}?"]}
            )(project),
        ),
        (
            r"instructions\.templates: prompt art-\w+ cannot be filled in for `\{prompt\}` of"
            r" .*'<image>'.*art\.txt"
        ),
    ),
    "benchmark data that is missing": (
        setting("evaluation.benchmarks.pope.data", {"test": "no.parquet"}),
        r"evaluation\.benchmarks\.pope: .*there is no file 'no\.parquet'",
    ),
    "an endpoint that is no address": (
        setting(
            "instructions",
            {"backend": "openai", "endpoint": {"base_url": "localhost:8000", "model": "m"}},
        ),
        r"instructions\.endpoint\.base_url: .*pattern",
    ),
    "an empty prompt file": (prompts(b""), r"demo/random_prompts/art\.txt: the file is empty"),
    "a missing prompt file": (
        delete("demo/random_prompts/nature.txt"),
        r"demo/random_prompts/nature\.txt: there is no such file",
    ),
    "a prompt file in latin-1": (
        prompts(b"one cat\ncaf\xe9 at night\n"),
        r"demo/random_prompts/art\.txt, line 2: not UTF-8",
    ),
    "a prompt that stands twice": (
        prompts(b"one cat\ntwo cats\none cat\n"),
        r"demo/random_prompts/art\.txt, line 3: the same prompt as on line 1",
    ),
    "a prompt in two topics": (
        prompts((REPOSITORY / "demo/random_prompts/art.txt").read_bytes(), "school"),
        r"demo/random_prompts/school\.txt, line 1: the same prompt stands in topic 'art'",
    ),
    "an empty line": (
        prompts(b"one cat\n\ntwo cats\n"),
        r"demo/random_prompts/art\.txt, line 2: the line is empty",
    ),
    "a prompt that is too long": (
        prompts(b"cat " * 500),
        (
            r"demo/random_prompts/art\.txt, line 1: 1999 characters, over `max_prompt_characters`"
            r" \(1000\)"
        ),
    ),
}


def assert_one_clear_message(done, message):
    assert done.returncode != 0, done.stdout[-2000:]
    assert re.search(message, done.stdout), done.stdout[-3000:]
    assert "Traceback (most recent call last)" not in done.stdout, done.stdout[-3000:]


#: Those that depend on which jobs are to run.
FOUND_WITH_THE_JOBS = ("no data set that is not larger than the prompts",)
#: One of each kind of mistake by where it is found: the file's own lines, the configuration's
#: models, the prompts, the instructions.
TYPED = (
    *FOUND_WITH_THE_JOBS,
    "a key that stands twice",
    "an unknown key",
    "a prompt file in latin-1",
    "a prompt that a template cannot have filled in",
)


@pytest.fixture
def clone(demo_models, demo_benchmarks, tmp_path, monkeypatch):
    """What a configuration and prompts are read from, in a folder of its own, to work in."""
    for part in (CONFIG, "demo/random_prompts"):
        source, target = REPOSITORY / part, tmp_path / part
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    (tmp_path / "demo/models").symlink_to(demo_models)
    (tmp_path / "demo/benchmarks").symlink_to(demo_benchmarks)
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


@pytest.mark.parametrize("name", [name for name in MISTAKES if name not in FOUND_WITH_THE_JOBS])
def test_a_mistake_in_configuration_or_prompts_is_told_by_one_message(clone, name):
    """As the Snakefile finds it before anything else; what it makes of it: the next test."""
    change, message = MISTAKES[name]
    change(clone)
    with pytest.raises(UserError, match=f"(?s){message}"):
        Plan(load_config(yaml.safe_load(Path(CONFIG).read_bytes()), [Path(CONFIG)])).written  # noqa: B018


@pytest.mark.parametrize("name", TYPED)
def test_a_mistake_in_configuration_or_prompts_ends_the_command_with_one_message(new_project, name):
    project = new_project()
    change, message = MISTAKES[name]
    change(project)
    assert_one_clear_message(project.snakemake("-n", check=False), message)
    assert not (project.folder / "results").exists()


def test_yaml_that_is_none_is_told_with_file_and_line(project):
    path = project.folder / "config.yaml"
    path.write_text(path.read_text().replace("images:\n", "images: [\n", 1))
    snakemake = project.command()[0]
    done = subprocess.run(
        [snakemake, "-n"],
        cwd=project.folder,
        env=project.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert re.search(r"config\.yaml, line \d+: not valid YAML", done.stdout + done.stderr), done


def test_yaml_that_is_none_in_a_file_of_one_s_own_is_told_by_snakemake(project):
    line_of_config("images:\n", "images: [\n")(project)
    assert_one_clear_message(project.snakemake("-n", check=False), r"not valid JSON or YAML")


def test_several_mistakes_are_told_at_once(project):
    setting("images.steps", "many")(project)
    setting("imagez", {})(project)
    done = project.snakemake("-n", check=False)
    assert_one_clear_message(done, r"images\.steps")
    assert_one_clear_message(done, r"Did you mean `images`")


def test_a_mistake_on_the_command_line_is_told_as_well(project):
    assert_one_clear_message(
        project.snakemake("-n", "--config", "device=tpu", check=False),
        r"--config: device: .*'cuda' or 'cpu'.*found 'tpu'",
    )


@pytest.mark.slow
def test_strange_prompts_work(project):
    """Quotes, braces, shell and path characters, emoji and right-to-left text are data."""
    strange = [
        "a \"red\" 'cube' {x} {{y}} %s",
        "${HOME} `touch pwned` $(touch pwned); touch pwned",
        "../../etc/passwd \\ <image> </s>",
        "שלום עולם 🐈‍⬛ café",
    ]
    (project.folder / "demo/random_prompts/art.txt").write_text(
        "\n".join(strange) + "\n", encoding="utf-8"
    )
    project.snakemake("results/random/image_ranking/clip/art/00.jsonl")
    assert not list(project.folder.rglob("pwned"))
    assert (project.folder / "results/random/images/art/00.jsonl").read_text(
        encoding="utf-8"
    ).count("\n") == 4


def use_endpoint(project, url):
    endpoint = {
        "base_url": url,
        "model": "some-model",
        "api_key_variable": "TEST_KEY",
        "retries": 1,
        "timeout": 5,
    }
    setting("instructions", {"backend": "openai", "endpoint": endpoint})(project)


def no_images(project):
    return not list((project.folder / "results").rglob("*.png"))


def test_an_unreachable_endpoint_ends_the_run_before_images_are_made(project):
    use_endpoint(project, "http://127.0.0.1:9/v1")
    assert_one_clear_message(
        project.snakemake(check=False, TEST_KEY="secret"),
        r"instructions\.endpoint: .*127\.0\.0\.1:9",
    )
    assert no_images(project)


def test_a_hub_that_cannot_be_reached_is_told_for_every_model_before_images_are_made(project):
    setting("images.model", "nobody/pictures")(project)
    setting("responses.policy_models.llama3-llava-next.model", "nobody/words")(project)
    done = project.snakemake(check=False, HF_ENDPOINT="http://127.0.0.1:9")
    for model in ("nobody/pictures", "nobody/words"):
        assert_one_clear_message(
            done, rf"{model} at revision '\w+': neither in the local hub cache nor reachable"
        )
    assert no_images(project)


def test_a_missing_key_variable_ends_the_run_before_images_are_made_and_a_dry_run_too(project):
    use_endpoint(project, "http://127.0.0.1:9/v1")
    message = r"instructions\.endpoint: .*TEST_KEY"
    assert_one_clear_message(project.snakemake(check=False), message)
    assert no_images(project)
    told = project.snakemake("-n", check=False)
    assert_one_clear_message(told, message)
    assert "Job stats" in told.stdout


@pytest.mark.parametrize(
    "arguments",
    [["images"], ["rankings"], ["--until", "rank_images"], ["--allowed-rules", "generate_images"]],
    ids=" ".join,
)
def test_no_key_is_asked_for_by_a_run_that_stops_before_the_endpoint(project, arguments):
    use_endpoint(project, "http://127.0.0.1:9/v1")
    if arguments[0] == "--allowed-rules":
        arguments = [*arguments, "images", "--", "images"]
    told = project.snakemake("-n", *arguments).stdout
    assert "generate_images" in told
    assert "TEST_KEY" not in told


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b"{}"), (429, b"{}"), (200, b"this is no JSON")],
    ids=["500", "429", "nonsense"],
)
def test_an_endpoint_that_only_answers_with_errors_ends_the_run_before_images_are_made(
    project, status, body
):
    server = ChatServer(lambda _: Reply(status, body))
    server.listing = Reply(status, body)
    use_endpoint(project, server.url)
    done = project.snakemake(
        "results/random/instructions/art/00.jsonl", check=False, TEST_KEY="secret-value"
    )
    assert_one_clear_message(
        done, r"instructions\.endpoint: the endpoint http://127\.0\.0\.1:\d+/v1"
    )
    assert no_images(project)
    assert "secret-value" not in done.stdout
    server.close()


def test_a_hub_model_out_of_reach_ends_the_run_before_anything_is_loaded(project):
    setting("response_ranking.model", "some-owner/gated-model")(project)
    done = project.snakemake(check=False, HF_HUB_OFFLINE="1")
    assert_one_clear_message(
        done,
        r"response_ranking: some-owner/gated-model at revision 'main': neither in the local hub"
        r" cache nor reachable",
    )
    assert no_images(project)


@pytest.fixture(scope="module")
def with_images(new_project):
    """A clone in which the images of one topic are made."""
    project = new_project("with-images")
    project.snakemake("results/random/image_ranking/image-reward/art/00.jsonl")
    return project


@pytest.mark.slow
def test_a_corrupt_image_file_is_named_before_a_model_is_loaded(with_images):
    picture = next((with_images.folder / "results/random/images/art/00").glob("*.png"))
    content = picture.read_bytes()
    picture.write_bytes(content[:50])
    done = with_images.snakemake("results/random/image_ranking/clip/art/00.jsonl", check=False)
    assert_one_clear_message(done, rf"{picture.name}.*[Dd]elete.*images/art/00\.jsonl")
    (with_images.folder / "results/random/images/art/00.jsonl").unlink()
    with_images.snakemake("results/random/image_ranking/clip/art/00.jsonl")
    assert picture.read_bytes() == content


def journal_of(project, rule):
    return project.folder / f"results/random/work/{rule}/art/00.journal.jsonl"


@pytest.mark.slow
def test_a_truncated_journal_costs_the_torn_line_only(with_images):
    journal, shard = (
        journal_of(with_images, "generate_images"),
        with_images.folder / "results/random/images/art/00.jsonl",
    )
    before = shard.read_bytes()
    *earlier, last = journal.read_bytes().splitlines(keepends=True)
    key = json.loads(last)["key"].encode()
    journal.write_bytes(b"".join(line for line in earlier if key not in line) + last[:-30])
    shard.unlink()
    with_images.snakemake("results/random/images/art/00.jsonl")
    record = json.loads(
        (with_images.folder / "results/random/work/generate_images/art/00.json").read_text()
    )
    assert (record["computed"], record["reused"], record["failed"]) == (1, 3, 0)
    assert shard.read_bytes() == before


@pytest.mark.slow
def test_a_journal_of_another_version_is_refused_and_kept(with_images):
    journal, shard = (
        journal_of(with_images, "generate_images"),
        with_images.folder / "results/random/images/art/00.jsonl",
    )
    content = journal.read_bytes()
    journal.write_bytes(content.replace(b'"journal":1', b'"journal":99', 1))
    changed = journal.read_bytes()
    shard.unlink()
    done = with_images.snakemake("results/random/images/art/00.jsonl", check=False)
    assert_one_clear_message(
        done,
        r"00\.journal\.jsonl, line 1: not a journal of generate_images in format 1.*move it away",
    )
    assert journal.read_bytes() == changed
    journal.write_bytes(content)


def as_root():
    return os.geteuid() == 0 and shutil.which("mount") is not None


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 KB; gives its folder."""
    if not as_root():
        pytest.skip("a file system of its own can only be mounted by root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_told_and_after_making_room_the_run_goes_on(project, small_disk):
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 220_000)
    target = f"{small_disk}/random/images/art/00.jsonl"
    done = project.snakemake("--config", f"results={small_disk}", "--", target, check=False)
    assert_one_clear_message(
        done, r"no space left on this file system.*free some room and run again"
    )
    assert not Path(target).exists()
    filler.unlink()
    project.snakemake("--config", f"results={small_disk}", "--", target)
    assert Path(target).read_text().count("\n") == 4


def test_a_read_only_results_folder_is_told_and_left_as_it_is(project, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = project.snakemake("--config", f"results={small_disk}", check=False)
    assert done.returncode != 0
    assert re.search(rf"{small_disk}.*([Rr]ead-only|cannot be written)", done.stdout)
    assert "Traceback (most recent call last)" not in done.stdout
    assert list(small_disk.iterdir()) == []
