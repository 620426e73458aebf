# Phasescope: configuration, stages in the order they run, and what a run makes.

from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/prompts.smk"
include: "workflow/rules/quantize.smk"
include: "workflow/rules/audit.smk"
include: "workflow/rules/probe.smk"
include: "workflow/rules/intervene.smk"
include: "workflow/rules/cohere.smk"
include: "workflow/rules/survey.smk"
include: "workflow/rules/calibration_sets.smk"
include: "workflow/rules/survival.smk"
include: "workflow/rules/endpoints.smk"
include: "workflow/rules/writers.smk"
include: "workflow/rules/topics.smk"
include: "workflow/rules/collect.smk"
include: "workflow/rules/compare.smk"
include: "workflow/rules/classify.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/calibrate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/targets.smk"


rule all:
    default_target: True
    input:
        rules.report.output,
        rules.figures.output,
        # whatever vanished is made again, though nothing that is there needs it
        rules.collect.input,
        f"{RESULTS}/config.yaml",
        [f"{RESULTS}/{table}.parquet" for table in PLAN.tables],
