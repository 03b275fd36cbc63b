"""What messages have in common: how they list names, and quote the errors of other libraries."""

from collections.abc import Sequence

__all__ = ["counted", "first_few", "in_brief"]

LONGEST = 200
"""Letters of what another library says."""


def first_few(names: Sequence[str], most: int = 5) -> str:
    """Join names; if there are more than `most`, the others are counted."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(names: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Names with their counts in brackets, but those of which there are none."""
    return [f"{name} ({n})" for name, n in zip(names, counts, strict=True) if n]


def in_brief(error: BaseException) -> str:
    """What an error says, in one line that is not too long: of the system, its reason alone."""
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    return " ".join(text.split())[:LONGEST] or type(error).__name__
