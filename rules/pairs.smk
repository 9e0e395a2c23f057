from lib.config.pairs import MergePairsJob
from lib.data.export_forms.registry import FORM_FILES
from lib.head import cards, frozen


rule build_pairs:
    input:
        ranking=files_behind("build_pairs", "response_ranking"),
        # What the benchmarks have too is left out only where the configuration says so.
        overlaps=(
            files_behind("build_pairs", "contamination")
            if CONTAMINATION.exclude and evaluation.contamination_files(PLAN)
            else []
        ),
        content=files_behind(
            "build_pairs", *(f"content/{each}" for each in CONFIG.pairs.content_check)
        ),
        lengths=(
            [f"{ROOT}/quality/length.json"]
            if CONFIG.pairs.length_control != "none"
            else []
        ),
    output:
        f"{ROOT}/pairs/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/build_pairs/{{topic}}/{{shard}}.log",
    # It counts what a picture takes of the base model's context as the model's processor does.
    conda:
        "../envs/rewards.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        **PLAN.content_params(),
        common=PLAN.common(),
        prompts=digests_of("build_pairs"),
        settings=lambda w: PLAN.pairs_settings(w.topic, w.shard),
        made_by=lambda w: PLAN.made_by(CONFIG.training.base_model),
    message:
        "Pairs: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/build_pairs.py"


# For `pairs.length_control` alone.
rule fit_length:
    input:
        PLAN.stages.files("response_ranking"),
    output:
        f"{ROOT}/quality/length.json",
    log:
        f"{ROOT}/logs/fit_length.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.stages.digests,
    message:
        "The reward against the length of responses"
    script:
        "../scripts/fit_length.py"


rule merge_pairs:
    input:
        pairs=pairs_of_size,
        # More that is wrong with the pairs than is allowed stops the run here.
        quality=(
            ancient(f"{ROOT}/quality/pairs.json")
            if CONFIG.pairs.quality.max_share
            else []
        ),
        # They stand for the image files: where one is deleted to mend these, stage images runs
        # before this rule.
        images=PLAN.stages.image_files(),
        rankings=PLAN.stages.files("response_ranking"),
    output:
        # What else is in the folder (parquet files, pictures) stands in the job's record: how many
        # files there will be is not known, and Snakemake would put one of its own into a folder.
        *(f"{ROOT}/dataset/{{size}}/{name}" for name in FORM_FILES),
        changes=f"{ROOT}/dataset/{{size}}/CHANGELOG.md",
        ids=f"{ROOT}/dataset/{{size}}/prompt_ids.txt",
        summary=f"{ROOT}/dataset/{{size}}/dataset.json",
    log:
        f"{ROOT}/logs/merge_pairs/{{size}}.log",
    wildcard_constraints:
        # A frozen data set is made by no rule.
        size=frozen.not_frozen(PLAN),
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.stages.digests,
        settings=PLAN.params(MergePairsJob(validation=CONFIG.pairs.validation)),
    message:
        "Data set of {wildcards.size} pairs"
    script:
        "../scripts/merge_pairs.py"


rule data_set_card:
    input:
        **cards.contamination_inputs(PLAN),
        pairs=pairs_of_size,
        ids=f"{ROOT}/dataset/{{size}}/prompt_ids.txt",
        summary=f"{ROOT}/dataset/{{size}}/dataset.json",
    output:
        card=f"{ROOT}/dataset/{{size}}/README.md",
        licence=f"{ROOT}/dataset/{{size}}/LICENSE.md",
        croissant=f"{ROOT}/dataset/{{size}}/croissant.json",
        sums=f"{ROOT}/dataset/{{size}}/SHA256SUMS",
    log:
        f"{ROOT}/logs/data_set_card/{{size}}.log",
    wildcard_constraints:
        size=frozen.not_frozen(PLAN),
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.stages.digests,
        settings=lambda w: PLAN.params(cards.data_set_card_job(PLAN)),
    message:
        "Card of the data set of {wildcards.size} pairs"
    script:
        "../scripts/data_set_card.py"


rule list_data_sets:
    input:
        [f"{ROOT}/dataset/{size}/dataset.json" for size in PLAN.sizes()],
    output:
        f"{ROOT}/dataset/README.md",
    log:
        f"{ROOT}/logs/list_data_sets.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        common=PLAN.common(),
    message:
        "The data sets by size: {output}"
    script:
        "../scripts/list_data_sets.py"


rule tell_prompt:
    input:
        lambda w: list(PLAN.stages_of_prompt(w.prompt_id).values()),
    output:
        f"{ROOT}/prompts/{{prompt_id}}.json",
    log:
        f"{ROOT}/logs/tell_prompt/{{prompt_id}}.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.stages.digests_for(w.prompt_id),
        stages=lambda w: PLAN.stages_of_prompt(w.prompt_id),
    message:
        "The story of {wildcards.prompt_id}"
    script:
        "../scripts/tell_prompt.py"
