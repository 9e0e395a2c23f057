from lib.head import evaluation


# A model of others in the form of LLaVA's own code, as transformers has it.
rule convert_model:
    output:
        directory(f"{ROOT}/models/{{model}}/converted"),
    log:
        f"{ROOT}/logs/convert_model/{{model}}.log",
    wildcard_constraints:
        model=evaluation.pattern(evaluation.converted_models(PLAN)),
    conda:
        "../envs/training.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=growing(24000),
        runtime=growing(60),
    params:
        common=PLAN.common(),
        settings=lambda w: PLAN.params(evaluation.convert_job(PLAN, w.model)),
        made_by=lambda w: PLAN.made_by(evaluation.convert_job(PLAN, w.model)),
    message:
        "Evaluation: {wildcards.model} as transformers has it"
    script:
        "../scripts/convert_model.py"


rule answer_part:
    input:
        merged=lambda w: evaluation.merged_model(PLAN, w.model),
        data=lambda w: evaluation.data_files(PLAN, w.benchmark),
    output:
        f"{ROOT}/evaluation/{{model}}/{{benchmark}}/parts/{{part}}.json",
    log:
        f"{ROOT}/logs/answer_part/{{model}}/{{benchmark}}/{{part}}.log",
        harness=f"{ROOT}/logs/answer_part/{{model}}/{{benchmark}}/{{part}}.lmms-eval.log",
    wildcard_constraints:
        model=evaluation.pattern(PLAN.models()),
        benchmark=evaluation.pattern(evaluation.divided_tasks(PLAN)),
        part=evaluation.pattern(evaluation.all_parts(PLAN)),
    conda:
        "../envs/evaluation.yaml"
    threads: lambda w: cpus_of(asked_by(w))
    resources:
        gpu=lambda w: gpus_of(asked_by(w)),
        mem_mb=lambda w, attempt: growing(32000, asked_by(w))(w, attempt),
        runtime=growing(480),
    params:
        common=PLAN.common(),
        settings=lambda w: PLAN.params(
            evaluation.answer_job(PLAN, w.benchmark, w.model)
        ),
        made_by=lambda w: evaluation.made_by_task(PLAN, w.benchmark, w.model),
        contents=lambda w: evaluation.data_contents(PLAN, w.benchmark),
    message:
        "Answers: model {wildcards.model}, benchmark {wildcards.benchmark}, part {wildcards.part}"
    script:
        "../scripts/answer_part.py"


# All questions of the benchmarks that are not divided, for which the model is loaded once.
rule answer_together:
    input:
        merged=lambda w: evaluation.merged_model(PLAN, w.model),
        data=evaluation.data_together(PLAN),
    output:
        evaluation.files_together(PLAN),
    log:
        f"{ROOT}/logs/answer_part/{{model}}.log",
        harness=f"{ROOT}/logs/answer_part/{{model}}.lmms-eval.log",
    wildcard_constraints:
        model=evaluation.pattern(
            PLAN.models() if CONFIG.evaluation.asked_together else []
        ),
    conda:
        "../envs/evaluation.yaml"
    threads: lambda w: cpus_of(asked_by(w))
    resources:
        gpu=lambda w: gpus_of(asked_by(w)),
        mem_mb=lambda w, attempt: growing(32000, asked_by(w))(w, attempt),
        runtime=growing(480),
    params:
        common=PLAN.common(),
        together=lambda w: evaluation.jobs_together(PLAN, w.model),
    message:
        "Answers: model {wildcards.model}, "
        + ", ".join(CONFIG.evaluation.asked_together)
    script:
        "../scripts/answer_part.py"


# Answers all of a benchmark, or joins what its parts have answered.
rule answer_benchmark:
    input:
        merged=lambda w: evaluation.merged_model(PLAN, w.model),
        data=lambda w: evaluation.data_files(PLAN, w.benchmark),
        parts=lambda w: evaluation.part_files(PLAN, w.model, w.benchmark),
    output:
        answers=f"{ROOT}/evaluation/{{model}}/{{benchmark}}/answers.jsonl",
        results=f"{ROOT}/evaluation/{{model}}/{{benchmark}}/results.json",
    log:
        f"{ROOT}/logs/answer_benchmark/{{model}}/{{benchmark}}.log",
        harness=f"{ROOT}/logs/answer_benchmark/{{model}}/{{benchmark}}.lmms-eval.log",
    wildcard_constraints:
        model=evaluation.pattern(PLAN.models()),
        benchmark=evaluation.pattern(evaluation.tasks(PLAN)),
    conda:
        "../envs/evaluation.yaml"
    threads: lambda w: cpus_of(asked_by(w))
    resources:
        gpu=lambda w: 0 if evaluation.parts(PLAN, w.benchmark) else gpus_of(asked_by(w)),
        mem_mb=lambda w, attempt: growing(32000, asked_by(w))(w, attempt),
        runtime=growing(1440),
    params:
        common=PLAN.common(),
        settings=lambda w: PLAN.params(
            evaluation.answer_job(PLAN, w.benchmark, w.model)
        ),
        made_by=lambda w: evaluation.made_by_task(PLAN, w.benchmark, w.model),
        contents=lambda w: evaluation.data_contents(PLAN, w.benchmark),
    message:
        "Answers: model {wildcards.model}, benchmark {wildcards.benchmark}"
    script:
        "../scripts/answer_benchmark.py"


rule score_benchmark:
    input:
        answers=f"{ROOT}/evaluation/{{model}}/{{benchmark}}/answers.jsonl",
        results=f"{ROOT}/evaluation/{{model}}/{{benchmark}}/results.json",
    output:
        scores=f"{ROOT}/evaluation/{{model}}/{{benchmark}}/scores.json",
        by_question=f"{ROOT}/evaluation/{{model}}/{{benchmark}}/by_question.jsonl",
    log:
        f"{ROOT}/logs/score_benchmark/{{model}}/{{benchmark}}.log",
    wildcard_constraints:
        model=evaluation.pattern(PLAN.models()),
        benchmark=evaluation.pattern(evaluation.tasks(PLAN)),
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(120),
    params:
        common=PLAN.common(),
        settings=lambda w: PLAN.params(evaluation.score_job(PLAN, w.benchmark)),
        made_by=lambda w: evaluation.made_by_scorer(PLAN, w.benchmark),
    message:
        "Scores: model {wildcards.model}, benchmark {wildcards.benchmark}"
    script:
        "../scripts/score_benchmark.py"


rule answer_questions:
    input:
        merged=lambda w: evaluation.merged_model(PLAN, w.model),
        files=lambda w: evaluation.question_files(PLAN, w.benchmark),
    output:
        answers=f"{ROOT}/evaluation/{{model}}/{{benchmark}}/answers.jsonl",
        asked=f"{ROOT}/evaluation/{{model}}/{{benchmark}}/asked.json",
    log:
        f"{ROOT}/logs/answer_questions/{{model}}/{{benchmark}}.log",
    wildcard_constraints:
        model=evaluation.pattern(PLAN.models()),
        benchmark=evaluation.pattern(evaluation.questions_apart(PLAN)),
    conda:
        "../envs/vllm.yaml"
    threads: lambda w: cpus_of(asked_by(w))
    resources:
        gpu=lambda w: gpus_of(asked_by(w)),
        mem_mb=lambda w, attempt: growing(32000, asked_by(w))(w, attempt),
        runtime=growing(1440),
    params:
        common=PLAN.common(),
        settings=lambda w: PLAN.params(
            evaluation.question_job(PLAN, w.benchmark, w.model)
        ),
        made_by=lambda w: evaluation.made_by_model(PLAN, w.benchmark, w.model),
        contents=lambda w: evaluation.question_contents(PLAN, w.benchmark),
    message:
        "Answers: model {wildcards.model}, benchmark {wildcards.benchmark}"
    script:
        "../scripts/answer_questions.py"


# The same of several benchmarks in one job, for which the model is loaded once.
rule answer_questions_together:
    input:
        merged=lambda w: evaluation.merged_model(PLAN, w.model),
        files=evaluation.question_files_together(PLAN),
    output:
        evaluation.answers_together(PLAN),
    log:
        f"{ROOT}/logs/answer_questions/{{model}}.log",
    wildcard_constraints:
        model=evaluation.pattern(
            PLAN.models() if evaluation.questions_together(PLAN) else []
        ),
    conda:
        "../envs/vllm.yaml"
    threads: lambda w: cpus_of(asked_by(w))
    resources:
        gpu=lambda w: gpus_of(asked_by(w)),
        mem_mb=lambda w, attempt: growing(32000, asked_by(w))(w, attempt),
        runtime=growing(1440),
    params:
        common=PLAN.common(),
        together=lambda w: evaluation.question_jobs_together(PLAN, w.model),
    message:
        "Answers: model {wildcards.model}, "
        + ", ".join(evaluation.questions_together(PLAN))
    script:
        "../scripts/answer_questions.py"


rule score_answers:
    input:
        answers=f"{ROOT}/evaluation/{{model}}/{{benchmark}}/answers.jsonl",
        asked=f"{ROOT}/evaluation/{{model}}/{{benchmark}}/asked.json",
        reference=lambda w: evaluation.reference_files(PLAN, w.benchmark),
    output:
        scores=f"{ROOT}/evaluation/{{model}}/{{benchmark}}/scores.json",
        scored=f"{ROOT}/evaluation/{{model}}/{{benchmark}}/scored.jsonl",
        by_question=f"{ROOT}/evaluation/{{model}}/{{benchmark}}/by_question.jsonl",
    log:
        f"{ROOT}/logs/score_answers/{{model}}/{{benchmark}}.log",
    wildcard_constraints:
        model=evaluation.pattern(PLAN.models()),
        benchmark=evaluation.pattern(evaluation.question_sets(PLAN)),
    conda:
        "../envs/workflow.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        common=PLAN.common(),
        settings=lambda w: PLAN.params(evaluation.score_answers_job(PLAN, w.benchmark)),
        made_by=lambda w: evaluation.made_by_scorer(PLAN, w.benchmark),
        contents=lambda w: evaluation.reference_contents(PLAN, w.benchmark),
    message:
        "Scores: model {wildcards.model}, benchmark {wildcards.benchmark}"
    script:
        "../scripts/score_answers.py"
