"""patterndsl: declare attention sparsity, have it analysed and run in JAX."""
