"""How many processor cores this process has."""

import os


def usable_cores() -> int:
    """Cores that this process may use; a cluster often grants fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
