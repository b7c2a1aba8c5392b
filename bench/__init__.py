"""Measurements: one command for each table of RESULTS.md."""
