"""The steps of the experiment: each reads a study's files, calls the science and writes an artifact's files.

This is where the science meets the data folder. Nothing here imports Dagster; the assets call these functions.
"""
