"""What the rules of the tables are told. Those of models: `ModelTableJob` in
lib/report/model_tables.py, which three rules share.
"""

from pydantic import Field

from lib.blocks import Block, Name
from lib.config.image_ranking import PickJudge
from lib.data.blind_verdicts import BlindVerdict
from lib.report.sidecar import Label, ModelOrigin


class TableScorer(Block):
    """An image scorer that a table shows: its kind, and which model it is."""

    kind: str
    origin: ModelOrigin


class CommonSelectionsJob(Block):
    """What rule common_selections_table is told: the scorers by name, in the configured order."""

    scorers: dict[Name, TableScorer]
    label: Label


class ComparePicksJob(Block):
    """What rule compare_picks is told: the judge, and the two scorers by name. Wins are the first
    one's.
    """

    judge: PickJudge
    scorers: dict[Name, ModelOrigin]


class ImageJudgeTableJob(Block):
    """What rule image_judge_table is told: whether a judge is configured, the kinds of the scorers
    by name, what people said in the report's blind mode, the two scorers whose picks they saw, and
    which model each scorer is.
    """

    has_judge: bool
    kinds: dict[Name, str]
    label: Label
    people: list[BlindVerdict] = Field(default_factory=list)
    compared: list[Name] = Field(default_factory=list)
    scorers: dict[Name, ModelOrigin] = Field(default_factory=dict)


class ReasonsTableJob(Block):
    """What rule reasons_table is told: whose run it is."""

    label: Label


class RewardLengthTableJob(Block):
    """What rule reward_length_table is told: the kind of the response reward, and whether pairs are
    made of what length leaves of it.
    """

    judge: str
    is_controlled: bool
    label: Label


def rankings_input(scorer: str) -> str:
    """The name of a rule's input that is the rankings of a scorer."""
    return f"rankings_{scorer}"
