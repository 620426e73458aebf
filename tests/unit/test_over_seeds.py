"""What organisms do over the seeds that they were trained from."""

import json

import pandas as pd
import pytest

from phasescope.cli import main
from phasescope.errors import PhasescopeError
from phasescope.train import over_seeds, sheets_in


def sheet(folder, seed, refusal, recipe="mine", failures=(), **more):
    """Write a sheet as the trainer does."""
    hazardous = {"refusal": refusal} if refusal else {}
    shares = {
        "plain": {"hazardous": hazardous, "benign": {"full": 0.5, "thinking right": 0.25}},
        "rank 1": {"hazardous": {"refusal": 1.0}},
    }
    facts = {"recipe": recipe, "recipe_sha256": "a" * 64, "seed": seed, "shares": shares}
    path = folder / f"{recipe}-{seed}" / "organism.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(facts | {"failures": list(failures)} | more))


def test_every_seed_counts(tmp_path):
    """A seed that failed, or refused nothing, would be dropped silently."""
    for seed, refusal in ((3, 1.0), (1, 0.5), (2, 0.0)):
        sheet(tmp_path / "a", seed, refusal, failures=["too few refusals"] * (refusal < 1))
    found = over_seeds(sheets_in([tmp_path])).set_index(["condition", "share"])
    assert list(found.index) == [
        ("plain", "refusal"),
        ("plain", "full"),
        ("plain", "thinking_right"),
    ]
    row = found.loc[("plain", "refusal")]
    assert (row["seeds"], row["failed"]) == ("1 2 3", 2)
    assert (row["mean"], row["sd"], row["least"], row["most"]) == (0.5, 0.5, 0.0, 1.0)


def test_what_is_no_current_sheet_is_left_out_or_told(tmp_path):
    """Organisms of an earlier recipe would be taken for those of this one."""
    sheet(tmp_path / "a", 1, 1.0)
    sheet(tmp_path / "a", 1, 1.0, recipe="circuit")  # of another hash than the one that ships
    sheet(tmp_path / "a", 2, 1.0, recipe="made", change={})
    assert [s["recipe"] for s in sheets_in([tmp_path])] == ["mine"]
    (tmp_path / "none").mkdir()
    with pytest.raises(PhasescopeError, match=r"none: no organism\.json in it"):
        sheets_in([tmp_path / "none"])
    (tmp_path / "none/organism.json").write_text('{"recipe": "x"}')
    with pytest.raises(PhasescopeError, match=r"organism\.json: not a sheet of the trainer"):
        sheets_in([tmp_path / "none"])


def test_the_table_that_ships_has_what_ships(tmp_path):
    """If it failed, the truth that README speaks of would be of other organisms."""
    assert main(["truth", "resources/organisms", "--output", str(tmp_path / "own.tsv")]) == 0
    own, shipped = (
        pd.read_csv(path, sep="\t").set_index(["recipe", "recipe_sha256", "condition", "share"])
        for path in (tmp_path / "own.tsv", "resources/organisms/seeds.tsv")
    )
    both = own.join(shipped.add_suffix("_all"), how="left")
    assert both["seeds_all"].notna().all()
    assert (both["least_all"] <= both["mean"] + 1e-3).all()
    assert (both["most_all"] >= both["mean"] - 1e-3).all()
    phases = ("helpful-only", "circuit", "tangle", "three-pathway", "holographic")
    plain = shipped.xs("plain", level="condition").xs("refusal", level="share")
    assert all(len(s.split()) >= 5 for s in plain.loc[list(phases), "seeds"])
    assert all(len(s.split()) >= 2 for s in plain["seeds"])
