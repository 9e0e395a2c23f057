"""Rule reasons_table: why prompts gave no pair, and why responses were not ranked, counted by topic."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from lib.job import run_script
from lib.shards import Row, is_missing, read_shard


def reason_of(row: Row) -> str:
    """"pair", or why there is none."""
    if "pair" in row:
        return "pair"
    if is_missing(row):
        reason = row["missing"]["reason"]
        # A failure's reason can hold anything; the rule is what one counts by.
        return reason if reason in KNOWN else f"{row['missing']['rule']} failed"
    return str(row["no_pair"])


#: Reasons that a stage gives on purpose; everything else is a failed item.
KNOWN = ("all images blank", "image reward below minimum")


def count_reasons(rows: Iterable[Row]) -> tuple[dict[str, Counter[str]], dict[str, Counter[str]]]:
    """By topic: what became of the prompts, and what was wrong with invalid responses."""
    prompts: dict[str, Counter[str]] = {}
    responses: dict[str, Counter[str]] = {}
    for row in rows:
        prompts.setdefault(row["topic"], Counter())[reason_of(row)] += 1
        responses.setdefault(row["topic"], Counter()).update(row.get("invalid_responses", {}).values())
    return prompts, responses


