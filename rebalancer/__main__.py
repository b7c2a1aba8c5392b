"""`python -m rebalancer` is the command `rebalancer`."""

from __future__ import annotations

from rebalancer.cli import main

if __name__ == "__main__":
    main()
