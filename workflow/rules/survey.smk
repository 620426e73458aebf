# Needs: the weights of a cell, its prompt table, and the probe's scratch.
# Makes: where the safety signal is, in every layer, channel and moment; the tables that the
# configuration names, in one job, which loads the model once.


if PLAN.config["survey"]:

    rule survey:
        input:
            folder=local(WEIGHTS),
            facts=f"{CELL}/quantize/checkpoint.json",
            prompts=prompt_table,
            openings=local(f"{SCRATCH}/probe/openings.json"),
        output:
            **{name: f"{CELL}/survey/{name}.parquet" for name in PLAN.config["survey"]},
        log:
            f"{CELL}/survey/survey.log",
        benchmark:
            f"{CELL}/survey/survey.benchmark.tsv"
        resources:
            mem_mb=memory("survey"),
            runtime=minutes("survey"),
            gpu_percent=gpu,
        params:
            settings=settings(*studies.ANSWER_KEYS, "survey", "survey_pairs") | LIMITS,
            journal=f"{CELL}/journal",
            code=code("survey.py"),
        script:
            "../scripts/survey.py"
