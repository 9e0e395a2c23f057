"""What the checks are called. Nothing is imported here: configurations are read in every job."""

import difflib

ALL_CHECKS = (
    "malformed",
    "empty question",
    "empty",
    "near-empty",
    "equal",
    "looks equal",
    "equal when cut",
    "repetition",
    "unfinished",
    "run-on",
    "refusal",
    "template",
    "leaked prompt",
    "special token",
    "control character",
    "missing picture",
    "unreadable picture",
    "picture elsewhere",
    "picture without token",
    "token without picture",
    "no picture",
    "duplicate id",
    "duplicate pair",
    "contradiction",
    "duplicate question",
    "look-alike pictures",
    "benchmark overlap",
    "language",
    "length",
)


def problem_with_name(name: str) -> str | None:
    """What is wrong with the name of a check; None where there is one of that name."""
    if name in ALL_CHECKS:
        return None
    near = difflib.get_close_matches(name, ALL_CHECKS, n=1, cutoff=0.5)
    hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(ALL_CHECKS)}."
    return f"there is no check '{name}'. {hint}"
