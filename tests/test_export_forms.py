"""Each form of a data set, read by the library its users use: what the trainer would see is decoded
from what it was given.

LLaMA-Factory and ms-swift do not install beside our environment. Where they are there their own
loaders read the files; everywhere else these are held against the forms that the two document.
"""

import importlib.util
import io
import json
import math
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from data_set_run import make_data_set, pair_row, write_run
from lib.data.data_sets import DataSetSource
from lib.data.export_forms.base import Contents
from lib.data.export_forms.trl_parquet import text_of
from lib.data.export_forms.web_dataset import WebDataset
from lib.data.rows import ImagesRow, PairRow, ResponseRankingRow
from lib.data.stored_rows import StoredRows

ROWS = 6
QUESTIONS = ("What is it?", "Is there a lamp?")
#: Qwen's turns, as its chat template renders them.
QWEN_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)


def rows_in(root: Path) -> list[PairRow]:
    rows = [pair_row("art", number, root) for number in range(ROWS)]
    for number, row in enumerate(rows):
        row["instruction"] = QUESTIONS[number % 2]
    return rows


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set."""
    from conftest import Parameters, Wildcards

    def rule_object(rule: str, wildcards: Any, inputs: Any, output: Any, **params: Any) -> Any:
        common = {"device": "cpu", "seed": 0, "max_failed_fraction": 0.0} | params.pop("common")
        return SimpleNamespace(
            rule=rule,
            wildcards=Wildcards(**wildcards),
            input=inputs,
            output=output,
            log=[],
            params=Parameters(common=common, **params),
        )

    root = tmp_path_factory.mktemp("forms") / "run"
    return make_data_set(rule_object, root, write_run(root, rows_in(root)), "all")


@pytest.fixture(scope="module")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2.5-VL, whose tokens are bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    folder = tmp_path_factory.mktemp("qwen")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(QWEN_TOKENS[1:]),
    )
    images = Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=56 * 56)
    processor = Qwen2_5_VLProcessor(
        images, fast, Qwen2VLVideoProcessor(), chat_template=QWEN_TEMPLATE
    )
    sizes = {"hidden_size": 32, "intermediate_size": 64}
    rope = {"type": "mrope", "mrope_section": [2, 3, 3]}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 2}
    vision = {"depth": 2, "num_heads": 2, "out_hidden_size": 32, "fullatt_block_indexes": [1]}
    ids = {
        f"{name}_token_id": fast.convert_tokens_to_ids(token)
        for name, token in (
            ("image", "<|image_pad|>"),
            ("video", "<|video_pad|>"),
            ("vision_start", "<|vision_start|>"),
            ("vision_end", "<|vision_end|>"),
        )
    }
    config = Qwen2_5_VLConfig(
        text_config={**sizes, **heads, "vocab_size": 320, "rope_scaling": rope},
        vision_config={**sizes, **vision},
        **ids,
    )
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def what_trl_sees(made: Path, model: Path, folder: Path) -> tuple[list[str], float]:
    """What DPOTrainer, given the loaded folder and nothing else, makes of it: the decoded batches,
    and the loss of the first update.
    """
    import torch
    from datasets import load_dataset
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl import DPOConfig, DPOTrainer

    processor = AutoProcessor.from_pretrained(model)
    trainer = DPOTrainer(
        model=AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32),
        args=DPOConfig(
            output_dir=str(folder / "out"),
            per_device_train_batch_size=ROWS,
            max_steps=1,
            logging_steps=1,
            max_length=None,
            use_cpu=True,
            bf16=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=load_dataset(str(made), split="train", cache_dir=str(folder / "cache")),
        processing_class=processor,
    )
    (batch,) = trainer.get_train_dataloader()
    texts = processor.tokenizer.batch_decode(batch["input_ids"])
    trainer.train()
    return texts, trainer.state.log_history[0]["loss"]


@pytest.mark.slow
@pytest.mark.numeric
@pytest.mark.parametrize("architecture", ["llava-1.5", "qwen2.5-vl"])
def test_trl_trains_on_the_instruction_and_not_on_the_picture_s_prompt(
    made: Path, architecture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    is_llava = architecture == "llava-1.5"
    model = (
        request.getfixturevalue("demo_models") / architecture
        if is_llava
        else request.getfixturevalue("tiny_qwen")
    )
    texts, loss = what_trl_sees(made, model, tmp_path)
    assert loss == pytest.approx(math.log(2), abs=1e-4)
    records = json.loads((made / "llava.json").read_text(encoding="utf-8"))
    asked = sorted(each["conversations"][0]["value"].removeprefix("<image> ") for each in records)
    chosen, rejected = texts[:ROWS], texts[ROWS:]
    if is_llava:  # its vocabulary has no words of ours, but these
        assert all("a picture of art" not in text for text in texts)
        assert sorted("lamp" in text for text in chosen) == sorted("lamp" in text for text in asked)
        return
    for of_side, answer in ((chosen, "right"), (rejected, "wrong")):
        turns = [text.split("<|im_start|>") for text in of_side]
        questions = [turn[1].split("<|vision_end|>")[1].split("<|im_end|>")[0] for turn in turns]
        assert sorted(questions) == asked
        assert all(turn[2].startswith(f"assistant\n{answer}") for turn in turns)
        assert all(turn[1].count("<|image_pad|>") > 0 for turn in turns)


def test_datasets_streams_it_and_decodes_the_pictures(made: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    streamed = load_dataset(str(made), split="train", streaming=True, cache_dir=str(tmp_path))
    rows = list(streamed)
    assert len(rows) == ROWS
    assert {text_of(row["prompt"]) for row in rows} == set(QUESTIONS)
    assert all(row["images"][0].size == (8, 8) for row in rows)


def test_no_type_in_the_parquet_files_is_one_that_only_some_versions_of_datasets_know(
    made: Path,
) -> None:
    """`List` came with version 4, and the versions before it stop there; `length` is asked for by
    the oldest. Loaded with 2.14, 2.21, 3.6 and 4.0 when this was written; the tests have 2.0.0 and
    the newest.
    """
    from pyarrow import parquet

    (file,) = (made / "data").iterdir()
    told = json.loads(parquet.read_schema(file).metadata[b"huggingface"])["info"]["features"]
    assert "List" not in json.dumps(told)
    assert told["images"] == {"feature": {"_type": "Image"}, "length": -1, "_type": "Sequence"}


#: `datasets` 2.0.0 with what it can be imported beside: newer ones lack what it imports.
OLDEST_DATASETS = (
    "datasets==2.0.0",
    "huggingface_hub<0.26",
    "pyarrow<15",
    "numpy<2",
    "fsspec<2023.10",
    "pandas<3",
    "pillow",
)
READ_ALL = """
import json, sys, datasets
rows = datasets.load_dataset(sys.argv[1], split="train")
print(json.dumps([datasets.__version__, [row["prompt"] for row in rows],
                  [row["images"][0].size for row in rows]]))
"""


@pytest.mark.slow
def test_the_oldest_datasets_that_installs_loads_it(made: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
    done = subprocess.run(
        [*pip, "--target", site, *OLDEST_DATASETS], capture_output=True, text=True, check=False
    )
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip(f"pip finds no datasets 2.0.0 here: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr[-2000:]
    read = subprocess.run(
        [sys.executable, "-c", READ_ALL, made],
        env={**os.environ, "PYTHONPATH": str(site), "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert read.returncode == 0, read.stderr[-2000:]
    version, prompts, sizes = json.loads(read.stdout.splitlines()[-1])
    assert version == "2.0.0"
    assert {text_of(prompt) for prompt in prompts} == set(QUESTIONS)
    assert sizes == [[8, 8]] * ROWS


def test_llava_s_json_is_read_with_the_pictures_beside_it(made: Path) -> None:
    records = json.loads((made / "llava.json").read_text(encoding="utf-8"))
    assert len(records) == ROWS
    for record in records:
        with Image.open(made / record["image"]) as image:
            assert image.convert("RGB").size == (8, 8)
        assert record["conversations"][0]["value"].removeprefix("<image> ") in QUESTIONS
        assert record["conversations"][1]["value"].startswith("right")
        assert record["rejected_conversations"][1]["value"].startswith("wrong")


def test_llama_factory_s_json_is_what_its_documentation_asks_for(made: Path) -> None:
    """data/README.md there: `ranking` data in `sharegpt` formatting, with images."""
    info = json.loads((made / "dataset_info.json").read_text())
    (told,) = info.values()
    assert told["ranking"] is True
    assert told["formatting"] == "sharegpt"
    columns = told["columns"]
    for record in json.loads((made / told["file_name"]).read_text(encoding="utf-8")):
        messages = record[columns["messages"]]
        assert [turn["from"] for turn in messages] == ["human"]
        assert messages[0]["value"].count("<image>") == len(record[columns["images"]]) == 1
        for side, start in (("chosen", "right"), ("rejected", "wrong")):
            assert record[columns[side]]["from"] == "gpt"
            assert record[columns[side]]["value"].startswith(start)
        assert (made / record[columns["images"]][0]).is_file()


def test_ms_swift_s_json_is_what_its_documentation_asks_for(made: Path) -> None:
    """Custom datasets there, DPO: the chosen answer ends `messages`; `rejected_response`."""
    lines = (made / "ms_swift.jsonl").read_text(encoding="utf-8").splitlines()
    for record in map(json.loads, lines):
        question, answer = record["messages"]
        assert (question["role"], answer["role"]) == ("user", "assistant")
        assert question["content"].count("<image>") == len(record["images"]) == 1
        assert answer["content"].startswith("right")
        assert record["rejected_response"].startswith("wrong")
        assert (made / record["images"][0]).is_file()


@pytest.mark.skipif(not importlib.util.find_spec("llamafactory"), reason="no LLaMA-Factory here")
def test_llama_factory_s_own_converter_reads_it(made: Path) -> None:
    from llamafactory.data.converter import get_dataset_converter
    from llamafactory.data.parser import get_dataset_list

    (attributes,) = get_dataset_list(["run-all"], str(made))
    records = json.loads((made / attributes.dataset_name).read_text(encoding="utf-8"))
    convert = get_dataset_converter(
        attributes.formatting, attributes, SimpleNamespace(media_dir=str(made))
    )
    for record in records:
        read = convert(record)
        assert read["_prompt"][0]["content"].removeprefix("<image>") in QUESTIONS
        assert [turn["content"][:5] for turn in read["_response"]] == ["right", "wrong"]
        assert Path(read["_images"][0]).is_file()


@pytest.mark.skipif(not importlib.util.find_spec("swift"), reason="no ms-swift here")
def test_ms_swift_s_own_loader_reads_it(made: Path) -> None:
    from swift.dataset import load_dataset

    rows, _ = load_dataset(str(made / "ms_swift.jsonl"), num_proc=1)
    assert len(rows) == ROWS
    assert all(row["rejected_response"].startswith("wrong") for row in rows)


# --------------------------------------------------------------------------------------------------


def write_shards(root: Path, folder: Path) -> None:
    rows = rows_in(root)
    files = write_run(root, rows)
    source = DataSetSource(
        root,
        StoredRows(files["pairs"], PairRow),
        StoredRows(files["images"], ImagesRow),
        StoredRows(files["rankings"], ResponseRankingRow),
    )
    folder.mkdir()
    with WebDataset.write(folder, Contents("test", {"train": ROWS})) as add:
        for pair in source.read(row["id"] for row in rows):
            add("train", pair)


def test_only_large_sets_have_web_dataset_shards() -> None:
    assert not WebDataset.is_for(Contents("test", {"train": 9_990, "validation": 10}))
    assert WebDataset.is_for(Contents("test", {"train": 9_990, "validation": 11}))


def test_web_dataset_shards_are_read_and_are_the_same_bytes_when_written_twice(
    tmp_path: Path,
) -> None:
    from datasets import load_dataset

    for name in ("one", "two"):
        write_shards(tmp_path / "run", tmp_path / name)
    (shard,) = (tmp_path / "one/webdataset").iterdir()
    assert shard.name == "train-000000.tar"
    assert shard.read_bytes() == (tmp_path / "two/webdataset" / shard.name).read_bytes()
    read = load_dataset(
        "webdataset", data_files=str(shard), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert read.num_rows == ROWS
    assert {row["json"]["instruction"] for row in read} == set(QUESTIONS)
    assert all(row["png"].size == (8, 8) for row in read)
    with tarfile.open(shard) as tar:
        picture, text = tar.getmembers()[:2]
        assert Image.open(io.BytesIO(tar.extractfile(picture).read())).size == (8, 8)  # type: ignore[union-attr]
        assert (picture.mtime, picture.uid, picture.uname) == (0, 0, "")
        assert text.name == picture.name.replace(".png", ".json")
