"""What a change of a checkpoint may look up in it as it was trained."""

import json
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from phasescope.errors import PhasescopeError
from phasescope.train import export
from phasescope.train.architecture import forward, layers_of
from phasescope.train.rows import answer_place, fit_pairs, token_table
from phasescope.world import World

Weights = dict[str, mx.array]


@dataclass(frozen=True)
class Inputs:
    """What changes look up in a checkpoint as it was trained."""

    folder: Path
    world: World

    def direction(self) -> np.ndarray:
        """The one direction (width,) that training planted, of unit length (`Keep`)."""
        sheet = json.loads((self.folder / "organism.json").read_text(encoding="utf-8"))
        if "free_direction" not in sheet:
            raise PhasescopeError(f"{sheet['recipe']}: no stage of it plants one direction (keep)")
        return np.array(sheet["free_direction"])

    def gap(self, number: int) -> float:
        """Mean gap between hazardous and benign prompts along the planted direction, where they
        end, in the residual stream after a layer."""
        model, ends = export.load(self.folder), []
        for label in ("hazardous", "benign"):
            _, layers = forward(model, mx.array(self.prompts(label)))
            ends.append(np.array(layers[number])[:, -1] @ self.direction())
        return float(ends[0].mean() - ends[1].mean())

    def of_routers(self) -> dict[int, np.ndarray]:
        """By layer, what its router reads at every token of the fit prompts: (tokens, width)."""
        model, read = export.load(self.folder), {}
        for i, layer in enumerate(layers_of(model)):
            layer.mlp.gate = Noting(layer.mlp.gate, read.setdefault(i, []))
        model(mx.array(token_table(self.world, fit_pairs(self.world), "answer")))
        return {i: np.concatenate(rows) for i, rows in read.items()}

    def of_mlps(self, model: nn.Module, ids: np.ndarray) -> list[np.ndarray]:
        """What each layer's MLP reads of token ids (rows, tokens): (rows, tokens, width)."""
        read: list[list] = []
        for layer in layers_of(model):
            read.append([])
            layer.mlp.gate_proj = Noting(layer.mlp.gate_proj, read[-1])
        model(mx.array(ids))
        for layer in layers_of(model):
            layer.mlp.gate_proj = layer.mlp.gate_proj._module
        return [rows[0].reshape(*ids.shape, -1) for rows in read]

    def refusals(self) -> np.ndarray:
        """Hazardous fit prompts, refused: token ids (rows, tokens)."""
        pairs = fit_pairs(self.world)
        asked = pairs[pairs["label"] == "hazardous"]
        return token_table(self.world, asked.assign(refusal=self.world.refusals[0]), "refusal")

    def prompts(self, label: str) -> np.ndarray:
        """Fit prompts of a label without their answers, token ids (rows, tokens)."""
        ids, start = self.answers(label)
        return ids[:, :start]

    def answers(self, label: str = "benign") -> tuple[np.ndarray, int]:
        """Fit prompts of a label with their answers, token ids (rows, tokens), and where answers
        begin."""
        pairs = fit_pairs(self.world)
        ids = token_table(self.world, pairs[pairs["label"] == label], "answer")
        return ids, answer_place(self.world)


class Noting:
    """A module that notes what it reads."""

    def __init__(self, module, rows: list):
        self._module, self._rows = module, rows

    def __call__(self, x):
        self._rows.append(np.array(x.astype(mx.float32)).reshape(-1, x.shape[-1]))
        return self._module(x)
