"""Light-curve features: each declares itself as data, numba kernels compute them by the batch."""
