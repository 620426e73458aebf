"""Tensors of a GGUF file as float32: read.py FILE NAMES.json VALUES.npz. Run in the environment of
llama.cpp's converter."""

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

file, names_file, target = sys.argv[1:]
tensors = {t.name: t for t in GGUFReader(file).tensors}
names = json.loads(Path(names_file).read_text())
if missing := [n for n in names if n not in tensors]:
    sys.exit(f"{file}: no tensor {missing[0]!r}; it has {', '.join(tensors)}")
types = [tensors[n].tensor_type.name for n in names]
values = [dequantize(tensors[n].data, tensors[n].tensor_type) for n in names]
arrays = {str(i): np.asarray(v, dtype=np.float32) for i, v in enumerate(values)}
np.savez(target, types=json.dumps(types), **arrays)
