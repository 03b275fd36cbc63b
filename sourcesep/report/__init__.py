"""One page about a separation: what was found, how far to trust it, how it came about."""
