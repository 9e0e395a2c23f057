from lib.config.training import MergeAdapterJob
from lib.head import cards
from lib.training.registry import TRAINERS

TRAINING = CONFIG.training


rule train_dpo:
    input:
        dataset=lambda w: f"{PLAN.data_set_of(w.experiment)}/dataset.json",
    output:
        adapter=f"{ROOT}/models/{{experiment}}/adapter/adapter_model.safetensors",
        config=f"{ROOT}/models/{{experiment}}/adapter/adapter_config.json",
        metrics=f"{ROOT}/models/{{experiment}}/metrics.jsonl",
        figure=shown(
            f"{ROOT}/models/{{experiment}}/training.svg",
            "train_dpo",
            "Training",
            experiment="{experiment}",
        ),
        picture=shown(
            f"{ROOT}/models/{{experiment}}/training.png",
            "train_dpo",
            "Training",
            experiment="{experiment}",
        ),
    log:
        f"{ROOT}/logs/train_dpo/{{experiment}}.log",
    # Most of the run waits for it: where there is too little room, others do.
    priority: 1
    conda:
        f"../envs/{TRAINING.settings.environment}.yaml"
    threads: lambda w: TRAINING.settings_of(w.experiment).processes * CPUS
    resources:
        gpu=lambda w: TRAINING.settings_of(w.experiment).processes * GPU,
        mem_mb=growing(96000),
        runtime=growing(1440),
    params:
        common=PLAN.common(),
        settings=lambda w: PLAN.params(TRAINING.train_params(w.experiment)),
        made_by=lambda w: PLAN.made_by(TRAINING.train_params(w.experiment), TRAINERS),
    message:
        "Training: DPO, experiment {wildcards.experiment}"
    script:
        "../scripts/train_dpo.py"


rule merge_adapter:
    input:
        adapter=f"{ROOT}/models/{{experiment}}/adapter/adapter_model.safetensors",
        config=f"{ROOT}/models/{{experiment}}/adapter/adapter_config.json",
    output:
        directory(f"{ROOT}/models/{{experiment}}/merged"),
    log:
        f"{ROOT}/logs/merge_adapter/{{experiment}}.log",
    conda:
        "../envs/training.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=growing(24000),
        runtime=growing(60),
    params:
        common=PLAN.common(),
        settings=PLAN.params(MergeAdapterJob(base_model=TRAINING.base_model)),
        made_by=lambda w: PLAN.made_by(TRAINING.base_model),
    message:
        "Training: merging the adapter of {wildcards.experiment} into the base model"
    script:
        "../scripts/merge_adapter.py"


rule model_cards:
    input:
        config=f"{ROOT}/models/{{experiment}}/adapter/adapter_config.json",
        data=lambda w: f"{PLAN.data_set_of(w.experiment)}/dataset.json",
        scores=lambda w: cards.scores_of_model(PLAN, w.experiment),
        base=cards.scores_of_model(PLAN, "base"),
    output:
        adapter=f"{ROOT}/models/{{experiment}}/cards/adapter/README.md",
        merged=f"{ROOT}/models/{{experiment}}/cards/merged/README.md",
    log:
        f"{ROOT}/logs/model_cards/{{experiment}}.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        common=PLAN.common(),
        settings=lambda w: PLAN.params(cards.model_card_job(PLAN, w.experiment)),
    message:
        "Cards of the model {wildcards.experiment}"
    script:
        "../scripts/model_cards.py"
