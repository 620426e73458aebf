"""What the language model makes of a checkpoint, found by mlx-lm's own loader without a weight.

The loader runs as it does for a run: model class of the config, `sanitize`, quantization. Its
arrays are lazy, so only headers are read. Sanitizing is traced once: the graph of what it computes
says which tensors of the file each parameter comes from, whatever the names.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from phasescope.checkpoint.headers import read_json
from phasescope.errors import shown

_MOST_LAYERS = 10_000
# used only where sanitizing cannot be traced
_BALLAST_NAMES = re.compile(r"(^|\.)(visual|vision\w*|audio\w*|mtp\w*|multi_modal\w*)\.")


@dataclass(frozen=True)
class Quantization:
    """How a module's weights are packed."""

    bits: int
    group_size: int
    mode: str


@dataclass
class Architecture:
    """What mlx-lm's model class makes of the tensors of a checkpoint.

    `uses`: parameters of the language model by tensor; no parameter: ballast. `traced`: whether
    that was read from the graph; otherwise from the tensors' names. `quantized`: packing by
    module. `faults`: a line each where the tensors do not fit the config.
    """

    uses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    traced: bool = True
    quantized: dict[str, Quantization] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


class _Done(Exception):
    """Everything is known; the loader need not go on."""


@contextmanager
def _traceable() -> Iterator[None]:
    """FP8 conversion by a primitive that can be traced; same shape, same dependence."""
    import mlx.core as mx

    original = mx.from_fp8
    mx.from_fp8 = lambda array, dtype=mx.bfloat16, **_: array.astype(dtype)
    try:
        yield
    finally:
        mx.from_fp8 = original


def _sources(outputs: dict[str, str], inputs: dict[str, str], parents: dict[str, list[str]]):
    """Names of the inputs that each output depends on; arrays by id."""
    for name, identity in outputs.items():
        seen, waiting = set(), [identity]
        while waiting:
            if (at := waiting.pop()) not in seen:
                seen.add(at)
                waiting += parents.get(at, ())
        yield name, [inputs[i] for i in seen if i in inputs]


def _traced_uses(sanitize: Callable, weights: dict) -> dict[str, tuple[str, ...]]:
    """Sanitized names by the name in the file; raises ValueError where that cannot be traced."""
    import mlx.core as mx

    names, kept = list(weights), []
    parents: dict[str, list[str]] = {}
    ends: dict[str, list[str]] = {}

    def run(*arrays):
        found = sanitize(dict(zip(names, arrays, strict=True)))
        kept[:] = found
        return tuple(found.values())

    def note(event: dict) -> None:
        if event["type"] == "primitive":
            above = [array[0] for array in event["inputs"]]
            parents.update({array[0]: above for array in event["outputs"]})
        elif event["type"] in ("inputs", "outputs"):
            ends[event["type"]] = [array[0] for array in event[event["type"]]]

    with _traceable():
        mx.export_function(note, run, tuple(weights.values()))
    inputs = dict(zip(ends["inputs"], names, strict=True))
    uses: dict[str, list[str]] = {name: [] for name in names}
    for parameter, sources in _sources(
        dict(zip(kept, ends["outputs"], strict=True)), inputs, parents
    ):
        for source in sources:
            uses[source].append(parameter)
    return {name: tuple(sorted(found)) for name, found in uses.items()}


def _uses(sanitize: Callable, weights: dict) -> tuple[dict[str, tuple[str, ...]], bool]:
    try:
        return _traced_uses(sanitize, weights), True
    except (ValueError, RuntimeError):  # a value was asked for, or a primitive has no trace
        return {n: () if _BALLAST_NAMES.search(n) else (n,) for n in weights}, False


def _packing(model) -> dict[str, Quantization]:
    return {
        path: Quantization(module.bits, module.group_size, getattr(module, "mode", "affine"))
        for path, module in model.named_modules()
        if hasattr(module, "bits") and hasattr(module, "group_size")
    }


def _misfits(model, given: dict, uses: dict, where: Path) -> Iterator[str]:
    """Where tensors and the config's model do not fit, a line each."""
    from mlx.utils import tree_flatten

    expected = {name: array.shape for name, array in tree_flatten(model.parameters())}
    origins: dict[str, list[str]] = {}
    for source, parameters in uses.items():
        for parameter in parameters:
            origins.setdefault(parameter, []).append(source)

    def tensor(name: str) -> str:
        found = sorted(origins.get(name, [name]))
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return f"tensor {shown(found[0])}{more}"

    for name in sorted(given.keys() - expected.keys()):
        yield f"{where}: {tensor(name)} has no place in the model of config.json"
    for name in sorted(expected.keys() - given.keys()):
        yield f"{where}: tensor {shown(name)} is missing; the model of config.json needs it"
    for name in sorted(expected.keys() & given.keys()):
        if expected[name] != given[name].shape:
            yield (
                f"{where}: {tensor(name)} has shape {list(given[name].shape)}; the model of "
                f"config.json has {list(expected[name])}"
            )


def _spying(classes: Callable, found: Architecture, where: Path) -> Callable:
    """mlx-lm's model class for a config, noting what passes through it instead of loading."""

    def get(config: dict):
        model_class, arguments_class = classes(config)
        own = getattr(model_class, "sanitize", lambda self, weights: weights)

        class Spy(model_class):
            def sanitize(self, weights):
                found.uses, found.traced = _uses(lambda w: own(self, w), weights)
                return own(self, dict(weights))

            def load_weights(self, weights, strict=True):
                found.quantized = _packing(self)
                found.faults += _misfits(self, dict(weights), found.uses, where)
                raise _Done

        return Spy, arguments_class

    return get


def _absurd(config: dict, where: Path) -> Iterator[str]:
    """Sizes that would keep the loader busy for ever before it looked at a tensor."""
    text = config.get("text_config")
    for key, value in (config | (text if isinstance(text, dict) else {})).items():
        sized = key.endswith(("layers", "experts")) and isinstance(value, int | float)
        if sized and not value <= _MOST_LAYERS:
            yield f"{where}: key {key!r}: found {shown(value)}; allowed: at most {_MOST_LAYERS}"


def architecture(folder: Path) -> Architecture:
    """What the language model that config.json names makes of a folder that `headers.check` passed.

    Takes seconds and no memory to speak of: no weight is read. What does not fit is a fault, not
    an exception.
    """
    from mlx_lm import utils

    found = Architecture()
    where = folder / "config.json"
    found.faults += _absurd(read_json(where, constants=True), where)
    if found.faults:
        return found
    classes = inspect.signature(utils.load_model).parameters["get_model_classes"].default
    try:
        utils.load_model(folder, lazy=True, get_model_classes=_spying(classes, found, folder))
    except _Done:
        pass
    except Exception as error:  # whatever a model class raises for a config it cannot follow
        line = (str(error).splitlines() or [""])[0]
        found.faults.append(
            f"{where}: mlx-lm cannot build its model from these tensors: {type(error).__name__}: "
            f"{shown(line)}"
        )
    return found
