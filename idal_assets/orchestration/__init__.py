"""The Dagster side: assets that call the science, what they need, and how they are run."""
