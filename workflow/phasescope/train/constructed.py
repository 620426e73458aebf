"""Organisms made from a trained one by a stated change of its checkpoint: controls of claims.

What a claim calls true or false by construction is then so by arithmetic, not by training.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import mlx.core as mx
import yaml

from phasescope.errors import PhasescopeError
from phasescope.train import recipe_file
from phasescope.train.changes import CHANGES, Inputs
from phasescope.train.recipe import Recipe
from phasescope.world import World


@dataclass(frozen=True)
class Construction:
    """A recipe of a constructed organism: its base (a path beside it) and the change, by name.

    size: how much of it; what that means stands with each change.
    """

    name: str
    base: str
    change: str
    size: float
    planted: str

    def hash(self) -> str:
        """sha256 of what it says."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def load(path: str | Path) -> Construction | None:
    """The construction in a YAML file; None where it is a recipe of training (no key `change`).

    Raises PhasescopeError naming file and key of a fault.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None  # the reader of recipes says what is wrong
    if not isinstance(content, dict) or "change" not in content:
        return None
    wanted = {field.name: field.type for field in fields(Construction)}
    if set(content) != set(wanted):
        found = ", ".join(map(str, content))
        raise PhasescopeError(f"{path}: keys {found}; allowed, all of: {', '.join(wanted)}")
    if content["change"] not in CHANGES:
        raise PhasescopeError(
            f"{path}: change: found {content['change']!r}; allowed: {', '.join(CHANGES)}"
        )
    for key, kind in wanted.items():
        good = int | float if kind is float else str
        if not isinstance(content[key], good) or isinstance(content[key], bool):
            found = f"found {content[key]!r}; allowed: {kind.__name__}"
            raise PhasescopeError(f"{path}: {key}: {found}")
    return Construction(**content | {"planted": content["planted"].strip()})


def apply(plan: Construction, folder: Path, world: World, seed: int) -> None:
    """Change the checkpoint in `folder` as the construction says."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = mx.load(str(folder / "model.safetensors"))
    changed = CHANGES[plan.change](weights, config, plan.size, Inputs(folder, world), seed)
    mx.eval(changed)
    mx.save_safetensors(str(folder / "model.safetensors"), changed, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def base_of(plan: Construction, path: Path) -> tuple[Recipe, Path]:
    """The recipe that a construction starts from."""
    found = (path.parent / plan.base).resolve()
    return recipe_file.load(found), found
