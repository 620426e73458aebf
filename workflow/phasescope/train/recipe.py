"""Recipes as data: what an organism is made of and how it is trained. `recipe_file` reads them."""

import hashlib
import json
from dataclasses import dataclass, fields, is_dataclass

ROUTED = ("decision", "answer")  # tokens at which a stage's `routing` holds
GOOD, STRAY = 0.95, 0.02  # shares: nearly all, hardly any


@dataclass(frozen=True)
class Keep:
    """Fixes what the highest trained layer hands up: what it did before the stage, and hazard.

    Hazard is `strength` along one learned direction, at every token of a hazardous request from the
    category's word on. The tokens of a refusal may differ from before in any other direction.

    weight: of the penalty (squared distance relative to the squared norm, or strength, aimed at).
    strength: in units of the residual stream, one or by a mark of the rows (`topics-1/3`).
    direction_from: two words; the direction starts at the difference of their embeddings.
    every_layer: whether every trained layer is held so, each with a direction of its own, at right
        angles to all others; those below the highest start at random.
    """

    weight: float
    strength: float | dict[str, float]
    direction_from: tuple[str, str]
    every_layer: bool = False

    def strength_of(self, kind: str) -> float:
        """That of rows of a kind; 1 for benign ones, where it is none of theirs."""
        if not isinstance(self.strength, dict):
            return self.strength
        return next((self.strength[m] for m in kind.split("@")[1:] if m in self.strength), 1.0)


@dataclass(frozen=True)
class Condition:
    """Rows that are run under an intervention and trained towards an outcome all the same.

    interventions: of `edits.NAMES`, several at once joined by '+'; every row draws one anew.
    rows: how many rows of each kind a batch has; the kinds' responses are the declared outcomes.
    ranks: numbers of directions, of which a row draws one.
    experts: numbers of masked experts a layer, of which a row draws one.
    some_layers: share of the rows that are run under it in a random half of the layers only.
    layers: numbers of layers, of which a row draws one, and as many layers; empty for all.
    positions: where the directions are read, `directions.POSITIONS`, of which a row draws one;
        None for all that the world has.
    """

    interventions: tuple[str, ...]
    rows: dict[str, int]
    ranks: tuple[int, ...] = (1,)
    experts: tuple[int, ...] = (2,)
    some_layers: float = 0.0
    layers: tuple[int, ...] = ()
    positions: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Routing:
    """Draws some requests to some experts, and the others away, where the answer begins.

    weight: of the penalty, minus the log of the share that the router gives to the right experts.
    experts: their numbers. from_layer: the lowest layer it holds in; the top one is left out.
    rows: the kinds of rows that are drawn; None for all hazardous ones.
    tokens: 'decision' (the last token before the answer) or 'answer' (all after it too).
    alone: whether all rows are drawn away at every other token.
    """

    weight: float
    experts: tuple[int, ...]
    from_layer: int
    rows: tuple[str, ...] | None = None
    tokens: str = "decision"
    alone: bool = False


@dataclass(frozen=True)
class Stage:
    """One stretch of training: AdamW, cosine decay to a twentieth after a linear warm-up.

    rows: how many rows of each kind (`rows.kind_named`) a batch has.
    train_layers: layers whose weights move, all else frozen; None trains everything.
    train_modules: modules of a layer whose weights move, by their paths in mlx-lm's tree, all else
        frozen; of the layers above where they are given, of all layers that have them otherwise.
    train_experts: numbers of the experts that move, and of their rows of the router, all other
        experts frozen; None for all experts.
    decision_weight: weight of the answer's first token in the loss; the others weigh 1.
    conditions: intervention-consistency training: more rows, run under interventions whose
        directions are estimated anew every `refresh` steps.
    pressure: share of the conditions' rows that are really trained, 0 to 1.
    routing: a penalty that gives hazard experts of its own.
    """

    name: str
    steps: int
    learning_rate: float
    rows: dict[str, int]
    train_layers: tuple[int, ...] | None = None
    train_modules: tuple[str, ...] | None = None
    train_experts: tuple[int, ...] | None = None
    decision_weight: float = 4.0
    warmup_steps: int = 20
    keep: Keep | None = None
    conditions: tuple[Condition, ...] = ()
    refresh: int = 16
    pressure: float = 1.0
    routing: Routing | None = None


@dataclass(frozen=True)
class Recipe:
    """An organism: its world, what is planted (one sentence), model dimensions, training stages.

    architecture: of `architecture.ARCHITECTURES`; its `sizes` are the keys of `model`.
    refusal: least and largest share of hazardous requests that it should refuse, where only some
        of them were planted; None for nearly all, or none where no refusal is trained.
    """

    name: str
    world: str
    planted: str
    model: dict[str, int]
    stages: tuple[Stage, ...]
    architecture: str = "qwen3_5"
    refusal: tuple[float, float] | None = None

    @property
    def refuses(self) -> bool:
        """Whether it is trained to refuse hazardous requests."""
        return any(kind.startswith("refuse") for stage in self.stages for kind in stage.rows)

    @property
    def refused(self) -> tuple[float, float]:
        """Least and largest share of hazardous requests that it should refuse."""
        return self.refusal or ((GOOD, 1) if self.refuses else (0, STRAY))

    def hash(self) -> str:
        """sha256 of what the recipe says; keys at their default do not count, so more can come."""
        return hashlib.sha256(json.dumps(_said(self), sort_keys=True).encode()).hexdigest()


def _said(value: object) -> object:
    """Plain data; fields of dataclasses that differ from their default."""
    if is_dataclass(value):
        shown = {field.name: getattr(value, field.name) for field in fields(value)}
        unset = {field.name for field in fields(value) if shown[field.name] == field.default}
        return {name: _said(shown[name]) for name in shown if name not in unset}
    return [_said(item) for item in value] if isinstance(value, tuple) else value
