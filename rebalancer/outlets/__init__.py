"""Carries what present renders to where people look: HTTP, Kubernetes Events, the log. It decides nothing."""
