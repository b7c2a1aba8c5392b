"""`python -m bench.peers`: our planner beside others, on the same instances under the same thresholds, in one run."""
