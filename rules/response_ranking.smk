from lib.config.response_ranking import (
    CombineRewardsJob,
    FitRewardsJob,
    RankResponsesJob,
    rewards_of,
    weights_of,
)
from lib.models.response_rewards.registry import RESPONSE_REWARDS

REWARDS = rewards_of(CONFIG.response_ranking)
# What one reward says alone is the ranking; what several say is combined to it.
IS_ENSEMBLE = REWARDS.keys() != {""}
REWARD_STAGE, OF_REWARD = (
    ("response_rewards", "{reward}/") if IS_ENSEMBLE else ("response_ranking", "")
)


rule rank_responses:
    input:
        files_behind(
            "rank_responses",
            *(f"responses/{policy}" for policy in CONFIG.responses.policy_models),
        ),
    output:
        f"{ROOT}/{REWARD_STAGE}/{OF_REWARD}{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/rank_responses/{OF_REWARD}{{topic}}/{{shard}}.log",
    conda:
        lambda w: f"../envs/{reward_of(w).environment}.yaml"
    threads: lambda w: cpus_of(reward_of(w))
    resources:
        gpu=lambda w: gpus_of(reward_of(w)),
        mem_mb=lambda w, attempt: (
            growing(40000, reward_of(w))(w, attempt)
            if reward_of(w).needs_gpu
            else 2000
        ),
        runtime=growing(120),
    params:
        common=PLAN.common(),
        prompts=digests_of("rank_responses"),
        settings=lambda w: PLAN.params(
            RankResponsesJob(
                reward=reward_of(w),
                policies=CONFIG.responses.answer_names,
            )
        ),
        made_by=lambda w: PLAN.made_by(reward_of(w), RESPONSE_REWARDS),
    message:
        "Response ranking: topic {wildcards.topic}, shard {wildcards.shard}"
        + (" (reward {wildcards.reward})" if IS_ENSEMBLE else "")
    script:
        "../scripts/rank_responses.py"


# This rule and the next are for an ensemble alone.
rule fit_rewards:
    input:
        **PLAN.reward_files(),
    output:
        f"{ROOT}/quality/rewards.json",
    log:
        f"{ROOT}/logs/fit_rewards.log",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        common=PLAN.common(),
        prompts=lambda w: PLAN.stages.digests,
        settings=PLAN.params(FitRewardsJob(rewards=list(REWARDS))),
    message:
        "What the rewards of an ensemble are standardised by"
    script:
        "../scripts/fit_rewards.py"


rule combine_rewards:
    input:
        **PLAN.rewards_of_shard(),
        standards=f"{ROOT}/quality/rewards.json",
    output:
        f"{ROOT}/response_ranking/{{topic}}/{{shard}}.jsonl",
    log:
        f"{ROOT}/logs/combine_rewards/{{topic}}/{{shard}}.log",
    wildcard_constraints:
        # Of one reward alone, rank_responses makes these files.
        topic=ANY_TOPIC if IS_ENSEMBLE else "(?!)",
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        common=PLAN.common(),
        prompts=digests_of("combine_rewards"),
        settings=PLAN.params(
            CombineRewardsJob(weights=weights_of(CONFIG.response_ranking))
        ),
    message:
        "Rewards combined: topic {wildcards.topic}, shard {wildcards.shard}"
    script:
        "../scripts/combine_rewards.py"
