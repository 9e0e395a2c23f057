"""What cards of data sets and of models have in common: metadata for the hub, then Markdown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.report.licence import UsedModel
from lib.report.sidecar import project_commit, resolve_model

PAPER = "https://arxiv.org/abs/2412.17417"
BIBTEX = """\
@article{wijaya2024multimodal,
  title   = {Multimodal Preference Data Synthetic Alignment with Reward Model},
  author  = {Wijaya, Robert and Nguyen, Ngoc-Bao and Cheung, Ngai-Man},
  journal = {arXiv preprint arXiv:2412.17417},
  year    = {2024},
  url     = {https://arxiv.org/abs/2412.17417}
}"""
CITATION = f"```bibtex\n{BIBTEX}\n```"


def with_metadata(metadata: Mapping[str, Any], text: str) -> str:
    """A card: the metadata between lines of three dashes, then the text."""
    import yaml

    told = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{told}---\n\n{text}"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown; what is a number stands on the right."""
    numbers = [
        bool(rows) and all(isinstance(row[column], int | float) for row in rows)
        for column in range(len(heads))
    ]
    lines = [
        heads,
        ["---:" if is_number else "---" for is_number in numbers],
        *([_cell(value) for value in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def models_table(models: Sequence[UsedModel], root: Path) -> str:
    """The models that were used, each with the commit, or a folder's digest, that the records of
    the run in `root` tell.
    """
    rows = []
    for model in models:
        terms = f"[{model.terms.name}]({model.terms.address})" if model.terms else "not known here"
        rows.append([model.does, f"`{model.name}`", revision_of(model, root), terms])
    return markdown_table(["What for", "Model", "Revision", "Terms"], rows)


def revision_of(model: UsedModel, root: Path) -> str:
    """The revision of a model, in words."""
    if model.host:
        return f"asked at {model.host}"
    if not model.origin.revision:
        return "—"
    identity = resolve_model(model.origin, root, model.rule)["identity"]
    told = ", ".join(identity) if isinstance(identity, list) else identity
    return f"`{told}`" if told else "not on record"


def made_with(code: str | None) -> str:
    """Which code wrote it. `code`: the address of its repository."""
    commit = project_commit()
    if not commit:
        return "The commit of the code that wrote this is not known."
    plain = commit.removesuffix("-dirty")
    named = f"[`{plain}`]({code.rstrip('/')}/tree/{plain})" if code else f"`{plain}`"
    changed = ", with changes that are in no commit" if plain != commit else ""
    return f"Written by the PDS-DPO workflow at commit {named}{changed}."
