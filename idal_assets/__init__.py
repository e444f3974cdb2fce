"""Which training cases help a segmentation network, and which harm it.

The package has two layers. `imaging`, `nnunet`, `analysis`, `plots` and `report` hold the science as plain Python
that never imports Dagster, and `steps` calls it, one function an artifact. `orchestration` shows the artifacts to
Dagster. Between the two stand `study`, which says what an experiment is, what each artifact is made from and how
it is made, and `store`, which writes it.
"""
