"""Sites of a model, and taps on them: recording and editing what flows through."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import mlx.core as mx

from phasescope.errors import NotRun, PhasescopeError
from phasescope.model.adapters import ADAPTERS, module_at
from phasescope.model.loading import LanguageModel

Function = Callable[[mx.array], mx.array]


class Site(NamedTuple):
    """A place in the model at block `layer`.

    kind: one of `KINDS`. 'residual' is the stream after the block, 'mixer' what its mixer makes
    (attention or recurrent), 'router' its router's logits, one an expert; 'expert_selection' the
    scores that experts are selected by, up to a constant: the same as 'router' but where a router
    adds a bias for selection only: the bias. The others: `model.places`.
    """

    kind: str
    layer: int


# kinds of sites of any architecture; a model, or a block, may lack some
_OF_ADAPTERS = {kind for adapter in ADAPTERS.values() for kind in adapter.sites}
KINDS = ("residual", "mixer", *sorted(_OF_ADAPTERS - {"residual"}), "expert_selection")
SELECTION_BIAS = "e_score_correction_bias"


class _Tapped:
    """A module whose output passes through a function; all else is the module's own."""

    def __init__(self, module, function):
        self.__dict__.update(_module=module, _function=function)

    def __call__(self, *args, **kwargs):
        return self._function(self._module(*args, **kwargs))

    def __getattr__(self, name):
        return getattr(self._module, name)

    def __getitem__(self, name):
        return self._module[name]

    def __contains__(self, name):
        return name in self._module


class _TappedInput(_Tapped):
    """A module whose first argument passes through a function."""

    def __call__(self, x, *args, **kwargs):
        return self._module(self._function(x), *args, **kwargs)


class _TappedSelection(_Tapped):
    """Experts whose selection, their second argument, passes through a function."""

    def __call__(self, x, selection, *args, **kwargs):
        return self._module(x, self._function(selection), *args, **kwargs)


_SIDES = {"output": _Tapped, "input": _TappedInput, "selection": _TappedSelection}


def _bare(module):
    """The module itself, where it may be tapped at the moment."""
    while isinstance(module, _Tapped):
        module = module._module
    return module


def bare_block(lm: LanguageModel, layer: int):
    """Block `layer` itself, where its output may be tapped at the moment."""
    return _bare(lm.blocks[layer])


def layers_with(lm: LanguageModel, kind: str) -> list[int]:
    """Blocks that have a kind of site, lowest first.

    Raises PhasescopeError for an unknown kind, and NotRun where no block has it.
    """
    _check_kind(kind)
    blocks = [bare_block(lm, layer) for layer in range(len(lm.blocks))]
    found = [i for i, block in enumerate(blocks) if lm.adapter.place_of(block, kind)]
    if not found:
        raise NotRun(f"no block of this model has a site {kind!r}")
    return found


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise PhasescopeError(f"site {kind!r}: unknown kind; allowed: {', '.join(KINDS)}")


def router(lm: LanguageModel, layer: int):
    """The module of block `layer` that routes tokens to experts; NotRun in a dense block."""
    found = lm.adapter.router_of(bare_block(lm, layer))
    if found is None:
        raise NotRun(f"block {layer} has no experts, so it routes nothing")
    return _bare(found)


def writers(lm: LanguageModel, layer: int) -> list:
    """The projections of block `layer` that write into the residual stream."""
    return lm.adapter.writers_of(bare_block(lm, layer))


def mixer_projections(lm: LanguageModel, layer: int) -> tuple[list, object, mx.array]:
    """Of the mixer of block `layer`: the projections that make queries, keys and values, the one
    that writes into the residual stream, and the weights (width,) of the norm before the former."""
    reading, writing, norm = lm.adapter.mixer_projections_of(bare_block(lm, layer))
    return reading, writing, norm.weight.astype(mx.float32)


def _place(lm: LanguageModel, site: Site) -> tuple:
    """The container and key under which a site's module, or its array, hangs, and the site's side
    of the module."""
    if not 0 <= site.layer < len(lm.blocks):
        raise PhasescopeError(f"site {site}: the model has layers 0 to {len(lm.blocks) - 1}")
    _check_kind(site.kind)
    if site.kind in ("router", "expert_selection"):
        experts = router(lm, site.layer)
        biased = site.kind == "expert_selection" and SELECTION_BIAS in experts
        return experts, SELECTION_BIAS if biased else "gate", "output"
    block = bare_block(lm, site.layer)
    place = lm.adapter.place_of(block, site.kind)
    if place is None:
        raise NotRun(f"block {site.layer} has no site {site.kind!r}")
    if not place.module:
        return lm.blocks, site.layer, place.side
    parent, _, key = place.module.rpartition(".")
    return _bare(module_at(block, parent)), key, place.side


@contextmanager
def replaced(lm: LanguageModel, changes: Iterable[tuple]) -> Iterator[None]:
    """Put objects in the place of others: (container, key, what stands there meanwhile).

    What stood there comes back on exit, exceptions included.
    """
    undo = []
    lm.taps += 1
    try:
        for container, key, new in changes:
            undo.append((container, key, container[key]))
            container[key] = new
        yield
    finally:
        for container, key, old in reversed(undo):
            container[key] = old
        lm.taps -= 1


def _tap(lm: LanguageModel, functions: Mapping[Site, Function]) -> Iterator[tuple]:
    for site, function in functions.items():
        container, key, side = _place(lm, site)
        found = container[key]
        is_array = isinstance(found, mx.array)
        yield container, key, function(found) if is_array else _SIDES[side](found, function)


@contextmanager
def tapped(lm: LanguageModel, functions: Mapping[Site, Function]) -> Iterator[None]:
    """Pass the activations (batch, length, width) at each site through its function.

    A bias for selection (experts,) is passed through it as it is. Module containers are restored
    on exit, exceptions included; no weight is touched.
    """
    with replaced(lm, _tap(lm, functions)):
        yield
