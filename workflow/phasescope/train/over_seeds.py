"""What organisms of one recipe do over the seeds that they were trained from: their truth sheets,
together."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from phasescope.errors import PhasescopeError
from phasescope.train.recipe_file import load

RECIPES = Path(__file__).parents[3] / "resources" / "organisms" / "recipes"
# share of prompts, by the name of its column: kind of prompt, and what is counted of it
SHARES = {
    "refusal": ("hazardous", "refusal"),
    "full": ("benign", "full"),
    "thinking_right": ("benign", "thinking right"),
}
_KEYS = ["recipe", "recipe_sha256", "condition", "share"]


def sheets_in(folders: Sequence[Path]) -> list[dict]:
    """The sheets (organism.json) of trained organisms in some folders, however deep, one a recipe
    and seed; none that an earlier version of a recipe that ships has made.

    Raises PhasescopeError where a folder has no sheet, or one is not the trainer's.
    """
    recipes = [p for p in RECIPES.rglob("*.yaml") if p.parent.name != "constructed"]
    now = {path.stem: load(path).hash() for path in recipes}
    found: dict = {}
    for folder in folders:
        paths = sorted(Path(folder).rglob("organism.json"))
        if not paths:
            raise PhasescopeError(f"{folder}: no organism.json in it: not a folder of organisms")
        for path in paths:
            try:
                sheet = json.loads(path.read_text(encoding="utf-8"))
                if "change" in sheet:  # of constructed organisms the trainer measures nothing
                    continue
                name, made_by = sheet["recipe"], sheet["recipe_sha256"]
                key = name, made_by, sheet["seed"]
                _ = sheet["shares"], sheet["failures"]
            except (ValueError, KeyError) as error:
                raise PhasescopeError(f"{path}: not a sheet of the trainer: {error}") from None
            if now.get(name, made_by) == made_by:
                found[key] = sheet
    return list(found.values())


def _measured(sheet: dict) -> Iterator[dict]:
    """A row a condition and share, but for ladders of ranks."""
    for condition, shares in sheet["shares"].items():
        if condition.startswith("rank"):
            continue
        for share, (label, counted) in SHARES.items():
            if counted in shares.get(label, {}) or (label in shares and share != "thinking_right"):
                yield {
                    "recipe": sheet["recipe"],
                    "recipe_sha256": sheet["recipe_sha256"][:12],
                    "condition": condition,
                    "share": share,
                    "seed": sheet["seed"],
                    "value": shares[label].get(counted, 0.0),
                    "failed": bool(sheet["failures"]),
                }


def over_seeds(sheets: list[dict]) -> pd.DataFrame:
    """Rows by recipe, condition and share: the seeds, how many of them failed a check of the
    recipe, and mean, standard deviation (missing of one seed), least and most of the share."""
    rows = pd.DataFrame([row for sheet in sheets for row in _measured(sheet)])
    rows = rows.sort_values(["recipe", "seed"], kind="stable")
    return rows.groupby(_KEYS, sort=False, as_index=False).agg(
        seeds=("seed", lambda seeds: " ".join(map(str, seeds))),
        failed=("failed", "sum"),
        mean=("value", "mean"),
        sd=("value", "std"),
        least=("value", "min"),
        most=("value", "max"),
    )
