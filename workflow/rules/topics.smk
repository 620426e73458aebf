# Needs: the truth sheets of organisms, where a design asks how their topics were trained.
# Makes: how many rows of each topic their training refused.


if PLAN.truth_sheets:

    rule topics:
        input:
            [
                local(folder if m in PLAN.trained else f"{folder}/organism.json")
                for m, folder in PLAN.truth_sheets.items()
            ],
        output:
            f"{RESULTS}/topics.parquet",
        log:
            f"{RESULTS}/topics.log",
        benchmark:
            f"{RESULTS}/topics.benchmark.tsv"
        params:
            folders=PLAN.truth_sheets,
            code=code("topics.py"),
        script:
            "../scripts/topics.py"
