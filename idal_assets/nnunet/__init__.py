"""nnU-Net's own parts, put together for many small models: plans, slices, training, prediction, model folders."""

import os

# Augmentation has a thread beside the network's. Threads of OpenMP that wait by spinning would take its core;
# the runtime reads this when PyTorch loads it, which happens in the modules of this package.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
