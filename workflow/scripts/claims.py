"""Verdicts on the claims of the sources."""

from pathlib import Path

from phasescope import claims
from phasescope.jobs import job, provenance
from phasescope.tables import frame_of, read_table, write_table
from phasescope.tables.provenance import sha256_file
from phasescope.thresholds import read_thresholds

with job(snakemake):
    thresholds = read_thresholds(snakemake.input.thresholds)
    version = sha256_file(Path(snakemake.input.thresholds))
    tables = {Path(p).stem: read_table(Path(p)) for p in snakemake.input.tables}
    organisms = {m: dict(facts) for m, facts in snakemake.params.organisms.items()}
    found = claims.judged(tables, thresholds)
    trained = "calibration" in dict(snakemake.output.items())
    triples = claims.claim_calibration(tables, thresholds, found, organisms, simulate=trained)
    own = claims.counted(triples, thresholds, f"study {snakemake.params.study}")
    lines = claims.known(own, claims.read_record(Path(snakemake.input.record)), thresholds)
    rows = claims.under_control(found, lines, thresholds, dict(snakemake.params.grading))
    rows = [row | {"thresholds_sha256": version} for row in rows]
    where = provenance({"organisms": organisms}, thresholds_sha256=version)
    write_table(Path(snakemake.output.table), frame_of("claims", rows), "claims", where)
    if trained:
        frame = frame_of("calibration_claims", triples)
        write_table(Path(snakemake.output.calibration), frame, "calibration_claims", where)
    print(claims.in_words(lines, thresholds))
