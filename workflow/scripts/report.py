"""The report of a study."""

from pathlib import Path

from phasescope.jobs import job
from phasescope.report import build

with job(snakemake):
    build(Path(snakemake.input.config).parent, Path(snakemake.output[0]))
