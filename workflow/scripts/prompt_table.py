"""A public benchmark or corpus as a prompt table."""

from pathlib import Path

from phasescope.jobs import job
from phasescope.prompts import TableSource, make_table

with job(snakemake):
    source = TableSource(**snakemake.params.source)
    make_table(source, Path(snakemake.output.table), Path(snakemake.output.facts))
