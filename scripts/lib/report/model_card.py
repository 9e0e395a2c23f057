"""The cards of a trained model, one for the adapter and one for the merged model: what it is made
of, how it was trained, how it scores.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

from lib.blocks import Block
from lib.data.evaluation_files import BenchmarkScores, OtherScores
from lib.report.licence import OTHER, Licence, UsedModel, licence_of
from lib.report.markdown_card import (
    CITATION,
    PAPER,
    made_with,
    markdown_table,
    revision_of,
    with_metadata,
)
from lib.report.sidecar import Label

#: What a card is of: the adapter alone, or the base model with it merged into its weights.
Kind = Literal["adapter", "merged"]
KINDS: tuple[Kind, ...] = ("adapter", "merged")


class ModelCardJob(Block):
    """What rule model_cards is told of an experiment.

    base         the model that was trained
    data_models  those that made its data
    control      of a negative control: what it is, in words
    own_pairs    where its pairs come from, where the run did not make them
    training     the training's settings
    scores       benchmark -> what its scores are, by their names
    """

    run: str
    experiment: str
    label: Label
    base: UsedModel
    base_is_on_hub: bool
    data_models: list[UsedModel]
    license: str | None
    languages: list[str]
    code: str | None
    control: str | None
    own_pairs: str | None = None
    prompt_template: str | None
    system_prompt: str | None
    training: dict[str, Any]
    scores: dict[str, dict[str, str]]


class Scored(BenchmarkScores):
    """A scores.json, as far as a card tells of it."""

    intervals: NotRequired[dict[str, list[float]]]
    also: NotRequired[OtherScores]


class DataSetSummary(TypedDict):
    """A data set's `dataset.json`, as far as a card tells of it."""

    size: int
    digest: str


class ScoreLine(NamedTuple):
    """A line of the table of scores; `interval`: of 95 %, by bootstrap, if there is one."""

    benchmark: str
    name: str
    value: float
    interval: Sequence[float] | None
    base: float | None
    what: str


def score_lines(
    job: ModelCardJob, ours: Mapping[str, Scored], base: Mapping[str, Scored]
) -> Iterator[ScoreLine]:
    """The scores of all benchmarks. `ours`, `base`: by benchmark, of this and of the base model."""
    for benchmark, scored in ours.items():
        names = job.scores.get(benchmark, {})
        for name, value in scored["scores"].items():
            before = base[benchmark]["scores"].get(name) if benchmark in base else None
            yield ScoreLine(
                benchmark, name, value, interval_of(scored, name), before, names.get(name, "")
            )


def interval_of(scored: Scored, name: str) -> Sequence[float] | None:
    """The interval of a score; those of our scorer beside lmms-eval's stand with it."""
    beside = scored.get("also")
    intervals = {**scored.get("intervals", {}), **(beside["intervals"] if beside else {})}
    return intervals.get(name)


def model_card(
    job: ModelCardJob, kind: Kind, data: DataSetSummary, lines: Sequence[ScoreLine], root: Path
) -> str:
    """A card. `data`: what the model was trained on; `root`: the run's folder, whose records tell
    the base model's commit.
    """
    licence = licence_of_model(job)
    sections = [
        f"# {title_of(job, kind)}",
        introduction(job, kind, data),
        "## Use\n\n" + how_to_use(job, kind),
        "## Training\n\n" + how_it_was_trained(job, data, root),
        "## Scores\n\n" + scores_table(lines),
        "## Licence\n\n" + licence.reason,
        "## Known limits\n\n" + known_limits(job),
        "## Cite\n\n" + CITATION,
    ]
    return with_metadata(metadata_of(job, kind, licence, lines), "\n\n".join(sections) + "\n")


def title_of(job: ModelCardJob, kind: Kind) -> str:
    """The model's name for people."""
    what = what_is_trained(job) if kind == "adapter" else "merged model"
    return f"{job.experiment} ({job.run}): {what} of {job.base.name}"


def what_is_trained(job: ModelCardJob) -> str:
    """What the folder of an adapter holds."""
    return "trained language model" if is_full(job) else "LoRA adapter"


def is_full(job: ModelCardJob) -> bool:
    """Whether the weights themselves were trained, and no adapter."""
    return job.training.get("tuning") == "full"


def licence_of_model(job: ModelCardJob) -> Licence:
    """The licence: a trained model is a derivative of its base model."""
    terms = job.base.terms
    under = (
        f"under the [{terms.name}]({terms.address})"
        if terms
        else "under its terms, which are not known here"
    )
    return Licence(
        OTHER,
        "terms-of-the-models",
        f"It is a derivative of {job.base.name} and goes on {under}. Of the data that it was"
        f" trained on: {terms_of_data(job)}",
    )


def terms_of_data(job: ModelCardJob) -> str:
    """What may be done with what the data are, as a sentence goes on."""
    if job.own_pairs:
        return f"they are {job.own_pairs}, under the terms of whoever gives them."
    of_data = licence_of(job.data_models, job.license)
    return f"{of_data.reason[0].lower()}{of_data.reason[1:]}"


def metadata_of(
    job: ModelCardJob, kind: Kind, licence: Licence, lines: Sequence[ScoreLine]
) -> dict[str, Any]:
    """The hub's metadata. A base model that is a folder has no place there."""
    is_adapter = kind == "adapter"
    is_lora = is_adapter and not is_full(job)
    base = {
        "base_model": job.base.name,
        "base_model_relation": "adapter" if is_adapter else "finetune",
    }
    return {
        "license": licence.id,
        "license_name": licence.name,
        "license_link": job.base.terms.address if job.base.terms else "README.md",
        "language": job.languages,
        **(base if job.base_is_on_hub else {}),
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["dpo", "preference", "pds-dpo", "trl", *(["lora"] if is_lora else [])],
        **({"model-index": [index_of(job, lines)]} if lines else {}),
    }


def index_of(job: ModelCardJob, lines: Sequence[ScoreLine]) -> dict[str, Any]:
    """The scores as the hub reads them."""
    benchmarks = dict.fromkeys(line.benchmark for line in lines)
    results = [
        {
            "task": {"type": "image-text-to-text"},
            "dataset": {"name": benchmark, "type": benchmark},
            "metrics": [
                {"type": line.name, "name": line.what or line.name, "value": round(line.value, 4)}
                for line in lines
                if line.benchmark == benchmark
            ],
        }
        for benchmark in benchmarks
    ]
    return {"name": job.experiment, "results": results}


def introduction(job: ModelCardJob, kind: Kind, data: DataSetSummary) -> str:
    """What it is, in a paragraph."""
    whose = (
        f"of {job.own_pairs}, which the workflow of [PDS-DPO]({PAPER}) did not make"
        if job.own_pairs
        else f"that no human labelled, by the method of [PDS-DPO]({PAPER})"
    )
    text = (
        f"{job.base.name}, aligned by direct preference optimization with {data['size']} preference"
        f" pairs {whose}."
    )
    if kind == "adapter":
        held = "the LoRA adapter of its language model, without the base model's weights"
        if is_full(job):
            held = "its trained language model in PEFT's form, without the rest of it"
        text += f" This is {held}."
    if job.control:
        text += f" **It is a negative control ({job.control}), not a model to be used.**"
    if job.label == "demo":
        text += " **It is a demonstration's: a tiny model, of no use but to show the workflow.**"
    return text


def how_to_use(job: ModelCardJob, kind: Kind) -> str:
    """How it is loaded."""
    base = (
        "model = AutoModelForImageTextToText.from_pretrained("
        + (f'"{job.base.name}"' if kind == "adapter" else '"<this folder>"')
        + ")"
    )
    adapter = (
        '\nmodel = PeftModel.from_pretrained(model, "<this folder>")' if kind == "adapter" else ""
    )
    imports = "from transformers import AutoModelForImageTextToText"
    peft = "from peft import PeftModel\n" if kind == "adapter" else ""
    return f"```python\n{peft}{imports}\n\n{base}{adapter}\n```"


def how_it_was_trained(job: ModelCardJob, data: DataSetSummary, root: Path) -> str:
    """Data, base model and settings."""
    settings = [[f"`{name}`", value] for name, value in job.training.items()]
    return (
        f"Base model: `{job.base.name}` at {revision_of(job.base, root)}. Data: {data['size']}"
        " pairs, digest"
        f" `{data['digest']}` (in the data set's `dataset.json`). Asked"
        f" {how_it_was_asked(job)}. {made_with(job.code)}\n\n"
        + markdown_table(["Setting", "Value"], settings)
    )


def how_it_was_asked(job: ModelCardJob) -> str:
    """The form of a training's prompts, in words."""
    template, system = job.prompt_template, job.system_prompt
    form = "in the base model's own chat template"
    if template is not None:
        form = "as `{}`".format(template.replace("\n", "\\n"))
    return f"{form}, a prompt of Vicuna's form behind `{system}`" if system else form


def scores_table(lines: Sequence[ScoreLine]) -> str:
    """The scores beside the base model's, each with its interval."""
    if not lines:
        return "It has not been evaluated."
    rows = [
        [
            line.benchmark,
            line.what or line.name,
            f"{line.value:.2f}",
            f"{line.interval[0]:.2f} to {line.interval[1]:.2f}" if line.interval else "—",
            "—" if line.base is None else f"{line.base:.2f}",
        ]
        for line in lines
    ]
    heads = ["Benchmark", "Score", "This model", "95 % interval", "Base model"]
    return markdown_table(heads, rows) + (
        "\n\nThe intervals are bootstrap intervals over the questions: how far a score would move"
        " had other questions of the kind been asked. They say nothing of another training."
    )


def known_limits(job: ModelCardJob) -> str:
    """What whoever uses it has to know."""
    languages = ", ".join(job.languages)
    of_data = (
        "- Who preferred the chosen answers of its data, and by what, its data's makers know.\n"
        if job.own_pairs
        else "- Its data were ranked by a reward that may not see images, and that may like longer"
        " answers; the data set's card has the figures.\n"
    )
    return (
        f"{of_data}"
        "- It was evaluated on the benchmarks above and on nothing else: not for safety, and in no"
        f" language but {languages}.\n"
        "- What its base model may not be used for, it may not be used for either."
    )
