# Needs: the phases of organisms that were trained in this study, whose planted phase is known, which
# of their cells ran, and their truth sheets.
# Makes: each verdict beside the truth, how often and how surely the truth came out, and thresholds
# fitted on some of the organisms and reported on the others.


rule calibrate:
    input:
        phases=f"{RESULTS}/phases.parquet",
        cells=f"{RESULTS}/cells.parquet",
        organisms=[
            local(f"{RESULTS}/organisms/{n}") for n in PLAN.trained if PLAN.running("probe", n)
        ],
    output:
        table=f"{RESULTS}/calibration.parquet",
        summary=f"{RESULTS}/calibration_summary.parquet",
    log:
        f"{RESULTS}/calibrate.log",
    benchmark:
        f"{RESULTS}/calibrate.benchmark.tsv"
    params:
        trained=PLAN.trained,
        code=code("calibrate.py"),
    script:
        "../scripts/calibrate.py"


rule fit_thresholds:
    input:
        interventions=f"{RESULTS}/interventions.parquet",
        thresholds=local(PLAN.config["thresholds"]),
    output:
        table=f"{RESULTS}/threshold_fit.parquet",
    log:
        f"{RESULTS}/fit_thresholds.log",
    benchmark:
        f"{RESULTS}/fit_thresholds.benchmark.tsv"
    params:
        trained=PLAN.trained,
        settings=settings("seed"),
        code=code("fit_thresholds.py"),
    script:
        "../scripts/fit_thresholds.py"
