from lib.config.prompts import GeneratePromptsJob


# The paper's first step: prompts by an LLM. The next run works with them.
rule prompts:
    input:
        prompts_to_add,
    message:
        "Prompts: {CONFIG.prompts}"


# Proposals: they can be read and edited before they are added.
rule generate_prompts:
    input:
        [ancient(PLAN.prompts_file(topic)) for topic in PLAN.topics],
    output:
        f"{ROOT}/proposed_prompts/{{topic}}.txt",
    log:
        f"{ROOT}/logs/generate_prompts/{{topic}}.log",
    conda:
        "../envs/vllm.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=growing(2000),
        runtime=growing(120),
    params:
        common=PLAN.common(),
        settings=lambda w: PLAN.params(
            GeneratePromptsJob(
                proposals=CONFIG.generate_prompts.for_topic(
                    w.topic, CONFIG.instructions.llm_endpoint
                ),
                topics=PLAN.topics,
                max_prompt_characters=CONFIG.max_prompt_characters,
            )
        ),
        # Where the topic's prompts are others, others are missing.
        there=lambda w: PLAN.stages.digests_of_topic(w.topic),
    message:
        "Prompt proposals: topic {wildcards.topic}"
    script:
        "../scripts/generate_prompts.py"


# One job for all topics, so that none gets what another has just got.
rule add_prompts:
    input:
        [f"{ROOT}/proposed_prompts/{topic}.txt" for topic in PLAN.lacking],
    output:
        f"{ROOT}/proposed_prompts/added.json",
    log:
        f"{ROOT}/logs/add_prompts.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        common=PLAN.common(),
        settings=PLAN.params(PLAN.add_prompts_job()),
    message:
        "Adding prompts to {CONFIG.prompts}"
    script:
        "../scripts/add_prompts.py"
