"""PDS-DPO: multimodal preference data without human labels, and a vision-language model aligned with it.

`make demo` runs it on a laptop; README.md says how to go on from there.
"""

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.27")
sys.path.insert(0, f"{workflow.basedir}/scripts")

from lib import config as configuration
from lib.errors import UserError
from lib.plan import Plan
from lib.prompts import PROMPT_ID, TOPIC

# Without --configfile it is the paper's run. A file given there stands for itself; what it leaves out has the paper's value.
if not workflow.configfiles:

    configfile: "config.yaml"


try:
    CONFIG = configuration.load(config, [Path(file) for file in workflow.configfiles])
    PLAN = Plan(CONFIG)
    SHARDS = PLAN.shards
except UserError as error:
    raise WorkflowError(str(error)) from None

ROOT = PLAN.root
GPU = 1 if CONFIG.device == "cuda" else 0


wildcard_constraints:
    topic=TOPIC,
    shard=r"\d{2}",
    prompt_id=PROMPT_ID,


include: "rules/images.smk"


rule all:
    input:
        PLAN.shard_files("images"),
