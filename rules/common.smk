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


def refuse_while_at_work():
    """A message where another Snakemake makes this run."""
    try:
        OWNER.refuse_while_at_work()
    except UserError as error:
        raise WorkflowError(str(error)) from None


def tell_costs():
    """Says what the jobs cost that are to run, where there are results already."""
    jobs = [costs.JobToRun(*job) for job in snakemake_graph.jobs_to_run(workflow)]
    for line in costs.tell_costs(PLAN, jobs):
        logger.info(line)


def check_software():
    """A message where the jobs would run in a Python that lacks their packages."""
    try:
        software.check_jobs(
            snakemake_graph.environments_of_jobs_to_run(workflow),
            METHODS,
            ENVIRONMENTS,
            spared=software.spared_packages(CONFIG),
        )
    except UserError as error:
        raise WorkflowError(str(error)) from None
