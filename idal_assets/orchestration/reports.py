"""What workers say of the artifacts that they were to make: values, as Dask would try an error again elsewhere."""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from idal_assets.store.artifacts import Provenance
from idal_assets.study.making import Finding
from idal_assets.study.order import Chain
from idal_assets.study.study import named


@dataclass(frozen=True)
class Failure:
    """Why an artifact was not made.

    Attributes:
        message: For a person.
        trace: Where in the code it was; empty where a check refused the artifact.
        shows: What the error has to show on the page of its asset.
    """

    message: str
    trace: str = ""
    shows: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one artifact.

    Attributes:
        asset: Its asset.
        record: Its record; None where it was not made.
        made_now: Whether it was made and not only found to be current.
        finding: What its check says, where the asset has one.
        failure: Why it cannot be used.
    """

    asset: str
    record: Provenance | None = None
    made_now: bool = False
    finding: Finding | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class Report:
    """What came of a chain.

    Attributes:
        chain: The chain.
        outcomes: What became of its artifacts, up to the first that cannot be used.
    """

    chain: Chain
    outcomes: Sequence[Outcome]


def failure_of(error: BaseException, asset: str, key: str | None) -> Failure:
    """An error in words, by what it was raised from in the end."""
    trace = "".join(traceback.format_exception(error))
    shows = getattr(error, "shows", None)
    while error.__cause__ is not None:
        error = error.__cause__
    return Failure(f"{named(asset, key)} failed.\n{type(error).__name__}: {error}", trace, shows)
