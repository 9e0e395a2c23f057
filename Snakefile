"""PDS-DPO: multimodal preference data without human labels, and a vision-language model aligned with it.

`make demo` runs it on a laptop; README.md says how to go on from there.
"""

from datetime import UTC, datetime
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.27")


include: "rules/project.smk"


from lib.patches.imports import quick_imports

# It saves a quarter of a dry run, and as much of the start of each job.
with quick_imports():
    from lib.blocks import NAME
    from lib.config.run import load_config
    from lib.config.yaml_files import path_of, read_yaml, say_where
    from lib.data.layouts import SHARD
    from lib.data.prompts import PROMPT_ID, TOPIC, tell_unread_files
    from lib.errors import UserError
    from lib.head import (
        costs,
        evaluation,
        frozen,
        job_server,
        job_table,
        left_out,
        preflight,
        project,
        publications,
        software,
        summary,
        targets,
        terminal,
    )
    from lib.head.owner import RunOwner
    from lib.head.plan import Plan
    from lib.head.run_start import RunStart
    from lib.head.slurm.checks import check_partition_file
    from lib.head.slurm.run import SlurmRun
    from lib.jobs.copies import LOADS_MODELS
    from lib.jobs.job import ALL_TOPICS
    from lib.patches import (
        snakemake_command,
        snakemake_graph,
        snakemake_locks,
        snakemake_log,
        snakemake_module,
        snakemake_records,
        snakemake_scripts,
    )

# The name that another workflow gives this one as its module; empty where there is no other.
MODULE = snakemake_module.module_name(workflow)
IS_DEFAULT = not MODULE or workflow.default_target is None

# A job works on what its run began with, whatever has been edited since.
START = None
if not workflow.is_main_process:
    try:
        START = RunStart.of_this_job(MODULE)
    except UserError as error:
        raise WorkflowError(str(error)) from None

# Without --configfile it is the paper's run. A file given there stands for itself; what it leaves
# out has the paper's value. A module has what stands after `config:`, and without that the paper's.
elif not (workflow.modifier.skip_configfile if MODULE else workflow.configfiles):
    DEFAULT_FILE = project.default_config_file(is_module=bool(MODULE))
    try:
        read_yaml(Path(DEFAULT_FILE))
    except UserError as error:
        raise WorkflowError(str(error)) from None

    configfile: DEFAULT_FILE


# Where the values come from; of a module's nobody knows.
FILES, COMMAND_LINE = workflow.configfiles, workflow.config_settings.config
if MODULE:
    FILES, COMMAND_LINE = [] if workflow.modifier.skip_configfile else FILES[-1:], {}

try:
    VALUES = (
        START.config if START else project.with_own_prompts(config, FILES, COMMAND_LINE)
    )
    CONFIG = (
        project.load_as_module(VALUES, workflow)
        if MODULE
        else load_config(VALUES, [] if START else list(map(Path, FILES)), COMMAND_LINE)
    )
    # The plugin would end with a traceback, and say nothing in a dry run.
    if partition_file := snakemake_command.partition_file():
        check_partition_file(partition_file)
    # What another workflow asks of its module is not known here.
    PLAN = Plan(
        CONFIG,
        START,
        is_whole=not MODULE
        and not snakemake_command.names_any(
            targets.less_than_rankings(), CONFIG.root.as_posix()
        ),
    )
    OWNER = RunOwner(Path(PLAN.root))
    if snakemake_command.is_to_unlock():
        OWNER.refuse_while_at_work()
    SHARDS = PLAN.shards
    # The user's own instructions, answers and pictures are read, and refused if need be, before anything runs.
    PLAN.written
    if not START:
        PLAN.pictures
        PLAN.answers
    for warning in (
        []
        if START or not PLAN.makes_pairs
        else [
            *tell_unread_files(Path(CONFIG.prompts), CONFIG.topics),
            *PLAN.review_files.tell_passed_over(),
        ]
    ):
        logger.warning(warning)
except UserError as error:
    raise WorkflowError(str(error)) from None

ROOT = PLAN.root
snakemake_records.know_jobs_by_records(ROOT, PLAN.why_again)
GPU = 1 if CONFIG.device == "cuda" else 0
# The CPUs of a job with a GPU; a model that is on a CPU computes with one, so that its sums do not
# depend on how many there are.
CPUS = CONFIG.cpus_per_gpu if GPU else 1
# What stands for the topic in the names of shards.
ANY_TOPIC = f"{TOPIC}|{ALL_TOPICS}"
STARTED = datetime.now(UTC).isoformat(timespec="milliseconds")
SLURM_RUN = SlurmRun(Path(ROOT), CONFIG.scheduler_patience)
# One for jobs with a model, and one for the others, whose records name no library that they have no
# use for.
MODEL_JOBS = job_server.JobServer(LOADS_MODELS)
OTHER_JOBS = job_server.JobServer()


wildcard_constraints:
    topic=ANY_TOPIC,
    shard=SHARD,
    size=frozen.SIZE,
    prompt_id=PROMPT_ID,
    scorer=NAME,
    policy=NAME,
    checker=NAME,
    reward=NAME,
    experiment=NAME,
    model=NAME,
    benchmark=NAME,
    own_pairs=NAME,


include: "rules/common.smk"
include: "rules/prompts.smk"
include: "rules/images.smk"
include: "rules/image_ranking.smk"
include: "rules/instructions.smk"
include: "rules/responses.smk"
include: "rules/response_ranking.smk"
include: "rules/contamination.smk"
include: "rules/content.smk"
include: "rules/quality.smk"
include: "rules/pairs.smk"
include: "rules/own_pairs.smk"
include: "rules/training.smk"
include: "rules/evaluation.smk"
include: "rules/tables.smk"
include: "rules/figures.smk"
include: "rules/report.smk"
include: "rules/verify.smk"
include: "rules/publish.smk"


if workflow.is_main_process and not GPU:
    AUTHORS = {"write_instructions"} if AUTHOR.needs_gpu else set()
    WITH_MODEL = job_server.WITH_MODEL | AUTHORS
    snakemake_scripts.run_scripts_by(OTHER_JOBS.run, job_server.ALL - WITH_MODEL)
    snakemake_scripts.run_scripts_by(MODEL_JOBS.run, WITH_MODEL)


# On a cluster without conda, envs/site.yaml says which modules or which container the jobs get.
ENVIRONMENTS = project.PROJECT / "envs"
METHODS = {str(method) for method in workflow.deployment_settings.deployment_method}
try:
    software.deploy(snakemake_module.own_rules(workflow), METHODS, CONFIG, ENVIRONMENTS)
except UserError as error:
    raise WorkflowError(str(error)) from None


rule all:
    default_target: IS_DEFAULT
    input:
        targets.targets(PLAN),
    message:
        f"Done: {ROOT}"


# Everything up to a stage; `pairs` is what can be made without training. Models, keys and files of
# later stages are not asked for.
rule images:
    input:
        targets.images(PLAN),
    message:
        "Images: {ROOT}/images"


rule rankings:
    input:
        targets.rankings(PLAN),
    message:
        "Rankings of all image scorers: {ROOT}/image_ranking"


rule responses:
    input:
        targets.responses(PLAN),
    message:
        "Responses: {ROOT}/responses"


rule pairs:
    input:
        targets.data_sets(PLAN),
    message:
        f"Preference pairs: {ROOT}/dataset"


snakemake_locks.hold_own_locks(ROOT, refuse_while_at_work)
snakemake_log.after_dry_run(ROOT, check_dry_run)
# What another workflow shows of its jobs is its own business.
SHOWS_RUN = workflow.is_main_process and not MODULE
TERMINALS = snakemake_log.show_with(terminal.Terminal) if SHOWS_RUN else []

if MODULE:
    snakemake_module.add_handlers(
        workflow, ROOT, onstart=begin, onsuccess=end_well, onerror=end
    )


onstart:
    begin()


onsuccess:
    end_well()


onerror:
    end()
