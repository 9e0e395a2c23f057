from lib.config.response_ranking import RankResponsesJob
from lib.models.response_rewards.registry import RESPONSE_REWARDS


rule rank_responses:
    input:
        [
            f"{ROOT}/responses/{policy}/{{topic}}/{{shard}}.jsonl"
            for policy in CONFIG.responses.policy_models
        ],
    output:
        f"{ROOT}/response_ranking/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/rank_responses/{{topic}}/{{shard}}.log",
    conda:
        f"../envs/{CONFIG.response_ranking.environment}.yaml"
    threads: CPUS
    resources:
        gpu=GPU,
        mem_mb=growing(40000),
        runtime=growing(120),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.digests(w.topic, w.shard),
        settings=PLAN.params(
            RankResponsesJob(
                reward=CONFIG.response_ranking,
                policies=CONFIG.responses.answer_names,
            )
        ),
        made_by=lambda w: PLAN.made_by(CONFIG.response_ranking, RESPONSE_REWARDS),
    message:
        "Response ranking: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/rank_responses.py"
