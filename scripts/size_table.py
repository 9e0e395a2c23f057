"""Rule size_table: the paper's Table 3 (size of the preference data) with our base model and all
our experiments beside it.
"""

from lib.jobs.script import run_script
from lib.report.model_tables import models_table

if __name__ == "__main__":
    run_script(models_table)
