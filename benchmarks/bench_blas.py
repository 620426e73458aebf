"""mlx's 1024^3 float32 matrix product with phasescope's BLAS and with the wheel's own.

Each side runs in processes of its own, alternating, since mlx binds its BLAS once.
Usage: make bench-blas
"""

import os
import subprocess
import sys

SIZE = 1024
ROUNDS = 3
MEASURE = f"""
import sys, time
import mlx.core as mx
a, b = mx.random.normal((2, {SIZE}, {SIZE}))
mx.eval(a, b)
best = float("inf")
for _ in range(4):
    start = time.perf_counter()
    mx.eval(a @ b)
    best = min(best, time.perf_counter() - start)
fast_blas = sys.modules.get("phasescope.fast_blas")
print(2 * {SIZE}**3 / best / 1e9, fast_blas.name() if fast_blas else "the wheel's own BLAS")
"""


def measure(setup: str) -> tuple[float, str]:
    """GFLOPS and the BLAS's name, from a fresh process that runs `setup` first."""
    result = subprocess.run(
        [sys.executable, "-c", setup + MEASURE], check=True, capture_output=True, text=True
    )
    gflops, name = result.stdout.strip().split(" ", 1)
    return float(gflops), name


if __name__ == "__main__":
    print(f"{SIZE}^3 float32 product in mlx, GFLOPS, best of 4, on {os.cpu_count()} cores")
    print(f"{'round':5}  {'without':>8}  {'with':>8}  {'ratio':>6}")
    for round_ in range(1, ROUNDS + 1):
        slow, slow_name = measure("")
        fast, fast_name = measure("import phasescope\n")
        print(f"{round_:5}  {slow:8.1f}  {fast:8.1f}  {fast / slow:5.1f}x")
    print(f"without: {slow_name}; with: {fast_name}")
