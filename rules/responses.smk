from lib.models.policy_models.registry import POLICY_MODELS

RESPONSES = CONFIG.responses
POLICIES = RESPONSES.policy_models


rule generate_responses:
    input:
        instructions=files_behind("generate_responses", "instructions"),
        # It stands for the image files: where it is deleted to mend one, stage images runs before
        # this one.
        images=files_behind("generate_responses", "images"),
    output:
        f"{ROOT}/responses/{{policy}}/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/generate_responses/{{policy}}/{{topic}}/{{shard}}.log",
    conda:
        f"../envs/{RESPONSES.environment}.yaml"
    threads: lambda w: cpus_of(POLICIES[w.policy])
    resources:
        gpu=lambda w: gpus_of(POLICIES[w.policy]),
        mem_mb=lambda w, attempt: (
            growing(64000, POLICIES[w.policy])(w, attempt)
            if POLICIES[w.policy].needs_gpu
            else 2000
        ),
        runtime=growing(480),
    params:
        common=PLAN.common(),
        prompts=digests_of("generate_responses"),
        settings=lambda w: PLAN.params(PLAN.responses_job(w.policy, w.topic, w.shard)),
        made_by=lambda w: PLAN.made_by(POLICIES[w.policy], POLICY_MODELS),
        generated_by=lambda w: PLAN.generated_by(
            POLICIES[w.policy].generator(RESPONSES)
        ),
    message:
        "Responses of {wildcards.policy}: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/generate_responses.py"
