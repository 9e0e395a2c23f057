"""What the report's page on quality is told: how scores are spread, who is chosen and rejected, how
the reward goes with length, how far image scorers agree, what checks found, and the extreme pairs.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Any, TypedDict

from lib.data.lengths import Rewarded, fit, rewarded
from lib.data.reviews import ranked_pair
from lib.data.rows import RankedResponse
from lib.report.page_rows import PromptRows, rounded

BINS = 20
#: Responses in the picture of lengths and rewards, and pairs at each end.
DOTS = 1500
EXTREMES = 10
#: Findings of a check that the page lists.
FINDINGS = 50


class Histogram(TypedDict):
    """How values are spread: the bins' edges, and how many values of each group fall into them."""

    title: str
    edges: list[float]
    groups: dict[str, list[int]]


def histogram(title: str, values: Mapping[str, Sequence[float]]) -> Histogram:
    """A histogram with the same bins for all groups."""
    every = [value for group in values.values() for value in group]
    if not every:
        return {"title": title, "edges": [], "groups": {}}
    low, high = min(every), max(every)
    width = (high - low) / BINS or 1.0
    counts = {name: [0] * BINS for name in sorted(values)}
    for name, group in values.items():
        for value in group:
            counts[name][min(int((value - low) / width), BINS - 1)] += 1
    edges = [rounded(low + width * number) for number in range(BINS + 1)]
    return {"title": title, "edges": edges, "groups": counts}


class Agreement:
    """How often two scorers pick the same, of all pairs of scorers."""

    def __init__(self) -> None:
        self.both: Counter[tuple[str, str]] = Counter()
        self.same: Counter[tuple[str, str]] = Counter()

    def add(self, picks: Mapping[str, object]) -> None:
        """Takes what each scorer picks of the next prompt's candidates or responses."""
        for one, other in combinations(picks, 2):
            self.both[one, other] += 1
            self.same[one, other] += picks[one] == picks[other]

    def told(self) -> list[tuple[str, str, int, float]]:
        """Of each pair of scorers how many prompts both ranked, and the share of equal picks."""
        return [(*names, count, self.same[names] / count) for names, count in self.both.items()]


def best_by_reward(responses: Mapping[str, RankedResponse]) -> dict[str, str]:
    """The response that each reward of an ensemble finds best; nothing of one that ranks alone."""
    parts = {name: each["parts"] for name, each in responses.items() if "parts" in each}
    rewards = dict.fromkeys(reward for each in parts.values() for reward in each)
    return {
        reward: max(parts, key=lambda name: parts[name][reward]["standardised"])
        for reward in rewards
    }


class Quality:
    """Gathers it, prompt by prompt."""

    def __init__(self) -> None:
        self.rewards: dict[str, list[float]] = defaultdict(list)
        self.rewards_by_topic: dict[str, list[float]] = defaultdict(list)
        self.image_rewards: dict[str, list[float]] = defaultdict(list)
        self.margins: dict[str, list[float]] = defaultdict(list)
        self.chosen: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.by_length: list[Sequence[Rewarded]] = []
        self.dots: list[tuple[str, int, float, str]] = []
        self.picks = Agreement()
        self.best_responses = Agreement()
        self.by_margin: list[tuple[float, str, str]] = []

    def add(self, rows: PromptRows) -> None:
        """Takes the next prompt."""
        topic, name = rows.pair["topic"], rows.pair["id"]
        self.picks.add({scorer: row["winner"] for scorer, row in rows.rankings.items()})
        if rows.responses:
            self.best_responses.add(best_by_reward(rows.responses["responses"]))
            self.image_rewards[topic].append(rows.responses["image"]["score"])
            self.by_length.append(rewarded(rows.responses["responses"]).get("reward", []))
            for policy, response in rows.responses["responses"].items():
                if "score" in response and "invalid" not in response:
                    length, score = len(response["text"]), response["score"]
                    self.rewards[policy].append(score)
                    self.rewards_by_topic[topic].append(score)
                    drawn = sha256(f"{name}/{policy}".encode()).hexdigest()
                    self.dots.append((drawn, length, rounded(score), policy))
        if pair := ranked_pair(rows.pair):
            self.chosen[pair["chosen"]["policy"]] += 1
            self.rejected[pair["rejected"]["policy"]] += 1
            self.margins[topic].append(pair["margin"])
            self.by_margin.append((rounded(pair["margin"]), name, rows.pair["prompt"]))

    def told(self, checks: Path) -> dict[str, Any]:
        """What the page is told. `checks`: what rule check_pairs found, if it is there."""
        length = fit(self.by_length) if self.dots else None
        gain = None if length is None or length.slope is None else length.slope * math.log(2)
        ordered = sorted(self.by_margin)
        return {
            "histograms": [
                histogram("Rewards of responses, by model", self.rewards),
                histogram("Rewards of responses, by topic", self.rewards_by_topic),
                histogram("Image rewards of the picked candidates, by topic", self.image_rewards),
                histogram("Margins of pairs, by topic", self.margins),
            ],
            "policies": [
                [name, len(self.rewards[name]), self.chosen[name], self.rejected[name]]
                for name in sorted({*self.rewards, *self.chosen, *self.rejected})
            ],
            "dots": [dot[1:] for dot in sorted(self.dots)[:DOTS]],
            "responses": len(self.dots),
            "length": {
                "correlation": length and length.within,
                "doubling": gain,
                "best_is_longer": length and length.best_is_longer,
            },
            "agreement": {
                "candidate": self.picks.told(),
                "response": self.best_responses.told(),
            },
            "smallest": ordered[:EXTREMES],
            "largest": ordered[::-1][:EXTREMES],
            "checks": findings_in(checks),
        }


def findings_in(checks: Path) -> list[dict[str, Any]]:
    """What rule check_pairs found, check by check; those that found nothing are left out."""
    if not checks.is_file():
        return []
    report = json.loads(checks.read_text(encoding="utf-8"))
    return [
        {
            "check": name,
            "what": check["what"],
            "found": check["found"],
            "findings": [
                [finding.get("id", ""), finding.get("detail", "")]
                for finding in check["findings"][:FINDINGS]
            ],
        }
        for name, check in report["checks"].items()
        if check["found"]
    ]


def gather(prompts: Iterable[PromptRows]) -> Quality:
    """The quality of these prompts' data."""
    quality = Quality()
    for rows in prompts:
        quality.add(rows)
    return quality
