"""The one writer and the one reader of tables."""

import os
import stat

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import phasescope
from phasescope.errors import Damaged, NotRun, PhasescopeError
from phasescope.tables import (
    SCHEMAS,
    atomic_folder,
    frame_of,
    read,
    read_provenance,
    read_rows,
    read_table,
    store,
    write_table,
)
from phasescope.tables.scratch import load_scratch, save_scratch

ROW = {
    "model": "m",
    "precision": "8",
    "site": "residual",
    "layer": 3,
    "layer_kind": "attention",
    "position": "last_prompt",
    "statistic": "auroc",
    "estimate": 0.1 + 0.2,
    "ci_low": None,
    "ci_high": float("inf"),
    "n": 2**40,
}
PROVENANCE = {"seed": "0", "blas": "naïve"}


@pytest.fixture
def frame():
    return frame_of("probes", [ROW, ROW | {"layer": 4}])


def test_values_types_and_provenance_come_back(tmp_path, frame):
    """If it failed, the report would not show what was measured."""
    write_table(tmp_path / "new" / "t.parquet", frame, "probes", PROVENANCE)
    found = read_table(tmp_path / "new" / "t.parquet")
    pd.testing.assert_frame_equal(found, frame)
    assert found["estimate"][0] == 0.1 + 0.2 and np.isnan(found["ci_low"][0])
    assert found["n"].tolist() == [2**40] * 2 and found["ci_high"][0] == np.inf
    schema = pq.read_schema(tmp_path / "new" / "t.parquet")
    assert schema.names == [c.name for c in SCHEMAS["probes"]]
    assert schema.types == [c.type for c in SCHEMAS["probes"]]
    assert schema.field("estimate").metadata[b"description"]
    assert read_provenance(tmp_path / "new" / "t.parquet") == PROVENANCE | {"table": "probes"}


@pytest.mark.parametrize("table", SCHEMAS)
def test_every_table_may_be_empty(tmp_path, table):
    """If it failed, a study in which nothing ran would have no tables."""
    write_table(tmp_path / "t.parquet", frame_of(table, []), table, {})
    assert list(read_table(tmp_path / "t.parquet").columns) == [c.name for c in SCHEMAS[table]]


def test_missing_counts_stay_missing(tmp_path):
    """If it failed, `no shams` would be read as `0 shams`."""
    rows = [{"model": "m", "precision": "4", "phase": "none", "thresholds_sha256": "x"}]
    rows.append(rows[0] | {"n_shams": 20})
    write_table(tmp_path / "t.parquet", frame_of("phases", rows), "phases", {})
    found = read_table(tmp_path / "t.parquet")["n_shams"]
    assert np.isnan(found[0]) and found[1] == 20


VIOLATIONS = {
    "value not allowed": (
        lambda f: f.assign(precision=["8", "5"]),
        r"row 1, column precision: found '5'; allowed: 16, 8, 4",
    ),
    "empty": (lambda f: f.assign(layer=[1, None]), r"row 1, column layer: empty, but required"),
    "column missing": (
        lambda f: f.drop(columns="n"),
        r"missing \['n'\].*allowed.*model, prec",
    ),
    "column unknown": (lambda f: f.assign(extra=1), r"unknown \['extra'\]"),
    "other order": (lambda f: f[f.columns[::-1]], r"in this order: model"),
    "half a count": (lambda f: f.assign(n=[1, 2.5]), r"column n\b"),
    "text for a number": (lambda f: f.assign(estimate="high"), r"column estimate\b"),
    "number for a text": (lambda f: f.assign(model=[1, 2]), r"column model\b"),
}


@pytest.mark.parametrize("fault", VIOLATIONS)
def test_violations_are_named_and_nothing_is_written(tmp_path, frame, fault):
    """If it failed, a wrong table would be found by whoever reads the report."""
    change, message = VIOLATIONS[fault]
    with pytest.raises(PhasescopeError, match=message) as caught:
        write_table(tmp_path / "t.parquet", change(frame), "probes", {})
    assert "t.parquet (probes): " in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_rows_are_counted_not_labeled(tmp_path, frame):
    """If it failed, the message would name a row that the file does not have."""
    other = frame.assign(precision=["8", "5"]).set_index(pd.Index([7, 9]))
    with pytest.raises(PhasescopeError, match="row 1, column precision"):
        write_table(tmp_path / "t.parquet", other, "probes", {})


def test_frame_of_refuses_what_is_not_declared():
    """If it failed, a measured column could get lost on the way to its table."""
    with pytest.raises(PhasescopeError, match=r"table probes: unknown columns \['auroc'\]"):
        frame_of("probes", [ROW | {"auroc": 1}])
    with pytest.raises(PhasescopeError, match=r"table probes: column n\b.*many"):
        frame_of("probes", [ROW | {"n": "many"}])


@pytest.mark.parametrize("before", [None, b"the table of an earlier run"])
def test_a_full_disk_leaves_the_old_or_nothing(tmp_path, frame, monkeypatch, before):
    """If it failed, half a table would pass for a whole one."""
    path = tmp_path / "t.parquet"
    if before:
        path.write_bytes(before)

    def fills(table, where):
        where.write_bytes(b"PAR1 half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.pq, "write_table", fills)
    with pytest.raises(OSError, match="No space left"):
        write_table(path, frame, "probes", {})
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([before] if before else [])


def test_a_failed_folder_leaves_the_old_one(tmp_path):
    """If it failed, a failed quantization would replace a good one by half of it."""
    for content in ("old", "new"):
        with atomic_folder(tmp_path / "f") as folder:
            folder.mkdir()
            (folder / "a").write_text(content)
    assert (tmp_path / "f" / "a").read_text() == "new"
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "f") as folder:
        folder.mkdir()
        raise ZeroDivisionError
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f" / "a").read_text() == "new"


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_tables_follow_the_umask(tmp_path, frame, umask):
    """If it failed, colleagues could not read the results, or strangers could."""
    before = os.umask(umask)
    try:
        write_table(tmp_path / "t.parquet", frame, "probes", {})
        with atomic_folder(tmp_path / "f") as folder:
            folder.mkdir()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "t.parquet").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o777 & ~umask


def test_rows_that_are_asked_for_come_alone(tmp_path, frame):
    """If it failed, a page of one model would hold a table of millions of rows in memory."""
    path = tmp_path / "t"
    write_table(path, frame, "probes", PROVENANCE)
    pd.testing.assert_frame_equal(
        read_rows(path, pc.field("layer") == 4), frame[1:].reset_index(drop=True)
    )
    assert list(read_rows(path, pc.field("model") == "'; none").columns) == list(frame.columns)
    pq.write_table(pa.table({"layer": [4]}), path)
    with pytest.raises(Damaged, match="columns do not follow"):
        read_rows(path, pc.field("layer") == 4)
    path.write_bytes(b"PAR1")
    with pytest.raises(Damaged, match="not a readable Parquet table"):
        read_rows(path, pc.field("layer") == 4)


def test_same_table_same_bytes(tmp_path, frame):
    """If it failed, a rerun could not be compared with the run before."""
    for name, provenance in (("a", PROVENANCE), ("b", dict(reversed(PROVENANCE.items())))):
        write_table(tmp_path / name, frame, "probes", provenance)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_read_gives_all_tables_of_a_study(tmp_path, frame, monkeypatch):
    """If it failed, `phasescope.read` would not give what was measured."""
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "results/mine/probes.parquet", frame, "probes", {})
    for study in ("mine", tmp_path / "results" / "mine"):
        found = phasescope.read(study)
        assert list(found) == ["probes"] and len(found["probes"]) == 2


def test_a_missing_study_says_which_exist(tmp_path, frame, monkeypatch):
    """If it failed, a typing error in a study's name would end in a riddle."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PhasescopeError, match=r"results/other: no tables.*results/: none"):
        read("other")
    for name in ("mine", "yours"):
        write_table(tmp_path / f"results/{name}/probes.parquet", frame, "probes", {})
    with pytest.raises(PhasescopeError, match=r"studies in results/: mine, yours"):
        read("other")


def test_files_that_are_no_tables(tmp_path, frame):
    """If it failed, a damaged or foreign file would be read as results."""
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    write_table(tmp_path / "old.parquet", frame, "probes", {})
    arrow = pq.read_table(tmp_path / "old.parquet").drop_columns(["n"])
    pq.write_table(arrow, tmp_path / "changed.parquet")
    metadata = {k: v for k, v in arrow.schema.metadata.items() if not k.endswith(b":sha256")}
    pq.write_table(arrow.replace_schema_metadata(metadata), tmp_path / "old.parquet")
    for name, message in (
        ("bad", "not a readable Parquet table"),
        ("none", "not a readable Parquet table"),
        ("other", r"not a table of this instrument.*None.*probes"),
        ("changed", "not the table that was written"),
        ("old", r"old\.parquet \(probes\): columns do not follow the schema: missing \['n'\]"),
    ):
        with pytest.raises(PhasescopeError, match=message):
            read_table(tmp_path / f"{name}.parquet")


def test_scratch_passes_a_value_or_the_reason(tmp_path):
    """If it failed, a design would run on nothing, or not say why it did not run."""
    save_scratch(tmp_path / "s" / "a.json", {"x": [1, 2]})
    assert load_scratch(tmp_path / "s" / "a.json") == {"x": [1, 2]}
    save_scratch(tmp_path / "s" / "a.json", NotRun("too few"))
    with pytest.raises(NotRun, match="too few"):
        load_scratch(tmp_path / "s" / "a.json")
