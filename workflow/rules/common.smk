# Reads and checks configuration and sheet, and decides which cells run which stages.
# Needs: config, the model sheet, the prompt tables. Makes: the names that the other files use.

import os
import sys
from dataclasses import asdict
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from phasescope import planning, runs
from phasescope import study as studies
from phasescope.errors import PhasescopeError
from phasescope.matrix import EFFORT
from phasescope.tables.provenance import fingerprint
from phasescope.tables.temporary import sweep

# as they were merged: the project's own first, then what the command line names
CONFIG_FILES = [os.path.relpath(f) for f in reversed(workflow.configfiles)]

try:
    PLAN = studies.plan_study(config, CONFIG_FILES)
    if workflow.is_main_process and not runs.only_looks(sys.argv):
        HELD = runs.hold(PLAN.config["study"])
        runs.set_back(*(Path(top, PLAN.config["study"]) for top in ("results", "reports")))
except PhasescopeError as error:
    raise WorkflowError(str(error)) from None

STUDY = PLAN.config["study"]
RESULTS = f"results/{STUDY}"
# study-wide tables that claims do not read
AFTER_CLAIMS = {"claims", *studies.CALIBRATION_TABLES}
CELL = f"{RESULTS}/{{model}}/{{precision}}"
# With a storage provider (profiles/s3) results lie in a bucket. Not what is flagged `local`: what a
# run is given, weights (large, and made again), and scratch (directions: they leave no machine).
WEIGHTS = f"{CELL}/quantize/checkpoint"
SCRATCH = f"{CELL}/scratch"
LIMITS = {"limits": EFFORT[PLAN.config["effort"]]}  # matched pairs per split


wildcard_constraints:
    model="|".join(re.escape(m.id) for m in PLAN.models),
    precision="16|8|4",
    weights="source|8|4",
    design="|".join(PLAN.config["designs"]),
    endpoint="|".join(re.escape(e["id"]) for e in PLAN.config["endpoints"]) or "none",


# Two jobs never hold more than the machine can give; a cell that alone does not fit is not run.
workflow.resource_settings.resources.setdefault("mem_mb", PLAN.usable_mb)
# Of sources that are deleted after quantizing, one at a time is on the disk.
workflow.resource_settings.resources.setdefault("passing_sources", 1)


def code(script):
    """Fingerprint of the library rooms that a script imports: an edit there reruns its jobs."""
    return fingerprint(Path(workflow.basedir) / "workflow/scripts" / script)


def settings(*keys):
    """Only the keys of the configuration that matter to a stage, so that others spare it."""
    return {key: PLAN.config[key] for key in keys}


def memory(stage):
    """Planned memory of a stage's job on a cell, MB: small cells run beside each other."""
    return lambda w: PLAN.cell(w.model, w.precision).mem_mb(stage, w.get("design"))


def minutes(stage):
    """Time limit of a stage's job on a cluster, longer with each attempt."""
    return lambda w, attempt: attempt * PLAN.minutes(w.model, w.precision, stage)


def gpu(wildcards):
    """Share of a Mac's one GPU, percent; scheduled by where a profile says how much there is."""
    return PLAN.cell(wildcards.model, wildcards.precision).gpu_percent


def quantize_source(wildcards):
    """The fetched checkpoint, unless the sheet names a ready-made one for this precision."""
    if PLAN.ready_made(wildcards.model, wildcards.precision):
        return {}
    folder = f"{RESULTS}/{wildcards.model}/fetch"
    return {
        "folder": local(f"{folder}/checkpoint"),
        "facts": local(f"{folder}/checkpoint.json"),
        "audit": f"{RESULTS}/{wildcards.model}/source/audit/audit.parquet",
    }


def audited(wildcards):
    """The weights that an audit looks at, and what is recorded of them."""
    fetched = wildcards.weights == "source"
    stage = "fetch" if fetched else f"{wildcards.weights}/quantize"
    folder = f"{RESULTS}/{wildcards.model}/{stage}"
    facts = f"{folder}/checkpoint.json"
    return {"folder": local(f"{folder}/checkpoint"), "facts": local(facts) if fetched else facts}


# Models that `quantize` makes cells of, except cells whose source is deleted after quantizing. The
# lookahead reads on into the precision, the next part of the path.
_released = [f"{re.escape(m)}/(?:{'|'.join(p)})/" for m, p in PLAN.released.items()]
kept_sources = "".join(f"(?!{cell})" for cell in _released) + (
    f"(?:{'|'.join(re.escape(m.id) for m in PLAN.models)})"
)
# Models that `audit` looks at, except sources that are deleted: their own jobs audit them.
audited_models = "".join(f"(?!{re.escape(m)}/source/)" for m in PLAN.released) + (
    f"(?:{'|'.join(re.escape(m.id) for m in PLAN.models)})"
)


def audit_of(wildcards, name="audit"):
    """The audit of a cell's weights; those at 16 bit are the source's own."""
    weights = "source" if wildcards.precision == "16" else wildcards.precision
    return f"{RESULTS}/{wildcards.model}/{weights}/audit/{name}.parquet"


def audit_tables(name):
    """Paths of one table of all audits: of each source that is fetched, and of quantized weights."""
    paths = []
    for cell in PLAN.running("quantize"):
        if not PLAN.ready_made(cell.model.id, cell.precision):
            paths.append(f"{RESULTS}/{cell.model.id}/source/audit/{name}.parquet")
        if cell.precision != "16":
            paths.append(f"{RESULTS}/{cell.name}/audit/{name}.parquet")
    return list(dict.fromkeys(paths))


def given(table):
    """A prompt table: one that the run does not make itself stays where it is."""
    return table if table.startswith(f"{RESULTS}/") else local(table)


def prompt_table(wildcards):
    """The prompt table of a model."""
    return given(PLAN.prompts[wildcards.model])


def prompt_source(wildcards):
    """Where a prompt table of the configuration comes from."""
    return PLAN.chosen.sources[f"{RESULTS}/prompts/{wildcards.table}.tsv"]


def asked_tables():
    """Paths of the prompt tables that cells are asked: what no cell asks is not fetched."""
    asked = {c.model.id for stage in ("probe", "cohere") for c in PLAN.running(stage)}
    paths = {r["path"] for r in PLAN.prompt_records if r["path"] and r["model"] in asked}
    return [given(path) for path in sorted(paths)]


def study_tables(stage, name):
    """Paths of one table of all cells that run a stage."""
    return [f"{RESULTS}/{cell.name}/{stage}/{name}.parquet" for cell in PLAN.running(stage)]


def survey_tables():
    """Paths of the survey's tables of all cells that run it, by table; none of those not named."""
    named = PLAN.config["survey"]
    return {t: study_tables("survey", t) if t in named else [] for t in studies.SURVEYS}


def design_tables():
    """Paths of the tables of all designs of all cells that run them."""
    return [
        f"{RESULTS}/{cell.name}/intervene/{design}.parquet"
        for cell in PLAN.running("intervene")
        for design in PLAN.designs(cell)
    ]


def chosen_settings(wildcards):
    """What each design of a cell chose: scratch."""
    cell = PLAN.cell(wildcards.model, wildcards.precision)
    folder = f"{RESULTS}/{cell.name}/scratch/intervene"
    return [local(f"{folder}/{design}.json") for design in PLAN.designs(cell)]


def of_other_precisions(name):
    """For the design that tries other precisions' directions: a file of their scratch."""

    def paths(wildcards):
        if wildcards.design != "transfer":
            return []
        return [
            local(f"{RESULTS}/{cell.name}/scratch/{name}")
            for cell in PLAN.running("intervene", wildcards.model)
            if cell.precision != wildcards.precision
        ]

    return paths


def base_recipe(recipe):
    """The recipe that a constructed organism starts from; none for one that is trained."""
    base = yaml.safe_load(Path(recipe).read_text()).get("base")
    return [] if base is None else [os.path.relpath(Path(recipe).parent / base)]


def trained_base(model):
    """The folder of a constructed organism's base, where the study trains that of the same seed."""
    facts = PLAN.trained[model]
    wanted = [(recipe, facts["seed"]) for recipe in base_recipe(facts["recipe"])]
    return [
        f"{RESULTS}/organisms/{name}"
        for name, own in PLAN.trained.items()
        if (os.path.relpath(own["recipe"]), own["seed"]) in wanted
    ]


def writer_files():
    """Files of the checkpoint that writers are compared on."""
    return sorted(str(p) for p in Path(PLAN.config["writers"]).glob("*") if p.is_file())


def endpoint_tables():
    """Paths of the tables of all endpoints."""
    return [f"{RESULTS}/endpoints/{e['id']}/endpoints.parquet" for e in PLAN.config["endpoints"]]


def endpoint(wildcards):
    """The entry of an endpoint in the configuration."""
    return next(e for e in PLAN.config["endpoints"] if e["id"] == wildcards.endpoint)


def model_tables(model):
    """Everything that the cells of one model make."""
    paths = []
    for stage, names in studies.STAGE_TABLES.items():
        for cell in PLAN.running(stage, model):
            own = {"intervene": PLAN.designs(cell), "survey": PLAN.config["survey"]}
            paths += [
                f"{RESULTS}/{cell.name}/{stage}/{name}.parquet" for name in own.get(stage, names)
            ]
    return paths


def published_files():
    """The figures of the sources, relative to where the run starts."""
    folder = Path(workflow.basedir, "resources/published")
    return sorted(os.path.relpath(p) for p in folder.glob("*.tsv"))


def template_files():
    """Files of the report's template, relative to where the run starts."""
    folder = Path(workflow.basedir, "workflow/report")
    return sorted(os.path.relpath(p) for p in folder.rglob("*") if p.is_file())


def place(path):
    """Where a result lies: the path, or its address in a bucket."""
    found = workflow.inputfile(path)
    return found.storage_object.print_query if found.is_storage else path


onstart:
    sweep()  # what killed jobs left in the temporary directory
    print(planning.short(PLAN), file=sys.stderr)


onsuccess:
    print(f"Report: {place(f'reports/{STUDY}/index.html')}", file=sys.stderr)
    if PLAN.trained and os.path.exists(workflow.inputfile(f"{RESULTS}/calibrate.log")):
        for name in ("calibrate", "claims"):
            print(
                Path(workflow.inputfile(f"{RESULTS}/{name}.log")).read_text(), file=sys.stderr
            )
