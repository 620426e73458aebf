"""From a recipe to an organism's folder: train, write, read back, check, tell the truth."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from phasescope import world as worlds
from phasescope.errors import PhasescopeError
from phasescope.train import architecture, constructed, export, recipe_file
from phasescope.train.check import at_precisions, check
from phasescope.train.intensity import refused_rows
from phasescope.train.loop import run_stage
from phasescope.train.recipe import Recipe

PACKAGES = ("mlx", "mlx-lm", "numpy", "tokenizers")


def train(
    recipe_path: str | Path,
    dst: str | Path,
    seed: int,
    progress: Callable[[str], None] = print,
    base: str | Path | None = None,
) -> Path:
    """Train the organism of a recipe and write it to `dst` as a Hugging Face checkpoint.

    The same recipe, seed and package versions give the same bytes with one BLAS thread. Beside the
    checkpoint lies organism.json: what was planted and what the trainer measured on the written
    weights. Everything is written to a temporary folder beside `dst` and renamed at the end.

    base: where the organism that a constructed one starts from has been trained already, of the
    same seed; without it, it is trained first.

    Raises PhasescopeError on a bad recipe or seed, on a `dst` that exists, on another base, and on
    diverged training; nothing is left behind then.
    """
    made, path, dst = constructed.load(recipe_path), Path(recipe_path), Path(dst)
    plan, start = constructed.base_of(made, path) if made else (recipe_file.load(path), path)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise PhasescopeError(
            f"seed: found {seed!r}; allowed: a whole number from 0 to {2**32 - 1}"
        )
    if dst.exists() and (not dst.is_dir() or any(dst.iterdir())):
        raise PhasescopeError(f"{dst}: exists already; allowed: a folder that is new or empty")
    try:
        dst.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{dst.name}-", dir=dst.parent))
    except OSError as error:
        message = f"{dst}: cannot be made ({error.strerror}); allowed: a folder you can write"
        raise PhasescopeError(message) from error
    try:
        if made and base:
            _copy(plan, Path(base), draft, seed)
        else:
            _write(plan, start, draft, seed, progress)
        if made:
            _change(made, plan, draft, seed)
        draft.chmod(0o755)
        os.replace(draft, dst)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    progress(f"wrote {dst}")
    return dst


def _write(
    plan: Recipe, path: Path, folder: Path, seed: int, progress: Callable[[str], None]
) -> None:
    world = worlds.get(plan.world)
    config = architecture.hf_config(plan.model, world, plan.architecture)
    model = architecture.build(config, seed)
    facts = {}
    for number, stage in enumerate(plan.stages):
        place = f"{path}: stages[{number}]"
        facts |= run_stage(model, stage, world, seed + 1000 * number, place, progress)
    export.save(model, config, world, folder)
    progress("checking what was written")
    try:
        tell(plan, folder, seed, facts)
    except PhasescopeError as error:
        raise PhasescopeError(f"{path}: {error}") from error


def _copy(plan: Recipe, base: Path, draft: Path, seed: int) -> None:
    """The trained base of a constructed organism, if it is what training would make."""
    sheet = json.loads((base / "organism.json").read_text(encoding="utf-8"))
    found, wanted = (sheet["recipe_sha256"], sheet["seed"]), (plan.hash(), seed)
    if found != wanted:
        raise PhasescopeError(f"{base}/organism.json: recipe and seed {found}; needed: {wanted}")
    shutil.copytree(base, draft, dirs_exist_ok=True)


def _change(made: constructed.Construction, plan: Recipe, folder: Path, seed: int) -> None:
    """Make the constructed organism of the trained one, and tell what was done in its sheet, and
    what it says now at each precision."""
    world = worlds.get(plan.world)
    constructed.apply(made, folder, world, seed)
    truth = {
        "recipe": made.name,
        "recipe_sha256": made.hash(),
        "seed": seed,
        "world": plan.world,
        "planted": made.planted,
        "base": plan.name,
        "change": {"name": made.change, "size": made.size},
        "refused_rows": refused_rows(plan, world),
        "shares": at_precisions(export.load(folder), world),
        "versions": {package: version(package) for package in PACKAGES},
    }
    text = json.dumps(truth, indent=2) + "\n"
    (folder / "organism.json").write_text(text, encoding="utf-8")


def tell(plan: Recipe, folder: Path, seed: int, facts: dict) -> None:
    """Measure the checkpoint in `folder` and write its truth beside it, as organism.json."""
    world = worlds.get(plan.world)
    truth = {
        "recipe": plan.name,
        "recipe_sha256": plan.hash(),
        "seed": seed,
        "world": plan.world,
        "planted": plan.planted,
        "checked": "by the trainer's own code, on the evaluate split and the weights as written",
        **check(export.load(folder), world, plan.refused),
        **facts,
        "refused_rows": refused_rows(plan, world),
        "versions": {package: version(package) for package in PACKAGES},
    }
    text = json.dumps(truth, indent=2) + "\n"
    (folder / "organism.json").write_text(text, encoding="utf-8")
