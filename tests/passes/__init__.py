"""Tests of the passes, the verifier and what is built on them."""
