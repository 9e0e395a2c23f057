def growing(amount):
    """A need in memory (MB) or time (minutes): half as much again at each further attempt, where it was too little."""

    def at_attempt(wildcards, attempt):
        return amount * (1 + attempt) // 2

    return at_attempt


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


def tell_run():
    """Says what the run leaves out, and what the jobs cost that are to run, where there are
    results already.
    """
    for line in left_out.tell_left_out(PLAN, {job[0] for job in jobs_to_run()}):
        logger.warning(line)
    jobs = [costs.JobToRun(*job) for job in snakemake_graph.jobs_to_run(workflow)]
    for line in costs.tell_costs(PLAN, jobs):
        logger.info(line)


def check_dry_run():
    """Says what `tell_run` does, and what would stop the run at its start: with an error as there,
    but for servers out of reach, which others of your machines may reach.
    """
    tell_run()
    try:
        for line in preflight.check_run(PLAN, jobs_to_run(), may_be_out_of_reach=True):
            logger.warning(line)
    except UserError as error:
        raise WorkflowError(f"This run would stop at its start.\n{error}") from None


def jobs_to_run():
    """The jobs that are to run, as preflight knows them."""
    return [job[:2] for job in snakemake_graph.jobs_to_run(workflow)]
