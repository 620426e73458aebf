"""Make one cell's weights."""

import json
from dataclasses import asdict
from pathlib import Path

from phasescope.checkpoint import fetch, quantize, verify
from phasescope.jobs import job
from phasescope.tables import atomic_file
from phasescope.tables.scratch import load_facts

with job(snakemake):
    destination = Path(snakemake.output.folder)
    bits, group_size = int(snakemake.wildcards.precision), snakemake.params.settings["group_size"]
    if snakemake.params.ready_made:
        repo, _, revision = snakemake.params.ready_made.partition("@")
        found = fetch(destination, repo=repo, revision=revision or None)
        facts = asdict(found) | {"weights_from": f"third-party {repo}", "third_party": True}
    else:
        source = load_facts(snakemake.input.facts)
        verify(Path(snakemake.input.folder), source)
        sha256 = quantize(Path(snakemake.input.folder), destination, bits, group_size)
        recipe = "passed through" if bits == 16 else f"mlx-lm affine {bits} bit, group {group_size}"
        facts = {"revision": source["revision"], "sha256": sha256, "weights_from": recipe}
    with atomic_file(Path(snakemake.output.facts)) as path:
        path.write_text(json.dumps(facts, indent=1) + "\n")
