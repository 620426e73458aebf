# Needs: the weights of a cell, its prompt table, what each design chose, and the further prompt
# tables that claims need.
# Makes: language and answers as a whole, without intervention and under each chosen one; answers to
# the further tables without.


rule cohere:
    input:
        folder=local(WEIGHTS),
        facts=f"{CELL}/quantize/checkpoint.json",
        prompts=prompt_table,
        more=lambda w: list(map(given, PLAN.more_prompts(w.model).values())),
        activations=local(f"{SCRATCH}/probe/activations.npz"),
        selected=local(f"{SCRATCH}/select/selected.json"),
        chosen=chosen_settings,
    output:
        coherence=f"{CELL}/cohere/coherence.parquet",
        behavior=f"{CELL}/cohere/behavior.parquet",
    log:
        f"{CELL}/cohere/cohere.log",
    benchmark:
        f"{CELL}/cohere/cohere.benchmark.tsv"
    resources:
        mem_mb=memory("cohere"),
        runtime=minutes("cohere"),
        gpu_percent=gpu,
    params:
        settings=settings(*studies.ANSWER_KEYS, "sham_draws") | LIMITS,
        uses=lambda w: list(PLAN.more_prompts(w.model)),
        journal=f"{CELL}/journal",
        code=code("cohere.py"),
    script:
        "../scripts/cohere.py"
