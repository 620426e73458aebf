"""Peak memory of what quantizes a checkpoint, over checkpoints of several sizes. Claim f02."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from phasescope.checkpoint.quantize import quantize
from phasescope.errors import PhasescopeError

BITS, GROUP = 4, 64
LAYERS = (4, 8, 16, 32)  # of the checkpoints: about 30 to 200 MB
_CONFIG = {
    "model_type": "qwen3",
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
_CHILD = "import sys; from phasescope.checkpoint.memory import child; child(*sys.argv[1:])"


def quantize_ours(source: Path, destination: Path) -> None:
    """This library's quantization."""
    quantize(source, destination, BITS, GROUP)


def quantize_whole(source: Path, destination: Path) -> None:
    """All weights in memory at once, then quantized, then written: no lazy loading."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.utils import load_model, quantize_model

    model, config = load_model(source, lazy=False)
    model, _ = quantize_model(model, config, GROUP, BITS)
    mx.eval(model.parameters())
    destination.mkdir()
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(destination / "model.safetensors"), weights)


QUANTIZERS: dict[str, Callable[[Path, Path], None]] = {
    "phasescope": quantize_ours,
    "whole-model loader": quantize_whole,
}


def _peak_bytes() -> int:
    """The most memory that this process had. Linux: of this program alone, since the usual count
    goes on from the program that started it."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text().splitlines()
        return int(next(x for x in status if x.startswith("VmHWM")).split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def child(name: str, source: str, destination: str) -> None:
    """What the measured process does: quantize, and print by how much that raised its peak."""
    import mlx_lm.utils  # noqa: F401  the base has what every command loads

    base = _peak_bytes()
    QUANTIZERS[name](Path(source), Path(destination))
    print(json.dumps(_peak_bytes() - base))


def _write(folder: Path, layers: int) -> int:
    """A checkpoint of random weights; its size in bytes."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.utils import _get_classes

    config = _CONFIG | {"num_hidden_layers": layers}
    model_class, arguments = _get_classes(config)
    mx.random.seed(layers)
    model = model_class(arguments.from_dict(config))
    weights = {n: v.astype(mx.bfloat16) for n, v in tree_flatten(model.parameters())}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})
    return sum(v.nbytes for v in weights.values())


def _measured(name: str, source: Path, folder: Path) -> int:
    command = [sys.executable, "-c", _CHILD, name, str(source), str(folder / "quantized")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PhasescopeError(f"quantizing by {name}: {said}")
    return int(json.loads(done.stdout.splitlines()[-1]))


def memory_rows() -> Iterator[dict]:
    """Rows of the table `quantization`: each quantizer on checkpoints of random weights of several
    sizes, each in a process of its own. Raises PhasescopeError where one fails."""
    for layers in LAYERS:
        with tempfile.TemporaryDirectory(prefix="phasescope-memory-") as place:
            source = Path(place, "source")
            size = _write(source, layers)
            for number, name in enumerate(QUANTIZERS):
                folder = Path(place, str(number))
                folder.mkdir()
                peak = _measured(name, source, folder)
                found = {"source_bytes": size, "peak_above_base_bytes": peak}
                yield {"writer": name, "bits": BITS, "status": "run"} | found
