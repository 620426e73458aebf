"""What a quantized checkpoint will hold, tensor by tensor, before anything is computed.

mlx-lm's own loader and quantizer run on a model without values: they decide names, types, shapes,
order, the bits of each module and config.json. `symbolic` says how each tensor is made.
"""

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map_with_path

from phasescope.checkpoint.following import following
from phasescope.checkpoint.headers import check, read_header, shards
from phasescope.checkpoint.symbolic import DTYPES, Constant, Stored, Symbol, origins
from phasescope.errors import PhasescopeError

SHARD_BYTES = 5 << 30  # as mlx-lm
INDEX = "model.safetensors.index.json"
_NAMES = {dtype: name for name, dtype in DTYPES.items() if not name.startswith("F8")}


@dataclass(frozen=True)
class Output:
    """One tensor of the output: where it stands in its shard, bytes after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass
class Item:
    """What is computed together: a plain tensor, or weight, scales and biases of one module.

    `outputs` are by place in what `make` returns; those of another shard are left out.
    """

    symbol: Symbol
    quantization: dict | None
    outputs: dict[int, Output] = field(default_factory=dict)

    def make(self, array: mx.array) -> Sequence[mx.array]:
        """The outputs' values from rows of the source."""
        return (array,) if self.quantization is None else mx.quantize(array, **self.quantization)


@dataclass
class Shard:
    """One file of the output, its header known."""

    name: str
    items: list[Item]
    metadata: dict[str, str]

    @property
    def outputs(self) -> list[Output]:
        """Its tensors in the order of their bytes."""
        found = (output for item in self.items for output in item.outputs.values())
        return sorted(found, key=lambda output: output.begin)

    def header(self) -> bytes:
        """Length and header, padded to 8 bytes, as the file begins."""
        table = {"__metadata__": self.metadata} | {
            o.name: {"dtype": o.dtype, "shape": o.shape, "data_offsets": [o.begin, o.end]}
            for o in self.outputs
        }
        text = json.dumps(table, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


@dataclass
class Layout:
    """All files of the output. `files` are written as they stand, `copied` come from the source."""

    shards: list[Shard]
    files: dict[str, str]
    copied: list[Path]
    dropped: list[str]
    dropped_bytes: int

    @property
    def read_bytes(self) -> int:
        """Bytes of source values that making it goes through, as they are before quantization."""
        return sum(item.symbol.nbytes for shard in self.shards for item in shard.items)

    @property
    def written_bytes(self) -> int:
        """Bytes of tensors that it will hold."""
        return sum(shard.outputs[-1].end for shard in self.shards)


@dataclass(frozen=True)
class _Planned:
    """One output tensor before it has a place: how it is made, and which result of that it is."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    key: str
    place: int
    symbol: Symbol
    quantization: dict | None


def stored(source: Path) -> dict[str, Stored]:
    """Every tensor of a checked checkpoint folder as a symbol, by name, in the order of the bytes.

    Raises PhasescopeError for a type that mlx has none of.
    """
    check(source)
    found = {}
    for shard in shards(source):
        with open(shard, "rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
        for name, tensor in sorted(read_header(shard).items(), key=lambda entry: entry[1].begin):
            if tensor.dtype not in DTYPES:
                raise PhasescopeError(
                    f"{shard}: tensor {name!r}: type {tensor.dtype!r}; allowed: {', '.join(DTYPES)}"
                )
            found[name] = Stored(
                name, shard, start + tensor.begin, tensor.shape, DTYPES[tensor.dtype]
            )
    return found


def load_symbols(source: Path, tensors: dict[str, Stored]) -> tuple:
    """mlx-lm's model of a folder without its values, config, and a symbol by parameter.

    The loader is mlx-lm's; just its `sanitize` is given symbols instead of arrays. Raises
    PhasescopeError where that cannot be followed, or the tensors are not the model's.
    """
    from mlx_lm.utils import _get_classes, load_model

    symbols: dict[str, Symbol] = {}

    def classes(config):
        model_class, arguments = _get_classes(config)

        class Streamed(model_class):
            def sanitize(self, _weights):
                own = getattr(super(), "sanitize", dict)
                symbols.update(_sanitized(own, tensors, source))
                return {k: mx.zeros(s.shape, s.dtype) for k, s in symbols.items()}

        return Streamed, arguments

    try:
        model, config = load_model(source, lazy=True, get_model_classes=classes)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise PhasescopeError(f"{source}: mlx-lm cannot load it: {_first_line(error)}") from None
    if "quantization" in config:
        raise PhasescopeError(
            f"{source / 'config.json'}: key 'quantization': it is quantized already; "
            "allowed: a 16- or 32-bit checkpoint, or MiniMax's 8-bit floats"
        )
    return model, config, symbols


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [repr(error)])[0]


def _sanitized(sanitize: Callable, tensors: dict[str, Stored], source: Path) -> dict[str, Symbol]:
    try:
        with following():
            found = sanitize(dict(tensors))
    except KeyError as error:
        raise PhasescopeError(f"{source}: tensor {error} is missing") from None
    except Exception as error:
        raise PhasescopeError(
            f"{source}: this architecture's sanitizing cannot be streamed "
            f"({_first_line(error)}); mlx_lm.convert can do it on a machine that holds it"
        ) from None
    return {k: v if isinstance(v, Symbol) else Constant(v) for k, v in found.items()}


def _cast(model, config: dict) -> None:
    """Give parameters the type that the configuration names, as mlx_lm.convert does."""
    from mlx_lm.convert import MODEL_CONVERSION_DTYPES

    dtype = config.get("torch_dtype") or (config.get("text_config") or {}).get("dtype")
    if dtype not in MODEL_CONVERSION_DTYPES:
        return
    wanted = getattr(model, "cast_predicate", lambda _: True)

    def cast(name, value):
        floating = mx.issubdtype(value.dtype, mx.floating)
        return value.astype(getattr(mx, dtype)) if floating and wanted(name) else value

    model.update(tree_map_with_path(cast, model.parameters()))


def _indivisible(model, group_size: int) -> list[str]:
    """Modules that quantization is for, but whose rows do not divide into groups.

    mlx-lm leaves such a module as it is and says nothing.
    """
    wanted = getattr(model, "quant_predicate", None) or (lambda path, module: True)
    return [
        path
        for path, module in model.named_modules()
        if hasattr(module, "to_quantized")
        and module.weight.shape[-1] % group_size
        and wanted(path, module)
    ]


def _quantized(model, config: dict, bits: int, group_size: int) -> tuple:
    from mlx_lm.utils import quantize_model

    if odd := _indivisible(model, group_size):
        raise ValueError(f"the rows of {odd[0]} and {len(odd) - 1} more do not divide")
    with contextlib.redirect_stdout(io.StringIO()):
        return quantize_model(model, config, group_size, bits)


def _quantization(model) -> dict[str, dict]:
    """How each quantized module is: mode, bits, group size.

    Raises ValueError for a class whose `to_quantized` may do more than mx.quantize.
    """
    import mlx.nn as nn
    from mlx_lm.models.mla import QuantizedMultiLinear
    from mlx_lm.models.switch_layers import QuantizedSwitchLinear

    plain = nn.QuantizedLinear, nn.QuantizedEmbedding, QuantizedSwitchLinear, QuantizedMultiLinear
    found = {}
    for path, module in model.named_modules():
        if "scales" not in module:
            continue
        if type(module) not in plain:
            raise ValueError(f"{path}: modules of type {type(module).__name__} cannot be streamed")
        found[path] = {k: getattr(module, k) for k in ("group_size", "bits", "mode")}
    return found


def _planned(model, symbols: dict[str, Symbol], dtypes: dict[str, mx.Dtype]) -> list[_Planned]:
    quantization, found = _quantization(model), []
    for name, value in tree_flatten(model.parameters()):
        module, _, own = name.rpartition(".")
        made_by = quantization.get(module) if own in ("weight", "scales", "biases") else None
        key = f"{module}.weight" if made_by else name
        place = ("weight", "scales", "biases").index(own) if made_by else 0
        symbol = symbols[key].astype(dtypes[key])
        dtype = _NAMES[value.dtype]
        found.append(_Planned(name, dtype, value.shape, value.nbytes, key, place, symbol, made_by))
    return found


def _shards(planned: list[_Planned], limit: int, metadata: dict[str, str]) -> list[Shard]:
    """Tensors in order, cut into files like mlx-lm's: a new one where `limit` would be passed."""
    cut: list[list[_Planned]] = []
    size = 0
    for tensor in planned:
        if not cut or size + tensor.nbytes > limit:
            cut.append([])
            size = 0
        cut[-1].append(tensor)
        size += tensor.nbytes
    many = len(cut) > 1
    names = [f"model-{i + 1:05d}-of-{len(cut):05d}" if many else "model" for i in range(len(cut))]
    return [
        Shard(f"{name}.safetensors", _placed(tensors), metadata)
        for name, tensors in zip(names, cut, strict=True)
    ]


def _placed(tensors: list[_Planned]) -> list[Item]:
    items: dict[str, Item] = {}
    begin = 0
    for t in tensors:
        item = items.setdefault(t.key, Item(t.symbol, t.quantization))
        item.outputs[t.place] = Output(t.name, t.dtype, t.shape, begin, begin + t.nbytes)
        begin += t.nbytes
    return list(items.values())


def _index(found: list[Shard], more: dict) -> str:
    places = {o.name: shard.name for shard in found for o in shard.outputs}
    total = sum(o.end - o.begin for shard in found for o in shard.outputs)
    index = {"metadata": {"total_size": total} | more, "weight_map": dict(sorted(places.items()))}
    return json.dumps(index, indent=4)


def _config_text(model, config: dict) -> str:
    """config.json as mlx_lm.save writes it: sorted, without what the model has no part for."""
    from mlx_lm.utils import _encode_tagged_floats

    sees = "vision_tower" in getattr(model, "model", {})
    unused = ("_name_or_path",) if sees else ("_name_or_path", "vision_config")
    kept = {k: v for k, v in config.items() if k not in unused}
    return json.dumps(_encode_tagged_floats(dict(sorted(kept.items()))), indent=4)


def quantized_layout(
    source: Path, bits: int, group_size: int, copied: list[Path], shard_bytes: int = SHARD_BYTES
) -> Layout:
    """The layout of `source` quantized, as mlx_lm.convert would write it.

    Raises PhasescopeError for a checkpoint that is faulty, quantized already, cannot be streamed,
    or whose rows do not divide into groups.
    """
    from mlx_lm.utils import get_total_parameters

    tensors = stored(source)
    model, config, symbols = load_symbols(source, tensors)
    _cast(model, config)
    dtypes = {name: value.dtype for name, value in tree_flatten(model.parameters())}
    try:
        model, config = _quantized(model, config, bits, group_size)
        planned = _planned(model, symbols, dtypes)
    except ValueError as error:
        raise PhasescopeError(
            f"{source}: cannot be quantized to {bits} bit in groups of {group_size}: "
            f"{_first_line(error)}"
        ) from None
    found = _shards(planned, shard_bytes, {"format": "mlx"})
    more = {"total_parameters": get_total_parameters(model)}
    files = {"config.json": _config_text(model, config), INDEX: _index(found, more)}
    return Layout(found, files, copied, *_dropped(tensors, symbols))


def lean_layout(source: Path, copied: list[Path], shard_bytes: int = SHARD_BYTES) -> Layout:
    """The layout of `source` as it is, less the tensors that the language model never loads."""
    tensors = stored(source)
    _, _, symbols = load_symbols(source, tensors)
    kept = origins(list(symbols.values()))
    dtypes = {n: t.dtype for shard in shards(source) for n, t in read_header(shard).items()}
    planned = [
        _Planned(name, dtypes[name], symbol.shape, symbol.nbytes, name, 0, symbol, None)
        for name, symbol in tensors.items()
        if name in kept
    ]
    found = _shards(planned, shard_bytes, _metadata(source))
    files = {"config.json": (source / "config.json").read_text(), INDEX: _index(found, {})}
    return Layout(found, files, copied, *_dropped(tensors, symbols))


def _metadata(source: Path) -> dict[str, str]:
    """What the headers of a checkpoint's shards say besides tensors."""
    found = {"format": "pt"}
    for shard in shards(source):
        with open(shard, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        found |= header.get("__metadata__") or {}
    return found


def _dropped(tensors: dict[str, Stored], symbols: dict[str, Symbol]) -> tuple[list[str], int]:
    kept = origins(list(symbols.values()))
    dropped = [name for name in tensors if name not in kept]
    return dropped, sum(tensors[name].nbytes for name in dropped)
