"""The only place that knows pydantic: environment variables in, the params dataclasses of the code that uses them out.

The variables begin with REBALANCER_; `__` separates levels, as in REBALANCER_CPU__HIGH. The params dataclasses live
beside the code that uses them and own the defaults and the checks between fields.
"""

from rebalancer.settings.model import Settings, SettingsError
from rebalancer.settings.reading import Given, Row, load, rows

__all__ = ["Given", "Row", "Settings", "SettingsError", "load", "rows"]
