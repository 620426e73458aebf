"""The figures of a study's report, for a paper."""

from pathlib import Path

from phasescope.jobs import job
from phasescope.report import write_figures

with job(snakemake):
    write_figures(Path(snakemake.input.config).parent, Path(snakemake.output[0]))
