"""PDS-DPO: multimodal preference data without human labels, and a vision-language model aligned with it.

`make demo` runs it on a laptop; README.md says how to go on from there.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.27")
sys.path.insert(0, f"{workflow.basedir}/scripts")

from lib.patches.imports import quick_imports

# It saves a quarter of a dry run, and as much of the start of each job.
with quick_imports():
    from lib.blocks import NAME
    from lib.config.run import load_config
    from lib.config.yaml_files import read_yaml
    from lib.data.prompts import PROMPT_ID, TOPIC
    from lib.errors import UserError
    from lib.head import (
        costs,
        evaluation,
        frozen,
        preflight,
        software,
        summary,
        targets,
    )
    from lib.head.owner import RunOwner
    from lib.head.plan import Plan
    from lib.head.run_start import RunStart
    from lib.head.slurm.checks import check_partition_file
    from lib.head.slurm.run import SlurmRun
    from lib.patches import snakemake_command, snakemake_graph

# A job works on what its run began with, whatever has been edited since.
START = None
if not workflow.is_main_process:
    try:
        START = RunStart.of_this_job()
    except UserError as error:
        raise WorkflowError(str(error)) from None
    config.clear()
    config.update(START.config)

# Without --configfile it is the paper's run. A file given there stands for itself; what it leaves
# out has the paper's value.
elif not workflow.configfiles:
    try:
        read_yaml(Path("config.yaml"))
    except UserError as error:
        raise WorkflowError(str(error)) from None

    configfile: "config.yaml"


try:
    CONFIG = load_config(
        config,
        [] if START else [Path(file) for file in workflow.configfiles],
        workflow.config_settings.config,
    )
    # The plugin would end with a traceback, and say nothing in a dry run.
    if partition_file := snakemake_command.partition_file():
        check_partition_file(partition_file)
    PLAN = Plan(CONFIG, START)
    OWNER = RunOwner(Path(PLAN.root))
    if snakemake_command.is_to_unlock():
        OWNER.refuse_while_at_work()
    SHARDS = PLAN.shards
    # The user's own instructions are read, and refused if need be, before anything runs.
    PLAN.written
except UserError as error:
    raise WorkflowError(str(error)) from None

ROOT = PLAN.root
snakemake_graph.know_jobs_by_records(PLAN.why_again)
GPU = 1 if CONFIG.device == "cuda" else 0
STARTED = datetime.now(UTC).isoformat(timespec="milliseconds")
SLURM_RUN = SlurmRun(Path(ROOT), CONFIG.scheduler_patience)


wildcard_constraints:
    topic=TOPIC,
    shard=r"\d{2}",
    size=r"\d+",
    prompt_id=PROMPT_ID,
    scorer=NAME,
    policy=NAME,
    experiment=NAME,
    model=NAME,
    benchmark=NAME,


include: "rules/common.smk"
include: "rules/prompts.smk"
include: "rules/images.smk"
include: "rules/image_ranking.smk"
include: "rules/instructions.smk"
include: "rules/responses.smk"
include: "rules/response_ranking.smk"
include: "rules/contamination.smk"
include: "rules/pairs.smk"
include: "rules/training.smk"
include: "rules/evaluation.smk"
include: "rules/tables.smk"
include: "rules/figures.smk"
include: "rules/verify.smk"


# On a cluster without conda, envs/site.yaml says which modules or which container the jobs get.
ENVIRONMENTS = Path(workflow.basedir) / "envs"
METHODS = {str(method) for method in workflow.deployment_settings.deployment_method}
try:
    software.deploy(workflow.rules, METHODS, CONFIG, ENVIRONMENTS)
except UserError as error:
    raise WorkflowError(str(error)) from None


rule all:
    default_target: True
    input:
        targets.targets(PLAN),
    message:
        "Done: {ROOT}"


# Everything up to the preference pairs: what can be made without training.
rule pairs:
    input:
        targets.data_sets(PLAN),
    message:
        "Preference pairs: {ROOT}/dataset"


snakemake_graph.hold_own_locks(ROOT, refuse_while_at_work)
snakemake_graph.after_dry_run(tell_costs, check_software)


onstart:
    try:
        check_software()
        OWNER.begin()
        preflight.check_run(
            PLAN, {job.rule.name for job in workflow.dag.needrun_jobs()}
        )
        PLAN.give()
        PLAN.start(config).tell_jobs(Path(ROOT), CONFIG.runs_to_reuse)
        SLURM_RUN.begin(workflow)
        tell_costs()
    except UserError as error:
        raise WorkflowError(str(error)) from None


onsuccess:
    SLURM_RUN.end()
    OWNER.end()
    summary.print_summary(Path(ROOT), STARTED, frozen.tell_differences(PLAN))


onerror:
    SLURM_RUN.end()
    OWNER.end()
    summary.print_summary(Path(ROOT), STARTED)
