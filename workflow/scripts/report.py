"""The report of a study, and its figures for a paper."""

from pathlib import Path

from phasescope.jobs import job
from phasescope.report import build

with job(snakemake):
    page, figures = snakemake.output.page, snakemake.output.figures
    build(Path(snakemake.input.config).parent, Path(page), figures=Path(figures))
