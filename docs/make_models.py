"""Writes docs/models.md from the registries, the models' classes and the tiny checkpoints; `make
docs` runs it, and tests keep the page in step. A run of the tests prints its rows whose contract
ran and passed (tests/shown.py).

PYTHONPATH=scripts:demo python docs/make_models.py
"""

import inspect
from collections.abc import Collection, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, get_args

from lib.models.image_generators.pipelines import PIPELINES
from lib.registry import Registry
from lib.training.losses import LOSSES
from lib.training.settings import TrainingSettings
from tiny.registry import BASE_MODELS, FAMILIES, PIPELINE_OF, TINY_OF

DOCS = Path(__file__).resolve().parent
MODELS = DOCS.parent / "scripts/lib/models"
INTRODUCTION = """\
# Models: which there are, and what was tried with what

<!-- Made by `make docs` from the registries (scripts/lib/models/*/registry.py), the classes'
settings and demo/tiny/registry.py; edit there, or docs/make_models.py. -->

A role is played by whichever class the configuration names. How each is configured, and how one is
added: docs/adding-a-model.md; all of its settings: docs/configuration.md.

- **Tiny checkpoint**: the random checkpoint of the real architecture and layout (`demo/tiny/`) with
  which the tests that are named above a table hold a kind to its role's contract, on a CPU. `None`
  is one that loads none of ours, and is held to the contract as it is. A run of these tests ends
  with the rows of this page that it showed: those of which all tests passed. In the environment of
  `envs/cpu.lock` these are not `presidio` and `qlora`, whose packages it lacks.
- **On a GPU**: what ran on the GPU that docs/gpu.md tells of: these tests with the tiny checkpoint,
  or a model of the real size, which has random weights.
- **Real weights**: whether anything was computed with the weights that people use. Nothing was.
  That a layout is the hub's, and a formula the reference's, is told by tests with tiny checkpoints.
"""
COLUMNS = ("class", "what it takes", "tiny checkpoint", "on a GPU", "real weights")
#: What ran on a GPU, by docs/gpu.md; what is not here did not.
ON_A_GPU = {
    # A test of apo_zero is not among those that `make test-gpu` names.
    **{("losses", name): "tiny" for name in LOSSES if name != "apo_zero"},
    **{("base_models", name): "tiny" for name in {**FAMILIES, **BASE_MODELS}},
    ("image_generators", "diffusers"): "tiny",
    ("image_scorers", "siglip"): "tiny",
    ("image_scorers", "vqascore"): "tiny",
    ("response_rewards", "sequence-classification"): "tiny",
    ("response_rewards", "vlm-judge"): "tiny",
    ("response_rewards", "claims"): "tiny",
    ("content_checkers", "image-classifier"): "tiny",
    ("tuning", "full"): "tiny",
    ("image_generators", "stable-diffusion-3"): "tiny; real size",
    ("image_scorers", "image-reward"): "tiny; real size",
    ("image_scorers", "clip"): "tiny; real size",
    ("image_scorers", "blip"): "tiny",
    ("instruction_authors", "transformers"): "tiny",
    ("response_generators", "transformers"): "tiny; real size",
    ("response_rewards", "armorm"): "tiny; real size",
    ("base_models", "llava-1.5"): "tiny; real size",
    ("losses", "sigmoid"): "tiny; real size",
    ("tuning", "lora"): "tiny; real size",
}
NOT_TRIED = "no"
#: The key of the configuration that chooses a kind of each role.
CHOSEN_BY = {
    "image_generators": "`images.kind`",
    "image_scorers": "`kind` of `image_ranking.scorers.<name>`",
    "instruction_authors": "`instructions.backend`",
    "policy_models": "`backend` of `responses.policy_models.<name>`",
    "response_generators": "`backend`, where a model that answers runs in the job",
    "response_rewards": "`response_ranking.kind`",
    "content_checkers": "`kind` of `pairs.content_check.<name>`",
}
CONTRACT = "test_every_model"
TUNINGS = {
    "lora": ("an adapter on the language model's linear layers", "`llava-1.5` and all above"),
    "qlora": (
        "the same, the language model in 4 bits",
        "`llava-1.5`, `qwen2.5-vl`, `idefics3`, where bitsandbytes is installed",
    ),
    "full": ("all weights of the language model", "`llava-1.5`, `qwen2.5-vl`, `idefics3`"),
}


class Row(NamedTuple):
    """A kind, and what there is to say of it; `tiny`: the checkpoint that tests try it with."""

    kind: str
    model_class: str
    takes: str
    tiny: str


class Section(NamedTuple):
    """A role: its name, what its kinds are called and chosen by, the module of its tests."""

    role: str
    head: str
    about: str
    test: str
    rows: list[Row]


def registries() -> Iterator[tuple[str, Registry[Any]]]:
    """The registry of every role that has a folder, by the folder's name."""
    for path in sorted(MODELS.glob("*/registry.py")):
        module = import_module(f"lib.models.{path.parent.name}.registry")
        yield from (
            (path.parent.name, each) for each in vars(module).values() if isinstance(each, Registry)
        )


def sections() -> list[Section]:
    """All roles, those of registries first."""
    roles = [
        Section(
            role,
            registry.key,
            f"Chosen by {CHOSEN_BY.get(role, registry.key)}.",
            CONTRACT,
            [row_of(role, registry, kind) for kind in registry.kinds],
        )
        for role, registry in registries()
    ]
    return [*roles, pipelines(), base_models(), losses(), tuning()]


def row_of(role: str, registry: Registry[Any], kind: str) -> Row:
    """A kind of a registry: what it takes is what its settings say of it."""
    model_class: Any = registry.load(kind)
    takes = " ".join((inspect.getdoc(model_class.Settings) or "").split())
    tiny = TINY_OF.get((role, kind))
    return Row(kind, f"`{model_class.__name__}`", takes, f"`{tiny}`" if tiny else "None")


def pipelines() -> Section:
    """The pipelines of `kind: diffusers`."""
    tiny = {pipeline: f"`{name}`" for name, pipeline in PIPELINE_OF.items()}
    rows = [
        Row(name, "`DiffusersPipeline`", what_it_takes(name), tiny.get(name, NOT_TRIED))
        for name in PIPELINES
    ]
    about = (
        "What `images.kind: diffusers` draws with, and which settings that not all take it takes."
        " Of a pipeline that was not tried, a test says only that it takes what is passed to it."
        " Stable Diffusion 3 was tried as the kind of its own."
    )
    return Section("pipelines", "pipeline", about, "test_image_generators", rows)


def what_it_takes(pipeline: str) -> str:
    """The settings that not every pipeline takes, as far as this one does."""
    abilities = PIPELINES[pipeline]
    taken = {"`negative_prompt`": abilities.negative, "`max_sequence_length`": abilities.length}
    return ", ".join(name for name, is_taken in taken.items() if is_taken) or "neither"


def base_models() -> Section:
    """The families of base models."""
    rows = [
        Row(name, f"`{model_class}`", takes, f"`{name}`")
        for name in {**FAMILIES, **BASE_MODELS}
        for model_class, takes in [FAMILIES.get(name, ("", ""))]
    ]
    about = (
        "`training.base_model`: any model that reads pictures and writes text, with a chat"
        " template, as transformers loads it. These were trained for two updates, merged and asked."
    )
    return Section("base_models", "family", about, "test_base_models", rows)


def losses() -> Section:
    """TRL's losses."""
    rows = [
        Row(name, "`DPO`", f"{loss.what} (arXiv:{loss.source})", "`llava-1.5`")
        for name, loss in LOSSES.items()
    ]
    about = "Weighted by `training.settings.losses`; each was trained for three updates."
    return Section("losses", "loss", about, "test_losses", rows)


def tuning() -> Section:
    """What of a base model is trained."""
    kinds = get_args(TrainingSettings.model_fields["tuning"].annotation)
    rows = [Row(kind, "`DPO`", *TUNINGS[kind]) for kind in kinds]
    return Section(
        "tuning", "tuning", "Chosen by `training.settings.tuning`.", "test_base_models", rows
    )


def table(section: Section, only: Collection[str] | None = None) -> list[str]:
    """The lines of a role's table, or of those of its kinds that are in `only`."""
    lines = [f"| {' | '.join([section.head, *COLUMNS])} |", f"|---{'|---' * len(COLUMNS)}|"]
    for row in section.rows:
        if only is None or row.kind in only:
            on_a_gpu = ON_A_GPU.get((section.role, row.kind), NOT_TRIED)
            cells = [f"`{row.kind}`", *row[1:], on_a_gpu, NOT_TRIED]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def title(section: Section) -> str:
    """A role's heading."""
    return section.role.replace("_", " ").capitalize()


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for section in sections():
        about = f"{section.about} Tests: `tests/{section.test}.py`."
        parts.append("\n".join([f"## {title(section)}\n", f"{about}\n", *table(section), ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    (DOCS / "models.md").write_text(page(), encoding="utf-8")
