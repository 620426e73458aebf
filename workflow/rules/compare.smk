# Needs: the study-wide rates, and the figures of the sources (resources/published).
# Makes: whether models differ, and by size or developer, measured beside published.


rule compare:
    input:
        cells=f"{RESULTS}/cells.parquet",
        rates=f"{RESULTS}/behavior_rates.parquet",
        thresholds=local(PLAN.config["thresholds"]),
        published=local(published_files()),
    output:
        table=f"{RESULTS}/across_models.parquet",
    log:
        f"{RESULTS}/compare.log",
    benchmark:
        f"{RESULTS}/compare.benchmark.tsv"
    params:
        code=code("compare.py"),
    script:
        "../scripts/compare.py"
