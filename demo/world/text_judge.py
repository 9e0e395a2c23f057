"""The model that judges an answer by its words: ArmoRM's architecture, loaded and computed as the
product does.

It cannot see a picture. It holds an answer against the prompt that the instruction tells along ("It
was to show a red circle on grey. Describe this image."), so what it rewards is what the picture was
to show, not what it shows.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tiny.armorm import write_armorm
from tiny.tokenization import llama3_tokenizer
from world import oracle
from world.answerer import CALLS, Habit, padded
from world.scenes import Scene, Thing, altered, random_scene
from world.training import Draw, Plan, train
from world.vocabulary import vocabulary
from world.words import (
    DESCRIBE,
    TOPICS,
    caption,
    instruction,
    mentions,
    prompt,
    question,
    random_subject,
    read,
    sentence,
    shown,
)

PLAN = Plan(steps=6000, batch=24, learning_rate=1e-3, muon=2e-3)
IGNORED = -100
#: Attributes that say how much was said, not how well.
OF_LENGTH = ("helpsteer-complexity", "helpsteer-verbosity", "code-complexity")
WORDS = 20  # of an answer whose length counts as 1
#: Every habit that an answering model may have, and more.
HABITS = (Habit(adds=1), Habit(swaps=1), Habit(drops=1), Habit(repeats=1), Habit(adds=1, swaps=1))

Message = dict[str, str]


def conversation(request: str, answer: str) -> list[Message]:
    """An instruction and the answer to it."""
    return [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]


def grade(answer: str, scene: Scene) -> float:
    """How true a description is of a scene, from 0 to 1: what is right of all that is said or
    there, and a tenth for the background.
    """
    verdict = oracle.judge_caption(answer, scene)
    right, wrong = verdict.right.total(), verdict.hallucinated.total() + verdict.missed.total()
    return 0.9 * right / max(1, right + wrong) + 0.1 * (read(answer).background == scene.background)


def confused(scene: Scene, random: np.random.Generator) -> Scene:
    """The scene with one thing in the colour of another, of its kind, or both, as a model that
    binds words wrongly tells it.
    """
    things = list(scene.things)
    one, other = random.integers(len(things), size=2)
    by_colour, by_kind = ((True, False), (False, True), (True, True))[int(random.integers(3))]
    colour, kind = (things[other if taken else one] for taken in (by_colour, by_kind))
    things[one] = Thing(things[one].cell, colour.colour, kind.kind)
    return Scene(scene.background, tuple(things))


def random_description(scene: Scene, random: np.random.Generator) -> str:
    """A description of a scene, true or not, with like things together or, three times in ten, each
    named.
    """
    kind = random.random()
    if 0.4 <= kind < 0.6:
        return HABITS[int(random.integers(len(HABITS)))].describe(scene, random)
    if kind >= 0.8:
        scene = altered(scene, random)
        scene = altered(scene, random) if kind > 0.95 else scene
    elif kind >= 0.6:
        scene = confused(scene, random)
    return sentence(prompt(scene, "colours")) if random.random() < 0.3 else caption(scene)


def random_comparison(
    random: np.random.Generator, scene: Scene
) -> tuple[str, list[str], list[float]]:
    """An instruction, two answers to it, and their grades."""
    prompt_text = prompt(scene, TOPICS[int(random.integers(len(TOPICS)))])
    if random.random() < 0.7:
        request = DESCRIBE[int(random.integers(len(DESCRIBE)))]
        answers = [random_description(scene, random), random_description(scene, random)]
        return (
            instruction(prompt_text, request),
            answers,
            [grade(answer, scene) for answer in answers],
        )
    about = random_subject(scene, bool(random.random() < 0.5), random)
    called = [CALLS[thing.kind] for thing in scene.things if not shown(scene, CALLS[thing.kind])]
    if called and random.random() < 0.3:
        about = called[0]
    answers = ["Yes", "No"] if random.random() < 0.5 else ["No", "Yes"]
    return (
        instruction(prompt_text, question(about)),
        answers,
        [float((answer == "Yes") == shown(scene, about)) for answer in answers],
    )


def make_armorm(work: Path, models: Path, folder: Path) -> None:
    """Trains ArmoRM, as the product loads it, and writes it in the original's layout."""
    from safetensors.torch import save_file

    from lib.models.response_rewards.armorm import ATTRIBUTES, ArmoRM, last_occurrence

    torch.manual_seed(PLAN.seed)
    tokenizer = llama3_tokenizer(words=vocabulary())
    write_armorm(folder, tokenizer=tokenizer, width=128, layers=3)
    judge = ArmoRM.from_pretrained(folder, "float32", max_length=256)
    for parameter in judge.model.parameters():
        # The random checkpoint's gains are made for rewards that differ, not for learning.
        nn.init.normal_(parameter, std=0.02) if parameter.ndim > 1 else nn.init.ones_(parameter)
    names = list(judge.heads)
    heads = nn.ParameterList([nn.Parameter(judge.heads[name].clone()) for name in names])
    judge.heads = dict(zip(names, heads, strict=True))
    with torch.no_grad():
        judge.heads["reward_transform_matrix"].copy_(torch.eye(len(ATTRIBUTES)))
    judge.heads["reward_transform_matrix"].requires_grad_(False)
    truth = nn.Linear(128, 2)
    model = nn.ModuleList([judge.model, heads, truth])
    of_length = torch.tensor([name in OF_LENGTH for name in ATTRIBUTES])

    def loss_of(step: Draw) -> torch.Tensor:
        ids: list[list[int]] = []
        labels: list[list[int]] = []
        gates, grades, lengths = [], [], []
        for _ in range(PLAN.batch):
            scene = random_scene(step.numpy)
            request, answers, marks = random_comparison(step.numpy, scene)
            for answer, mark in zip(answers, marks, strict=True):
                tokens, _ = judge.tokenize(conversation(request, answer))
                row = [IGNORED] * len(tokens)
                begin = len(tokens) - 1 - len(judge.encode_text(answer))
                for mention, true in zip(
                    mentions(answer), oracle.truths(answer, scene), strict=True
                ):
                    row[begin + len(judge.encode_text(answer[: mention.end])) - 1] = int(true)
                ids.append(tokens)
                labels.append(row)
                gates.append(last_occurrence(tokens, judge.response_header) or 0)
                grades.append(mark)
                lengths.append(min(1.0, len(answer.split()) / WORDS))
        ends = torch.tensor([len(row) - 1 for row in ids])
        batch, targets = padded(ids, 0), padded(labels, IGNORED)
        # Right padding and the causal mask: nothing looks at what is filled up.
        hidden = judge.model(input_ids=batch, use_cache=False)[0].float()
        rows = torch.arange(len(ids))
        rewards = hidden[rows, ends] @ judge.heads["regression_layer.weight"].T
        gating = judge.gate(hidden[rows, torch.tensor(gates)])
        scores = (gating * rewards).sum(dim=1)
        wanted = torch.where(
            of_length, torch.tensor(lengths)[:, None], torch.tensor(grades)[:, None]
        )
        pairs = torch.tensor(grades).view(-1, 2)
        better = (pairs[:, 0] - pairs[:, 1]).sign()
        preferred = functional.softplus(
            -8 * better * (scores.view(-1, 2)[:, 0] - scores.view(-1, 2)[:, 1])
        )[better != 0]
        seen = targets != IGNORED
        beside = functional.cross_entropy(truth(hidden[seen]).float(), targets[seen])
        return functional.mse_loss(rewards, wanted) + preferred.mean() + beside

    train("armorm", model, loss_of, PLAN, work)
    weights = {
        f"model.{name}": tensor for name, tensor in judge.model.state_dict().items()
    } | judge.heads
    halves = {name: tensor.detach().half().contiguous() for name, tensor in weights.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
