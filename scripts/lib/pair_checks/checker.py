"""All checks over a set of pairs, and what they report."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

from lib.contamination import Index
from lib.data.pair_forms.base import Where
from lib.errors import printable
from lib.pair_checks.across import checks_across
from lib.pair_checks.base import Check, Finding, LookedAt
from lib.pair_checks.language import Languages, language_check, load_identifier
from lib.pair_checks.lengths import ALLOWED, LengthReport, Lengths
from lib.pair_checks.overlap import overlap_check
from lib.pair_checks.pictures import PICTURE_CHECKS
from lib.pair_checks.texts import TEXT_CHECKS
from lib.pair_checks.truncation import Truncation, truncation_check

#: A record that no form can read is counted by the reader.
MALFORMED = Check("malformed", "a record that is no pair", 0.0, lambda looked_at: ())
LENGTH = "length"
WHAT_LENGTH = "a rule that sees lengths only is right"
#: The checks that a set of pairs may go without, and why.
NO_INDEX = "no index of benchmarks was given"
NO_LANGUAGE = "py3langid is not installed"
NO_PICTURES = "pictures were not looked at"
OF_PICTURES = ("missing picture", "unreadable picture", "look-alike pictures")


class CheckReport(TypedDict):
    """What a check found: in how many pairs, in what share of them, what share is allowed (None:
    it is only told), whether it is more than that; and in which pairs.
    """

    what: str
    found: int
    share: float
    allowed: float | None
    is_over: bool
    findings: list[dict[str, str]]


class Report(TypedDict):
    """What all checks say.

    records      all there are; `pairs`: those that are pairs
    not_checked  why a check was left out
    policies     whose answers are chosen, and whose rejected
    languages    what the answers are written in
    """

    records: int
    pairs: int
    checks: dict[str, CheckReport]
    not_checked: dict[str, str]
    lengths: NotRequired[LengthReport]
    policies: dict[str, dict[str, int]]
    languages: dict[str, int]
    topics: dict[str, int]


@dataclass(frozen=True)
class CheckOptions:
    """How pairs are checked.

    allowed     the share of pairs that a check may find something in, where it is another than the
                check's own; None: it is only told
    pictures    whether pictures are looked at
    truncation  what training cuts; None: that is not checked
    index       the benchmarks that the pairs are held against
    left_out    why checks are left out
    """

    allowed: Mapping[str, float | None] = field(default_factory=dict)
    pictures: bool = True
    truncation: Truncation | None = field(default_factory=Truncation)
    index: Index | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)


class Checker:
    """Looks at pairs one by one; of each it keeps what it found, and what tells duplicates."""

    def __init__(self, options: CheckOptions) -> None:
        self.options = options
        identify = load_identifier()
        self._languages = Languages(identify) if identify else None
        self.checks = (
            MALFORMED,
            *TEXT_CHECKS,
            *([truncation_check(options.truncation)] if options.truncation else []),
            *PICTURE_CHECKS,
            *checks_across(),
            *([overlap_check(options.index)] if options.index else []),
            *([language_check(self._languages)] if self._languages else []),
        )
        self.findings: dict[str, list[Finding]] = {check.name: [] for check in self.checks}
        self._counts: Counter[str] = Counter()
        self._lengths = Lengths()
        self._policies: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self._topics: Counter[str] = Counter()

    def add(self, looked_at: LookedAt) -> None:
        """Looks at a pair."""
        pair = looked_at.pair
        for check in self.checks:
            if details := [printable(detail) for detail in check.find(looked_at)]:
                self._keep(check.name, pair.id, pair.where, pair.topic, details)
        self._lengths.add(pair)
        self._topics[pair.topic] += bool(pair.topic)
        for counter, policy in zip(self._policies, pair.policies or (), strict=False):
            counter[policy] += 1

    def add_bad_record(self, where: Where, problem: str) -> None:
        """Counts a record that is no pair."""
        name = f"{where.unit} {where.number}"
        self._keep(MALFORMED.name, name, where, "", [printable(problem)])

    def _keep(
        self, check: str, pair_id: str, where: Where, topic: str, details: Iterable[str]
    ) -> None:
        place = f"{where.file.name}, {where.unit} {where.number}"
        detail = "; ".join(details)
        self.findings[check].append(Finding(printable(pair_id), place, topic, detail))

    def report(self) -> Report:
        """What was found in all pairs so far."""
        pairs, malformed = self._lengths.pairs, len(self.findings[MALFORMED.name])
        records = pairs + malformed
        chosen, rejected = self._policies
        report: Report = {
            "records": records,
            "pairs": pairs,
            "checks": {check.name: self._report_of(check, records) for check in self.checks},
            "not_checked": self._not_checked(),
            "policies": {
                policy: {"chosen": chosen[policy], "rejected": rejected[policy]}
                for policy in sorted(chosen | rejected)
            },
            "languages": dict(self._languages.counts.most_common()) if self._languages else {},
            "topics": dict(sorted(self._topics.items())),
        }
        if pairs:
            report["lengths"] = self._lengths.report()
            report["checks"][LENGTH] = self._report_of_length(report["lengths"])
        return report

    def _allowed(self, name: str, default: float | None) -> float | None:
        return self.options.allowed.get(name, default)

    def _report_of(self, check: Check, records: int) -> CheckReport:
        found = self.findings[check.name]
        share = len(found) / records if records else 0.0
        allowed = self._allowed(check.name, check.allowed)
        return {
            "what": check.what,
            "found": len(found),
            "share": round(share, 6),
            "allowed": allowed,
            "is_over": allowed is not None and share > allowed,
            "findings": [finding._asdict() for finding in found],
        }

    def _report_of_length(self, lengths: LengthReport) -> CheckReport:
        """... which is over what is allowed only where chance alone would not make it so."""
        allowed = self._allowed(LENGTH, ALLOWED)
        return {
            "what": f"{WHAT_LENGTH}: {lengths['rule']} wins",
            "found": round(lengths["right"] * self._lengths.pairs),
            "share": lengths["right"],
            "allowed": allowed,
            "is_over": allowed is not None and lengths["interval"][0] > allowed,
            "findings": [],
        }

    def _not_checked(self) -> dict[str, str]:
        left_out = {} if self.options.index else {"benchmark overlap": NO_INDEX}
        if not self._languages:
            left_out["language"] = NO_LANGUAGE
        if not self.options.pictures:
            left_out.update(dict.fromkeys(OF_PICTURES, NO_PICTURES))
        return left_out | dict(self.options.left_out)
