"""Settings of one run: what the launchpad shows of the profile, and what a person changed there.

The launchpad of an asset shows the settings that determine it, with the values of the profile. A value that is
changed there holds for that asset in that run and becomes part of what the artifact was made from, so it has
another version; the profile stays as it is, and everything that goes by the profile calls the artifact outdated.
"""

from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import dagster as dg
from pydantic import BaseModel

from idal_assets.profile import Profile
from idal_assets.study.graph import Node

FIXED = {
    *("anatomy", "out_of_fold.folds", "removal.sizes", "controls.random", "controls.halves", "controls.seeds"),
    *("name", "description", "cohort.patients"),
}
"""They decide which regions, folds, sets and patients there are, or name the study; no asset has its own."""


def config_schema(node: Node, profile: Profile) -> dict[str, dg.Field]:
    """The launchpad's fields for an asset: its settings in the profile's order, with the profile's values."""
    paths = [path for path in node.settings if path not in FIXED]
    return _fields(profile, profile.model_dump(mode="json"), paths, "")


def given_settings(run_config: Mapping[str, Any], node: Node) -> Mapping[str, Any]:
    """What a run's configuration says about the settings of an asset.

    Args:
        run_config: As it was submitted, without defaults: those are of the time when the code location was loaded,
            and the profile may have been changed since.
        node: The asset.

    Returns:
        Values by section and setting.
    """
    return run_config.get("ops", {}).get(node.name, {}).get("config") or {}


def _fields(model: BaseModel, values: Mapping[str, Any], paths: list[str], prefix: str) -> dict[str, dg.Field]:
    found = {}
    for name, field in type(model).model_fields.items():
        path = prefix + name
        whole = path in paths
        inside = [wanted for wanted in paths if wanted.startswith(f"{path}.")]
        if path in FIXED or not (whole or inside):
            continue
        inner = getattr(model, name)
        if isinstance(inner, BaseModel):
            below = [f"{path}.{part}" for part in type(inner).model_fields] if whole else inside
            fields = _fields(inner, values[name], below, f"{path}.")
            shown = {part: field.default_value for part, field in fields.items()}
            found[name] = dg.Field(dg.Shape(fields), default_value=shown, description=_summary(inner))
        else:
            found[name] = dg.Field(_kind(field.annotation), default_value=values[name])
    return found


def _kind(annotation: Any) -> Any:
    """Dagster's type for the type of a setting; ranges are left to the profile, whose errors say more."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        (inner,) = (argument for argument in arguments if argument is not NoneType)
        return dg.Noneable(_kind(inner))
    if origin is Literal:
        return _choice(arguments)
    if origin is tuple:
        return dg.Array(_kind(arguments[0]))
    return {int: int, float: float, bool: bool, str: str}[annotation]


@cache
def _choice(values: tuple[str, ...]) -> dg.Enum:
    """One Dagster type for each set of choices; two of the same name would be a conflict."""
    return dg.Enum("_or_".join(values), [dg.EnumValue(value) for value in values])


def _summary(model: BaseModel) -> str:
    return (type(model).__doc__ or "").strip().splitlines()[0]
