# Needs: the study-wide interventions and the thresholds.
# Makes: the phase of every cell, with its probability.


rule classify:
    input:
        cells=f"{RESULTS}/cells.parquet",
        interventions=f"{RESULTS}/interventions.parquet",
        thresholds=local(PLAN.config["thresholds"]),
    output:
        table=f"{RESULTS}/phases.parquet",
    log:
        f"{RESULTS}/classify.log",
    benchmark:
        f"{RESULTS}/classify.benchmark.tsv"
    params:
        settings=settings("seed"),
        grading=PLAN.grading(),
        code=code("classify.py"),
    script:
        "../scripts/classify.py"
