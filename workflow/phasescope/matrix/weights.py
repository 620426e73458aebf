"""Bytes of a model's weights at each precision, from mlx-lm's own classes without allocating.

Arrays of MLX are lazy: a model that is built but never evaluated has names, shapes and types, and
no data. So it goes through mlx-lm's own quantization, with the model's own predicate (routers at
8 bit, embeddings quantized, norms not), and its tensors are only counted.
"""

import contextlib
import copy
import io
import math
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version

from phasescope.matrix import kept
from phasescope.matrix.dimensions import dimensions, text_config
from phasescope.matrix.sources import Source
from phasescope.tables.provenance import sha256_json

_FP8_BLOCK = 128
_LAYOUT = 2  # of what is remembered: counts up when it changes
_TWO = 2  # bytes of a 16-bit float


@dataclass(frozen=True)
class Weights:
    """Weights of one model at one precision.

    parameters, active_parameters: of the language model, all and used per token; ballast: elements
    of what the checkpoint holds beside it (vision, multi-token prediction); source_bytes: of the
    16-bit checkpoint's files; file_bytes: tensors' bytes at this precision; largest: elements of
    the largest tensor. written, written_bytes, largest_written: the same of the projections that
    write into the residual stream, which weight edits replace.
    """

    parameters: int
    active_parameters: int
    ballast: int
    source_bytes: int
    file_bytes: int
    largest: int
    written: int
    written_bytes: int
    largest_written: int

    def memory_bytes(self, metal: bool) -> float:
        """Bytes in memory: as stored on Metal, float32 on the CPU."""
        return float(self.file_bytes if metal else 4 * self.parameters)

    def loading_bytes(self, metal: bool, precision: str) -> float:
        """What else is in memory while the weights are read, one tensor after another, bytes. At
        16 bit a tensor as stored, and experts stacked from it; quantized ones are read as they are
        on Metal, and on the CPU unpacked to integers and to numbers of 32 bits."""
        if precision == "16":
            return 2.0 * self.largest * _TWO
        return 0.0 if metal else 2.0 * self.largest * 2 * _TWO

    def editing_bytes(self, metal: bool) -> tuple[float, float]:
        """What a weight edit adds: originals beside the edited projections, for as long as it
        holds, and one projection as numbers while it is edited, bytes."""
        kept = self.written_bytes if metal else 4 * self.written
        # dequantized, in float32, what is taken away, and the result
        each = 14 if metal else 12
        return float(kept), float(each * self.largest_written)


def from_sheet(parameters: float, active: float, precision: str, group_size: int) -> Weights:
    """Weights as far as numbers of parameters tell: every tensor quantized in groups."""
    bits = int(precision)
    each = bits / 8 + (0 if bits == 16 else 2 * _TWO / group_size)
    n = int(parameters)
    size = math.ceil(each * n)
    return Weights(n, int(active), 0, _TWO * n, size, n // 100, n // 3, size // 3, n // 99)


def weights_of(source: Source, precision: str, group_size: int) -> Weights:
    """Weights of a model whose config is known; built once for each config, then remembered.

    Raises KeyError, TypeError or ValueError where mlx-lm cannot build the config.
    """
    key = sha256_json(
        [
            _LAYOUT,
            source.config,
            source.dtypes,
            precision,
            group_size,
            version("mlx"),
            version("mlx-lm"),
        ]
    )
    found = kept.get("weights", key)
    if found is None:
        found = asdict(_count(source, precision, group_size))
        kept.put("weights", key, found)
    weights = Weights(**found)
    if source.file_bytes is None:
        return weights
    return replace(weights, source_bytes=source.file_bytes)


def _count(source: Source, precision: str, group_size: int) -> Weights:
    from mlx.utils import tree_flatten

    model = _build(source, cast=precision != "16")
    flat = dict(tree_flatten(model.parameters()))
    sizes = [a.size for a in flat.values()]
    ballast = _ballast(source.config)
    on_disk = _source_bytes(flat, source.config) + _TWO * ballast
    active = _active(flat, source.config)
    if precision != "16":
        _quantize(model, int(precision), group_size)
    stored = {name: a.nbytes for name, a in tree_flatten(model.parameters())}
    written = [a.size for name, a in flat.items() if _writes(name)]
    return Weights(
        parameters=sum(sizes),
        active_parameters=active,
        ballast=ballast,
        source_bytes=on_disk,
        file_bytes=sum(stored.values()),
        largest=max(sizes),
        written=sum(written),
        written_bytes=sum(size for name, size in stored.items() if _writes(name)),
        largest_written=max(written),
    )


def _build(source: Source, *, cast: bool):
    """The model of a config with lazy parameters in the types that they have in its files.

    cast: as mlx-lm's conversion casts them before it quantizes.
    """
    import mlx.core as mx
    from mlx.utils import tree_map_with_path
    from mlx_lm.utils import _get_classes

    config = copy.deepcopy(source.config)  # mlx-lm renames keys inside
    wanted = (config.get("torch_dtype") or text_config(config).get("dtype")) if cast else None
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    keeps = getattr(model, "cast_predicate", lambda _: True)

    def typed(path, array):
        name = wanted if wanted and keeps(path) else source.dtype_of(path)
        return array.astype(getattr(mx, name))

    model.update(tree_map_with_path(typed, model.parameters()))
    if stored := config.get("quantization"):  # a checkpoint that is quantized already
        _quantize(model, stored["bits"], stored["group_size"])
    return model


def _quantize(model, bits: int, group_size: int) -> None:
    from mlx_lm.utils import quantize_model

    with contextlib.redirect_stdout(io.StringIO()):  # it reports bits per weight
        quantize_model(model, {}, group_size, bits)


def _writes(name: str) -> bool:
    return name.rpartition(".")[0].endswith((".o_proj", ".out_proj", ".down_proj"))


def _routed(name: str) -> bool:
    return ".switch_mlp." in name


def _active(flat: dict, config: dict) -> int:
    """Parameters that one token uses: all but the experts that its router leaves out; a row of an
    untied embedding counts as nothing."""
    d = dimensions(config)
    share = d.top_k / d.experts if d.experts else 1.0
    used = sum(a.size * (share if _routed(k) else 1.0) for k, a in flat.items())
    untied = any(k.endswith("lm_head.weight") for k in flat)
    return round(used - (d.vocabulary * d.hidden if untied else 0))


def _source_bytes(flat: dict, config: dict) -> int:
    """Bytes of the published files' language model: 16-bit floats, or blocks of 8-bit ones."""
    scheme = config.get("quantization_config") or {}
    if scheme.get("quant_method") != "fp8":
        return sum(a.nbytes for a in flat.values())
    plain = ("embed_tokens", *scheme.get("modules_to_not_convert", ()))
    total = 0
    for name, a in flat.items():
        module = name.rsplit(".", 2)[-2] if "." in name else name
        if a.ndim < 2 or module in plain:
            total += a.nbytes
        else:
            blocks = math.prod(-(-n // _FP8_BLOCK) for n in a.shape[-2:]) * a.size
            total += a.size + 4 * blocks // math.prod(a.shape[-2:])
    return total


def _ballast(config: dict) -> int:
    """Elements of the vision tower and the multi-token prediction layers that a config declares."""
    found = 0
    if vision := config.get("vision_config"):
        h, inner = vision["hidden_size"], vision["intermediate_size"]
        merged = h * vision["spatial_merge_size"] ** 2
        patch = vision["in_channels"] * vision["temporal_patch_size"] * vision["patch_size"] ** 2
        block = 4 * h * h + 2 * h * inner + 9 * h + inner
        ends = (patch + 1 + vision["num_position_embeddings"]) * h
        found += (
            vision["depth"] * block + ends + (merged + 1) * (merged + vision["out_hidden_size"])
        )
    if layers := text_config(config).get("mtp_num_hidden_layers", 0):
        d = dimensions(config)
        queries = d.heads * d.head_dim
        mixer = d.hidden * (queries * (3 if d.gated else 2) + 2 * d.kv_heads * d.head_dim)
        forward = 3 * d.hidden * (d.feed_forward + d.experts * d.expert_width)
        router = d.hidden * (d.experts + 1) if d.experts else 0
        found += layers * (mixer + forward + router + 2 * d.hidden) + 2 * d.hidden**2
    return found
