"""What a run puts on the hub, and where."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from lib.blocks import Block, Name
from lib.config.pairs import Size

#: A repository of the hub: `owner/name`.
Repository = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}$"),
]


class Publish(Block):
    """Target `publish`: data sets, adapters and merged models go to repositories of the hub, with
    the token in HF_TOKEN (docs/publishing.md).
    """

    confirm: bool = Field(
        False, description="`false`: it is only said what would go where. Nothing is sent."
    )
    private: bool = Field(
        True,
        description=(
            "New repositories are private, and public ones are refused. `false` makes new ones"
            " public, and leaves those that are there as they are."
        ),
    )
    data_sets: dict[Size, Repository] = Field(
        default_factory=dict, description="Data set size -> repository (`owner/name`)."
    )
    all_sizes: Repository | None = Field(
        None,
        description="One repository for the data sets of all sizes, each loaded by its own name.",
    )
    adapters: dict[Name, Repository] = Field(
        default_factory=dict, description="Experiment -> repository of its LoRA adapter."
    )
    models: dict[Name, Repository] = Field(
        default_factory=dict, description="Experiment -> repository of its merged model."
    )


class Publication(Block):
    """A folder of the run and the repository that it goes to.

    folder  from the run's folder on
    card    a file beside it that is its README.md, where it has none of its own
    """

    folder: str
    card: str | None = None
    repository: Repository
    kind: Literal["dataset", "model"]


class PublishJob(Block):
    """Parameters of rule publish."""

    confirm: bool
    private: bool
    publications: list[Publication]
