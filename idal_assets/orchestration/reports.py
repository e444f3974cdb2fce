"""Makes artifacts and says what became of them, in values: Dask would try an error again on another worker."""

import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from idal_assets.progress import Track
from idal_assets.store.artifacts import Provenance
from idal_assets.study import passing
from idal_assets.study.graph import GRAPH
from idal_assets.study.making import Finding, judge, make_files, shown
from idal_assets.study.order import Chain
from idal_assets.study.study import Study, named

LOGGER = logging.getLogger(__name__)


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
        shows: What a person wants to see of it.
        finding: What its check says, where the asset has one.
        failure: Why it cannot be used.
    """

    asset: str
    record: Provenance | None = None
    made_now: bool = False
    shows: Mapping[str, Any] = field(default_factory=dict)
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


def attempt(
    study: Study, asset: str, key: str | None, track: Track, ready: Callable[[], None] = lambda: None
) -> Outcome:
    """Makes an artifact that is not current and has it checked; what passes by itself is tried again.

    Args:
        study: The study, whose database is left to whoever hears of this.
        asset: Name of the asset.
        key: The partition; None where the asset has none.
        track: Shows the progress.
        ready: Called before each attempt; raises where something is missing.

    Returns:
        What became of it. An error is returned and not raised, since bad data stay bad everywhere.
    """
    for tried in range(passing.MAX_RETRIES + 1):
        try:
            ready()
            return _made(study, asset, key, track)
        except Exception as error:
            if tried == passing.MAX_RETRIES or not passing.may_pass(error):
                return Outcome(asset, failure=failure_of(error, asset, key))
            LOGGER.warning("%s is tried again: %s", named(asset, key), error)
            time.sleep(passing.SECONDS_TO_WAIT)
    raise AssertionError


def _made(study: Study, asset: str, key: str | None, track: Track) -> Outcome:
    record, made_now = make_files(study, asset, key, track, by_itself=True)
    shows = shown(study, asset, key)
    check = GRAPH[asset].check
    finding = judge(study, asset, key) if check else None
    if check and finding and finding.problems:
        message = f"{named(asset, key)} did not pass its check {check.name}.\n{'; '.join(finding.problems)}"
        return Outcome(asset, record, made_now, shows, finding, Failure(message))
    return Outcome(asset, record, made_now, shows, finding)


def failure_of(error: BaseException, asset: str, key: str | None) -> Failure:
    """An error in words, by what it was raised from in the end."""
    trace = "".join(traceback.format_exception(error))
    shows = getattr(error, "shows", None)
    while error.__cause__ is not None:
        error = error.__cause__
    return Failure(f"{named(asset, key)} failed.\n{type(error).__name__}: {error}", trace, shows)
