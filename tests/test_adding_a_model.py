"""docs/adding-a-model.md, tried: an image scorer and a response reward that stand in this file,
found by the registries, chosen in the configuration, run by the rules' scripts.
"""

import inspect
import json
import re
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import Field
from safetensors.torch import save_file

import rank_images
import rank_responses
from lib import weights
from lib.config.image_ranking import RankImagesJob
from lib.config.response_ranking import RankResponsesJob
from lib.config.run import Config, load_config
from lib.data.prompts import Prompt
from lib.data.rows import Candidate, ImageRankingRow, ResponseRankingRow
from lib.data.shards import present, read_shard
from lib.errors import UserError
from lib.files import write_jsonl
from lib.head.plan import Plan
from lib.jobs.device import require_device
from lib.model_files import problem_with_all
from lib.models.image_scorers.registry import IMAGE_SCORERS
from lib.models.image_scorers.settings import LocalScorerSettings
from lib.models.response_rewards.base import Conversation, Reward
from lib.models.response_rewards.registry import RESPONSE_REWARDS
from lib.models.response_rewards.settings import LocalRewardSettings

DOCUMENT = Path(__file__).resolve().parent.parent / "docs/adding-a-model.md"


class NearColour:
    """How near an image's mean colour is to the mean of its prompt's letters, each of which has a
    colour of its own.
    """

    VERSION: ClassVar[int] = 1

    class Settings(LocalScorerSettings):
        """A table of 256 colours; a score is minus the distance of the mean colour, to a power."""

        kind: Literal["near-colour"] = Field(description="Architecture and formula.")
        power: float = Field(1.0, gt=0, description="Over 1, far colours weigh more.")

        def problem_with_files(self, folder: Path) -> str | None:
            return problem_with_all(folder, ["config.json", "model.safetensors"])

    def __init__(self, colours: torch.Tensor, power: float) -> None:
        self.colours, self.power = colours, power

    @classmethod
    def load(cls, settings: Settings, device: str) -> Self:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        require_device(device)
        folder = weights.fetch(settings.model, settings.revision)
        try:
            tensors = load_file(folder / "model.safetensors")
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{folder}: {error}") from error
        if {name: tuple(each.shape) for name, each in tensors.items()} != {"colours": (256, 3)}:
            raise ValueError(f"{folder}: `colours` (256, 3), and nothing else, has to be there")
        return cls(tensors["colours"].to(device), settings.power)

    def score(self, prompt: str, images: Sequence[Image.Image]) -> list[float]:
        letters = list(prompt.lower().encode() or b" ")
        wanted = self.colours[letters].mean(dim=0).cpu().numpy()
        means = [np.asarray(image).reshape(-1, 3).mean(axis=0) for image in images]
        return [-(float(np.linalg.norm(mean - wanted)) ** self.power) for mean in means]

    def truncates(self, prompt: str) -> bool:
        return False


class Shortest:
    """The shorter the better."""

    VERSION: ClassVar[int] = 1

    class Settings(LocalRewardSettings):
        """Minus the length of the response."""

        kind: Literal["shortest"] = Field(description="Which class rates the responses.")

    @classmethod
    def load(cls, settings: Settings, device: str) -> Self:
        return cls()

    def rate(self, conversations: Sequence[Conversation]) -> list[Reward]:
        lengths = [len(conversation[-1]["content"]) for conversation in conversations]
        return [Reward(float(-length), {"characters": length}) for length in lengths]


# --- what a user does

COLOURS = {"red": (250, 10, 10), "blue": (10, 10, 250), "green": (10, 250, 10)}
PROMPT = Prompt("art", "a red square")


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of the registries, which in the project stand in its code."""
    monkeypatch.setitem(IMAGE_SCORERS.kinds, "near-colour", "test_adding_a_model:NearColour")
    monkeypatch.setitem(RESPONSE_REWARDS.kinds, "shortest", "test_adding_a_model:Shortest")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that knows what red is."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    write_colour(path, "red")
    return path


def write_colour(folder: Path, name: str) -> None:
    """A model in which every letter has one colour."""
    colours = torch.tensor([COLOURS[name]] * 256, dtype=torch.float32)
    save_file({"colours": colours}, folder / "model.safetensors")


def configure(folder: Path, **scorer: Any) -> Config:
    """A configuration that ranks images and responses by the models of this file."""
    near = {"kind": "near-colour", "model": str(folder)} | scorer
    return load_config(
        {
            "image_ranking": {"scorers": {"near": near}, "select_by": "near"},
            "response_ranking": {"kind": "shortest", "model": str(folder)},
        },
        [],
    )


@pytest.fixture
def rank(
    tmp_path: Path, rule_object: Callable[..., SimpleNamespace]
) -> Callable[[Config], tuple[ImageRankingRow, dict[str, Any]]]:
    """Runs rank_images on one prompt's images of one colour each and a grey dot; gives its row and
    the job's record.
    """
    root = tmp_path / "run"
    candidates = []
    for number, (name, colour) in enumerate(COLOURS.items()):
        image = Image.new("RGB", (9, 9), colour)
        image.putpixel((4, 4), (99, 99, 99))
        path = root / f"images/art/00/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        candidate: Candidate = {
            "guidance_scale": 5.0 + number,
            "seed": 0,
            "blank": False,
            "file": path.relative_to(root).as_posix(),
            "sha256": sha256(path.read_bytes()).hexdigest(),
        }
        candidates.append(candidate)
    source, output = root / "images/art/00.jsonl", root / "image_ranking/near/art/00.jsonl"
    write_jsonl(source, [PROMPT.row() | {"candidates": candidates}])

    def run(config: Config) -> tuple[ImageRankingRow, dict[str, Any]]:
        settings = RankImagesJob(scorer=config.image_ranking.scorers["near"])
        wildcards = {"scorer": "near", "topic": "art", "shard": "00"}
        parameters = settings.model_dump(mode="json")
        rank_images.main(
            rule_object("rank_images", wildcards, [source], [output], settings=parameters)
        )
        (row,) = present(read_shard(output, ImageRankingRow).values())
        return row, json.loads((root / "work/rank_images/near/art/00.json").read_text())

    return run


@pytest.mark.usefixtures("registered")
def test_a_new_scorer_is_chosen_by_its_kind_and_ranks_images(folder: Path, rank: Any) -> None:
    row, record = rank(configure(folder))
    assert row["winner"] == list(COLOURS).index("red")
    assert max(row["scores"]) == row["scores"][row["winner"]]
    assert not row["prompt_truncated"]
    assert record["computed"] == 1


@pytest.mark.usefixtures("registered")
def test_its_items_are_computed_anew_where_its_settings_its_model_or_its_version_change(
    folder: Path, rank: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def computed(**settings: Any) -> int:
        weights.folder_identity.cache_clear()  # it is of one process, and files change between runs
        return int(rank(configure(folder, **settings))[1]["computed"])

    assert (computed(), computed()) == (1, 0)
    assert (computed(power=2), computed(power=2)) == (1, 0)
    assert computed() == 0
    write_colour(folder, "blue")
    assert (computed(), computed()) == (1, 0)
    monkeypatch.setattr(NearColour, "VERSION", 2)
    assert (computed(), computed()) == (1, 0)


@pytest.mark.usefixtures("registered")
def test_a_run_sees_its_version_and_its_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(folder)
    scorer = config.image_ranking.scorers["near"]
    assert scorer.environment == "rewards"
    before = Plan(config).made_by(scorer, IMAGE_SCORERS)
    monkeypatch.setattr(NearColour, "VERSION", 2)
    assert Plan(config).made_by(scorer, IMAGE_SCORERS) == before | {"version": 2}


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ({"kind": "near-color"}, "no image scorer 'near-color'. Did you mean 'near-colour'"),
        (
            {"kind": "aesthetic"},
            "Known: image-reward, clip, blip, siglip, vqascore, vlm-rating, near",
        ),
        ({"powr": 2}, "image_ranking.scorers.near.powr: unknown key"),
        ({"power": 0}, "image_ranking.scorers.near.power: Input should be greater than 0"),
        ({"model": "/nowhere"}, "there is no folder '/nowhere'"),
    ],
)
def test_a_mistake_in_its_block_is_told_with_the_key(
    folder: Path, mistake: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        configure(folder, **mistake)
    assert message in str(error.value)


@pytest.mark.usefixtures("registered")
def test_a_new_reward_is_chosen_by_its_kind_and_ranks_responses(
    folder: Path, tmp_path: Path, rule_object: Callable[..., SimpleNamespace]
) -> None:
    root = tmp_path / "run"
    responses = {"talker": "There are two red cats on it.", "laconic": "Two cats."}
    image = {"file": "x.png", "sha256": "0" * 64, "guidance_scale": 7.0, "score": 0.3}
    for policy, response in responses.items():
        row = PROMPT.row() | {"image": image, "instruction": "What is there?", "tokens": 5}
        row |= {"response": response, "finish_reason": "stop"}
        write_jsonl(root / f"responses/{policy}/art/00.jsonl", [row])
    settings = RankResponsesJob(
        reward=configure(folder).response_ranking, policies=list(responses)
    ).model_dump(mode="json")
    output = root / "response_ranking/art/00.jsonl"
    inputs = [root / f"responses/{policy}/art/00.jsonl" for policy in responses]
    wildcards = {"topic": "art", "shard": "00"}
    rank_responses.main(
        rule_object("rank_responses", wildcards, inputs, [output], settings=settings)
    )
    (published,) = present(read_shard(output, ResponseRankingRow).values())
    for policy, response in responses.items():
        of_policy: Any = published["responses"][policy]
        assert (of_policy["score"], of_policy["characters"]) == (-len(response), len(response))


@pytest.mark.usefixtures("registered")
def test_a_reward_that_is_misspelt_is_told_with_what_was_meant(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no response reward 'shortes'\. Did you mean 'shortest'"):
        load_config({"response_ranking": {"kind": "shortes", "model": str(folder)}}, [])


def test_the_scorer_of_the_document_is_the_one_that_is_tried_here() -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert any(inspect.getsource(NearColour) in block for block in blocks)


def test_the_document_names_files_that_there_are() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    paths = re.findall(r"`((?:scripts|demo|tests|docs|envs)/[\w./-]+\.\w+)`", text)
    assert len(paths) > 5
    assert [path for path in paths if not (DOCUMENT.parent.parent / path).exists()] == []
