"""Rates of the study's models compared with each other, beside those that were published."""

from pathlib import Path

from phasescope.comparisons import measured_comparisons, published_comparisons
from phasescope.jobs import job, provenance
from phasescope.tables import frame_of, read_table, write_table
from phasescope.tables.provenance import sha256_file
from phasescope.thresholds import read_thresholds

with job(snakemake):
    thresholds = read_thresholds(snakemake.input.thresholds)["across_models"]
    cells, rates = (read_table(Path(snakemake.input[name])) for name in ("cells", "rates"))
    rows = measured_comparisons(cells, rates, thresholds) + published_comparisons(thresholds)
    write_table(
        Path(snakemake.output.table),
        frame_of("across_models", rows),
        "across_models",
        provenance({}, thresholds_sha256=sha256_file(Path(snakemake.input.thresholds))),
    )
