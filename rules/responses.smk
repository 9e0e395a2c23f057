from lib.models.policy_models.registry import POLICY_MODELS
from lib.models.response_generators.registry import GENERATORS

RESPONSES = CONFIG.responses
POLICIES = RESPONSES.policy_models


def run_by(policy):
    """What decides answers of what runs a policy model; None where none runs in the job."""
    generator = POLICIES[policy].generator(RESPONSES)
    return PLAN.made_by(generator, GENERATORS) if generator else None


rule generate_responses:
    input:
        instructions=f"{ROOT}/instructions/{{topic}}/{{shard}}.jsonl",
        # It stands for the image files: where it is deleted to mend one, stage images runs before
        # this one.
        images=f"{ROOT}/images/{{topic}}/{{shard}}.jsonl",
    output:
        f"{ROOT}/responses/{{policy}}/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/generate_responses/{{policy}}/{{topic}}/{{shard}}.log",
    conda:
        f"../envs/{RESPONSES.environment}.yaml"
    threads: 1
    resources:
        gpu=lambda w: GPU if POLICIES[w.policy].needs_gpu else 0,
        mem_mb=lambda w, attempt: (
            growing(64000)(w, attempt) if POLICIES[w.policy].needs_gpu else 2000
        ),
        runtime=growing(480),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.digests(w.topic, w.shard),
        settings=lambda w: PLAN.params(PLAN.responses_job(w.policy, w.topic, w.shard)),
        made_by=lambda w: PLAN.made_by(POLICIES[w.policy], POLICY_MODELS),
        generated_by=lambda w: run_by(w.policy),
    message:
        "Responses of {wildcards.policy}: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/generate_responses.py"
