"""Rule all_scores_table: every score of every configured benchmark, of the base model and all
experiments. The paper's tables show some of them.
"""

from lib.jobs.script import run_script
from lib.report.model_tables import all_scores_table

if __name__ == "__main__":
    run_script(all_scores_table)
