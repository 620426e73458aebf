# Needs: the study-wide tables, the thresholds, the record of the last calibration.
# Makes: the verdict on every claim; where organisms are trained first, what its controls came out as.


rule claims:
    input:
        tables=[f"{RESULTS}/{name}.parquet" for name in PLAN.tables if name not in AFTER_CLAIMS],
        thresholds=local(PLAN.config["thresholds"]),
        record=local("resources/calibration/claims.tsv"),
    output:
        **({"calibration": f"{RESULTS}/calibration_claims.parquet"} if PLAN.trained else {}),
        table=f"{RESULTS}/claims.parquet",
    log:
        f"{RESULTS}/claims.log",
    benchmark:
        f"{RESULTS}/claims.benchmark.tsv"
    params:
        grading=PLAN.grading(),
        organisms=PLAN.organisms,
        study=STUDY,
        code=code("claims.py"),
    script:
        "../scripts/claims.py"
