"""What a run leaves out since its prompts cannot give it, and what may come short: said before it
starts.
"""

from collections.abc import Collection

from lib.head.plan import Plan

#: Not every prompt gives a pair: a larger share of them than this may not come together.
SHARE_OF_PROMPTS = 0.95
MORE = "Target `prompts` has an LLM write more prompts (`generate_prompts.count`)"
#: Said where prompts are not read at all.
NO_PAIRS = (
    "All experiments have pairs of their own (`pairs`), so no prompt is read, and no picture,"
    " answer or data set is made. An experiment with `size` is trained on the run's own pairs."
)

#: The rules that no data set size concerns, and the targets that ask for them.
BEFORE_PAIRS = frozenset(
    (
        *("prompts", "generate_prompts", "add_prompts"),
        *("images", "generate_images"),
        *("rankings", "rank_images"),
        *("responses", "write_instructions", "generate_responses"),
    )
)


def tell_left_out(plan: Plan, rules: Collection[str]) -> list[str]:
    """The data sets that are left out, and those that may be too large, a line each. `rules`: those
    that are to run.
    """
    if not plan.makes_pairs:
        return [NO_PAIRS]
    if BEFORE_PAIRS.issuperset(rules):
        return []
    return [*_left_out(plan), *_nothing_trained(plan), *_near_the_limit(plan)]


def tell_too_large(plan: Plan) -> list[str]:
    """At a run's end, the data sets that it could not make, since its pairs are too few."""
    return [
        f"Data set size {size} cannot be made: {reason}. Run the same command again: all that is"
        " finished is kept, this size is left out with its experiments, and the rest is made."
        for size, reason in plan.found_too_large().items()
    ]


def problems_with_sizes(plan: Plan, rules: Collection[str]) -> list[str]:
    """What is wrong where no data set at all can be made."""
    if not plan.makes_pairs or plan.sizes() or BEFORE_PAIRS.issuperset(rules):
        return []
    reason = next(iter(plan.left_out.values()))
    return [
        (
            f"pairs.sizes: no data set of these sizes can be made: {reason}. Add `all`, which takes"
            " as many pairs as there are, or a smaller size; or write more prompts (target"
            " `prompts`)."
        )
    ]


def _left_out(plan: Plan) -> list[str]:
    if not plan.left_out:
        return []
    made = plan.experiments()
    without = [name for name in plan.config.training.experiments if name not in made]
    experiments = f" with experiment{_s(without)} {', '.join(without)}" if without else ""
    reasons = dict.fromkeys(plan.left_out.values())
    lines = [
        f"Data set size{_s(sizes)} {', '.join(sizes)} left out{experiments}: {reason}."
        for reason in reasons
        if (sizes := [size for size, why in plan.left_out.items() if why == reason])
    ]
    sheet = plan.config.figures.answers
    if sheet and not plan.answers_sheet:
        lines.append(
            "The sheet of answers (`figures.answers`) is left out with experiment"
            f" {sheet.experiment}."
        )
    return [*lines, f"{MORE}; size `all` takes as many pairs as there are."]


def _nothing_trained(plan: Plan) -> list[str]:
    if plan.experiments() or not plan.config.training.experiments:
        return []
    return ["No experiment is left, so nothing is trained. Give one `size: all` to train it."]


def _near_the_limit(plan: Plan) -> list[str]:
    return [
        f"Data set size {size} is {100 * size / plan.prompts:.0f} % of the {plan.prompts} prompts,"
        f" and not every prompt gives a pair. Where fewer do, this size cannot be made. {MORE}."
        for size in plan.sizes()
        if isinstance(size, int)
        and size > SHARE_OF_PROMPTS * plan.prompts
        and size not in plan.frozen_sizes
        and not plan.is_up_to_date(size)
    ]


def _s(names: list[str]) -> str:
    return "s" if len(names) > 1 else ""
