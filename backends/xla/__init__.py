"""The XLA backend: block-sparse attention on any device."""
