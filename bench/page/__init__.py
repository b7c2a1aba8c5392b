"""Benchmarks of the page: how long it takes to appear, and whether it stays responsive, on the largest clusters."""
