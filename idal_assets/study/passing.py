"""Which errors pass by themselves, and are therefore tried again: a busy file, a full card, a network folder.

Bad data, bad settings and missing artifacts never do; the second attempt would only fail later.
"""

import errno
import sys

MAX_RETRIES = 3
SECONDS_TO_WAIT = 30
"""Before each retry: long enough for another process to let go of a card, a file or a network."""

PASSING = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
}
"""What the operating system says of a disk or network folder that is away for a while."""


def may_pass(error: BaseException) -> bool:
    """Whether trying again can help, told from an error and from what it was raised from."""
    return _passes(error) or (error.__cause__ is not None and may_pass(error.__cause__))


def _passes(error: BaseException) -> bool:
    if _is_a(error, "duckdb", "IOException"):
        from idal_assets.store.database import is_held_by_another

        return is_held_by_another(error)
    if isinstance(error, OSError):
        return error.errno in PASSING
    return _is_a(error, "torch", "OutOfMemoryError")


def _is_a(error: BaseException, package: str, name: str) -> bool:
    """Tells the kind of an error without importing its package; where that is not loaded, it raised nothing."""
    module = sys.modules.get(package)
    return module is not None and isinstance(error, getattr(module, name))
