"""What all workers of this machine need imported: the process that they are forked from imports this module.

So they share the memory of PyTorch, nnU-Net and the rest, some 400 MB each, and begin at once.
"""

import atexit
import gc
from importlib import import_module
from pkgutil import iter_modules

import idal_assets.orchestration.worker  # noqa: F401
from idal_assets import steps

for module in iter_modules(steps.__path__):
    import_module(f"{steps.__name__}.{module.name}")
# a collection in a worker would write to every page, and pages that are written to are no longer shared
gc.freeze()
# at its end DuckDB would take what is frozen for leaks, and list them
atexit.register(gc.unfreeze)
