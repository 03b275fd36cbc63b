"""Filters and curves as one map: its gradient, the choice of a curve, and noise behind it."""
