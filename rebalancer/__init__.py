"""Chooses which KubeVirt virtual machines should move, where to and when, and live-migrates them safely."""

__version__ = "0.1.0"
