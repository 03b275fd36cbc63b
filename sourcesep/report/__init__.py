"""What there is to look at: the page about a separation, and figures of a fitted `IVAE`."""

from sourcesep.report.figures import traversals

__all__ = ["traversals"]
