"""Under what licence a data set or a model can be passed on, as it follows from the models that
made it. No legal advice: what the terms say in short, and where they stand, is told beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from pydantic import Field

from lib.blocks import Block
from lib.report.sidecar import ModelOrigin

#: What the hub calls a licence that its list does not have; `license_name` and `license_link` then
#: say which it is.
OTHER = "other"
LICENCE_FILE = "LICENSE.md"


class Terms(Block):
    """Terms of use, and what they apply to."""

    name: str = Field(min_length=1, description="What they are called.")
    address: str = Field(pattern=r"^https://", description="Where they stand.")
    in_short: str = Field(min_length=1, description="What matters most for a run's data.")
    binds_output: bool = Field(
        False, description="Whether they say what may be done with what a model makes."
    )
    hub: list[str] = Field(default_factory=list, description="Hub repositories.")
    endpoints: list[str] = Field(default_factory=list, description="Host names.")


class UsedModel(Block):
    """A model or an endpoint of a run.

    does    what it does there, in words
    makes   whether what it makes is in the data; the others' scores only choose
    origin  where it comes from; of an endpoint its model's name, and no revision
    rule    whose records under work/ tell the commit; empty where it is known without
    host    of an endpoint
    terms   under which it is offered, as far as they are known
    """

    does: str
    makes: bool
    origin: ModelOrigin
    rule: str = ""
    host: str = ""
    terms: Terms | None = None

    @property
    def name(self) -> str:
        """What it is called where others read it: a folder of this machine by its last name."""
        path = PurePath(self.origin.model)
        return path.name if path.is_absolute() else self.origin.model


@dataclass(frozen=True)
class Licence:
    """A licence by the hub's name (`OTHER`: by a name of ours), and why it is this one."""

    id: str
    name: str
    reason: str

    @property
    def address(self) -> str:
        """Where it stands, or its name."""
        return LICENCE_FILE if self.id == OTHER else self.id

    def metadata(self) -> dict[str, str]:
        """What a card's metadata say of it."""
        if self.id != OTHER:
            return {"license": self.id}
        return {"license": OTHER, "license_name": self.name, "license_link": LICENCE_FILE}


def licence_of(models: Sequence[UsedModel], own: str | None) -> Licence:
    """The licence of what models made. `own`: that which its maker gives, by the hub's name."""
    makers = [model for model in models if model.makes]
    unknown = sorted({model.name for model in makers if model.terms is None})
    binding = sorted(
        {model.terms.name for model in makers if model.terms and model.terms.binds_output}
    )
    if binding:
        reason = (
            f"The terms of models that made it say what may be done with their output:"
            f" {', '.join(binding)}. Whoever uses it is bound by them; no freer licence can be"
            " given."
        )
        if unknown:
            reason += f" Of others no terms are known here: {', '.join(unknown)}."
        if own:
            reason += f" Under {own} stands only what its maker added: the prompts and the choice."
        return Licence(OTHER, "terms-of-the-models", reason)
    if unknown:
        return Licence(
            OTHER,
            "terms-of-the-models",
            "No terms are known here of models that made it, so that none can be said to allow"
            f" it to be passed on: {', '.join(unknown)}.",
        )
    if own:
        return Licence(
            own,
            own,
            "None of the terms of the models that made it binds their output, and its maker gives"
            f" {own}.",
        )
    return Licence(
        OTHER,
        "not-given",
        "None of the terms of the models that made it binds their output, and its maker has not"
        " given a licence yet (`pairs.card.license`). Ask before you pass it on.",
    )


def licence_page(licence: Licence, models: Sequence[UsedModel]) -> str:
    """The text of `LICENCE_FILE`."""
    lines = ["# Licence", "", licence.reason, "", "This is no legal advice; the originals decide."]
    shown: dict[str, list[str]] = {}
    terms = {model.terms.name: model.terms for model in models if model.terms}
    for model in models:
        if model.terms:
            shown.setdefault(model.terms.name, []).append(f"`{model.name}` ({model.does})")
    for name, users in shown.items():
        each = terms[name]
        lines += ["", f"## {name}", "", f"{each.in_short} <{each.address}>", ""]
        lines += [f"- {user}" for user in dict.fromkeys(users)]
    if unknown := [model for model in models if model.terms is None]:
        lines += ["", "## Terms not known here", ""]
        lines += [f"- `{model.name}` ({model.does})" for model in unknown]
    return "\n".join(lines) + "\n"
