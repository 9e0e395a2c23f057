"""Weights that a folder lacks are never random: it is refused by name. What real checkpoints may
lack or have besides is not.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib.errors import UserError
from lib.loading import check_whole, load_whole

HEAD = "language_model.lm_head.weight"
EMBEDDING = "language_model.model.embed_tokens.weight"
State = dict[str, torch.Tensor]


@pytest.fixture
def folder(demo_models: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "llava"
    shutil.copytree(demo_models / "llava-1.5", copy)
    return copy


def change(folder: Path, how: Callable[[State], object]) -> None:
    state = load_file(folder / "model.safetensors")
    how(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def tie(folder: Path) -> None:
    """Has the output layer be the embedding, as many language models do."""
    path = folder / "config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    config["text_config"]["tie_word_embeddings"] = config["tie_word_embeddings"] = True
    path.write_text(json.dumps(config))


def load(folder: Path) -> Any:
    from transformers import LlavaForConditionalGeneration

    return load_whole(LlavaForConditionalGeneration, folder)


def check(folder: Path) -> None:
    check_whole(folder, with_images=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: state.pop(HEAD), r"it lacks lm_head\.weight"),
        (
            lambda state: [state.pop(name) for name in list(state) if "q_proj" in name],
            r"it lacks \S+q_proj\S+, \S+q_proj\S+, \S+q_proj\S+ and \d more",
        ),
        (
            lambda state: state.update({"language_model.score.weight": torch.zeros(2)}),
            r"it has the unknown \S*score\.weight",
        ),
        (
            lambda state: state.update({HEAD: torch.zeros(3, 3)}),
            r"it has another shape for lm_head\.weight \(\(3, 3\), not \(\d+, 64\)\)",
        ),
    ],
)
@pytest.mark.parametrize("refuse", [load, check])
def test_a_checkpoint_that_is_not_whole_is_refused_by_its_folder_and_its_first_tensors(
    folder: Path,
    refuse: Callable[[Path], object],
    damage: Callable[[State], object],
    message: str,
) -> None:
    change(folder, damage)
    with pytest.raises((ValueError, UserError), match=rf"{folder}.*{message}"):
        refuse(folder)


@pytest.mark.parametrize("accept", [load, check])
def test_a_checkpoint_may_lack_a_tied_layer_and_have_old_buffers_besides(
    folder: Path, accept: Callable[[Path], object]
) -> None:
    def as_published(state: State) -> None:
        del state[HEAD]
        state["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
        state["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(5)[None]

    tie(folder)
    change(folder, as_published)
    accept(folder)


def test_a_tied_layer_without_what_it_is_tied_to_is_refused(folder: Path) -> None:
    def without_both(state: State) -> None:
        del state[HEAD], state[EMBEDDING]

    tie(folder)
    change(folder, without_both)
    with pytest.raises(UserError, match="it lacks"):
        check(folder)


def test_only_the_files_that_the_index_names_are_looked_at(folder: Path) -> None:
    """As loading does: some repositories hold the same weights in another layout too."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    names = load_file(folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"layers.0.wq": torch.zeros(2)}, folder / "consolidated.safetensors")
    check(folder)
    (folder / "model-00001-of-00001.safetensors").unlink()
    with pytest.raises(UserError, match=rf"{folder}: the model is not whole: it cannot be loaded"):
        check(folder)
