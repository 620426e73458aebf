"""The phase of every cell of the study."""

from pathlib import Path

from phasescope.jobs import job, provenance
from phasescope.phases import classify, graded, not_run
from phasescope.tables import frame_of, read_table, write_table
from phasescope.tables.provenance import sha256_file
from phasescope.thresholds import read_thresholds

with job(snakemake):
    seed = snakemake.params.settings["seed"]
    thresholds = read_thresholds(snakemake.input.thresholds)
    version = sha256_file(Path(snakemake.input.thresholds))
    interventions = read_table(Path(snakemake.input.interventions))
    by_cell = dict(list(interventions.groupby(["model", "precision"], sort=False)))
    rows = []
    for cell in read_table(Path(snakemake.input.cells)).itertuples():
        own = by_cell.get((cell.model, cell.precision), interventions.iloc[:0])
        found = classify(own, thresholds, seed) if len(own) else not_run(cell.reason)
        found = graded(found, *snakemake.params.grading.get(cell.model, (None, None)))
        keys = {"model": cell.model, "precision": cell.precision}
        rows.append(keys | found | {"thresholds_sha256": version})
    write_table(
        Path(snakemake.output.table),
        frame_of("phases", rows),
        "phases",
        provenance({"seed": seed}, seed=str(seed), thresholds_sha256=version),
    )
