"""Decides: from a snapshot and its triggers to a verified plan of waves. It never acts."""
