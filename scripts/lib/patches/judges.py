"""lmms-eval 0.7.3's tasks ask judges, each in its own way: through lmms-eval's providers, OpenAI's
client, or plain requests. A call that fails is a zero to some, and full marks to others. Here every
way ends in the same place, and a score that would have been judged is not given.
"""

import importlib
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

#: Hosts that data and weights come from; nobody judges there.
HUB = ("huggingface.co", "hf.co")
#: What stands in for a key: a task that finds none may not even try to ask.
NO_KEY = "no-judge-is-configured"
#: The metric of answers that are not scored.
ANSWERED = "answered"


class JudgeAskedError(BaseException):
    """A task asks a judge that it may not ask. Its code catches every Exception."""


@dataclass
class Refusals:
    """What was not asked, and so is not scored.

    whom       the first judge that a task would have asked, in words
    metrics    those that an aggregation would have had judged
    everything whether the answers themselves would have been judged: then no metric is to be had
    """

    count: int = 0
    whom: str | None = None
    metrics: list[str] = field(default_factory=list)
    everything: bool = False

    def refuse(self, whom: str) -> None:
        """Errors: always, JudgeAskedError."""
        self.count += 1
        self.whom = self.whom or whom
        raise JudgeAskedError(whom)

    def check(self, method: str, address: str) -> None:
        """Refuses a request that asks: one that sends something, to another host than the hub's."""
        host = urlsplit(address).hostname or ""
        is_hub = any(host == hub or host.endswith(f".{hub}") for hub in (*HUB, _hub_host()))
        if method.upper() == "POST" and not is_hub:
            self.refuse(host)

    def is_asked(self, call: Callable[[], Any]) -> tuple[bool, Any]:
        """Whether a call would have asked a judge, whatever it made of the refusal; and its
        result.
        """
        before, result = self.count, None
        with suppress(JudgeAskedError):
            result = call()
        return self.count > before, result


def _hub_host() -> str:
    return urlsplit(os.environ.get("HF_ENDPOINT", "")).hostname or HUB[0]


def refuse_requests(refusals: Refusals, ours: type) -> None:
    """Has every client of HTTP refuse to ask, but for those of the class `ours`."""

    def check(own: Any, request: Any, *_: Any, **__: Any) -> None:
        if not isinstance(own, ours):
            refusals.check(str(request.method), str(request.url))

    for module in ("httpx", "httpx2"):
        for client in ("Client", "AsyncClient"):
            _before(module, client, "send", check)
    _before("requests", "Session", "send", check)
    _before(
        "aiohttp",
        "ClientSession",
        "_request",
        lambda own, method, url, *_, **__: refusals.check(method, str(url)),
    )
    _before("urllib.request", "OpenerDirector", "open", lambda *parts, **_: _open(parts, refusals))


def _open(parts: tuple[Any, ...], refusals: Refusals) -> None:
    """`urllib`'s opener takes an address or a request, and what is sent."""
    _, what, *sent = parts
    address = what if isinstance(what, str) else what.full_url
    posts = bool(sent and sent[0]) or getattr(what, "data", None) is not None
    refusals.check("POST" if posts else "GET", address)


def _before(module: str, owner: str, method: str, check: Callable[..., None]) -> None:
    """Has a method of an installed library's class check its arguments first."""
    try:
        cls = getattr(importlib.import_module(module), owner)
    except ImportError:
        return
    own = getattr(cls, method)

    @wraps(own)
    def checked(*parts: Any, **options: Any) -> Any:
        check(*parts, **options)
        return own(*parts, **options)

    setattr(cls, method, checked)


def refuse_providers(refusals: Refusals, key_names: Iterable[str]) -> None:
    """Has lmms-eval's own providers refuse, whatever key they lack. `key_names`: the environment
    variables in which a task looks for one; each gets `NO_KEY`, because many ask nobody without.
    """
    from lmms_eval.llm_judge.factory import ProviderFactory

    os.environ |= dict.fromkeys((*key_names, "OPENAI_API_KEY"), NO_KEY)
    os.environ.pop("API_TYPE", None)
    for name, provider in ProviderFactory._provider_classes.items():
        provider.is_available = lambda own: True
        for method in ("evaluate", "evaluate_async"):
            if hasattr(provider, method):
                setattr(provider, method, _refusing(refusals, f"lmms-eval's judge '{name}'"))


def _refusing(refusals: Refusals, whom: str) -> Callable[..., Any]:
    return lambda *_, **__: refusals.refuse(whom)


def leave_judged_scores_out(refusals: Refusals, answered: Callable[[Any, Any], Any]) -> None:
    """Has tasks give no score that would have been judged. `answered(doc, results)` stands in for
    what a task makes of an answer.
    """
    from lmms_eval.api.task import ConfigurableTask
    from lmms_eval.evaluator_utils import TaskOutput

    process, aggregate = ConfigurableTask.process_results, TaskOutput.calculate_aggregate_metric

    @wraps(process)
    def process_unjudged(task: Any, doc: Any, results: Any, *parts: Any, **options: Any) -> Any:
        if not refusals.everything:
            refusals.everything, made = refusals.is_asked(
                lambda: process(task, doc, results, *parts, **options)
            )
            if not refusals.everything:
                return made
        task._aggregation_list[ANSWERED], task._higher_is_better[ANSWERED] = len, True
        return answered(doc, results)

    @wraps(aggregate)
    def aggregate_unjudged(output: Any, *parts: Any, **options: Any) -> None:
        every = output.sample_metrics
        for name, items in every.items():
            if refusals.everything and name[0] != ANSWERED:
                continue
            output.sample_metrics = {name: items}
            is_asked, _ = refusals.is_asked(lambda: aggregate(output, *parts, **options))
            if is_asked:
                refusals.metrics.append(name[0])
                output.agg_metrics.pop(",".join(name), None)
        output.sample_metrics = every

    ConfigurableTask.process_results = process_unjudged
    TaskOutput.calculate_aggregate_metric = aggregate_unjudged
