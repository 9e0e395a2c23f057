"""Rule merge_adapter: the merged model is the base model with its adapter, and loads wherever the
base model loads.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import merge_adapter
from lib.blocks import Model
from lib.config.training import MergeAdapterJob
from lib.errors import UserError
from lib.files import digest_of_file
from lib.training.dpo import lora_targets
from lib.weights import folder_identity

PROMPT = "USER: <image>\nWhat stands near the table? ASSISTANT:"


@pytest.fixture(scope="session")
def base(demo_models: Path) -> Path:
    return demo_models / "llava-1.5"


@pytest.fixture(scope="session")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter with random values in both of its matrices, as PEFT saves it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=lora_targets(model),
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    folder = tmp_path_factory.mktemp("adapter")
    get_peft_model(model, config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def merged(base: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merged")
    assert merge_adapter.merge(base, adapter, folder) == 14  # two layers, seven projections
    return folder


def logits(model: Any, base: Path) -> Any:
    import torch
    from PIL import Image
    from transformers import AutoProcessor

    picture = Image.linear_gradient("L").convert("RGB").resize((64, 64))
    inputs = AutoProcessor.from_pretrained(base)(images=picture, text=PROMPT, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**inputs).logits


@pytest.mark.numeric
def test_the_merged_model_answers_as_base_and_adapter(
    base: Path, adapter: Path, merged: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    model, report = AutoModelForImageTextToText.from_pretrained(
        merged, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    plain = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    before = logits(plain, base)
    expected = logits(PeftModel.from_pretrained(plain, adapter), base)
    assert torch.allclose(logits(model, merged), expected, atol=1e-3)
    assert (expected - before).abs().max() > 0.1


def test_key_names_formats_and_the_other_weights_are_the_base_models(
    base: Path, merged: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    before, after = load_file(base / "model.safetensors"), load_file(merged / "model.safetensors")
    assert list(before) == list(after)
    assert any(name.startswith("vision_tower.vision_model.") for name in after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(changed) == 14
    assert all(name.startswith("language_model.") for name in changed)
    assert all(before[name].dtype == after[name].dtype for name in before)


def test_processor_chat_template_and_generation_settings_come_along(
    base: Path, merged: Path
) -> None:
    for file in base.iterdir():
        if file.suffix != ".safetensors":
            assert digest_of_file(merged / file.name) == digest_of_file(file)


def test_a_model_in_several_files_keeps_its_files(
    base: Path, adapter: Path, merged: Path, tmp_path: Path
) -> None:
    """As the 7B model has them: each merged file under its base file's name, so that the index
    holds.
    """
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForImageTextToText

    parts, output = tmp_path / "parts", tmp_path / "output"
    output.mkdir()
    shutil.copytree(base, parts)
    (parts / "model.safetensors").unlink()
    tensors = load_file(base / "model.safetensors")
    names = sorted(tensors)
    index: dict[str, str] = {}
    for number in range(3):
        file = f"model-{number + 1:05d}-of-00003.safetensors"
        save_file(
            {name: tensors[name] for name in names[number::3]},
            parts / file,
            metadata={"format": "pt"},
        )
        index |= dict.fromkeys(names[number::3], file)
    (parts / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    assert merge_adapter.merge(parts, adapter, output) == 14
    one = AutoModelForImageTextToText.from_pretrained(merged, dtype=torch.float32)
    several = AutoModelForImageTextToText.from_pretrained(output, dtype=torch.float32)
    assert torch.equal(logits(one, merged), logits(several, output))


def test_merging_twice_gives_the_same_bytes(
    base: Path, adapter: Path, merged: Path, tmp_path: Path
) -> None:
    merge_adapter.merge(base, adapter, tmp_path)
    assert {file.name: digest_of_file(file) for file in tmp_path.iterdir()} == {
        file.name: digest_of_file(file) for file in merged.iterdir()
    }


def test_an_adapter_of_another_model_is_a_clear_error(
    demo_models: Path, adapter: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="adapter is of another base model"):
        merge_adapter.merge(demo_models / "llama3-llava-next", adapter, tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"use_dora": True}, {"bias": "all"}, {"peft_type": "IA3"}, {"rank_pattern": {"q_proj": 2}}],
)
def test_what_is_not_plain_lora_is_refused(
    base: Path, adapter: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    other = tmp_path / "adapter"
    shutil.copytree(adapter, other)
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match="not a plain LoRA adapter"):
        merge_adapter.merge(base, other, tmp_path)


def test_a_base_model_without_safetensors_is_a_clear_error(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no safetensors file"):
        merge_adapter.merge(tmp_path, adapter, tmp_path)


def test_the_rule_publishes_the_model_and_its_record(
    rule_object: Callable[..., SimpleNamespace],
    base: Path,
    adapter: Path,
    merged: Path,
    tmp_path: Path,
) -> None:
    output = tmp_path / "run" / "models" / "test" / "merged"
    settings = MergeAdapterJob(base_model=Model(model=str(base), dtype="float32"))
    inputs = SimpleNamespace(adapter=str(adapter / "adapter_model.safetensors"))
    merge_adapter.main(
        rule_object(
            "merge_adapter",
            {"experiment": "test"},
            inputs,
            [str(output)],
            settings=settings.model_dump(mode="json"),
        )
    )
    assert {file.name for file in output.iterdir()} == {file.name for file in merged.iterdir()}
    record = json.loads((tmp_path / "run" / "work" / "merge_adapter" / "test.json").read_text())
    assert record["computed"] == 1
    assert record["models"] == {
        str(base): folder_identity(str(base)),
        "adapter": digest_of_file(adapter / "adapter_model.safetensors"),
        "merged": folder_identity(str(output)),
    }


VLLM = """
import sys
from PIL import Image
from vllm import LLM, SamplingParams
limits = {"max_model_len": 256, "max_num_seqs": 2, "limit_mm_per_prompt": {"image": 1}}
model = LLM(sys.argv[1], dtype="float32", enforce_eager=True, seed=0, **limits)
picture = Image.linear_gradient("L").convert("RGB").resize((64, 64))
prompt = {"prompt": sys.argv[2], "multi_modal_data": {"image": picture}}
out = model.generate(prompt, SamplingParams(temperature=0, max_tokens=8))
print("TOKENS", list(out[0].outputs[0].token_ids))
"""


@pytest.mark.slow
def test_vllm_answers_as_transformers_does(base: Path, merged: Path) -> None:
    import os

    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(merged, dtype=torch.float32)
    picture = Image.linear_gradient("L").convert("RGB").resize((64, 64))
    inputs = AutoProcessor.from_pretrained(merged)(images=picture, text=PROMPT, return_tensors="pt")
    answer = model.generate(**inputs, max_new_tokens=8, do_sample=False)[
        0, inputs["input_ids"].shape[1] :
    ].tolist()
    environment = os.environ | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", VLLM, str(merged), PROMPT],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"TOKENS {answer}" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
