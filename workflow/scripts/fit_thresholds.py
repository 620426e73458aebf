"""Thresholds fitted on some of the study's own organisms, reported on the others."""

from pathlib import Path

from phasescope.jobs import job, provenance
from phasescope.phases import fit_thresholds
from phasescope.tables import frame_of, read_table, write_table
from phasescope.tables.provenance import sha256_file
from phasescope.thresholds import read_thresholds

with job(snakemake):
    seed = snakemake.params.settings["seed"]
    trained = {name: dict(facts) for name, facts in snakemake.params.trained.items()}
    rows = fit_thresholds(
        read_table(Path(snakemake.input.interventions)),
        trained,
        read_thresholds(snakemake.input.thresholds),
        seed,
    )
    write_table(
        Path(snakemake.output.table),
        frame_of("threshold_fit", rows),
        "threshold_fit",
        provenance(
            {"trained": trained, "seed": seed},
            seed=str(seed),
            thresholds_sha256=sha256_file(Path(snakemake.input.thresholds)),
        ),
    )
