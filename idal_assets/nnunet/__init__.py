"""nnU-Net's own parts, put together for many small models: plans, slices, training, prediction, model folders."""
