"""Hydra's plug-in for searches with Katib's algorithms: hydra/sweeper=katib."""
