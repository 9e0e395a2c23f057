"""Scorers of the benchmarks that have a reference implementation of their own, each equal to it
(docs/evaluation.md).

scorer = SCORERS["pope"]
score = scorer.score(scorer.read_answers(path), scorer.read_reference(folder))
"""

from lib.benchmarks import amber, chair, mm_vet, mmhal_bench, object_halbench, pope
from lib.benchmarks.base import Answer, Answers, Mention, Mentions, Problem, Score, Scorer

#: Benchmark -> scorer, under the names of the configuration and the tables.
SCORERS: dict[str, Scorer] = {
    module.SCORER.name: module.SCORER
    for module in (pope, chair, amber, object_halbench, mmhal_bench, mm_vet)
}

__all__ = ["SCORERS", "Answer", "Answers", "Mention", "Mentions", "Problem", "Score", "Scorer"]
