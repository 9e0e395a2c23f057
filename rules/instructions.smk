from lib.models.instruction_authors.registry import INSTRUCTION_AUTHORS

AUTHOR = CONFIG.instructions


rule write_instructions:
    input:
        images=f"{ROOT}/images/{{topic}}/{{shard}}.jsonl",
        ranking=f"{ROOT}/image_ranking/{CONFIG.image_ranking.select_by}/{{topic}}/{{shard}}.jsonl",
    output:
        f"{ROOT}/instructions/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/write_instructions/{{topic}}/{{shard}}.log",
    conda:
        f"../envs/{AUTHOR.environment}.yaml"
    threads: cpus_of(AUTHOR)
    resources:
        gpu=gpus_of(AUTHOR),
        mem_mb=growing(32000, AUTHOR) if AUTHOR.needs_gpu else 2000,
        runtime=growing(120),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.digests(w.topic, w.shard),
        settings=told(PLAN.instructions_job),
        made_by=lambda w: PLAN.made_by(AUTHOR, INSTRUCTION_AUTHORS),
        generated_by=lambda w: PLAN.generated_by(AUTHOR.generator),
    message:
        "Instructions: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/write_instructions.py"
