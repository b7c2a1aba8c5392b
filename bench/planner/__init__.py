"""Benchmarks of the planner: instances, the table, and what a run costs."""
