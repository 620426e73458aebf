"""A cell's weights: mlx-lm's affine quantization, or the source passed through."""

from pathlib import Path

from phasescope.checkpoint.fetch import content_hash, link
from phasescope.checkpoint.headers import check
from phasescope.errors import PhasescopeError
from phasescope.tables.files import atomic_folder


def _indivisible(source: Path, group_size: int) -> list[str]:
    """Modules that quantization is for, but whose rows do not divide into groups.

    mlx-lm leaves such a module as it is and says nothing.
    """
    from mlx_lm.utils import load_model

    model, _ = load_model(source, lazy=True)
    wanted = getattr(model, "quant_predicate", None) or (lambda path, module: True)
    return [
        path
        for path, module in model.named_modules()
        if hasattr(module, "to_quantized")
        and module.weight.shape[-1] % group_size
        and wanted(path, module)
    ]


def quantize(source: Path, destination: Path, bits: int, group_size: int) -> str:
    """Quantize the checkpoint folder `source` to `bits` (16 passes through as links).

    Uses mlx_lm.convert, so the recipe is mlx-lm's own (routers stay at 8 bit). Returns the
    content hash of what was written. Raises PhasescopeError when a tensor's rows do not divide
    into groups; nothing is left then.
    """
    if bits == 16:
        link(source.resolve(), destination)
        return content_hash(destination)
    from mlx_lm import convert

    with atomic_folder(destination) as temporary:
        try:
            if odd := _indivisible(source, group_size):
                raise ValueError(f"the rows of {odd[0]} and {len(odd) - 1} more do not divide")
            convert(
                str(source), str(temporary), quantize=True, q_bits=bits, q_group_size=group_size
            )
        except ValueError as error:
            raise PhasescopeError(
                f"{source}: cannot be quantized to {bits} bit in groups of {group_size}: {error}"
            ) from None
        check(temporary)
    return content_hash(destination)
