"""The page: one pure renderer of a Picture, with its style and its scripts as files beside it.

Everything is in the HTML already when it arrives, as tables; the scripts add the map, the search and what is live.
"""

from rebalancer.present.page.render import page, script, style
from rebalancer.present.page.standalone import standalone

__all__ = ["page", "script", "standalone", "style"]
