"""Join the tables of all cells, count their answers, say of each cell what ran and what did not."""

from itertools import groupby
from pathlib import Path

import pandas as pd
import yaml

from phasescope.comparisons import adjusted, behavior_rates, paired_changes
from phasescope.graders.agreement import agreement_rows
from phasescope.jobs import job, provenance
from phasescope.prompts import MAIN, USES, read_prompts
from phasescope.study import SURVEYS
from phasescope.tables import (
    atomic_file,
    frame_of,
    join_tables,
    read_provenance,
    read_table,
    write_table,
)
from phasescope.tables.columns import LABELS
from phasescope.tables.interventions import not_run_row
from phasescope.tables.scratch import load_facts

JOINED = (
    "audit",
    "tensors",
    "probes",
    "selection",
    "interventions",
    "coherence",
    "behavior",
    "calibration_sets",
    "survival",
    *SURVEYS,
    "endpoints",
)
# made by jobs that run the model, one batch after the other
BATCHED = ("probes", "selection", "interventions", "coherence", "calibration_sets", *SURVEYS)


def by_model(paths):
    """The answers of one model after the other: what is compared is answers of one model."""
    for _, own in groupby(paths, key=lambda path: Path(path).parts[-4]):
        yield pd.concat([read_table(Path(path)) for path in own], ignore_index=True)


class Counted:
    """What is counted of the answers of all cells."""

    def __init__(self, judge_errors):
        self.judge_errors = judge_errors
        self.rates, self.changes, self.agreement = [], [], []

    def add(self, answers):
        """Count the answers of a model."""
        self.rates += behavior_rates(answers)
        self.changes += paired_changes(answers)
        self.agreement += agreement_rows(answers, self.judge_errors)

    def tables(self):
        """Rows by table."""
        changes = adjusted(self.changes)
        return {
            "behavior_rates": self.rates,
            "behavior_changes": changes,
            "agreement": self.agreement,
        }


def prompt_rows(records, read):
    """The planned record of each prompt table with what is in it; `read`: those that were asked."""
    tables = {path: read_prompts(path, paired=False) for path in read}
    for record in records:
        found, use = tables.get(record.pop("path")), record["prompt_table"]
        if found:
            kept = found if use == MAIN else USES[use].keep(found)
            labels = kept.frame.loc[kept.frame["split"] == "evaluate", "label"]
            record |= {f"n_{label}": int((labels == label).sum()) for label in LABELS}
            record |= {"sha256": found.sha256, "language": found.language}
        elif record["status"] == "run":
            record |= {"status": "not_run", "reason": "none of the model's cells runs"}
        yield record


def dropped_rows(records):
    """Rows of `interventions` that say why a design was left out."""
    for r in records:
        keys = {"model": r["model"], "precision": r["precision"]}
        yield keys | not_run_row(r["design"], r["reason"])


def cell_rows(records, checkpoints, tables):
    """The planned record of each cell with what its weights were, what type they ran in, and in
    which batches."""
    facts = {tuple(Path(p).parts[-4:-2]): load_facts(p) for p in checkpoints}
    dtypes, batches = {}, {}
    for path in tables:
        key, found = tuple(Path(path).parts[-4:-2]), read_provenance(path)
        dtypes[key] = found["compute_dtype"]
        batches.setdefault(key, []).append(int(found["batch_size"]))
    for record in records:
        key = (record["model"], record["precision"])
        found = facts.get(key, {})
        yield record | {
            "compute_dtype": dtypes.get(key),
            "batch_size": min(batches.get(key, []), default=None),
            "weights_from": found.get("weights_from"),
            "revision": found.get("revision"),
            "checkpoint_sha256": found.get("sha256"),
        }


with job(snakemake):
    config = dict(snakemake.params.config)
    where = provenance(config, study=config["study"], seed=str(config["seed"]))
    tables = [path for name in BATCHED for path in snakemake.input.get(name)]
    rows = list(cell_rows(snakemake.params.cells, snakemake.input.checkpoints, tables))
    write_table(Path(snakemake.output.cells), frame_of("cells", rows), "cells", where)
    rows = list(prompt_rows(snakemake.params.prompts, snakemake.input.prompts))
    path = Path(snakemake.output.prompt_tables)
    write_table(path, frame_of("prompt_tables", rows), "prompt_tables", where)
    for name in JOINED:
        more = list(dropped_rows(snakemake.params.dropped)) if name == "interventions" else []
        output = Path(snakemake.output.get(name))
        join_tables(snakemake.input.get(name), output, name, where, more)
    counted = Counted(snakemake.params.judge_errors)
    for answers in by_model(snakemake.input.behavior):
        counted.add(answers)
    for name, rows in counted.tables().items():
        write_table(Path(snakemake.output.get(name)), frame_of(name, rows), name, where)
    with atomic_file(Path(snakemake.output.config)) as path:
        path.write_text(yaml.safe_dump(config, sort_keys=True, allow_unicode=True))
