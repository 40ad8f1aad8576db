"""Backends: what turns a plan into an attention function."""
