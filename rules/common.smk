from lib import blocks
from lib.config.response_ranking import rewards_of


def gpus_of(settings):
    """The GPUs that a job holds which runs what a block names."""
    return GPU * blocks.gpus_of(settings)


def cpus_of(settings):
    """The CPUs of such a job: as many for each GPU."""
    return CPUS * max(1, gpus_of(settings)) if settings.needs_gpu else 1


def growing(amount, settings=None):
    """A need in memory (MB) or time (minutes): half as much again at each further attempt, where it was too little. `settings`: of a model, for whose GPUs it is as much each."""
    for_each = max(1, gpus_of(settings)) if settings else 1

    def at_attempt(wildcards, attempt):
        return amount * for_each * (1 + attempt) // 2

    return at_attempt


def reward_of(wildcards):
    """The response reward that a job rates with."""
    return rewards_of(CONFIG.response_ranking)[wildcards.get("reward", "")]


def asked_by(wildcards):
    """The model that a job asks questions of benchmarks."""
    return evaluation.asked_model(PLAN, wildcards.model)


def pairs_of_size(wildcards):
    """The pairs of all shards, refused where there are not even as many prompts."""
    try:
        return PLAN.pairs_of_size(wildcards.size)
    except UserError as error:
        # Snakemake would wrap an exception of an input function in a report with a traceback.
        raise SystemExit(f"WorkflowError: {error}") from None


def prompts_to_add(wildcards):
    """What says that the prompts were added that topics lack; the prompts where there are enough."""
    if not CONFIG.generate_prompts.count:
        raise SystemExit(
            "WorkflowError: generate_prompts.count: there is none, so that no prompt is missing."
            " Set how many prompts each topic is to have."
        )
    if PLAN.lacking:
        return f"{ROOT}/proposed_prompts/added.json"
    return [PLAN.prompts_file(topic) for topic in CONFIG.topics]


def files_to_publish(wildcards):
    """What is to be there before it is published."""
    try:
        return publications.files_to_publish(PLAN)
    except UserError as error:
        raise SystemExit(f"WorkflowError: {error}") from None


def publish_settings(wildcards):
    """What rule publish is told."""
    return PLAN.params(publications.publish_job(PLAN))


def report_settings(wildcards):
    """What rule report is told."""
    # Only where the report is asked for: what plans is imported by no other rule.
    from lib.head.report_job import report_job
    from lib.planning.reported import planned_time

    try:
        return PLAN.params(report_job(PLAN, planned_time(PLAN)))
    except UserError as error:
        raise SystemExit(f"WorkflowError: {error}") from None


def told(job_of):
    """What the jobs of a shard are told, from a function of topic and shard."""

    def settings(wildcards):
        try:
            return PLAN.params(job_of(wildcards.topic, wildcards.shard))
        except UserError as error:
            # Snakemake would wrap an exception of a function in a report with a traceback.
            raise SystemExit(f"WorkflowError: {error}") from None

    return settings


def files_behind(rule, *stages):
    """The files of stages that hold the prompts of a job's shard, one stage after the other."""

    def files(wildcards):
        place = wildcards.topic, wildcards.shard
        try:
            return [
                file
                for stage in stages
                for file in PLAN.stages.files_behind(rule, stage, *place)
            ]
        except UserError as error:
            # As in `told`.
            raise SystemExit(f"WorkflowError: {error}") from None

    return files


def digests_of(name):
    """The digests of the shards that a rule's job reads and makes. `name`: of the rule."""
    return lambda wildcards: PLAN.stages.digests_of(
        name, wildcards.topic, wildcards.shard
    )


def shown(file, caption, category, **labels):
    """A file that `snakemake --report` shows. `caption`: the name of its text in captions/; `labels`: what it is called there, besides its format."""
    return report(
        file,
        caption=f"captions/{caption}.rst",
        category=category,
        labels={**labels, "format": Path(file).suffix[1:]},
    )


def all_shown(files, caption, category, **labels):
    """`shown` of several files by name."""
    return {
        name: shown(file, caption, category, **labels) for name, file in files.items()
    }


def refuse_while_at_work():
    """A message where another Snakemake makes this run."""
    try:
        OWNER.refuse_while_at_work()
    except UserError as error:
        raise WorkflowError(str(error)) from None


def jobs_to_run():
    """The run's jobs that are to run, and why."""
    return [
        job_table.JobToRun(*job) for job in snakemake_graph.jobs_to_run(workflow, ROOT)
    ]


def tell_run(jobs):
    """Says what the run leaves out, and what the jobs cost that are to run, where there are
    results already.
    """
    names = {job.rule for job in jobs}
    for line in left_out.tell_left_out(PLAN, names):
        logger.warning(line)
    for line in costs.tell_costs(PLAN, jobs):
        logger.info(line)


def check_software():
    """Refuses a Python that the jobs would run in and that lacks their packages."""
    software.check_jobs(
        snakemake_graph.environments_of_jobs_to_run(workflow, ROOT),
        METHODS,
        ENVIRONMENTS,
        spared=software.spared_packages(CONFIG),
    )


def check_run(jobs, **how):
    """Refuses a run whose jobs cannot be done; what preflight says besides."""
    check_software()
    asked = [(job.rule, job.wildcards) for job in jobs]
    return preflight.check_run(PLAN, asked, where=where, **how)


def where(key):
    """The file and the line of a key of the configuration, as a message begins; of a module's nobody knows."""
    if MODULE:
        return ""
    return say_where(path_of(key, VALUES), list(map(Path, FILES)), COMMAND_LINE)


def check_dry_run():
    """Says which jobs there are and why, and what `tell_run` does; and what would stop the run at
    its start: with an error as there, but for servers out of reach, which others of your machines
    may reach.
    """
    jobs = jobs_to_run()
    for line in job_table.job_table(jobs):
        logger.info(line)
    tell_run(jobs)
    try:
        for line in check_run(jobs, may_be_out_of_reach=True):
            logger.warning(line)
    except UserError as error:
        # Snakemake would print where in this file it was raised.
        raise SystemExit(
            f"WorkflowError: This run would stop at its start.\n{error}"
        ) from None


def show_time_left():
    """Has the time that is left go by the plan, where no job of a rule has ended."""
    from lib.planning.reported import planned_seconds

    scripts = {
        each.name: Path(str(each.script)).stem for each in workflow.rules if each.script
    }
    try:
        planned = planned_seconds(PLAN, scripts)
    except UserError:  # of the rates, which `make plan` tells, and which no run needs
        return
    for shown in TERMINALS:
        shown.view.expect(planned)


def begin():
    """Called once a run, before its first job."""
    try:
        jobs = jobs_to_run()
        if jobs or not MODULE:
            OWNER.begin()
            check_run(jobs)
            PLAN.give()
        # Jobs of a workflow that uses this one read this Snakefile, too.
        PLAN.start(VALUES).tell_jobs(Path(ROOT), CONFIG.runs_to_reuse, MODULE)
        if jobs or not MODULE:
            SLURM_RUN.begin(workflow)
            tell_run(jobs)
        if jobs and TERMINALS:
            show_time_left()
    except UserError as error:
        OWNER.end()
        raise WorkflowError(str(error)) from None


def end(*also):
    """Called once a run, at its end, well or not. `also`: lines to print besides."""
    for terminal_of_run in TERMINALS:
        terminal_of_run.end()
    SLURM_RUN.end()
    MODEL_JOBS.end()
    OTHER_JOBS.end()
    OWNER.end()
    lines = [*also, *left_out.tell_too_large(PLAN)]
    summary.print_summary(Path(ROOT), STARTED, lines)


def end_well():
    """Called once a run that ended well."""
    end(*frozen.tell_old_forms(PLAN), *frozen.tell_differences(PLAN))
