"""The study: one experiment with its cohort, its graph of artifacts, and how one of them is made."""
