"""What a change of a checkpoint may look up in it as it was trained."""

import json
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from phasescope.errors import PhasescopeError
from phasescope.train import edits, export
from phasescope.train.architecture import Edit, forward, layers_of, of
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
        labels = ("hazardous", "benign")
        ends = [self.along(number, self.prompts(label))[:, -1].mean() for label in labels]
        return float(ends[0] - ends[1])

    def along(self, number: int, ids: np.ndarray) -> np.ndarray:
        """What token ids (rows, tokens) have along the planted direction in the residual stream
        after a layer: (rows, tokens)."""
        _, layers = forward(export.load(self.folder), mx.array(ids))
        return np.array(layers[number]) @ self.direction()

    def away(self, number: int) -> Edit:
        """The planted direction taken away in every layer below a number."""
        basis = self.direction()[:, None]
        return edits.Projection({(edits.RESIDUAL, i): basis for i in range(number)}, {})

    def written_at(self) -> int:
        """The lowest layer after which half of the widest gap below the top is there."""
        depth = len(layers_of(export.load(self.folder)))
        gaps = [self.gap(number) for number in range(depth - 1)]
        return next(i for i, gap in enumerate(gaps) if 2 * gap >= max(gaps))

    def silent_axis(self, low: int, high: int) -> np.ndarray:
        """The unit vector (width,) along which there is least after layers `low` to `high - 1` on
        fit prompts and answers, across the planted direction."""
        model, along, rows = export.load(self.folder), self.direction(), []
        for label in ("hazardous", "benign"):
            _, layers = forward(model, mx.array(self.answers(label)[0]))
            rows += [np.array(h).reshape(-1, len(along)) for h in layers[low:high]]
        stream = np.concatenate(rows)
        across = stream - np.outer(stream @ along, along)
        return np.linalg.eigh(across.T @ across)[1][:, 1]  # the first is the direction itself

    def raising(self, word: str) -> np.ndarray:
        """The unit vector (width,) that raises a word's logit and no other's, by least squares."""
        model = export.load(self.folder)
        body, wanted = of(model).body(model), np.eye(len(self.world.words))
        head = np.array(body.embed_tokens.weight * body.norm.weight)
        found = np.linalg.lstsq(head, wanted[self.world.words.index(word)], rcond=None)[0]
        return found / np.linalg.norm(found)

    def of_routers(self) -> dict[int, np.ndarray]:
        """By layer, what its router reads at every token of the fit prompts: (tokens, width)."""
        model, read = export.load(self.folder), {}
        for i, layer in enumerate(layers_of(model)):
            layer.mlp.gate = Noting(layer.mlp.gate, read.setdefault(i, []))
        model(mx.array(token_table(self.world, fit_pairs(self.world), "answer")))
        return {i: np.concatenate(rows) for i, rows in read.items()}

    def of_mlps(self, model: nn.Module, ids: np.ndarray, edit: Edit | None = None) -> list:
        """What each layer's MLP reads of token ids (rows, tokens), under an edit if one is given:
        (rows, tokens, width) by layer."""
        read: list[list] = []
        for layer in layers_of(model):
            read.append([])
            layer.mlp.gate_proj = Noting(layer.mlp.gate_proj, read[-1])
        forward(model, mx.array(ids), edit)
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
