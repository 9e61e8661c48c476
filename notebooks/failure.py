"""How a cell ends that cannot do its work."""

from __future__ import annotations


class CellStopped(Exception):
    """Ends a cell with its message alone: what a reader needs is said above it, and Python's own lines about
    the notebook's code would hide that.
    """

    def _render_traceback_(self) -> list[str]:  # what IPython shows instead of a traceback
        return [str(self)]
