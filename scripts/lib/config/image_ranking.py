"""Stage image ranking: scores of the candidates, and who judges two scorers' picks."""

from collections import Counter
from typing import Self

from pydantic import Field, PositiveInt, model_validator

from lib.blocks import NO_EFFECT, Block, Endpoint, Model, Name, max_image_megapixels_field
from lib.data.controls import Pick
from lib.models.image_scorers.blip import BLIPScore
from lib.models.image_scorers.clip import CLIPScore
from lib.models.image_scorers.image_reward import ImageReward
from lib.models.image_scorers.registry import AnyImageScorer
from lib.models.image_scorers.settings import ImageScorerSettings


class PickJudge(Block):
    """Table 5: a judge says which of two scorers' picks shows the prompt better (paper,
    supplementary A, where it is GPT-4o).

    Each pair is shown in both orders, since judges favour a position; that makes two requests a
    comparison.
    """

    endpoint: Endpoint = Field(description="The judge: a model that sees images.")
    against: Name = Field(
        "clip", description="The scorer whose picks are compared with those of `select_by`."
    )
    comparisons: PositiveInt = Field(
        100,
        description=(
            "How many prompts of those whose picks differ are shown, drawn with the run's seed"
            " (paper: 100)."
        ),
    )


def _default_scorers() -> dict[str, ImageScorerSettings]:
    return {
        "image-reward": ImageReward.Settings(
            kind="image-reward",
            model="THUDM/ImageReward",
            revision="5736be03b2652728fb87788c9797b0570450ab72",
            tokenizer=Model(
                model="google-bert/bert-base-uncased",
                revision="86b5e0934494bd15c9632b12f734a8a67f723594",
                dtype="float32",
            ),
        ),
        "clip": CLIPScore.Settings(
            kind="clip",
            model="openai/clip-vit-large-patch14",
            revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
        ),
        "blip": BLIPScore.Settings(
            kind="blip",
            model="Salesforce/blip-itm-large-coco",
            revision="fef05cafc05298067cbbca00b125749394a77a6f",
        ),
    }


class ImageRanking(Block):
    """Stage image ranking: scores of all candidates by each scorer; the winner is the first maximum
    of one of them (paper 3.2).
    """

    scorers: dict[Name, AnyImageScorer] = Field(
        default_factory=_default_scorers,
        min_length=1,
        description="By name; Table 4 compares those that are here.",
    )
    select_by: Name = Field("image-reward", description="The scorer that picks the image.")
    min_image_reward: float | None = Field(
        None, description="Prompts whose best image scores lower get no pair; null keeps all."
    )
    pick: Pick = Field(
        "best",
        description=(
            "Which candidate goes on: `best` is the scorer's; `random`, a negative control of the"
            " ranking, draws one with the run's seed among those that are not blank."
            " `min_image_reward` is of the best one either way (docs/evaluation.md, Controls)."
        ),
    )
    together: bool = Field(
        True,
        description=(
            "Whether one job scores a shard's pictures by all scorers that are small models (not"
            " `vqascore`) and share an environment, and so decodes each picture once; otherwise"
            " each scorer has a job of its own, as it has where some scorer has ranked the shard"
            " already."
        ),
        json_schema_extra=NO_EFFECT,
    )
    judge: PickJudge | None = Field(
        None,
        description=(
            "Who judges the picks of two scorers for Table 5; null leaves the table's rows empty."
        ),
    )

    @property
    def scored_together(self) -> dict[str, ImageScorerSettings]:
        """The scorers that one job can score by, at least two: small models that run in it, in the
        environment that most of them share.
        """
        small = {name: scorer for name, scorer in self.scorers.items() if scorer.is_small}
        counts = Counter(scorer.environment for scorer in small.values())
        shared = {
            name: scorer
            for name, scorer in small.items()
            if scorer.environment == counts.most_common(1)[0][0]
        }
        return shared if self.together and len(shared) > 1 else {}

    @model_validator(mode="after")
    def _selector_exists(self) -> Self:
        if self.select_by not in self.scorers:
            raise ValueError(
                f"`select_by` is '{self.select_by}', but `scorers` has {', '.join(self.scorers)}"
            )
        if self.judge and self.judge.against not in self.scorers:
            raise ValueError(
                f"`judge.against` is '{self.judge.against}', but `scorers` has"
                f" {', '.join(self.scorers)}"
            )
        if self.judge and self.judge.against == self.select_by:
            raise ValueError(
                f"`judge.against` and `select_by` are both '{self.select_by}': a scorer agrees with"
                " itself. Name another one"
            )
        return self


class RankImagesJob(Block):
    """Parameters of rule rank_images."""

    scorer: AnyImageScorer
    max_image_megapixels: float = max_image_megapixels_field()
