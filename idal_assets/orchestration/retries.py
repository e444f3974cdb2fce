"""Has Dagster try again what passes by itself."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from idal_assets.study import passing
from idal_assets.study.passing import may_pass


@contextmanager
def tried_again() -> Iterator[None]:
    """Has Dagster try the step again where an error may pass.

    Raises:
        RetryRequested: The error may pass; it is the cause. After the last retry the step fails with it.
    """
    try:
        yield
    except Exception as error:
        if may_pass(error):
            raise dg.RetryRequested(passing.MAX_RETRIES, passing.SECONDS_TO_WAIT) from error
        raise
