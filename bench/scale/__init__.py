"""The daemon on a cluster of 5,000 nodes and 100,000 VMs: what watching it costs."""
