"""Text embeddings: what the library sentence-transformers gives, computed once, kept small."""

import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import embed_texts
from conftest import rounding
from lib.config.figures import EmbedTextsJob, TextEmbedding
from lib.data.rows import EmbeddingsRow
from lib.data.shards import missing_row, read_shard
from lib.errors import UserError
from lib.files import write_jsonl
from lib.text_embedding import TextEmbedder, pooling_of
from lib.vectors import pack, unpack

#: Of vectors of the tiny checkpoint's size.
ROUNDING = rounding(32)
TEXTS = [
    "A cat.",
    "Three red boats under a bridge, near the harbour at dusk.",
    "猫 😀 $x$ [SEP] <b>",
    "one more cat and " * 200,
]


@pytest.fixture(scope="module")
def folder(demo_models):
    return demo_models / "sentence-embedding"


@pytest.mark.numeric
@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token"])
def test_vectors_are_those_of_sentence_transformers(folder, tmp_path, pooling):
    from sentence_transformers import SentenceTransformer

    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    place = next(copy.glob("*_Pooling/config.json"))
    settings = json.loads(place.read_text())
    modes = {
        name: name == f"pooling_mode_{pooling}"
        for name in settings
        if name.startswith("pooling_mode_")
    }
    place.write_text(json.dumps(settings | modes))
    theirs = SentenceTransformer(str(copy), device="cpu").encode(TEXTS, normalize_embeddings=True)
    ours = TextEmbedder(copy, "float32", 256).embed(TEXTS)
    assert np.abs(ours - theirs).max() < ROUNDING


@pytest.mark.numeric
def test_a_text_s_vector_does_not_depend_on_its_company_beyond_rounding(folder):
    embedder = TextEmbedder(folder, "float32", 256)
    together = embedder.embed(TEXTS)
    assert (
        np.abs(np.concatenate([embedder.embed([text]) for text in TEXTS]) - together).max()
        < ROUNDING
    )


@pytest.mark.parametrize("taken", ["pooler.", "encoder.layer.0.attention.self.query."])
def test_a_model_may_lack_the_pooler_that_is_not_used_and_nothing_else(folder, tmp_path, taken):
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    [path] = copy.glob("*.safetensors")
    state = load_file(path)
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(taken)}
    assert len(kept) < len(state)
    save_file(kept, path, metadata={"format": "pt"})
    if taken == "pooler.":
        whole, without = (
            TextEmbedder(each, "float32", 256).embed(TEXTS) for each in (folder, copy)
        )
        assert (whole == without).all()
    else:
        with pytest.raises(UserError, match=rf"{copy}.*it lacks {taken}bias, {taken}weight"):
            TextEmbedder(copy, "float32", 256)


def test_packed_vectors_keep_similarities_to_a_ten_thousandth(folder):
    vectors = TextEmbedder(folder, "float32", 256).embed(TEXTS)
    packed = unpack([pack(vector) for vector in vectors])
    assert np.abs(packed @ packed.T - vectors @ vectors.T).max() < 1e-3 / 4
    assert np.allclose(np.linalg.norm(packed, axis=1), 1)
    assert unpack([]).shape[0] == 0


@pytest.mark.parametrize(
    ("module", "pooling", "told"),
    [
        ("sentence_transformers.models.Dense", {}, "has a module Dense"),
        (
            "sentence_transformers.models.Pooling",
            {"pooling_mode_max_tokens": True},
            "pools by 'pooling_mode_max_tokens'",
        ),
        (
            "sentence_transformers.models.Pooling",
            {"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True},
            "pools by 'several'",
        ),
    ],
)
def test_a_model_that_would_be_read_wrongly_is_refused(tmp_path, module, pooling, told):
    (tmp_path / "modules.json").write_text(json.dumps([{"path": "1", "type": module}]))
    (tmp_path / "1").mkdir()
    (tmp_path / "1/config.json").write_text(json.dumps(pooling))
    with pytest.raises(UserError, match=told):
        pooling_of(tmp_path)


def test_the_newer_form_of_a_pooling_module_is_read_too(tmp_path):
    (tmp_path / "modules.json").write_text(
        json.dumps([{"path": "1", "type": "x.modules.pooling.Pooling"}])
    )
    (tmp_path / "1").mkdir()
    (tmp_path / "1/config.json").write_text('{"pooling_mode": "cls"}')
    assert pooling_of(tmp_path) == "cls"


def ranked(number, **responses):
    return {
        "id": f"art-{number:010x}",
        "topic": "art",
        "prompt": f"{number} cats",
        "instruction": f"How many are {number}?",
        "responses": {
            name: {"text": text} if text else {"text": "", "invalid": "empty"}
            for name, text in responses.items()
        },
    }


@pytest.fixture
def run(tmp_path, rule_object, folder):
    def go(*rows):
        source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        write_jsonl(source, rows)
        job = EmbedTextsJob(embedding=TextEmbedding(model=str(folder)))
        embed_texts.main(
            rule_object(
                "embed_texts",
                {"topic": "art", "shard": "00"},
                [str(source)],
                [str(output)],
                settings=job.model_dump(mode="json"),
            )
        )
        record = json.loads((tmp_path / "run/work/embed_texts/art/00.json").read_text())
        return read_shard(output, EmbeddingsRow), (
            record["computed"],
            record["reused"],
            record["load_seconds"] > 0,
        )

    return go


def test_each_prompt_has_vectors_of_its_texts_and_a_rerun_computes_nothing(run):
    rows = [ranked(1, a="Two cats.", b="No."), ranked(2, a="A dog.", b="")]
    published, done = run(*rows)
    assert done == (2, 0, True)
    assert [sorted(row["embeddings"]) for row in published.values()] == [
        ["instruction", "prompt", "responses/a", "responses/b"],
        ["instruction", "prompt", "responses/a"],
    ]
    again, done = run(*rows)
    assert (again, done) == (published, (0, 2, False))
    _, done = run(rows[0], ranked(2, a="Another dog.", b=""))
    assert done == (1, 1, True)


def test_a_prompt_that_an_earlier_stage_has_nothing_of_stays_missing(run):
    row = missing_row(ranked(1, a="x"), "generate_images", "all images blank")
    published, done = run(row)
    assert list(published.values()) == [row]
    assert done == (0, 0, False)
