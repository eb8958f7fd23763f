"""The data sets of the source documents, as functions with a seed, and trajectories to train on."""
