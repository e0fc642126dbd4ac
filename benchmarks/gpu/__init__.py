"""Training on one GPU, measured beside the public recipes of other libraries: `python -m benchmarks.gpu`."""
