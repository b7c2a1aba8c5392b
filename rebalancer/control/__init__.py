"""The loop: watches the clock and the cluster, asks planning, acts within the budget. It judges nothing itself."""
