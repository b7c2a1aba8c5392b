"""Thirty days of a living cluster, lived through by the daemon, by nobody, and by the descheduler."""
