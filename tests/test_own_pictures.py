"""Pictures of one's own in place of generated ones: which prompt each is of, how later stages get
them, and what is told of those that cannot be used.
"""

import json
import shutil
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import REPOSITORY, Project
from generate_images import main
from lib.config.licences import read_licences
from lib.config.run import load_config
from lib.config.yaml_files import read_yaml
from lib.data.data_sets import DataSetPair, RatedResponse
from lib.data.export_forms.columns import plain_columns
from lib.data.layouts import PromptCounts
from lib.data.own_pictures import take_picture
from lib.data.prompts import Prompt
from lib.data.rows import ImageRankingRow, ImagesRow
from lib.data.shards import read_shard
from lib.errors import UserError
from lib.files import write_jsonl
from lib.head.cards import models_of_data
from lib.head.plan import Plan
from lib.head.table_rows import candidates_job
from lib.head.targets import tables_and_figures
from lib.models.image_generators.own_folder import PictureFolder
from lib.models.image_generators.registry import IMAGE_GENERATORS
from lib.planning.costs import items_of, plan_costs
from lib.planning.graph import PlannedJob
from lib.planning.rates import read_rates

CAT, DOG = Prompt("art", "a red cat"), Prompt("art", "a blue dog")
SIZE = (8, 6)
PIXELS = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
PHOTOGRAPH = Image.fromarray(PIXELS)


def encoded(image: Image.Image = PHOTOGRAPH, form: str = "png", **options) -> bytes:
    """A picture's file."""
    out = BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def rgb(content: bytes) -> np.ndarray:
    """What later stages see of a file, (height, width, 3)."""
    return np.asarray(Image.open(BytesIO(content)).convert("RGB"))


def settings(folder: Path, table: Path | None = None) -> PictureFolder.Settings:
    values = {"kind": "folder", "folder": str(folder)} | ({"table": str(table)} if table else {})
    return PictureFolder.Settings.model_validate(values)


def names(found) -> dict[str, list[str]]:
    return {prompt: [each["name"] for each in pictures] for prompt, pictures in found.items()}


# --- which prompt a picture is of


def test_pictures_are_found_by_prompt_ids_and_several_of_one_stand_in_their_order(tmp_path):
    (tmp_path / "below").mkdir()
    for name in (f"{CAT.id}_10.png", f"below/{CAT.id}_2.JPG", f"{CAT.id}.webp", f"{DOG.id}.png"):
        (tmp_path / name).write_bytes(encoded())
    (tmp_path / f"{CAT.id}.txt").write_text("no picture")
    (tmp_path / "other.png").write_bytes(encoded())
    found = settings(tmp_path).read_pictures([CAT, DOG])
    of_cat = [f"{CAT.id}.webp", f"below/{CAT.id}_2.JPG", f"{CAT.id}_10.png"]
    assert names(found) == {CAT.id: of_cat, DOG.id: [f"{DOG.id}.png"]}
    assert found[DOG.id][0]["sha256"] == sha256(encoded()).hexdigest()
    assert settings(tmp_path).images_per_prompt == 2


TABLES = {
    "csv": f"prompt,id,file\r\na red cat,,1.png\r\n,{DOG.id},2.png\r\na red cat,,3.png\r\n",
    "jsonl": '{"prompt": "a red cat", "file": "1.png"}\n\n'
    f'{{"id": "{DOG.id}", "file": "2.png"}}\n{{"prompt": "a red  cat", "file": "3.png"}}\n',
}


@pytest.mark.parametrize("suffix", TABLES)
def test_a_table_says_which_prompts_pictures_are_of(tmp_path, suffix):
    for name in "12":
        (tmp_path / f"{name}.png").write_bytes(encoded())
    table = tmp_path / f"mine.{suffix}"
    table.write_text(TABLES[suffix])
    found = settings(tmp_path, table).read_pictures([CAT, DOG])
    assert names(found) == {CAT.id: ["1.png", "3.png"], DOG.id: ["2.png"]}
    assert found[CAT.id][1]["where"] == f"mine.{suffix}, line 4: 3.png"
    assert ["sha256" in each for each in found[CAT.id]] == [True, False]


def test_a_prompt_with_a_comma_stands_in_quotes_in_csv(tmp_path):
    (tmp_path / "1.png").write_bytes(encoded())
    (tmp_path / "t.csv").write_text('prompt,file\n"a cat, red, on ""it""",1.png\n')
    prompt = Prompt("art", 'a cat, red, on "it"')
    assert list(settings(tmp_path, tmp_path / "t.csv").read_pictures([prompt])) == [prompt.id]


WRONG_TABLES = {
    "of no prompt": ("prompt,file\na cow,1.png\n", r"t\.csv, line 2: there is no prompt with"),
    "of two prompts": (
        f"prompt,id,file\na red cat,{DOG.id},1.png\n",
        r"t\.csv, line 2: `prompt` is art-\w+, but `id` says art-",
    ),
    "without a file": ("prompt,file\na red cat,\n", r"t\.csv, line 2: has no text under `file`"),
    "without a heading": ("a red cat,1.png\na blue dog,2.png\n", r"has no text under `file`"),
    "empty": ("", r"has no picture of any of the 2 prompts"),
}


@pytest.mark.parametrize("name", WRONG_TABLES)
def test_a_table_that_names_no_prompt_or_no_file_is_told_with_its_line(tmp_path, name):
    content, message = WRONG_TABLES[name]
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        settings(tmp_path, tmp_path / "t.csv").read_pictures([CAT, DOG])


def test_a_folder_without_a_picture_of_any_prompt_says_how_to_call_one(tmp_path):
    (tmp_path / "cat.png").write_bytes(encoded())
    with pytest.raises(UserError, match=rf"no picture of any .* e\.g\. {CAT.id}\.png"):
        settings(tmp_path).read_pictures([CAT])


def test_a_folder_or_a_table_that_is_not_there_is_told(tmp_path):
    for values in ({"folder": "nowhere"}, {"folder": str(tmp_path), "table": "no.csv"}):
        with pytest.raises(ValueError, match="there is no f"):
            PictureFolder.Settings.model_validate({"kind": "folder", **values})


# --- what later stages get


@pytest.mark.parametrize(
    ("form", "mode"), [("png", "RGB"), ("jpeg", "L"), ("webp", "RGB"), ("png", "P")]
)
def test_a_file_that_every_stage_reads_keeps_its_bytes(form, mode):
    content = encoded(PHOTOGRAPH.convert(mode), form)
    taken = take_picture(content, "x", 1)
    assert (taken.content, taken.changed, taken.blank) == (content, [], False)
    assert taken.suffix == {"jpeg": "jpg"}.get(form, form)


def test_a_picture_on_its_side_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    taken = take_picture(encoded(exif=exif), "x", 1)
    assert np.array_equal(rgb(taken.content), np.rot90(PIXELS, -1))
    assert taken.changed == ["turned upright, as its EXIF says"]


def test_what_is_transparent_shows_white_and_not_the_colour_below():
    alpha = Image.new("L", SIZE, 255)
    alpha.paste(0, (0, 0, 4, 6))
    taken = take_picture(encoded(Image.merge("RGBA", (*PHOTOGRAPH.split(), alpha))), "x", 1)
    seen = rgb(taken.content)
    assert (seen[:, :4] == 255).all()
    assert np.array_equal(seen[:, 4:], PIXELS[:, 4:])
    assert Image.open(BytesIO(taken.content)).mode == "RGB"


@pytest.mark.parametrize(
    ("mode", "form", "changed"),
    [
        ("CMYK", "jpeg", ["from CMYK to RGB"]),
        ("RGB", "bmp", ["from BMP to PNG"]),
        ("P", "gif", ["from GIF to PNG"]),
        ("CMYK", "tiff", ["from CMYK to RGB", "from TIFF to PNG"]),
    ],
)
def test_other_modes_and_formats_become_rgb_and_png(mode, form, changed):
    content = encoded(PHOTOGRAPH.convert(mode), form)
    taken = take_picture(content, "x", 1)
    assert (taken.changed, taken.suffix) == (changed, "png")
    assert np.array_equal(rgb(taken.content), rgb(content))


def test_a_picture_of_one_colour_is_blank():
    assert take_picture(encoded(Image.new("RGB", SIZE, "red")), "x", 1).blank


UNUSABLE = {
    "broken": (encoded()[:60], r"x: is no whole image"),
    "no picture": (b"hello", r"x: is no whole image"),
    "empty": (b"", r"x: is no whole image"),
    "16 bits": (
        encoded(Image.fromarray(np.full((4, 4), 40_000, np.uint16))),
        r"x: is an image of PIL's mode I;16, with over 8 bits",
    ),
    "moving": (
        encoded(PHOTOGRAPH, "gif", save_all=True, append_images=[Image.new("RGB", SIZE)]),
        r"x: moves, or has 2 pages",
    ),
    "huge": (
        encoded(Image.new("RGB", (1100, 1000))),
        r"x: an image of 1100 x 1000 pixels .*`max_image_megapixels` \(1\)",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_picture_that_cannot_be_used_says_why(name):
    content, message = UNUSABLE[name]
    with pytest.raises(UserError, match=message):
        take_picture(content, "x", 1)


# --- the job


@pytest.fixture
def run(tmp_path, rule_object):
    """Runs the rule on both prompts with the pictures of tmp_path/mine; gives rows and record."""

    def go(table=None, **common):
        block = settings(tmp_path / "mine", table)
        found = block.read_pictures([CAT, DOG])
        rows = [{**each.row(), "pictures": found.get(each.id, [])} for each in (CAT, DOG)]
        write_jsonl(tmp_path / "given.jsonl", rows)
        output = tmp_path / "run/images/art/00.jsonl"
        told = {"generator": block.model_dump(mode="json"), "prompts": f"{tmp_path}/given.jsonl"}
        main(
            rule_object(
                "generate_images",
                {"topic": "art", "shard": "00"},
                [],
                [str(output)],
                settings=told | {"max_image_megapixels": 1},
                common=common,
            )
        )
        record = json.loads((tmp_path / "run/work/generate_images/art/00.json").read_text())
        return read_shard(output, ImagesRow), record

    (tmp_path / "mine").mkdir()
    for prompt in (CAT, DOG):
        (tmp_path / "mine" / f"{prompt.id}.png").write_bytes(encoded())
    return go


def test_a_row_says_where_its_picture_comes_from_and_nothing_of_this_machine(run, tmp_path):
    (tmp_path / "mine" / f"{CAT.id}_1.bmp").write_bytes(encoded(form="bmp"))
    rows, record = run()
    first, second = rows[CAT.id]["candidates"]
    content = encoded()
    assert first == {
        "guidance_scale": None,
        "seed": None,
        "file": f"images/art/00/{CAT.id}-{sha256(content).hexdigest()[:8]}.png",
        "sha256": sha256(content).hexdigest(),
        "blank": False,
        "source": {
            "name": f"{CAT.id}.png",
            "sha256": sha256(content).hexdigest(),
            "bytes": len(content),
            "changed": [],
        },
    }
    assert (tmp_path / "run" / first["file"]).read_bytes() == content
    assert second["source"]["changed"] == ["from BMP to PNG"]
    assert str(tmp_path) not in (tmp_path / "run/images/art/00.jsonl").read_text()
    assert record["beside"].keys() == {
        each["file"] for row in rows.values() for each in row["candidates"]
    }


def test_a_picture_that_is_changed_redoes_only_its_prompt(run, tmp_path):
    before, record = run()
    assert (record["computed"], record["reused"]) == (2, 0)
    (tmp_path / "mine" / f"{DOG.id}.png").write_bytes(encoded(form="png", compress_level=1))
    after, record = run()
    assert (record["computed"], record["reused"]) == (1, 1)
    assert after[CAT.id] == before[CAT.id]
    assert after[DOG.id] != before[DOG.id]


def test_a_prompt_without_a_picture_says_so_and_the_others_go_on(run, tmp_path):
    (tmp_path / "mine" / f"{DOG.id}.png").unlink()
    rows, record = run()
    assert rows[DOG.id]["missing"] == {"rule": "generate_images", "reason": "no picture"}
    assert len(rows[CAT.id]["candidates"]) == 1
    assert record["notes"] == ["there is no picture: a blue dog"]


def test_a_broken_picture_is_its_prompt_s_fault_with_file_and_row(run, tmp_path):
    (tmp_path / "mine/broken.png").write_bytes(encoded()[:60])
    table = tmp_path / "t.csv"
    table.write_text(f"id,file\n{DOG.id},broken.png\n{CAT.id},{CAT.id}.png\n")
    rows, record = run(table, max_failed_fraction=1.0)
    reason = rows[DOG.id]["missing"]["reason"]
    assert reason.startswith("t.csv, line 2: broken.png: is no whole image")
    assert record["failed"] == 1
    assert len(rows[CAT.id]["candidates"]) == 1


# --- what later stages and plans make of it


@pytest.fixture
def own(demo_models, demo_benchmarks, tmp_path, monkeypatch) -> Plan:
    """The random run with pictures of one's own."""
    monkeypatch.chdir(REPOSITORY)
    values = read_yaml(Path("demo/random.yaml"))
    values |= {"images": {"folder": str(tmp_path)}, "results": str(tmp_path / "results")}
    return Plan(load_config(values, []))


def test_no_generator_is_planned_named_or_drawn_a_figure_of(own):
    config = own.config
    assert config.images.kind == "folder"  # which `folder` says
    job = PlannedJob("generate_images", {"topic": "art", "shard": "00"}, 0, 240)
    prompts = PromptCounts({("art", "00"): 4})
    assert items_of(job, config, prompts, {}) == 4
    path = Path("profiles/slurm/rates.yaml")
    rates = read_rates(path, [name.split("/")[0] for name in read_yaml(path)["stages"]])
    planned = plan_costs([job], config, prompts, rates).costs["generate_images"]
    assert planned.gpu_seconds == 0
    assert planned.seconds < 60
    figures = [Path(file).stem for file in tables_and_figures(own)]
    assert "candidates_figure" in figures
    assert "guidance_figure" not in figures
    assert candidates_job(own).image_model is None
    used = next(models_of_data(config, read_licences()))
    assert (used.name, used.terms) == ("pictures of the maker's own", None)
    assert own.made_by(config.images, IMAGE_GENERATORS) == {"version": 1}


def test_a_data_set_has_no_guidance_scale_or_seed_of_a_picture_that_was_not_drawn():
    side = RatedResponse("a", "text", 1.0, {})
    pair = DataSetPair(
        id=CAT.id,
        topic="art",
        image_prompt=CAT.text,
        instruction="What is it?",
        chosen=side,
        rejected=side,
        margin=1.0,
        source=Path("x.png"),
        image=b"",
        image_file="x.png",
        image_sha256="0",
        image_reward=1.0,
        image_seed=None,
        guidance_scale=None,
    )
    columns = plain_columns(pair)
    assert columns["image_reward"] == 1.0
    assert not {"guidance_scale", "image_seed"} & columns.keys()


def test_own_pictures_are_ranked_by_the_command_and_a_changed_one_redoes_only_its_prompt(
    project: Project, tmp_path: Path
):
    mine = tmp_path / "pictures"
    mine.mkdir()
    text = (project.folder / "demo/random_prompts/art.txt").read_text()
    prompts = [Prompt("art", line) for line in text.splitlines() if line.strip()]
    for number, prompt in enumerate(prompts):
        for sample in range(2):
            colours = PIXELS + np.uint8(40 * number + sample)
            image = Image.fromarray(colours).resize((64, 64))
            image.save(mine / f"{prompt.id}_{sample}.png")

    def edit(values):
        values["topics"] = ["art"]
        values["images"] = {"folder": str(mine)}
        scorers = values["image_ranking"]["scorers"]
        values["image_ranking"]["scorers"] = {"clip": scorers["clip"]}
        values["image_ranking"]["select_by"] = "clip"

    project.edit_config(edit)
    (mine / f"{prompts[1].id}_1.png").rename(mine / "away")
    (mine / f"{prompts[1].id}_0.png").rename(mine / "away_too")
    project.snakemake("rankings")
    root = project.folder / "results/random"
    ranking: Any = read_shard(root / "image_ranking/clip/art/00.jsonl", ImageRankingRow)
    assert len(ranking[prompts[0].id]["scores"]) == 2
    assert ranking[prompts[1].id]["missing"]["reason"] == "no picture"
    assert str(tmp_path) not in (root / "images/art/00.jsonl").read_text()
    shutil.copy(mine / f"{prompts[2].id}_0.png", mine / f"{prompts[0].id}_0.png")
    project.snakemake("rankings")
    for rule in ("generate_images/art/00", "rank_images/clip/art/00"):
        record = json.loads((root / f"work/{rule}.json").read_text())
        assert (record["computed"], record["reused"]) == (1, len(prompts) - 2), rule
    assert "nothing to be done" in project.snakemake("rankings").stdout.casefold()
