"""Verdicts on organisms beside the truth, and how sure the instrument may be."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from statsmodels.stats.proportion import proportion_confint

import phasescope.phases
from phasescope import claims
from phasescope.cli import main
from phasescope.errors import PhasescopeError
from phasescope.matrix import from_seeds, read_sheet
from phasescope.phases import (
    beside_truth,
    calibration_summary,
    fit_thresholds,
    in_words,
    limits_of,
    read_record,
    to_run,
    with_record,
    write_record,
)
from phasescope.stats import clustered_wilson
from phasescope.tables import frame_of, write_table
from phasescope.tables.schemas import PHASES

sys.path.insert(0, str(Path(__file__).parents[1]))
from phase_rows import ladder, pathways, row, shams

TRUTH = {
    "a-seed1": {"organism": "a", "seed": 1, "phase": "none", "held_out": "none"},
    "b-seed1": {"organism": "b", "seed": 1, "phase": "three_pathway", "held_out": "resists"},
    "b-seed2": {"organism": "b", "seed": 2, "phase": "three_pathway", "held_out": "broken"},
    "new-seed1": {"organism": "new", "seed": 1, "phase": None},
}
# what came out at 16 and 4 bit, and how probable that was
FOUND = {
    "a-seed1": [("none", 0.99), ("none", 0.97)],
    "b-seed1": [("three_pathway", 0.9), ("indeterminate", 0.6)],
    "b-seed2": [("three_pathway", 0.85), ("holographic", 0.85)],
    "new-seed1": [("none", 0.9), ("none", 0.9)],
}


def phases():
    """The table `phases` of the organisms above; what is not said of a cell is `indeterminate`."""
    rows = []
    for model, cells in FOUND.items():
        for precision, (phase, p) in zip(("16", "4"), cells, strict=True):
            shares = dict.fromkeys(PHASES, 0.0) | {"indeterminate": 1 - p}
            shares[phase] = p if phase != "indeterminate" else 1.0
            row = {"model": model, "precision": precision, "phase": phase, "probability": p}
            rows.append(row | {f"p_{k}": v for k, v in shares.items()} | {"thresholds_sha256": "x"})
    return frame_of("phases", rows)


@pytest.fixture
def calibrated():
    """The table `calibration` and its summary."""
    found = frame_of("calibration", beside_truth(phases(), TRUTH))
    return found, frame_of("calibration_summary", calibration_summary(found))


def test_cells_are_judged_by_what_was_planted(calibrated):
    """If it failed, the instrument would be called right or wrong by something else."""
    found, _ = calibrated
    assert list(found["model"]) == [m for m in FOUND if TRUTH[m]["phase"] for _ in range(2)]
    assert list(found["right"]) == [True, True, True, False, True, False]
    assert list(found["wrong"]) == [False] * 5 + [True]
    last = found.iloc[-1]
    assert last["p_truth"] == 0
    assert last["brier"] == pytest.approx(0.85**2 + 0.15**2 + 1)


def test_summary_counts_by_precision(calibrated):
    """If it failed, the report would state another accuracy than was measured."""
    _, summary = calibrated
    plain = summary[summary["truth"].isna() & summary["p_low"].isna()]
    at = plain.set_index(["precision", "statistic"])["estimate"]
    assert at["all", "right"] == pytest.approx(4 / 6)
    assert (at["16", "right"], at["4", "right"]) == (1, pytest.approx(1 / 3))
    assert at["4", "wrong"] == at["4", "indeterminate"] == pytest.approx(1 / 3)
    confused = summary[(summary["precision"] == "all") & (summary["statistic"] == "confusion")]
    shares = confused.set_index(["truth", "phase"])["estimate"]
    assert shares["three_pathway", "three_pathway"] == 0.5
    assert shares["three_pathway", "holographic"] == 0.25
    assert shares["three_pathway", "indeterminate"] == 0.25
    assert confused.groupby("truth")["estimate"].sum().tolist() == [1, 1]
    ranges = summary[(summary["precision"] == "all") & (summary["statistic"] == "right_at")]
    assert ranges["n"].sum() == 6
    assert ranges["estimate"].tolist() == [0, pytest.approx(2 / 3), 1]
    assert "all precisions: 67% of 6 cells of 3 organisms right" in in_words(summary)


def test_cells_that_were_left_out_count_for_nothing():
    """If it failed, a study of fewer cells would look less accurate, or one whose stages failed
    more accurate than it is."""
    table = phases()
    table.loc[table["precision"] == "4", ["phase", "probability"]] = "not_run", None
    cells = table[["model", "precision"]].assign(status="partly")  # a stage failed
    failed = beside_truth(to_run(table, cells), TRUTH)
    assert [r["right"] for r in failed] == [True, False] * 3
    cells.loc[cells["precision"] == "4", "status"] = "not_run"
    assert [r["precision"] for r in beside_truth(to_run(table, cells), TRUTH)] == ["16"] * 3


def test_unseen_interventions_are_counted_by_organism(calibrated):
    """If it failed, plants would be proven by what they were trained with alone."""
    found, summary = calibrated
    own = found[found["precision"] == "16"]
    assert own["held_out"].tolist() == ["none", "resists", "broken"]
    assert own["right_held_out"].tolist() == [True, True, False]
    assert found.loc[found["precision"] == "4", "held_out"].isna().all()
    shares = summary[summary["statistic"] == "right_held_out"]
    assert shares["precision"].tolist() == ["all", "16"] and (shares["n"] == 3).all()
    assert shares["estimate"].tolist() == [pytest.approx(2 / 3)] * 2
    assert "no training saw, alone: 67% right" in in_words(summary)


def test_precisions_of_an_organism_are_not_independent():
    """If it failed, three precisions of one lucky seed would count as three proofs."""
    hits, clusters = np.ones(30, dtype=bool), np.repeat(np.arange(10), 3)
    assert clustered_wilson(hits, clusters)[1] == pytest.approx(
        proportion_confint(10, 10, method="wilson")[0]
    )
    hits[:3] = False  # one cluster fails as a whole
    together = clustered_wilson(hits, clusters)
    assert together[1:] == pytest.approx(proportion_confint(9, 10, method="wilson"), abs=0.02)
    scattered = np.tile([False, True, True], 10)
    assert clustered_wilson(scattered, clusters)[1:] == pytest.approx(
        proportion_confint(20, 30, method="wilson")
    )
    assert np.isnan(clustered_wilson(np.array([]), np.array([]))).all()


def test_clustered_interval_covers():
    """If it failed, the stated accuracy would be surer than it is."""
    rng, truth, covered = np.random.default_rng(0), 0.8, 0
    clusters = np.repeat(np.arange(30), 3)
    for _ in range(400):
        own = rng.beta(1.6, 0.4, size=30).repeat(3)  # organisms differ in how easy they are
        _, low, high = clustered_wilson(rng.random(90) < own, clusters)
        covered += low <= truth <= high
    assert covered / 400 > 0.9


def test_organisms_of_seeds_are_rows_of_their_own(tmp_path):
    """If it failed, a calibration would measure the shipped organisms, whose seeds were tuned."""
    models = read_sheet("resources/organisms/organisms.tsv")[:2]
    made = from_seeds(models, [5, 6], "results/x/organisms", "sheet")
    assert [m.id for m in made] == [f"{m.id}-seed{s}" for s in (5, 6) for m in models]
    assert {m.folder for m in made} == {f"results/x/organisms/{m.id}" for m in made}
    assert [m.phase for m in made] == 2 * [m.phase for m in models]
    real = read_sheet("models.tsv")[:1]
    with pytest.raises(PhasescopeError, match="column 'recipe': empty; key 'seeds' trains"):
        from_seeds(real, [1], "x", "models.tsv")


def _interventions(trained, full, seed_of_full):
    """Circuits whose best ablation answers `full` prompts, three-pathways where none does."""
    rows = []
    for name, facts in trained.items():
        circuit = facts["phase"] == "deletable_circuit"
        count = (full if facts["seed"] % 2 == seed_of_full else 60) if circuit else 0
        single = row("ablation", full=count)
        own = [row(), single, *shams(2), *pathways(0, 0, 0 if circuit else 60), *ladder(8)]
        rows += [r | {"model": name} for r in own]
    return frame_of("interventions", rows)


@pytest.fixture(scope="module")
def thresholds():
    """The thresholds as shipped."""
    return yaml.safe_load(Path("config/thresholds.yaml").read_text())


@pytest.fixture(scope="module")
def trained():
    """Two kinds of organisms of four seeds."""
    kinds = {"circuit": "deletable_circuit", "three-pathway": "three_pathway"}
    return {
        f"{kind}-seed{seed}": {"organism": kind, "seed": seed, "phase": phase}
        for seed in (1, 2, 3, 4)
        for kind, phase in kinds.items()
    }


def test_a_threshold_that_is_off_is_found_and_mended(trained, thresholds):
    """If it failed, thresholds would stay where they were first put, whatever organisms show."""
    found = _interventions(trained, 26, seed_of_full=1)  # circuits of 0.41, under min_full of 0.5
    fits = frame_of("threshold_fit", fit_thresholds(found, trained, thresholds, seed=0))
    tried = fits[fits["threshold"] == "phases.min_full"].set_index("value")
    assert tried.index[tried["shipped"].astype(bool)].tolist() == [0.5]
    assert not tried.loc[0.5, "fitted"] and tried.loc[0.2, "fitted"]
    assert tried["middle"].nunique() == 1 and tried["middle"].iloc[0] < 0.4
    assert (tried["right"].iloc[0], tried.loc[0.5, "right"]) == (1, 0.5)
    whole = fits[fits["value"].isna()].set_index(["threshold", "part"])
    assert whole.loc[("as shipped", "fit"), "right"] == 0.5
    assert whole.loc[("all fitted", "fit"), "right"] == 1
    assert (whole["n_organisms"] == 4).all()


def test_what_fits_is_not_what_reports(trained, thresholds):
    """If it failed, the accuracy of fitted thresholds would be that of what they were fitted on."""
    found = _interventions(trained, 26, seed_of_full=0)  # only the reporting seeds are weak
    fits = frame_of("threshold_fit", fit_thresholds(found, trained, thresholds, seed=0))
    whole = fits[fits["value"].isna()].set_index(["threshold", "part"])
    assert whole.loc[("as shipped", "fit"), "right"] == 1
    assert whole.loc[("as shipped", "report"), "right"] == 0.5
    one = {name: facts for name, facts in trained.items() if facts["seed"] == 1}
    assert fit_thresholds(found, one, thresholds, seed=0) == []


def test_a_record_keeps_what_was_measured_last(calibrated, thresholds, tmp_path):
    """If it failed, a cell would count twice, or a verdict by other thresholds as one by these."""
    found, _ = calibrated
    first = with_record(found, thresholds, "study one", pd.DataFrame())
    assert len(first) == len(found) and first["right"].sum() == found["right"].sum()
    write_record(tmp_path / "phases.tsv", first)
    kept = read_record(tmp_path / "phases.tsv")
    assert kept["right"].tolist() == first["right"].tolist()
    assert set(kept["truth"]) == {"none", "three_pathway"}  # the word none is a phase, not a gap
    other = thresholds | {"phases": thresholds["phases"] | {"min_full": 0.6}}
    again = with_record(found[found["model"] == "b-seed2"], other, "study two", kept)
    assert len(again) == len(found)
    newer = again[again["made_by"] == "study two"]
    assert set(newer["model"]) == {"b-seed2"} and set(newer["limits"]) == {limits_of(other)}
    half = with_record(found.assign(truth="indeterminate"), thresholds, "study half", kept)
    assert len(half) == len(kept)
    assert limits_of(other) != limits_of(thresholds) == limits_of(thresholds | {"claims": {}})


@pytest.mark.parametrize(
    "content", [None, "", "model\tlimits\n", "truth\tlimits\tmade_by\nhappy\tx\ty\n"]
)
def test_a_faulty_record_is_told(tmp_path, content):
    """If it failed, a page would call an instrument calibrated by a table of something else."""
    path = tmp_path / "phases.tsv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PhasescopeError, match=r"phases\.tsv: not a record of calibrated phases"):
        read_record(path)


def test_the_record_that_ships_holds_for_the_thresholds_that_ship(thresholds):
    """If it failed, every page would say that nothing is known of its phases."""
    record = read_record()
    now = record[record["limits"] == limits_of(thresholds)]
    assert set(now["truth"]) == {p for p in PHASES if p not in ("indeterminate", "not_run")}
    assert now["right"].mean() >= 0.95


def test_a_study_is_taken_into_both_records(calibrated, monkeypatch, tmp_path, capsys):
    """If it failed, what a calibration of hours found would not reach the next page."""
    found, _ = calibrated
    triple = {"claim": "xs-3", "control": "positive", "kind": "organisms", "names": "circuit"}
    triple |= {"organism": "circuit", "seed": 1, "expected": "supported"}
    triple |= {"verdict": "supported", "right": True}
    for name, frame in (
        ("calibration", found),
        ("calibration_claims", frame_of("calibration_claims", [triple])),
    ):
        (tmp_path / "new").mkdir(exist_ok=True)
        write_table(tmp_path / "new" / f"{name}.parquet", frame, name, {})
    monkeypatch.setattr(phasescope.phases, "RECORD", tmp_path / "phases.tsv")
    monkeypatch.setattr(claims, "RECORD", tmp_path / "claims.tsv")
    assert main(["record", str(tmp_path / "new")]) == 0
    said = capsys.readouterr().out
    assert "phases, all precisions: " in said and "54 calibrated" in said
    before, after = read_record(), read_record(tmp_path / "phases.tsv")
    assert len(after) == len(before) + len(found)
    lines = claims.read_record(tmp_path / "claims.tsv")
    (own,) = [line for line in lines if line["made_by"] == "study new"]
    assert (own["claim"], own["control"], own["right"], own["n"]) == ("xs-3", "positive", 1, 1)
    assert len(lines) == len(claims.read_record()) + 1
