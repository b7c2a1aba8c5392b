"""The Kubernetes API: reading it safely and writing to it sparingly. It decides nothing."""
