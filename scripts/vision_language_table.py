"""Rule vision_language_table: the paper's Table 1 (vision-language benchmarks) with our base model
and largest experiments beside it.
"""

from lib.jobs.script import run_script
from lib.report.model_tables import models_table

if __name__ == "__main__":
    run_script(models_table)
