def growing(amount):
    """A need in memory (MB) or time (minutes): half as much again at each further attempt, where it was too little."""

    def at_attempt(wildcards, attempt):
        return amount * (1 + attempt) // 2

    return at_attempt


def pairs_of_size(wildcards):
    """The pairs of all shards, refused where there are not even as many prompts."""
    try:
        return PLAN.pairs_of_size(int(wildcards.size))
    except UserError as error:
        # Snakemake would wrap an exception of an input function in a report with a traceback.
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


def tell_costs():
    """Says what the jobs cost that are to run, where there are results already."""
    jobs = [costs.JobToRun(*job) for job in snakemake_graph.jobs_to_run(workflow, ROOT)]
    for line in costs.tell_costs(PLAN, jobs):
        logger.info(line)


def begin():
    """Called once a run, before its first job."""
    try:
        jobs = snakemake_graph.jobs_to_run(workflow, ROOT)
        if jobs or not MODULE:
            OWNER.begin()
            preflight.check_run(PLAN, {rule for rule, _, _ in jobs})
            PLAN.give()
        # Jobs of a workflow that uses this one read this Snakefile, too.
        PLAN.start(VALUES).tell_jobs(Path(ROOT), CONFIG.runs_to_reuse, MODULE)
        if jobs or not MODULE:
            SLURM_RUN.begin(workflow)
            tell_costs()
    except UserError as error:
        raise WorkflowError(str(error)) from None


def end(*also):
    """Called once a run, at its end, well or not."""
    SLURM_RUN.end()
    OWNER.end()
    summary.print_summary(Path(ROOT), STARTED, *also)


def end_well():
    """Called once a run that ended well."""
    end(frozen.tell_differences(PLAN))
