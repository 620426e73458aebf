"""Link one model's checkpoint into the study."""

import json
from dataclasses import asdict
from pathlib import Path

from phasescope.checkpoint import fetch
from phasescope.jobs import job
from phasescope.tables import atomic_file

with job(snakemake):
    found = fetch(Path(snakemake.output.folder), **snakemake.params.source)
    with atomic_file(Path(snakemake.output.facts)) as path:
        path.write_text(json.dumps(asdict(found), indent=1) + "\n")
