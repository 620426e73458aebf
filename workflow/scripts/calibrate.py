"""Verdicts on the study's own organisms beside what was planted."""

import json
from pathlib import Path

from phasescope.jobs import job, provenance
from phasescope.phases import beside_truth, calibration_summary, in_words, to_run
from phasescope.tables import frame_of, read_table, write_table
from phasescope.train import held_out

with job(snakemake):
    trained = {name: dict(facts) for name, facts in snakemake.params.trained.items()}
    for folder in map(Path, snakemake.input.organisms):
        sheet = json.loads((folder / "organism.json").read_text())
        # of constructed organisms the trainer measures no interventions
        seen = None if "change" in sheet else held_out(sheet["shares"])
        trained[folder.name]["held_out"] = seen
    phases, cells = (read_table(Path(snakemake.input[name])) for name in ("phases", "cells"))
    rows = beside_truth(to_run(phases, cells), trained)
    found = frame_of("calibration", rows)
    summary = frame_of("calibration_summary", calibration_summary(found))
    where = provenance({"trained": trained})
    write_table(Path(snakemake.output.table), found, "calibration", where)
    write_table(Path(snakemake.output.summary), summary, "calibration_summary", where)
    print(in_words(summary))
