"""What pyproject.toml cannot say: an extension for Linux only."""

import sys

from setuptools import Extension, setup

# Optional: without a C compiler the package installs all the same; importing it says what it lacks.
shim = Extension("phasescope._fast_blas", ["workflow/phasescope/_fast_blas.c"], optional=True)

setup(ext_modules=[shim] if sys.platform == "linux" else [])
