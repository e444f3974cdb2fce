"""Which training cases help a brain-tumour segmentation, and which harm it.

The package has two layers. `imaging`, `nnunet`, `analysis`, `plots` and `report` hold the science as plain
Python that never imports Dagster. `orchestration` holds the assets that call it. `settings`, `study`, `graph`
and `artifacts` stand between the two: what an experiment is, where its files are, what each is made from and
how it is written.
"""
