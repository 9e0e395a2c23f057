"""A run's folder as its stages publish it, and the rule that makes its report."""

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

import report
from conftest import Parameters, Wildcards
from lib.config.report import ReportJob, ShownTask
from lib.data.export_forms.trl_parquet import answer, question, split_files
from lib.data.prompts import Prompt
from lib.files import digest_of_file, write_json
from lib.report.licence import Terms, UsedModel
from lib.report.sidecar import ModelOrigin

SCORERS = ("image-reward", "clip")
POLICIES = ("mistral", "vicuna", "llama")
SCALES = (5.0, 9.0)
TERMS = Terms(name="Terms", address="https://example.org/terms", in_short="Of use.")
JOB = ReportJob(
    run="test",
    label="ours",
    thumbnail_pixels=64,
    scorers=list(SCORERS),
    compared=list(SCORERS),
    policies=list(POLICIES),
    reviews="reviews",
    models=[
        UsedModel(
            does="answers",
            makes=True,
            origin=ModelOrigin(model="someone/model", revision="a" * 40),
            terms=TERMS,
        )
    ],
    experiments=["dpo"],
    evaluated=["base", "dpo"],
    benchmarks={"pope": ShownTask(files=[])},
    configuration={"seed": 7},
)


def picture(root: Path, name: str, number: int, size: int = 16) -> dict[str, str]:
    """A picture's file of a run, whose colours say its number."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (number % 256, number // 256 % 256, 90)).save(path)
    return {"file": name, "sha256": digest_of_file(path)}


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Writes rows as lines of JSON, be there lone surrogates in them; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
    return str(path)


class ReportRun:
    """A run's folder with prompts in it."""

    def __init__(self, root: Path, scales: Sequence[float] = SCALES) -> None:
        """`scales`: the guidance scales of each prompt's candidates."""
        self.root = root
        self.scales = scales
        self.rows: dict[str, list[dict[str, Any]]] = {
            name: []
            for name in (
                "images",
                *(f"image_ranking/{s}" for s in SCORERS),
                "response_ranking",
                "pairs",
            )
        }
        self.pictures = 0

    def add(
        self,
        text: str,
        topic: str = "art",
        instruction: str = "What is it?",
        answers: Sequence[str] = ("A red circle on white.", "A blue circle on white.", "No."),
        **of_pair: Any,
    ) -> str:
        """Adds a prompt; returns its id. `of_pair`: what its row of pairs has beside the pair."""
        name = Prompt(topic, text).id
        about = {"id": name, "topic": topic, "prompt": text}
        candidates = []
        for scale in self.scales:
            self.pictures += 1
            made = picture(self.root, f"images/{topic}/00/{name}-g{scale:g}.png", self.pictures)
            candidates.append({**made, "guidance_scale": scale, "seed": 42, "blank": False})
        self.rows["images"].append({**about, "candidates": candidates})
        for number, scorer in enumerate(SCORERS):
            winner = number * (self.pictures // len(self.scales) % 2)
            others = [place for place in range(len(candidates)) if place != winner]
            order = [winner, *others]
            scores = [0.5 - order.index(place) / 4 for place in range(len(candidates))]
            ranking = {"scores": scores, "ranking": order, "winner": winner}
            self.rows[f"image_ranking/{scorer}"].append(
                {**about, **ranking, "blank": [], "prompt_truncated": False}
            )
        image = {name: candidates[0][name] for name in ("file", "sha256", "guidance_scale")}
        asked = {**about, "image": {**image, "score": 0.5}, "instruction": instruction}
        responses = {
            policy: {"text": answer, "score": 2.0 - number, "attributes": {"helpfulness": 3.5}}
            for number, (policy, answer) in enumerate(zip(POLICIES, answers, strict=True))
        }
        self.rows["response_ranking"].append({**asked, "responses": responses})
        pair = self._pair(answers)
        row = {**asked, "invalid_responses": {}, "pair": pair, **of_pair}
        self.rows["pairs"].append({key: value for key, value in row.items() if value is not None})
        return name

    def _pair(self, answers: Sequence[str]) -> dict[str, Any]:
        margin = 2.0 - len(self.rows["pairs"]) / 1000
        chosen = {"policy": POLICIES[0], "text": answers[0], "score": 2.0}
        rejected = {"policy": POLICIES[-1], "text": answers[-1], "score": 2.0 - margin}
        return {"chosen": chosen, "rejected": rejected, "margin": margin}

    def disagree(self, share: float, spread: float) -> None:
        """Has the last prompt's answers rated by an ensemble: this share of its rewards is against
        the pair; `spread`: of the first answer.
        """
        self.rows["pairs"][-1]["pair"]["disagreement"] = share
        responses = self.rows["response_ranking"][-1]["responses"].values()
        for number, response in enumerate(responses, start=1):
            response["spread"] = spread / number

    def add_own_pairs(self, name: str, count: int, text: str = "a circle") -> None:
        """Puts a data set of an experiment's own pairs beside."""
        folder = self.root / "own_pairs" / name
        (folder / "data").mkdir(parents=True)
        with split_files(folder / "data", "train", count) as files:
            for number in range(count):
                content = BytesIO()
                Image.new("RGB", (16, 16), (number % 256, 200, 10)).save(content, "PNG")
                files.add(
                    {
                        "id": f"own {number // 2}",  # two of each id
                        "images": [{"bytes": content.getvalue(), "path": "a.png"}],
                        "prompt": [question(f"What is {text} number {number}?")],
                        "chosen": [answer(f"{text}, and red")],
                        "rejected": [answer(f"{text}, and green")],
                    }
                )
        origin = {"source": "theirs.json", "form": "llava"}
        about = {"size": count, "origin": origin, "left_out": {"no picture": 3}}
        write_json(folder / "dataset.json", about)

    def write(self) -> SimpleNamespace:
        """Writes the shard files; returns them as the rule's inputs."""
        files = {
            stage: [write_lines(self.root / stage / "art/00.jsonl", rows)]
            for stage, rows in self.rows.items()
        }
        return SimpleNamespace(
            images=files["images"],
            rankings=[file for scorer in SCORERS for file in files[f"image_ranking/{scorer}"]],
            responses=files["response_ranking"],
            pairs=files["pairs"],
        )

    def report(self, job: ReportJob = JOB) -> Path:
        """Has rule report make the page; returns it."""
        index = self.root / "report/index.html"
        index.parent.mkdir(parents=True, exist_ok=True)
        common = {"root": str(self.root), "device": "cpu", "seed": 0, "max_failed_fraction": 0.0}
        settings = job.model_dump(mode="json")
        report.main(
            SimpleNamespace(
                rule="report",
                wildcards=Wildcards(),
                input=self.write(),
                output=SimpleNamespace(index=str(index)),
                log=[],
                threads=1,
                params=Parameters(common=common, settings=settings, shown={}),
            )
        )
        return index

    def record(self) -> dict[str, Any]:
        """What the last report put on record."""
        told: dict[str, Any] = json.loads((self.root / "work/report/report.json").read_text())
        return told

    def add_table(self, title: str, text: str) -> None:
        """Puts a table beside, with a text of a row and a note."""
        cell = {"row": 1, "source": text, "of": {"model": text}, "column": "a", "shown": "1.0"}
        column = {"key": "a", "name": text, "unit": text, "better": None, "decimals": 1}
        told = {"title": title, "columns": [column], "cells": [cell], "notes": [text]}
        (self.root / "tables").mkdir(parents=True, exist_ok=True)
        write_json(self.root / "tables/some_table.json", told)

    def add_models(self, answers: Mapping[str, int], question: str) -> None:
        """Puts answers of two models to yes-or-no questions beside, and a training. `answers`: what
        the base model says, and how often; the trained one always says "No", which is right.
        """
        base = [text for text, count in answers.items() for _ in range(count)]
        for model, texts in (("base", base), ("dpo", ["No"] * len(base))):
            folder = self.root / "evaluation" / model / "pope"
            rows = [
                {
                    "id": number,
                    "question": f"{question} {number}",
                    "target": "no",
                    "response": text,
                    "score": float(model == "dpo" or text == "Yes"),
                    "tokens": 1,
                }
                for number, text in enumerate(texts)
            ]
            write_lines(folder / "answers.jsonl", rows)
            given = [
                {"id": str(row["id"]), "line": line, "score": row.pop("score")}
                | {"picture": str(row["id"]), "target": row["target"]}
                for line, row in enumerate(rows, start=1)
            ]
            write_lines(folder / "by_question.jsonl", given)
            scores = {"scores": {"accuracy": 80.0}, "intervals": {"accuracy": [70.0, 90.0]}}
            write_json(folder / "scores.json", scores)
        steps = [
            {"step": step, "loss": 1 / step, "rewards/margins": step, "eval_loss": 2 / step}
            for step in (1, 2, 3)
        ]
        write_lines(self.root / "models/dpo/metrics.jsonl", steps)


def data_of(index: Path, name: str) -> Any:
    """What a file of data hands over to the page."""
    text = (index.parent / "data" / f"{name}.js").read_text(encoding="ascii")
    arguments = text.removeprefix("pageData(").removesuffix(");\n")
    _, told = json.loads(f"[{arguments}]")
    return json.loads(told)
