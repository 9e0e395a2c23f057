"""Runs lmms-eval's command line with every answer journalled: `python -P main.py KEPT SYSTEM_PROMPT
<arguments>`, KEPT being the journals and keys of the tasks' answers (`Kept.told`) by task, as JSON.

It is `python -m lmms_eval`, version 0.7.3, with the arguments of that. SYSTEM_PROMPT, unless it is
empty, stands before every prompt of Vicuna's form, which LLaVA's published scores have it in and
the hub's chat template has not. Any model that transformers loads for pictures and text is asked,
by the one class, and sees one BOS. It differs in eight more ways, none of which changes a question:

- Each answer is in the journal as soon as it ends, under a key that holds the question's text and
  images, and those that are there already are not asked again. So a killed
  benchmark of 200,000 questions goes on where it was, and data that changed in some questions have
  only those asked. Before each question the random generators are seeded by its key, which makes
  tasks that sample independent of that.
- Where the environment variable ENGINE says so, vLLM answers, several questions at once; each is
  put as lmms-eval puts it. The model's weights are then loaded once there is a question to ask.
- A question that fails stops the run. lmms-eval would score it as an empty answer.
- A judge, which stands in the environment variable JUDGE, is asked by the one client of endpoints
  (lib/endpoint.py), which shows no key and trusts no server. A judge that cannot be asked at all
  ends the run.
- Whoever else a task would have judge its answers, by whatever client, is not asked. Which scores
  are not to be had for it stands in UNJUDGED.
- MMBench's tasks say of each answer whether it is right, and not of all together only.
- Only the tasks of `--include_path` are indexed. lmms-eval reads the 2,000 files of its own tasks
  first, and prefers them to ours.
- Imports pull in only what is used, and the interpreter is not taken down tidily at the end.

It dies with the process that started it. Like lmms-eval it ends with 0 whatever happened: what
counts are the files it leaves. A model that is not whole, or a judge that does not answer, is not
asked: why not stands in REFUSED.
"""

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lib.benchmarks.lmms_eval.answer_journal import AnswerKeys
    from lib.endpoint import Client
    from lib.jobs.journal import Journal
    from lib.jobs.streams import Item, Stream

#: The environment variable with the judge's endpoint, as JSON.
JUDGE = "PDS_DPO_JUDGE"
#: Why the model or the judge is not asked, in the folder that lmms-eval works in.
REFUSED = Path("refused.txt")
#: What stands there for a task's data, whose file is named in its place where there is one.
ITS_DATA = " of its data"
#: The scores that a judge would have had to give, there, and whether the configured one failed.
UNJUDGED = Path("unjudged.json")
#: The keys of its answers by task, there.
ASKED = Path("asked.json")
#: What the pictures of each row of the data are known by, there.
PICTURES = Path("pictures.json")

Ask = Callable[[Any, Sequence[Any]], list[Any]]
Question = dict[str, Any]  # of `patches.lmms_eval.question_of`
Answer = dict[str, Any]  # "response", "tokens"


def journalled(
    answering: Callable[[Any], "Stream[Item[Any], Answer]"],
    kept: Mapping[str, tuple["Journal", "AnswerKeys"]],
    question_of: Callable[[Any, Any], Question],
    progress: Callable[..., Iterable[Any]],
    asked: dict[str, list[str]],
    packages: Sequence[str],
    choose: Callable[[Any, Sequence[Any]], Sequence[Any]] | None = None,
    is_part: bool = False,
) -> Callable[[Any, Sequence[Any]], list[Any]]:
    """A model's `generate_until` with each answer journalled. `answering`: gives, for the model,
    the stream that answers requests; `kept`: the journals and keys of the answers, by task;
    `asked`: gets the keys of the answers, by task; `packages`: those that decide an answer;
    `choose`: gives those of a model's requests that are asked, in their order, where these are not
    all in theirs; `is_part`: whether they are a part, after which it raises PartAnswered.
    """
    from lmms_eval.api.instance import GenerationResult, TokenCounts

    from lib.jobs.streams import HandedOut, Item
    from lib.jobs.versions import versions

    versions_now = versions(packages)

    def begin(items: Sequence[Item[Any]]) -> None:
        for task, (journal, _) in kept.items():
            if of_task := [item.key for item in items if item.inputs.task_name == task]:
                journal.begin(of_task, versions_now)
            elif not items:
                journal.flush()

    def generate_until(model: Any, requests: Sequence[Any]) -> list[Any]:
        chosen = choose(model, requests) if choose else requests
        own: dict[int, str] = {}  # the id of a request -> its answer's key

        def unanswered() -> Iterator[Item[Any]]:
            begun = set[str]()
            for request in progress(chosen, desc="Questions"):
                journal, keys = kept[request.task_name]
                question = put(question_of, model, request)
                key = keys.of_question(request.task_name, question)
                own[id(request)] = key
                known = journal.finished(key)
                if known is None and not question["generation"].get("temperature"):
                    earlier = keys.of_number(request.task_name, request.doc_id)
                    known = take_over(journal, earlier, key)
                if known is None and key not in begun:
                    begun.add(key)
                    yield Item(key, key, request)

        handed_out = HandedOut(unanswered(), begin)
        for ended in answering(model)(handed_out.take):
            seconds = handed_out.end([item for item, _ in ended])
            for (item, result), share in zip(ended, seconds, strict=True):
                if isinstance(result, Exception):
                    raise RuntimeError(f"question {item.inputs.doc_id} has no answer") from result
                number = str(item.inputs.doc_id)
                journal, _ = kept[item.inputs.task_name]
                journal.add(item.key, number, seconds=share, result=result)
        results = []
        for request in requests:
            if key := own.get(id(request)):
                asked.setdefault(request.task_name, []).append(key)
                known = kept[request.task_name][0].entries[key]["result"]
                tokens = TokenCounts(output_tokens=known["tokens"])
                results.append(GenerationResult(text=known["response"], token_counts=tokens))
        if is_part:
            raise PartAnswered
        return results

    return generate_until


class PartAnswered(BaseException):
    """The questions of a part are answered. lmms-eval, which catches every Exception, is not to
    score them.
    """


def picture_by_row(model: Any) -> Callable[[Any], str]:
    """What tells of a request which pictures it is about: a digest of them as the data hold them,
    which decodes none; of all of its row where that holds none.
    """
    from lib.data.parquet_images import digest_of_pictures, pictures_of_row
    from lib.patches.lmms_eval import stored_rows

    row_of = stored_rows(model)

    def picture_of(request: Any) -> str:
        row = row_of(request)
        pictures = pictures_of_row(row)
        return digest_of_pictures(pictures) if pictures else sha256(repr(row).encode()).hexdigest()

    return picture_of


def by_picture(
    model: Any, requests: Sequence[Any], part: str = "", limits: Mapping[str, int] | None = None
) -> Sequence[Any]:
    """The requests with those about one picture one after the other; of a part those that are in
    it. `limits`: how many of a task's rows are asked about, where that is not all that there are.
    """
    from lib.benchmarks.lmms_eval.parts import is_in_part
    from lib.jobs.streams import neighbours

    picture_of = picture_by_row(model)
    limits = limits or {}
    wanted = [each for each in requests if each.doc_id < limits.get(each.task_name, math.inf)]
    pictures = {id(request): picture_of(request) for request in wanted}
    chosen = [request for request in wanted if not part or is_in_part(part, pictures[id(request)])]
    return neighbours(chosen, lambda request: pictures[id(request)])


def noting_pictures(ask: Ask, pictures: dict[int, str]) -> Ask:
    """A model's `generate_until` that enters what the pictures of each request are known by, by the
    number of its row.
    """

    def generate_until(model: Any, requests: Sequence[Any]) -> list[Any]:
        picture_of = picture_by_row(model)
        pictures.update((request.doc_id, picture_of(request)) for request in requests)
        return ask(model, requests)

    return generate_until


def answered_by_parts(model: Any) -> "Stream[Item[Any], Answer]":
    """Stands for what answers where parts have answered all: ends the process, with the row in
    REFUSED, where there is a question left.
    """
    from lib.jobs.streams import Ended, Item, Take

    def stream(take: Take[Item[Any]]) -> Iterator[Ended[Item[Any], Answer]]:
        for item in take(1):
            text = (
                f"lmms-eval's task '{item.inputs.task_name}': row {item.inputs.doc_id}{ITS_DATA}"
                " (from 0) was answered by none of the jobs that have a part of it each. Did its"
                " data change since? Name their commit (`data_revision`), delete the benchmark's"
                " folder `parts`, and start again."
            )
            REFUSED.write_text(text, encoding="utf-8")
            sys.exit(text)
        yield from ()

    return stream


def one_at_a_time(ask: Ask, model: Any) -> "Stream[Item[Any], Answer]":
    """The stream of a model's own `generate_until`, which takes one request after the other."""
    from lib.jobs.streams import Ended, Item, Take

    def stream(take: Take[Item[Any]]) -> Iterator[Ended[Item[Any], Answer]]:
        while items := take(1):
            yield [(item, answer(ask, model, item.inputs, item.key)) for item in items]

    return stream


def put(question_of: Callable[[Any, Any], Question], model: Any, request: Any) -> Question:
    """A question as it is asked. Ends the process, with the row in REFUSED, where it cannot be
    put: its picture is not there, or is damaged.
    """
    try:
        return question_of(model, request)
    except Exception as error:
        text = (
            f"lmms-eval's task '{request.task_name}': row {request.doc_id}{ITS_DATA} (from 0)"
            f" cannot be asked about ({type(error).__name__}: {error}). Is its picture there and"
            " whole? Mend the row, or take it out of the data."
        )
        REFUSED.write_text(text, encoding="utf-8")
        sys.exit(text)


def take_over(journal: "Journal", earlier: str, key: str) -> Answer | None:
    """The answer that was kept under its earlier key, journalled under its key of today; None where
    there is none. Not for what is drawn: the seed is another.
    """
    from lib.benchmarks.lmms_eval.answer_journal import TAKEN_OVER

    known = journal.finished(earlier)
    if known is None:
        return None
    entry = journal.entries[earlier]
    journal.begin([key], journal.versions[earlier])
    taken = {**known, TAKEN_OVER: True}
    journal.add(key, entry["id"], seconds=entry["seconds"], result=taken, at_once=False)
    return taken


def answer(ask: Ask, model: Any, request: Any, key: str) -> Answer:
    """The answer to a question. Errors: RuntimeError where there is none."""
    import torch

    from lib.benchmarks.lmms_eval.answer_journal import seed_of

    torch.manual_seed(seed_of(key))
    result = ask(model, [request])[0]
    if result.token_counts is None:
        raise RuntimeError(
            f"question {request.doc_id} has no answer; the cause stands above, at 'in generating'"
        )
    return {"response": result.text, "tokens": result.token_counts.output_tokens}


def ask_judge(
    client: "Client", failed: dict[str, str], text: str, **parameters: Any
) -> tuple[str, str]:
    """A judge's reply, and the model that gave it, for request parameters of lmms-eval's. `failed`:
    what it has not judged, with the reason; a task may ask again.
    """
    from lib.errors import ItemError, UserError

    left_out = {"temperature": None, "max_tokens": None, "seed": None}
    try:
        answer = client.ask(
            text, temperature=0, max_tokens=0, seed=0, parameters={**left_out, **parameters}
        )
    except UserError as error:  # lmms-eval would ask on, and give every answer 0
        REFUSED.write_text(str(error), encoding="utf-8")
        sys.exit(str(error))
    except ItemError as error:
        failed[text] = str(error)
        raise
    failed.pop(text, None)
    return answer.text, answer.model or client.endpoint.model


def asked_model(arguments: Sequence[str]) -> Path:
    """The folder of the model that lmms-eval's arguments name."""
    options = arguments[arguments.index("--model_args") + 1].split(",")
    [folder] = [option.removeprefix("pretrained=") for option in options if "pretrained=" in option]
    return Path(folder).resolve()


def key_names_of(arguments: Sequence[str]) -> list[str]:
    """Where the code of the tasks that lmms-eval's arguments include looks for keys of services."""
    from lib.benchmarks.lmms_eval.task_code import key_names

    folder = Path(arguments[arguments.index("--include_path") + 1])
    return sorted({name for task in folder.glob("*.yaml") for name in key_names(task)})


def main(told: str, system: str) -> None:
    """Runs lmms-eval with the rest of the command line."""
    from lib.benchmarks.lmms_eval import unjudged
    from lib.benchmarks.lmms_eval.answer_journal import RULE, Kept, packages_of
    from lib.benchmarks.lmms_eval.engine import ENGINE, Engine, EngineAnswers
    from lib.benchmarks.lmms_eval.parts import JOINED, PART
    from lib.blocks import Endpoint
    from lib.chat_template import seen_by_model
    from lib.endpoint import Client
    from lib.errors import UserError
    from lib.jobs.journal import Journal
    from lib.jobs.processes import die_with_parent
    from lib.limited_http import LimitedClient
    from lib.loading import check_whole
    from lib.patches import judges
    from lib.patches import lmms_eval as patches
    from lib.patches.file_locks import allow_no_locks
    from lib.patches.imports import quick_imports

    die_with_parent()
    allow_no_locks()
    with quick_imports():
        patches.index_included_tasks_only()
        from lmms_eval.__main__ import cli_evaluate

        # One call a question: their own bars and lines of figures would be one a question too.
        progress = patches.silence_calls()
    try:
        check_whole(asked_model(sys.argv), with_images=True)
    except UserError as error:
        REFUSED.write_text(str(error), encoding="utf-8")
        sys.exit(str(error))
    kept = {task: Kept.of(values) for task, values in json.loads(told).items()}
    asked: dict[str, list[str]] = {}
    pictures: dict[int, str] = {}
    refusals, failed = judges.Refusals(), dict[str, str]()
    judges.refuse_requests(refusals, LimitedClient)
    judges.refuse_providers(refusals, key_names_of(sys.argv))
    judges.leave_judged_scores_out(refusals, unjudged.process_results)
    patches.score_each_answer(sys.argv[sys.argv.index("--tasks") + 1])
    with ExitStack() as stack:
        journals = {
            task: (stack.enter_context(Journal(each.journal, RULE)), each.keys)
            for task, each in kept.items()
        }
        engine = Engine(**json.loads(os.environ[ENGINE])) if ENGINE in os.environ else None
        packages = packages_of("vllm" if engine else "transformers")
        answers = EngineAnswers(engine, asked_model(sys.argv)) if engine else None
        part = os.environ.get(PART, "")
        is_joined, is_part = part == JOINED, part not in ("", JOINED)
        chooses = is_part or (engine and engine.prefix_caching and not is_joined)

        limits = {task: each.limit for task, each in kept.items() if each.limit is not None}
        choose = partial(by_picture, part=part if is_part else "", limits=limits)

        def answering(ask: Ask) -> Callable[[Any], "Stream[Item[Any], Answer]"]:
            if is_joined:
                return answered_by_parts
            return answers.of if answers else partial(one_at_a_time, ask)

        def answer_journalled(ask: Ask) -> Ask:
            generate_until = journalled(
                answering(ask),
                journals,
                patches.question_of,
                progress,
                asked,
                packages,
                choose if chooses else None,
                is_part,
            )
            return generate_until if is_part else noting_pictures(generate_until, pictures)

        patches.change_answering(answer_journalled)
        if engine or is_joined:
            patches.load_no_weights()
        else:
            patches.take_any_model()
            patches.compare_configuration_once()
        patches.change_prompts(partial(seen_by_model, system=system))
        if JUDGE in os.environ:
            client = stack.enter_context(Client(Endpoint.model_validate_json(os.environ[JUDGE])))
            patches.change_judge(partial(ask_judge, client, failed), refusals.refuse)
        try:
            cli_evaluate()
            is_answered = not is_part  # it returns where something failed, too
        except PartAnswered:
            is_answered = True
    if is_answered:
        ASKED.write_text(json.dumps(asked), encoding="utf-8")
        PICTURES.write_text(json.dumps(pictures), encoding="utf-8")
    left = {"whom": refusals.whom, "metrics": refusals.metrics, "everything": refusals.everything}
    UNJUDGED.write_text(json.dumps({**left, "failed": list(failed.values())}), encoding="utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    _, kept_of_tasks, system_prompt, *arguments = sys.argv
    sys.argv = ["lmms_eval", *arguments]
    main(kept_of_tasks, system_prompt)
