"""Join the tables of all cells, and say of each cell what ran and what did not."""

import json
from pathlib import Path

import pandas as pd
import yaml

from phasescope.graders.agreement import agreement_rows
from phasescope.jobs import job, provenance
from phasescope.tables import atomic_file, frame_of, read_provenance, read_table, write_table

JOINED = (
    "audit",
    "tensors",
    "probes",
    "selection",
    "interventions",
    "coherence",
    "behavior",
    "calibration_sets",
    "endpoints",
)


def cell_rows(records, checkpoints, tables):
    """The planned record of each cell with what its weights were and what type they ran in."""
    facts = {tuple(Path(p).parts[-4:-2]): json.loads(Path(p).read_text()) for p in checkpoints}
    dtypes = {tuple(Path(p).parts[-4:-2]): read_provenance(p)["compute_dtype"] for p in tables}
    for record in records:
        key = (record["model"], record["precision"])
        found = facts.get(key, {})
        yield record | {
            "compute_dtype": dtypes.get(key),
            "weights_from": found.get("weights_from"),
            "revision": found.get("revision"),
            "checkpoint_sha256": found.get("sha256"),
        }


with job(snakemake):
    config = dict(snakemake.params.config)
    where = provenance(config, study=config["study"], seed=str(config["seed"]))
    rows = list(
        cell_rows(snakemake.params.cells, snakemake.input.checkpoints, snakemake.input.probes)
    )
    write_table(Path(snakemake.output.cells), frame_of("cells", rows), "cells", where)
    for name in JOINED:
        frames = [read_table(Path(p)) for p in snakemake.input.get(name)]
        frame = pd.concat(frames, ignore_index=True) if frames else frame_of(name, [])
        write_table(Path(snakemake.output.get(name)), frame, name, where)
        if name == "behavior":
            rows = agreement_rows(frame, snakemake.params.judge_errors)
            table = frame_of("agreement", rows)
            write_table(Path(snakemake.output.agreement), table, "agreement", where)
    with atomic_file(Path(snakemake.output.config)) as path:
        path.write_text(yaml.safe_dump(config, sort_keys=True, allow_unicode=True))
