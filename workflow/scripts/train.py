"""Train one organism from its recipe and seed."""

from phasescope.jobs import job
from phasescope.train import train

with job(snakemake):
    given, bases = snakemake.input, list(snakemake.input.base)
    train(
        given.recipe, snakemake.output[0], snakemake.params.seed, base=bases[0] if bases else None
    )
