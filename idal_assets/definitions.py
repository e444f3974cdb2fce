"""The code location that Dagster loads."""

from idal_assets.orchestration.definitions import build_definitions

defs = build_definitions()
