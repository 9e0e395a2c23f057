"""lmms-eval 0.7.3: which tasks it reads, how it asks, and what it prints."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache, partial
from hashlib import sha256
from importlib import import_module
from typing import Any

from PIL.Image import Image

from lib.patches.imports import hidden


def index_included_tasks_only() -> None:
    """Has lmms-eval index the tasks of `--include_path` only, not first the 2,000 files of its own,
    which it prefers. Before `lmms_eval.__main__` is imported.
    """
    with hidden("scipy"):  # half a second, for an Evaluator that nothing calls
        import_module("evaluate")

    from lmms_eval import tasks

    tasks.TaskManager = partial(tasks.TaskManager, include_defaults=False)


def silence_calls() -> Callable[..., Iterable[Any]]:
    """Has a call of the model draw no bar and print no figures; returns the bar (tqdm)."""
    from lmms_eval.models.chat import llava_hf

    bar: Callable[..., Iterable[Any]] = llava_hf.tqdm
    # It says itself `disable=`, by the process's rank.
    llava_hf.tqdm = lambda *parts, **options: bar(*parts, **{**options, "disable": True})
    llava_hf.log_metrics = lambda **_: None
    return bar


def compare_configuration_once() -> None:
    """Has transformers look through a model's configuration once for what belongs in its
    `generation_config`: for each question it would make a default one to compare with, which takes
    6 ms, half as long as a small model takes to answer.
    """
    from transformers import PreTrainedConfig

    look_through = PreTrainedConfig._get_generation_parameters
    known: list[tuple[Any, dict[str, Any]]] = []  # a configuration cannot be hashed

    def look_through_once(config: Any) -> dict[str, Any]:
        found = next((found for seen, found in known if seen is config), None)
        if found is None:
            found = look_through(config)
            known.append((config, found))
        return found

    PreTrainedConfig._get_generation_parameters = look_through_once


def change_answering(change: Callable[[Any], Any]) -> None:
    """Has the model answer through `change(generate_until)`, given its own `generate_until`."""
    from lmms_eval.models.chat import llava_hf

    llava_hf.LlavaHf.generate_until = change(llava_hf.LlavaHf.generate_until)


def question_of(model: Any, request: Any) -> dict[str, Any]:
    """All that a request asks, as JSON: "messages" as the chat template gets them, each image as a
    digest of its pixels, and "generation", its settings.
    """
    _, messages_of, generation, number, task, split = request.args
    messages = messages_of(model.task_dict[task][split][number])
    text = json.dumps({"messages": messages, "generation": generation}, default=_as_json)
    question: dict[str, Any] = json.loads(text)
    return question


def prompt_of(model: Any, request: Any) -> tuple[str, list[Image], dict[str, Any]]:
    """A request as `LlavaHf.generate_until` gives it to the model's processor: the text, the
    images, and how the answer is to be generated.
    """
    from lmms_eval.protocol import ChatMessages

    _, messages_of, generation, number, task, split = request.args
    chat = ChatMessages(messages=messages_of(model.task_dict[task][split][number]))
    images, _, _ = chat.extract_media()
    text = model._image_processor.apply_chat_template(
        chat.model_dump()["messages"], tokenize=False, add_generation_prompt=True
    )
    return text, images, generation


def stored_rows(model: Any) -> Callable[[Any], dict[str, Any]]:
    """What gives the row of the data that a request is about, as it is stored: no picture is
    decoded.
    """

    @cache
    def stored(task: str, split: str) -> Any:
        rows = model.task_dict[task][split]
        return rows.with_format("arrow") if hasattr(rows, "with_format") else rows

    def row_of(request: Any) -> dict[str, Any]:
        *_, number, task, split = request.args
        row = stored(task, split)[number]
        values: dict[str, Any] = row.to_pylist()[0] if hasattr(row, "to_pylist") else row
        return values

    return row_of


def _as_json(value: Any) -> Any:
    if isinstance(value, Image):
        pixels = sha256(value.tobytes())
        pixels.update(bytes(value.getpalette() or ()))
        return [value.mode, value.size, pixels.hexdigest()]
    return repr(value)  # what says no more of itself is asked again by the next process


def change_judge(ask: Callable[..., tuple[str, str]], refuse: Callable[[str], Any]) -> None:
    """Has judges asked by `ask(text, **parameters of the request)`, which gives the reply and the
    name of the model that gave it. lmms-eval's own client logs what a server says as it came.

    `refuse(what)` raises: what is asked is more than one text.
    """
    from lmms_eval.llm_judge.protocol import Response
    from lmms_eval.llm_judge.providers import openai

    def evaluate(provider: Any, request: Any) -> Any:
        config = request.config or provider.config
        said = [message["content"] for message in request.messages]
        if len(said) != 1 or not isinstance(said[0], str) or request.images:
            refuse("a judge that is shown pictures or several messages")
        if config.system_prompt or config.response_format == "json":
            refuse("a judge with a system prompt, or bound to JSON")
        sampling = openai.build_sampling_kwargs(config)
        text, model = ask(said[0], **sampling)
        return Response(content=text.strip(), model_used=model)

    openai.OpenAIProvider.evaluate = evaluate


def score_each_answer(tasks: str) -> None:
    """Has a task of MMBench say of each answer whether it is right, by the code by which it says
    how many are, unless that asks a judge.
    """
    if "mmbench" not in tasks:
        return  # it imports what others have no use for
    from lmms_eval.tasks.mmbench.mmbench_evals import MMBench_Evaluator
    from pandas import DataFrame

    score_all = MMBench_Evaluator.eval_result

    def score(evaluator: Any, answers: Any, eval_method: str) -> Any:
        if eval_method == "static":
            for answer in answers:
                right = {answer["index"]: answer["answer"]}
                row = DataFrame([answer])
                answer["score"] = evaluator.eval_sub_data(row, right, static_only=True)
        return score_all(evaluator, answers, eval_method)

    MMBench_Evaluator.eval_result = score


def take_any_model() -> None:
    """Has lmms-eval's class for LLaVA load any model that reads pictures and writes text, as
    transformers does, and ask it through the model's own processor. Its classes for single
    families change a picture's size, the number format or the system prompt, so that a model would
    see other token ids than it was trained on.
    """
    from lmms_eval.models.simple import llava_hf
    from transformers import AutoModelForImageTextToText

    llava_hf.model_map = defaultdict(lambda: AutoModelForImageTextToText, llava_hf.model_map)


def load_no_weights() -> None:
    """Has lmms-eval's class for LLaVA load a model's processor and not its weights: others
    answer.
    """
    import torch
    from lmms_eval.models.simple import llava_hf

    class NoWeights(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
        config = None

        @classmethod
        def from_pretrained(cls, *_: Any, **__: Any) -> "NoWeights":
            return cls()

    llava_hf.model_map = defaultdict(lambda: NoWeights)


def change_prompts(change: Callable[[Any, str], str]) -> None:
    """Has the model see `change(tokenizer, prompt)` in place of what its chat template makes of a
    question.
    """
    from lmms_eval.models.chat import llava_hf

    load = llava_hf.LlavaHf.__init__

    def load_with_change(model: Any, *arguments: Any, **named: Any) -> None:
        load(model, *arguments, **named)
        ask = model._image_processor.apply_chat_template
        model._image_processor.apply_chat_template = lambda *parts, **options: change(
            model.tokenizer, ask(*parts, **options)
        )

    llava_hf.LlavaHf.__init__ = load_with_change
