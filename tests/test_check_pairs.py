"""What check_pairs.py reads, what it finds, and one clear message for every broken file."""

import base64
import copy
import json
import os
import re
import subprocess
import sys
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from pydantic import ValidationError

import check_pairs
from conftest import GOLDEN, Parameters, Wildcards, needs_golden
from lib.config.quality import Quality
from lib.contamination import Index
from lib.data.pair_forms.registry import FORMS
from lib.data.pair_forms.sources import open_source
from lib.errors import UserError
from lib.files import write_jsonl
from lib.pair_checks.checker import Checker, CheckOptions
from lib.pair_checks.lengths import Lengths, wilson
from lib.pair_checks.names import ALL_CHECKS
from reasons_table import build_table

SCRIPT = Path(check_pairs.__file__)
CHOSEN, REJECTED = "Two red circles beside a square.", "There is one blue circle at the top."
QUESTION = "Which shapes does the picture show?"


def png(colour=(200, 30, 30)) -> bytes:
    stream = BytesIO()
    image = Image.new("RGB", (32, 32), colour)
    image.putpixel((colour[1] % 32, colour[2] % 32), (0, 0, 0))
    image.save(stream, "PNG")
    return stream.getvalue()


def turn(role, text):
    return {"from": role, "value": text}


def message(role, text, picture=False):
    parts = [{"type": "text", "text": text}]
    return {
        "role": role,
        "content": [{"type": "image", "text": None}, *parts] if picture else parts,
    }


def llava(question=QUESTION, chosen=CHOSEN, rejected=REJECTED, image="a.png", **more):
    asked = turn("human", f"<image> {question}")
    return {
        "id": "one",
        "image": image,
        "conversations": [asked, turn("gpt", chosen)],
        "rejected_conversations": [asked, turn("gpt", rejected)],
        **more,
    }


LLAVA = llava()
TRL = {
    "id": "one",
    "prompt": [message("user", QUESTION, picture=True)],
    "chosen": [message("assistant", CHOSEN)],
    "rejected": [message("assistant", REJECTED)],
    "images": ["a.png"],
}
#: The same pair in every form: LLaVA's, TRL's six, LLaMA-Factory's three, ms-swift's
#: three, RLHF-V's, RLAIF-V's, and our own of today and before.
SAME_PAIR = {
    "llava": LLAVA,
    "trl": TRL,
    "trl, messages of plain text": {
        **TRL,
        "prompt": [{"role": "user", "content": QUESTION}],
        "chosen": [{"role": "assistant", "content": CHOSEN}],
        "rejected": [{"role": "assistant", "content": REJECTED}],
    },
    "trl, texts": {**TRL, "prompt": f"<image>{QUESTION}", "chosen": CHOSEN, "rejected": REJECTED},
    "trl, no prompt": {
        "id": "one",
        "chosen": [*TRL["prompt"], *TRL["chosen"]],
        "rejected": [*TRL["prompt"], *TRL["rejected"]],
        "images": ["a.png"],
    },
    "trl, messages that hold the prompt beside it": {
        "id": "one",
        "prompt": QUESTION,
        "chosen": [*TRL["prompt"], *TRL["chosen"]],
        "rejected": [*TRL["prompt"], *TRL["rejected"]],
        "images": ["a.png"],
    },
    "trl, texts that begin with the prompt": {
        "id": "one",
        "chosen": f"<image>{QUESTION} {CHOSEN}",
        "rejected": f"<image>{QUESTION} {REJECTED}",
        "images": ["a.png"],
    },
    "llama_factory": {
        "id": "one",
        "conversations": [turn("human", f"<image>{QUESTION}")],
        "chosen": turn("gpt", CHOSEN),
        "rejected": turn("gpt", REJECTED),
        "images": ["a.png"],
    },
    "llama_factory, messages": {
        "id": "one",
        "messages": [{"role": "user", "content": f"<image>{QUESTION}"}],
        "chosen": {"role": "assistant", "content": CHOSEN},
        "rejected": {"role": "assistant", "content": REJECTED},
        "images": ["a.png"],
    },
    "llama_factory, alpaca": {
        "id": "one",
        "instruction": f"<image>{QUESTION}",
        "input": "",
        "chosen": CHOSEN,
        "rejected": REJECTED,
        "images": ["a.png"],
    },
    "ms_swift": {
        "id": "one",
        "messages": [
            {"role": "user", "content": f"<image>{QUESTION}"},
            {"role": "assistant", "content": CHOSEN},
        ],
        "rejected_response": REJECTED,
        "images": ["a.png"],
    },
    "ms_swift, query and response": {
        "id": "one",
        "query": f"<image>{QUESTION}",
        "response": CHOSEN,
        "rejected_response": REJECTED,
        "history": [],
        "images": ["a.png"],
    },
    "ms_swift, messages": {
        "id": "one",
        "messages": [
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": CHOSEN},
        ],
        "rejected_messages": [
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": REJECTED},
        ],
        "images": ["a.png"],
    },
    "rlhf_v": {
        "idx": "one",
        "image": "a.png",
        "text": json.dumps({"question": QUESTION, "chosen": CHOSEN, "rejected": REJECTED}),
    },
    "rlhf_v, flat": {
        "idx": "one",
        "image": "a.png",
        "question": QUESTION,
        "chosen": CHOSEN,
        "rejected": REJECTED,
        "origin_split": json.dumps({"model": "OmniLMM-12B", "type": "detailed_description"}),
    },
    "ours": {
        **TRL,
        "chosen_policy": "a",
        "rejected_policy": "b",
        "image_prompt": "shapes",
        "topic": "art",
    },
    "ours, of before": {
        "id": "one",
        "prompt": "shapes",
        "instruction": QUESTION,
        "chosen": CHOSEN,
        "rejected": REJECTED,
        "chosen_policy": "a",
        "rejected_policy": "b",
        "topic": "art",
        "images": ["a.png"],
    },
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *words):
    """Exit code, standard output and standard error of the command."""
    code: str | int | None
    try:
        code = check_pairs.main([*map(str, words)])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def report_of(capsys, records, *words, name="pairs.json"):
    """The report on some records."""
    Path(name).write_text(json.dumps(records), encoding="utf-8")
    code, out, err = run(capsys, name, "--json", *words)
    assert code in (0, 1), err
    return json.loads(out)


def found(report):
    """How many pairs each check found something in, where it did; the length rule aside."""
    counts = {name: each["found"] for name, each in report["checks"].items() if each["found"]}
    counts.pop("length", None)
    return counts


# -- What is read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", SAME_PAIR)
def test_the_same_pair_is_read_the_same_from_every_form(form, folder):
    Path("pairs.json").write_text(json.dumps([SAME_PAIR[form]]))
    source = open_source("pairs.json")
    assert source.form is FORMS[form.split(",")[0]]
    [pair] = source.pairs()
    assert (pair.question, pair.chosen, pair.rejected) == (QUESTION, CHOSEN, REJECTED)
    assert pair.id == "one"
    assert [picture.source for picture in pair.images] == [Path("a.png")]
    assert pair.picture_tokens in (1, None)
    if form.startswith("ours"):
        assert (pair.policies, pair.prompt, pair.topic) == (("a", "b"), "shapes", "art")


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet", ".arrow"])
def test_pairs_are_read_from_json_lines_parquet_and_arrow(suffix, folder, capsys):
    import datasets

    rows = [
        {
            **copy.deepcopy(TRL),
            "id": str(n),
            "images": [{"bytes": png((n, n, n)), "path": f"{n}.png"}],
        }
        for n in range(40)
    ]
    if suffix in (".json", ".jsonl"):
        for row in rows:
            row["images"] = ["a.png"]
    name = f"pairs{suffix}"
    if suffix == ".json":
        Path(name).write_text(json.dumps(rows))
    elif suffix == ".jsonl":
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == ".parquet":
        datasets.Dataset.from_list(rows).to_parquet(name)
    else:
        datasets.Dataset.from_list(rows).save_to_disk("saved")
        name = "saved"
    _, out, err = run(capsys, name, "--json")
    assert out, err
    report = json.loads(out)
    assert report["pairs"] == 40
    assert not report["checks"]["malformed"]["found"]


def test_pictures_inside_of_parquet_are_looked_at(folder, capsys):
    import datasets

    rows = [
        {**copy.deepcopy(TRL), "id": "whole", "images": [{"bytes": png(), "path": "w.png"}]},
        {**copy.deepcopy(TRL), "id": "cut", "images": [{"bytes": png()[:60], "path": "c.png"}]},
    ]
    datasets.Dataset.from_list(rows).to_parquet("pairs.parquet")
    code, out, _ = run(capsys, "pairs.parquet", "--json")
    report = json.loads(out)
    assert code == 1
    assert [each["id"] for each in report["checks"]["unreadable picture"]["findings"]] == ["cut"]
    code, out, _ = run(capsys, "pairs.parquet", "--json", "--no-pictures")
    report = json.loads(out)
    assert "unreadable picture" in report["not_checked"]
    assert report["checks"]["unreadable picture"]["found"] == 0


def test_a_data_set_of_ours_is_read_once_though_it_has_its_pairs_in_many_forms(folder, capsys):
    import datasets

    Path("set/data").mkdir(parents=True)
    row = {**copy.deepcopy(SAME_PAIR["ours"]), "images": [{"bytes": png(), "path": "a.png"}]}
    datasets.Dataset.from_list([row]).to_parquet("set/data/train-00000-of-00001.parquet")
    Path("set/llava.json").write_text(json.dumps([LLAVA]))
    Path("set/dataset.json").write_text("{}")
    code, out, err = run(capsys, "set", "--json")
    assert code == 0, err
    assert (json.loads(out)["form"], json.loads(out)["pairs"]) == ("ours", 1)


def test_a_folder_of_nested_data_sets_asks_for_one_of_them(folder, capsys):
    for size in ("100", "all"):
        Path("dataset", size).mkdir(parents=True)
        Path("dataset", size, "dataset.json").write_text("{}")
    code, _, err = run(capsys, "dataset")
    assert code == 2
    assert "several data sets (100, all)" in err
    assert f"Name one: {Path('dataset', 'all')}" in err


def test_a_folder_of_several_forms_asks_which(folder, capsys):
    Path("both").mkdir()
    Path("both/llava.json").write_text(json.dumps([LLAVA]))
    Path("both/trl.json").write_text(json.dumps([TRL]))
    code, _, err = run(capsys, "both", "--no-pictures")
    assert code == 2
    assert "several forms (llava: llava.json; trl: trl.json)" in err
    assert run(capsys, "both", "--no-pictures", "--form", "trl")[0] == 0
    code, _, err = run(capsys, "both", "--form", "ms_swift")
    assert code == 2
    assert "Correct --form" in err


def test_a_data_set_is_fetched_from_the_hub(tmp_path):
    from hub_server import hub_server

    files = {"README.md": b"# A card", "pairs.json": json.dumps([LLAVA]).encode(), "a.png": png()}
    with hub_server({"datasets/some/pairs": files}) as hub:
        done = subprocess.run(
            [sys.executable, SCRIPT, "some/pairs", "--json"],
            cwd=tmp_path,
            env={**os.environ, "HF_HOME": str(tmp_path / "hub"), "HF_ENDPOINT": hub.url},
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pairs"] == 1


# -- What is found ---------------------------------------------------------------------------------


@needs_golden
def test_the_published_sample_s_empty_answers_and_its_run_on_are_found(capsys):
    file = GOLDEN / "upstream/pairs.json"
    code, out, _ = run(capsys, file, "--json", "--no-pictures")
    report = json.loads(out)
    ids = {
        name: [each["id"] for each in check["findings"]]
        for name, check in report["checks"].items()
        if check["findings"]
    }
    assert code == 1
    assert ids == {
        "empty": ["art-2", "art-3"],
        "near-empty": ["art-4"],
        "repetition": ["art-5"],
        "unfinished": ["art-5"],
    }


LONG = (
    "The picture shows a quiet harbour with many boats, old stone houses along the water, people"
    " who walk beside it, gulls over the roofs, and low hills under a bright sky in the far"
    " distance behind all of this, while a man in a red coat looks at the"
)
FAULTS = {
    "empty question": llava(question=""),
    "empty": llava(rejected=" …\n"),
    "near-empty": llava(rejected="сну", chosen=LONG + " sea."),
    "equal": llava(rejected=CHOSEN),
    "looks equal": llava(rejected=CHOSEN.replace(" ", "  ") + "\u200b\n"),
    "repetition": llava(rejected="a red circle and " * 12 + "a square."),
    "unfinished": llava(rejected=LONG),
    "run-on": llava(rejected=LONG.replace(".", ",") * 3 + " sea."),
    "refusal": llava(rejected="I'm sorry, but I can't assist with that request."),
    "template": llava(rejected="A circle.\nUSER: And what else?"),
    "leaked prompt": llava(rejected=f"{QUESTION} Two circles and one more thing."),
    "special token": llava(rejected="A circle.</s>"),
    "control character": llava(rejected="A circle \x1b[31mand a square there."),
    "missing picture": llava(image="gone.png"),
    "unreadable picture": llava(image="text.png"),
    "picture elsewhere": llava(image="https://example.org/a.png"),
    "picture without token": {**LLAVA, "image": ["a.png", "b.png"]},
    "token without picture": {key: value for key, value in LLAVA.items() if key != "image"},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_of_a_pair_is_found_and_told_with_its_id(fault, folder, capsys):
    Path("text.png").write_text("no picture")
    Path("b.png").write_bytes(png((1, 2, 3)))
    good = llava(id="good", question="What else is there to be seen?")
    report = report_of(capsys, [good, FAULTS[fault]])
    also = {"no picture": 1} if fault == "token without picture" else {}
    assert found(report) == {fault: 1, **also}
    [finding] = report["checks"][fault]["findings"]
    assert (finding["id"], finding["where"]) == ("one", "pairs.json, record 2")
    if report["checks"][fault]["allowed"] is not None:
        assert run(capsys, "pairs.json")[0] == 1
        assert run(capsys, "pairs.json", "--allow", f"{fault}=any")[0] == 0


#: What looks like a fault and is none.
NO_FAULTS = {
    "a short answer to a question of yes or no": llava(chosen="No.", rejected=LONG + " sea."),
    "a number": llava(chosen="12", rejected=LONG + " sea."),
    "a list without a full stop": llava(chosen=LONG.replace(", ", "\n- ")),
    "an ending in a quotation": llava(chosen=LONG + ' sign "Harbour"'),
    "an emoji at the end": llava(chosen=LONG + " sea 🌊"),
    "something that cannot be seen": llava(chosen="I cannot see any circle in it, but a square."),
    "a user who is described": llava(chosen="A user: somebody at a desk, in front of a screen."),
    "another script": llava(
        question="这张图片里有哪些形状？", chosen="两个红色的圆。", rejected="一个蓝色的圆。"
    ),
    "quoted tags of HTML": llava(chosen="The sign reads <b>Harbour</b>, in red letters."),
}


@pytest.mark.parametrize("case", NO_FAULTS)
def test_what_is_no_fault_is_not_found(case, folder, capsys):
    assert found(report_of(capsys, [NO_FAULTS[case]])) == {}


def test_duplicates_and_contradictions_are_found_across_pairs(folder, capsys):
    other = "How many shapes are there in this picture?"
    Path("same.jpg").write_bytes(png())
    records = [
        llava(id="first"),
        llava(id="first", question=other),
        llava(id="again"),
        llava(id="the other way round", chosen=REJECTED, rejected=CHOSEN),
        llava(id="renamed", question="What is in it?", image="same.jpg"),
    ]
    report = report_of(capsys, records)
    ids = {
        name: [each["id"] for each in check["findings"]]
        for name, check in report["checks"].items()
        if check["findings"]
    }
    assert ids == {
        "duplicate id": ["first"],
        "duplicate pair": ["again"],
        "contradiction": ["the other way round"],
        "duplicate question": ["again", "the other way round"],
        "look-alike pictures": ["renamed"],
    }


def test_pairs_that_are_the_same_once_training_has_cut_them_are_found(folder, capsys):
    from tokenizers import Tokenizer, models, pre_tokenizers

    long = " ".join(f"word{n}" for n in range(60))
    record = llava(chosen=f"{long} and a circle.", rejected=f"{long} and a square.")
    assert found(report_of(capsys, [record])) == {}
    cut = ("--max-length", "640")  # 576 for the picture, 6 for the question: 58 are left
    assert found(report_of(capsys, [record], *cut)) == {"equal when cut": 1}
    assert found(report_of(capsys, [record], "--max-length", "650")) == {}
    # A tokenizer that makes a token of each character leaves room for less.
    letters = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    letters.save("tokenizer.json")
    exact = ("--max-length", "900", "--tokenizer", "tokenizer.json")
    assert found(report_of(capsys, [record], *exact)) == {"equal when cut": 1}
    report = report_of(capsys, [record], "--max-length", "100")
    [finding] = report["checks"]["equal when cut"]["findings"]
    assert "fill the 100 tokens" in finding["detail"]


def test_a_benchmark_s_question_and_picture_are_found(folder, capsys):
    from lib.contamination import perceptual_hash

    question = "How many red circles stand beside the square in the picture?"
    rows = [
        {"benchmark": "bench", "id": "7", "question": question, "image": None},
        {
            "benchmark": "bench",
            "id": "8",
            "question": "Look.",
            "image": perceptual_hash(Image.open("a.png")),
        },
    ]
    Path("benchmarks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = report_of(capsys, [llava(question=question)], "--benchmarks", "benchmarks.jsonl")
    [finding] = report["checks"]["benchmark overlap"]["findings"]
    assert "bench 7" in finding["detail"]
    assert "image: bench 8" in finding["detail"]
    assert "benchmark overlap" in report_of(capsys, [LLAVA])["not_checked"]


def test_answers_in_another_language_than_the_question_are_found(folder, capsys):
    pytest.importorskip("py3langid")
    german = "Auf dem Bild sind zwei rote Kreise und ein kleines Quadrat zu sehen."
    report = report_of(capsys, [llava(chosen=german)])
    [finding] = report["checks"]["language"]["findings"]
    assert finding["detail"] == "chosen: de, the question is en"
    assert report["languages"] == {"de": 1, "en": 1}


def test_a_set_that_length_alone_gives_away_is_told_with_its_effect_size(folder, capsys):
    records = [
        llava(id=str(n), question=f"Question number {n}?", chosen=CHOSEN + " And more of it.")
        for n in range(30)
    ]
    report = report_of(capsys, records)
    assert report["checks"]["length"]["is_over"]
    assert report["lengths"]["right"] == 1
    assert report["lengths"]["rule"] == "longer"
    code, out, _ = run(capsys, "pairs.json")
    assert code == 1
    assert "A rule by which the longer answer wins is right in 100.0%" in out
    # A handful of pairs is no evidence.
    assert not report_of(capsys, records[:3])["checks"]["length"]["is_over"]


def test_the_interval_of_a_share_is_wilson_s():
    low, high = wilson(0.5, 10)
    assert (round(low, 4), round(high, 4)) == (0.2366, 0.7634)
    assert Lengths().pairs == 0


def test_shares_by_policy_are_told(folder, capsys):
    records = [
        {**SAME_PAIR["ours"], "id": str(n), "chosen_policy": policy, "rejected_policy": "b"}
        for n, policy in enumerate("aaab")
    ]
    report = report_of(capsys, records)
    assert report["policies"] == {
        "a": {"chosen": 3, "rejected": 0},
        "b": {"chosen": 1, "rejected": 4},
    }


def test_a_picture_inside_of_the_json_is_read(folder, capsys):
    inside = f"data:image/png;base64,{base64.b64encode(png()).decode()}"
    assert found(report_of(capsys, [llava(image=inside)])) == {}
    report = report_of(capsys, [llava(image="data:image/png;base64,AAAA")])
    assert found(report) == {"unreadable picture": 1}


def test_pictures_are_found_in_the_folder_that_is_named(folder, capsys):
    Path("elsewhere").mkdir()
    Path("a.png").rename("elsewhere/a.png")
    assert found(report_of(capsys, [LLAVA])) == {"missing picture": 1}
    assert found(report_of(capsys, [LLAVA], "--images", "elsewhere")) == {}


def test_texts_of_others_reach_no_terminal_as_they_are(folder, capsys):
    Path("pairs.json").write_text(json.dumps([llava(id="\x1b[2Jid", rejected="[red]\x1b[31m</s>")]))
    _, out, err = run(capsys, "pairs.json")
    assert "\x1b" not in out + err
    assert r"\x1b[2Jid" in out


def test_no_model_is_loaded():
    code = (
        "import sys, check_pairs, lib.pair_checks.checker;"
        "print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=SCRIPT.parent,
        text=True,
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.strip() == "[]"


# -- Broken files: one message each ----------------------------------------------------------------


def as_json(*records):
    return json.dumps(records).encode()


def test_a_token_that_one_side_lacks_is_found(folder, capsys):
    """LLaVA's JSON asks twice, and a trainer reads both."""
    record = copy.deepcopy(LLAVA)
    record["rejected_conversations"][0] = turn("human", QUESTION)
    assert found(report_of(capsys, [record])) == {"picture without token": 1}


def without(key, record=LLAVA):
    return {name: value for name, value in record.items() if name != key}


#: Name of the file -> its content, and what is said of it: of the file as a whole (exit code 2), or
#: of a record in it (exit code 1).
BROKEN_FILES = {
    "empty.json": (b"", r"empty\.json: is empty"),
    "blank.jsonl": (b" \n\n", r"blank\.jsonl: is empty"),
    "nothing.json": (b"[]", r"no pairs of a form that is known \(it has no record\)"),
    "one.json": (b'{"data": []}', r"no pairs of a form|holds one object"),
    "spread.json": (b'{\n "data": []\n}', r"holds one object, where a list of pairs belongs"),
    "text.json": (b"pairs", r"holds neither a list nor an object"),
    "comma.json": (as_json(LLAVA)[:-1] + b",\n]", r"comma\.json: not valid JSON \(.*line 2"),
    "cut.json": (as_json(LLAVA, LLAVA)[:-200], r"not valid JSON \(line 1: it is cut off"),
    "twice.json": (
        as_json(LLAVA).replace(b'{"id"', b'{"image": "b.png", "id"', 1),
        r"the key 'image' stands twice",
    ),
    "nan.json": (as_json(llava(score=float("nan"))), r"NaN is no JSON number"),
    "latin.json": (
        json.dumps([llava(chosen="schön")], ensure_ascii=False).encode("latin-1"),
        r"latin\.json: line 1 is not UTF-8",
    ),
    "utf16.json": (json.dumps([LLAVA]).encode("utf-16"), r"is UTF-16 or UTF-32, not UTF-8"),
    "deep.json": (b"[" * 100_000, r"deep\.json: "),
    "sft.json": (
        as_json(without("rejected_conversations")),
        r"no pairs of a form that is known \(its records have id, image, conversations\)",
    ),
    "pairs.csv": (
        b"prompt,chosen,rejected\na,b,c\n",
        r"pairs\.csv: no pairs can be read from .* ends in \.json",
    ),
    "cut.parquet": (b"PAR1 and no more", r"cut\.parquet: is no whole parquet file"),
    "renamed.parquet": (as_json(LLAVA), r"renamed\.parquet: is no whole parquet file"),
    "cut.arrow": (b"ARROW", r"cut\.arrow: is no whole arrow file"),
    "numbers.json": (b"[1, 2]", r"no pairs of a form that is known \(it has no record\)"),
}
BROKEN_RECORDS = {
    "line.jsonl": (b'{"id": \n' + json.dumps(LLAVA).encode(), "line 1", r"is not valid JSON"),
    "list.jsonl": (json.dumps(LLAVA).encode() + b"\n[]", "line 2", "is a list, no object"),
    "latin.jsonl": (json.dumps(LLAVA).encode() + b'\n{"a": "\xf6"}', "line 2", "is not UTF-8"),
    "null.json": (as_json(LLAVA, None), "record 2", "is null, no object"),
    "no-conversation.json": (as_json(without("conversations")), "record 1", "no `conversations`"),
    "no-turn.json": (as_json(llava(conversations=[])), "record 1", "`conversations` is an empty"),
    "text-turn.json": (as_json(llava(conversations="Hello")), "record 1", "is a text, no list"),
    "no-answer.json": (
        as_json(llava(conversations=[turn("human", "Hello")])),
        "record 1",
        "`conversations` does not end with an answer",
    ),
    "no-question.json": (
        as_json(llava(conversations=[turn("gpt", "Hello")])),
        "record 1",
        "does not end with a question",
    ),
    "other-role.json": (
        as_json(llava(conversations=[turn("alien", "Hello")])),
        "record 1",
        "is of 'alien', neither user nor model",
    ),
    "no-value.json": (as_json(llava(conversations=[{"from": "gpt"}])), "record 1", "no `value`"),
    "number.json": (
        as_json(llava(conversations=[turn("human", "a"), turn("gpt", 3)])),
        "record 1",
        "is a number, no text",
    ),
    "two-questions.json": (
        as_json(llava(rejected_conversations=[turn("human", "Why?"), turn("gpt", "So.")])),
        "record 1",
        "two different questions",
    ),
    "null-side.json": (as_json({**TRL, "chosen": None}), "record 1", "`chosen` is null"),
    "no-rejected.json": (as_json(without("rejected", TRL)), "record 1", "has no `rejected`"),
    "part.json": (
        as_json({**TRL, "prompt": [{"role": "user", "content": [{"type": "video"}]}]}),
        "record 1",
        "of type 'video'",
    ),
    "no-prompt.json": (
        as_json({"chosen": "a", "rejected": "b"}),
        "record 1",
        "what is asked is not known",
    ),
    "two-answers.json": (
        as_json({**TRL, "chosen": [*TRL["chosen"], *TRL["chosen"]]}),
        "record 1",
        "is not one answer",
    ),
    "image-number.json": (as_json(llava(image=3)), "record 1", "has a number where a picture"),
    "text.json": (as_json({"text": "{", "image": "a.png"}), "record 1", "`text` is no JSON"),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_broken_file_ends_with_one_message_that_says_what_and_where(name, folder, capsys):
    content, said = BROKEN_FILES[name]
    Path(name).write_bytes(content)
    code, out, err = run(capsys, name)
    assert code == 2
    assert out == ""
    assert re.search(said, err), err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", BROKEN_RECORDS)
def test_a_broken_record_is_told_with_its_place_and_the_others_are_checked(name, folder, capsys):
    content, place, said = BROKEN_RECORDS[name]
    Path(name).write_bytes(content)
    code, out, err = run(capsys, name, "--json")
    assert code == 1, err
    [finding] = json.loads(out)["checks"]["malformed"]["findings"]
    assert finding["where"] == f"{name}, {place}"
    assert said in finding["detail"]


MISTAKES = {
    "gone.json": r"gone\.json: there is no such file or folder",
    ".": r"holds no file of pairs",
    "good.json --images nowhere": r"nowhere: there is no such folder of pictures",
    "good.json --allow emty=0.1": r"there is no check 'emty'. Did you mean 'empty'\?",
    "good.json --allow empty=2": r"--allow empty=2: give a share from 0 to 1, or `any`",
    "good.json --allow empty": r"--allow empty: there is no check ''",
    "good.json --max-length 0": r"--max-length is 1 or more",
    "good.json --tokenizer good.json": r"good\.json: no tokenizer can be read from it",
    "good.json --benchmarks gone.jsonl": r"gone\.jsonl: there is no such file",
    "good.json --form other": r"invalid choice: 'other'",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_on_the_command_line_ends_with_one_message(
    command, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    if "good.json" in command:
        Path("good.json").write_text(json.dumps([LLAVA]))
    code, out, err = run(capsys, *command.split())
    assert code == 2
    assert out == ""
    assert re.search(MISTAKES[command], err), err


def test_the_documentation_has_every_check_with_what_it_allows():
    page = (SCRIPT.parent.parent / "docs/checking-pairs.md").read_text(encoding="utf-8")
    table = page.partition("## What is checked")[2].partition("## ")[0]
    told = re.findall(r"^\| `([a-z -]+)` \|", table, flags=re.MULTILINE)
    assert told == [*ALL_CHECKS]


def test_the_documented_checks_are_those_that_are_made():
    nothing = Index([], ngram=13, short_similarity=1, min_words=5, image_distance=0)
    checks = Checker(CheckOptions(index=nothing)).checks
    assert {*ALL_CHECKS} - {check.name for check in checks} <= {"length", "language"}
    assert {check.name for check in checks} <= {*ALL_CHECKS}


# -- The rule of the same name, over a run's own pairs ---------------------------------------------


def own_row(number, rejected=REJECTED, topic="art"):
    file = f"images/{topic}/00/{topic}-{number}.png"
    Path("results/run", file).parent.mkdir(parents=True, exist_ok=True)
    Path("results/run", file).write_bytes(content := png((number, 7 * number, 13 * number)))
    return {
        "id": f"{topic}-{number}",
        "topic": topic,
        "prompt": f"shapes, number {number} of them",
        "image": {
            "file": file,
            "sha256": sha256(content).hexdigest(),
            "guidance_scale": 7.0,
            "score": 1.0,
        },
        "instruction": QUESTION,
        "invalid_responses": {},
        "pair": {
            "chosen": {"policy": "a", "text": CHOSEN, "score": 2.0},
            "rejected": {"policy": "b", "text": rejected, "score": 1.0},
            "margin": 1.0,
        },
    }


class OwnPairs:
    """A run's pairs, and the rule that checks them."""

    def __init__(self, rows):
        self.file = Path("results/run/pairs/art/00.jsonl")
        write_jsonl(self.file, rows)
        self.output = Path("results/run/quality/pairs.json")

    def check(self, **settings):
        common = {"root": "results/run", "device": "cpu", "seed": 0, "max_failed_fraction": 0}
        snakemake = SimpleNamespace(
            rule="check_pairs",
            wildcards=Wildcards(),
            params=Parameters(settings=settings, common=common),
            input=SimpleNamespace(pairs=[self.file], images=[]),
            output=[self.output],
        )
        check_pairs.main_of_rule(snakemake)
        return json.loads(self.output.read_text())

    def record(self):
        return json.loads(Path("results/run/work/check_pairs/check_pairs.json").read_text())


def test_a_run_s_own_pairs_are_checked_the_same_way_and_counted_by_topic(folder):
    rows = [
        own_row(1),
        own_row(2, rejected="a circle and " * 12),
        own_row(3, rejected="I'm sorry, but I can't assist with that.", topic="nature"),
        {**{k: v for k, v in own_row(4).items() if k != "pair"}, "no_pair": "tie"},
    ]
    report = OwnPairs(rows).check()
    assert report["pairs"] == 3
    assert found(report) == {"repetition": 1, "refusal": 1}
    assert report["policies"]["a"] == {"chosen": 3, "rejected": 0}
    table = build_table(rows, report, "ours")
    assert [column.name for column in table.columns if column.key.startswith("quality")] == [
        "Found in pairs: refusal",
        "Found in pairs: repetition",
    ]
    counts = {row.texts["topic"]: row.values for row in table.rows}
    assert counts["nature"]["quality refusal"] == 1
    assert counts["art"]["quality refusal"] == 0
    assert counts["all topics"]["quality repetition"] == 1


def test_a_share_by_configuration_stops_the_run_and_says_which_pairs(folder):
    own = OwnPairs([own_row(1), own_row(2, rejected="a circle and " * 12)])
    own.check(max_share={"repetition": 0.5})
    own.output.unlink()
    said = r"(?s)repetition: 1 of 2 pairs \(50\.00%, allowed 10\.00%\), art-2"
    with pytest.raises(UserError, match=said):
        own.check(max_share={"repetition": 0.1})
    assert not own.output.exists()
    kept = json.loads(Path("results/run/work/check_pairs/refused.json").read_text())
    assert kept["checks"]["repetition"]["found"] == 1


def test_a_picture_that_was_looked_at_is_not_decoded_again(folder):
    rows = [own_row(1), own_row(2)]
    OwnPairs(rows).check()
    own = OwnPairs([*rows, own_row(3)])
    first = own.check()
    record = own.record()
    assert (record["computed"], record["reused"]) == (1, 2)
    assert own.check() == first


def test_pictures_are_not_looked_at_where_the_configuration_says_so(folder):
    own = OwnPairs([own_row(1)])
    Path("results/run/images/art/00/art-1.png").unlink()
    assert "unreadable picture" in own.check(pictures=False)["not_checked"]
    with pytest.raises(UserError, match=r"this image file is missing"):
        own.check()


def test_a_check_that_there_is_not_is_refused_in_the_configuration():
    with pytest.raises(ValidationError, match=r"there is no check 'repetitions'. Did you mean"):
        Quality(max_share={"repetitions": 0.1})
