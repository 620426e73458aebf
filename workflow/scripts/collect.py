"""Join the tables of all cells, count their answers, say of each cell what ran and what did not."""

from pathlib import Path

import pandas as pd
import yaml

from phasescope.comparisons import adjusted, behavior_rates, paired_changes
from phasescope.graders.agreement import agreement_rows
from phasescope.jobs import job, provenance
from phasescope.prompts import MAIN, USES, read_prompts
from phasescope.study import COUNTED_TABLES, JOINED_TABLES, SURVEYS
from phasescope.tables import (
    atomic_file,
    frame_of,
    join_tables,
    read_parts,
    write_table,
)
from phasescope.tables.columns import LABELS
from phasescope.tables.interventions import not_run_row
from phasescope.tables.scratch import load_facts

# made by jobs that run the model, one batch after the other
BATCHED = ("probes", "selection", "interventions", "coherence", "calibration_sets", *SURVEYS)


def counted(behavior, judge_errors):
    """Tables of what is counted of the answers of all cells, by name; what is compared is answers
    of one model."""
    parts = [
        {
            "behavior_rates": behavior_rates(answers),
            "behavior_changes": paired_changes(answers),
            "agreement": frame_of("agreement", agreement_rows(answers, judge_errors)),
        }
        for answers in read_parts(Path(behavior), by="model")
    ]
    empty = {name: frame_of(name, []) for name in COUNTED_TABLES}
    found = {name: pd.concat([part[name] for part in parts or [empty]]) for name in COUNTED_TABLES}
    return found | {"behavior_changes": adjusted(found["behavior_changes"])}


def prompt_rows(records, asked):
    """The planned record of each prompt table with what is in it; `asked`: where those lie that
    were asked, by their planned paths (in a bucket's copy they differ)."""
    tables = {planned: read_prompts(path, paired=False) for planned, path in asked.items()}
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


def cell_rows(records, checkpoints, found):
    """The planned record of each cell with what its weights were, what type they ran in, and in
    which batches; `found`: provenance of the cell's tables, by their paths."""
    facts = {tuple(Path(p).parts[-4:-2]): load_facts(p) for p in checkpoints}
    dtypes, batches = {}, {}
    for path, where in found.items():
        key = tuple(Path(path).parts[-4:-2])
        dtypes[key] = where["compute_dtype"]
        batches.setdefault(key, []).append(int(where["batch_size"]))
    for record in records:
        key = (record["model"], record["precision"])
        weights = facts.get(key, {})
        yield record | {
            "compute_dtype": dtypes.get(key),
            "batch_size": min(batches.get(key, []), default=None),
            "weights_from": weights.get("weights_from"),
            "revision": weights.get("revision"),
            "checkpoint_sha256": weights.get("sha256"),
        }


with job(snakemake):
    config = dict(snakemake.params.config)
    where = provenance(config, study=config["study"], seed=str(config["seed"]))
    asked = dict(zip(snakemake.params.asked, snakemake.input.prompts, strict=True))
    rows = list(prompt_rows(snakemake.params.prompts, asked))
    path = Path(snakemake.output.prompt_tables)
    write_table(path, frame_of("prompt_tables", rows), "prompt_tables", where)
    found = {}
    for name in JOINED_TABLES:
        more = list(dropped_rows(snakemake.params.dropped)) if name == "interventions" else []
        paths, output = snakemake.input.get(name), Path(snakemake.output.get(name))
        joined = join_tables(paths, output, name, where, more)
        if name in BATCHED:
            found |= dict(zip(paths, joined, strict=True))
    rows = list(cell_rows(snakemake.params.cells, snakemake.input.checkpoints, found))
    write_table(Path(snakemake.output.cells), frame_of("cells", rows), "cells", where)
    tables = counted(snakemake.output.behavior, snakemake.params.judge_errors)
    for name, table in tables.items():
        write_table(Path(snakemake.output.get(name)), table, name, where)
    with atomic_file(Path(snakemake.output.config)) as path:
        path.write_text(yaml.safe_dump(config, sort_keys=True, allow_unicode=True))
