"""The report: a page on which people look at a run's data."""

from typing import Any

from pydantic import Field

from lib.blocks import Block, Name, UserPath
from lib.report.licence import UsedModel
from lib.report.sidecar import Label


class Report(Block):
    """The page that target `report` makes (docs/report.md)."""

    thumbnail_pixels: int = Field(
        256,
        ge=32,
        le=1024,
        description=(
            "The longer side of the page's small pictures. The page shows the pictures themselves"
            " where it lies in the run's folder."
        ),
    )


class ShownQuestions(Block):
    """A benchmark of files, as far as its pictures are shown."""

    scorer: str
    questions: list[UserPath]
    images: UserPath | None


class ShownTask(Block):
    """A benchmark of lmms-eval's, as far as its pictures are shown; `files`: of its data, where
    they are local.
    """

    files: list[UserPath]


class PlannedTime(Block):
    """What the jobs of a rule were planned to take. `gpus`: the most that one of them holds."""

    hours: float
    gpu_hours: float
    gpus: int


class ReportJob(Block):
    """What rule report is told.

    scorers        the image scorers, in the configured order
    compared       the two whose picks people compare in the blind mode, if there are two
    policies       the names of the answers, in the configured order
    reviews        the folder that reviews are put into
    models         of the run, with their terms
    experiments    whose trainings are shown
    own_pairs      the experiments that bring pairs of their own, by the names of these' folders
    evaluated      the models that are evaluated, the base model first
    benchmarks     where the pictures of each are
    planned        by rule, where there are rates
    configuration  of the run, without what is of this machine alone
    """

    run: str
    label: Label
    thumbnail_pixels: int
    scorers: list[Name]
    compared: list[Name]
    policies: list[str]
    reviews: str
    models: list[UsedModel]
    experiments: list[Name]
    own_pairs: dict[str, list[Name]] = Field(default_factory=dict)
    evaluated: list[Name]
    benchmarks: dict[Name, ShownQuestions | ShownTask]
    planned: dict[str, PlannedTime] = Field(default_factory=dict)
    configuration: dict[str, Any]
