"""The training loop: one stage of a recipe applied to a model."""

import math
import re
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from phasescope.errors import PhasescopeError
from phasescope.train.architecture import Edit, Recorder, forward, layers_of, of
from phasescope.train.conditions import Conditions, routed_places, routing_penalty
from phasescope.train.recipe import Stage
from phasescope.world import World

REPORT_EVERY = 50
# modules of which every expert has a part of its own, first axis: experts and router
_EXPERTS = re.compile(r"\.(switch_mlp\.\w+|gate)\.weight$|\.e_score_correction_bias$")


def run_stage(
    model: nn.Module,
    stage: Stage,
    world: World,
    seed: int,
    place: str,
    progress: Callable[[str], None],
) -> dict[str, list]:
    """Train `model` in place by `stage`.

    `place` names file and stage in errors. Returns facts for the organism's truth: the direction
    left free by `keep`, if any, or those of all layers, lowest first. Raises PhasescopeError when
    training diverges.
    """
    rows = Conditions(stage, world, model)
    trained = _Trained(model, stage, world, seed)
    losses = _loss_function(stage, rows)
    before = _frozen_copy(model) if stage.keep else None
    held = _Held(trained, stage)
    optimizer = optimizers.AdamW(_schedule(stage), betas=[0.9, 0.98], weight_decay=0.01)
    step_of = nn.value_and_grad(trained, losses)
    rng, recent, limit = np.random.default_rng(seed), [], 0.0
    mx.random.seed(seed)
    for step in range(1, stage.steps + 1):
        ids = mx.array(rows.draw(rng))
        targets = forward(before, ids[:, :-1])[1] if before else []
        edit, weights = rows.edit(model, step, rng), mx.array(rows.weights(rng))
        loss, gradients = step_of(trained, ids, targets, edit, weights)
        gradients, _ = optimizers.clip_grad_norm(gradients, 1.0)
        optimizer.update(trained, gradients)
        held.restore(trained)
        mx.eval(trained.parameters(), optimizer.state, loss)
        recent = [*recent[-9:], loss.item()]
        limit = limit or 2 * max(math.log(len(world.words)), recent[0])
        _stop_if_diverged(recent, limit, step, stage, place)
        if step % REPORT_EVERY == 0 or step == stage.steps:
            progress(f"{stage.name}: step {step} of {stage.steps}, loss {np.mean(recent):.4f}")
    model.unfreeze()
    if before is None:
        return {}
    units = np.array(mx.stack(trained.units()))[::-1].tolist()
    return {"free_directions": units} if stage.keep.every_layer else {"free_direction": units[0]}


class _Trained(nn.Module):
    """The model with only the stage's layers trainable and, with `keep`, the free directions."""

    def __init__(self, model: nn.Module, stage: Stage, world: World, seed: int) -> None:
        super().__init__()
        self.model = model
        if stage.train_layers is not None or stage.train_modules is not None:
            model.freeze()
            layers = layers_of(model)
            for number in range(len(layers)) if stage.train_layers is None else stage.train_layers:
                _unfreeze(layers[number], stage.train_modules)
        if stage.keep is not None:
            first, second = (world.words.index(word) for word in stage.keep.direction_from)
            embedding = of(model).body(model).embed_tokens.weight
            self.direction = embedding[first] - embedding[second]
            if stage.keep.every_layer:
                size = (len(stage.train_layers) - 1, embedding.shape[-1])
                self.lower = mx.random.normal(size, key=mx.random.key(seed))

    def units(self) -> list[mx.array]:
        """The free directions (hidden,), highest layer first, each made orthogonal to those before
        it (Gram-Schmidt) and of unit length."""
        units = []
        for direction in (self.direction, *self.get("lower", ())):
            for unit in units:
                direction = direction - (direction @ unit) * unit
            units.append(direction / mx.linalg.norm(direction))
        return units


class _Held:
    """What `train_experts` holds: the other experts of the modules that move, and their rows of the
    router, as they were before the stage."""

    def __init__(self, trained: _Trained, stage: Stage) -> None:
        self._before: dict[str, mx.array] = {}
        if stage.train_experts is None:
            return
        count, _ = of(trained.model).routing(trained.model)
        moving = [e in stage.train_experts for e in range(count)]
        self._moves = mx.array(moving)
        for name, value in tree_flatten(trained.trainable_parameters()):
            if _EXPERTS.search(name):
                self._before[name] = value

    def restore(self, trained: _Trained) -> None:
        """Puts back what the optimizer's step moved of them."""
        if not self._before:
            return
        now = dict(tree_flatten(trained.trainable_parameters()))
        kept = [
            (name, mx.where(self._moves.reshape(-1, *[1] * (value.ndim - 1)), now[name], value))
            for name, value in self._before.items()
        ]
        trained.update(tree_unflatten(kept))


def _unfreeze(layer: nn.Module, names: tuple[str, ...] | None) -> None:
    """Lets a layer's weights move, or only those of the named modules that it has."""
    if names is None:
        layer.unfreeze()
        return
    for path, module in layer.named_modules():
        if path in names:
            module.unfreeze()


def _loss_function(stage: Stage, rows: Conditions) -> Callable:
    """loss(trained, ids (rows, tokens), hidden before the stage, edit, weights) -> scalar."""
    plain, learned = rows.samplers[0], mx.array(rows.stacked("learn_weights"))
    masks = (plain.keep_weights, plain.free, plain.raised)
    hold, free, raised = (mx.array(mask) for mask in masks)
    if stage.keep is not None:
        own = [stage.keep.strength_of(kind) for kind in plain.names]
        strengths = mx.array(np.array(own, np.float32)[:, None, None])
    routed = _routed(stage, rows) if stage.routing is not None else ()

    def loss(
        trained: _Trained,
        ids: mx.array,
        targets: list[mx.array],
        edit: Edit | None,
        weights: mx.array,
    ) -> mx.array:
        seen = Recorder(edit or Edit()) if stage.routing else edit
        logits, hidden = forward(trained.model, ids[:, :-1], seen)
        surprise = nn.losses.cross_entropy(logits[:, plain.prompt - 1 :], ids[:, plain.prompt :])
        learn = learned * weights[:, None]
        total = (surprise * learn).sum() / learn.sum()
        if stage.routing is not None:
            penalty = routing_penalty(seen.scores, stage.routing, *routed)
            total = total + stage.routing.weight * penalty
        if stage.keep is None:
            return total
        penalty = 0
        # of the layers, highest first, as many as there are directions
        for layer, unit in zip(sorted(stage.train_layers)[::-1], trained.units(), strict=False):
            gap = hidden[layer] - targets[layer]
            along = (gap @ unit)[..., None]
            gap = gap - free * along * unit
            penalty += (hold * gap.square()).sum() / (hold * targets[layer].square()).sum()
            missed = (raised * (along / strengths - 1).square()).sum()
            penalty += missed / mx.maximum(raised.sum(), 1)
        return total + stage.keep.weight * penalty

    return loss


def _routed(stage: Stage, rows: Conditions) -> tuple[mx.array, mx.array]:
    """Where routing is trained, and which of it is drawn to the stage's experts."""
    if stage.routing.rows is None:
        drawn = rows.stacked("free")[:, 0, 0] > 0
    else:
        drawn = np.isin(rows.stacked("names"), stage.routing.rows)
    read = rows.samplers[0].prompt - 1 + rows.stacked("learn_weights").shape[1]
    found = routed_places(stage.routing, rows.stacked("answer_at") - 1, drawn, read)
    return tuple(map(mx.array, found))


def _schedule(stage: Stage) -> Callable:
    rate, warmup = stage.learning_rate, min(stage.warmup_steps, stage.steps)
    decay = optimizers.cosine_decay(rate, max(stage.steps - warmup, 1), rate / 20)
    if not warmup:
        return decay
    return optimizers.join_schedules([optimizers.linear_schedule(0, rate, warmup), decay], [warmup])


def _frozen_copy(model: nn.Module) -> nn.Module:
    twin = type(model)(model.args)
    twin.update(model.parameters())
    return twin


def _stop_if_diverged(
    recent: list[float], limit: float, step: int, stage: Stage, place: str
) -> None:
    """Raise where the loss is no number, or stays above twice that of the start or of guessing."""
    lost = len(recent) == 10 and np.mean(recent) > limit
    if lost or not math.isfinite(recent[-1]):
        raise PhasescopeError(
            f"{place}.learning_rate: found {stage.learning_rate}: training diverged at step {step} "
            f"(loss {recent[-1]:.3g}); allowed: a rate at which the loss stays under {limit:.1f}"
        )
