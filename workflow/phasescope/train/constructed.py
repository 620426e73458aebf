"""Organisms made from a trained one by a stated change of its checkpoint: controls of claims.

What a claim calls true or false by construction is then so by arithmetic, not by training.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import mlx.core as mx
import numpy as np
import yaml

from phasescope.errors import PhasescopeError
from phasescope.train import export, recipe_file
from phasescope.train.architecture import layers_of
from phasescope.train.recipe import Recipe
from phasescope.train.rows import fit_pairs, token_table
from phasescope.world import World

Weights = dict[str, mx.array]
_NEVER = -1e4  # beside scores between 0 and 1


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
    changed = CHANGES[plan.change](weights, config, plan.size, _Inputs(folder, world), seed)
    mx.eval(changed)
    mx.save_safetensors(str(folder / "model.safetensors"), changed, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class _Inputs:
    """What the routers of a checkpoint read."""

    folder: Path
    world: World

    def of_routers(self) -> dict[int, np.ndarray]:
        """By layer, what its router reads at every token of the fit prompts: (tokens, width)."""
        model, read = export.load(self.folder), {}
        for i, layer in enumerate(layers_of(model)):
            layer.mlp.gate = _Noting(layer.mlp.gate, read.setdefault(i, []))
        model(mx.array(token_table(self.world, fit_pairs(self.world), "answer")))
        return {i: np.concatenate(rows) for i, rows in read.items()}


class _Noting:
    """A router that notes what it reads."""

    def __init__(self, router, rows: list):
        self._router, self._rows = router, rows

    def __call__(self, x):
        self._rows.append(np.array(x.astype(mx.float32)).reshape(-1, x.shape[-1]))
        return self._router(x)


def _matrices(weights: Weights) -> list[str]:
    return sorted(n for n, w in weights.items() if w.ndim > 1 and "embed" not in n)


def noise(weights: Weights, config: dict, size: float, inputs, seed: int) -> Weights:
    """Gaussian noise of `size` times its own root mean square on every matrix but the embedding."""
    rng, changed = np.random.default_rng(seed), dict(weights)
    for name in _matrices(weights):
        values = np.array(weights[name].astype(mx.float32))
        drawn = rng.standard_normal(values.shape) * np.sqrt((values**2).mean()) * size
        changed[name] = mx.array(values + drawn).astype(weights[name].dtype)
    return changed


def vision(weights: Weights, config: dict, size: float, inputs, seed: int) -> Weights:
    """Tensors of a vision tower, `size` times as many as there are; no language model has them."""
    rng, changed = np.random.default_rng(seed), dict(weights)
    for i in range(round(size * len(weights))):
        name = f"model.visual.blocks.{i}.mlp.fc1.weight"
        changed[name] = mx.array(rng.standard_normal((64, 64)) * 0.02).astype(mx.bfloat16)
    return changed


def _gates(weights: Weights) -> dict[int, str]:
    """Name of each router's weights by layer."""
    names = [n for n in weights if n.endswith(".mlp.gate.weight")]
    return {int(n.split(".layers.")[1].split(".")[0]): n for n in names}


def _even(read: np.ndarray) -> np.ndarray:
    """The vector (width,) on which what a router reads (tokens, width) projects to 1, by least
    squares."""
    return np.linalg.lstsq(read, np.ones(len(read)), rcond=None)[0]


def shifted_router(weights: Weights, config: dict, size: float, inputs, seed: int) -> Weights:
    """Every router's logits shifted by about `size`, the same for all experts of a token.

    Softmax takes no notice, so nothing else changes: one vector is added to all rows of a router's
    weights, that on which what it reads projects most evenly.
    """
    changed, read = dict(weights), inputs.of_routers()
    for layer, name in _gates(weights).items():
        values = np.array(weights[name].astype(mx.float32)) + size * _even(read[layer])
        changed[name] = mx.array(values).astype(weights[name].dtype)
    return changed


def idle_experts(weights: Weights, config: dict, size: float, inputs, seed: int) -> Weights:
    """`size` times as many experts more that no token selects: the bias that MiniMax's routers add
    for selection alone is as low as can be for them. They copy others, and never write."""
    count, changed = config["num_local_experts"], dict(weights)
    more = round(size * count)
    for name in [n for n in weights if n.endswith("e_score_correction_bias")]:
        gate = name.replace("e_score_correction_bias", "gate.weight")
        low = mx.full((more,), _NEVER, dtype=weights[name].dtype)
        changed[name] = mx.concatenate([weights[name], low])
        changed[gate] = mx.concatenate([weights[gate], weights[gate][:more]])
        place = name.replace("e_score_correction_bias", "experts")
        for i in range(more):
            for part in ("w1", "w2", "w3"):
                source = f"{place}.{i % count}.{part}.weight"
                changed[f"{place}.{count + i}.{part}.weight"] = weights[source]
    config["num_local_experts"] = count + more
    return changed


CHANGES: dict[str, Callable[..., Weights]] = {
    "noise": noise,
    "vision": vision,
    "shifted-router": shifted_router,
    "idle-experts": idle_experts,
}


def base_of(plan: Construction, path: Path) -> tuple[Recipe, Path]:
    """The recipe that a construction starts from."""
    found = (path.parent / plan.base).resolve()
    return recipe_file.load(found), found
