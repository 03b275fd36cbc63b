"""The verdict in plain words, which fit sound, EEG and tables alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sourcesep.misfit import Misfit

__all__ = ["doubts", "in_one_sentence", "misfits", "nothing_tells_apart", "ordinals", "passed"]
__all__ += ["ONE_COMPONENT", "TOO_BRIEF", "UNSTEADY_FILTERS", "not_calibrated", "not_mixed"]
__all__ += ["too_few", "too_short"]

FEW = 4
"""So many components are named, more are only counted."""
ANOTHER = "sources that act on each other"
MISFITS = {
    "delay": f"the components still depend on each other at some delay (an echo, a room, or "
    f"{ANOTHER})",
    "power": "the components still depend on each other's amplitudes (values that saturate or are "
    f"bent in a way that was not fitted, or {ANOTHER})",
    "energy": "how large one component is still tells how large another is (a bend that was not "
    "fitted, or sources that grow and shrink together)",
    "correlation": "the components go together within single labels (a bend that was not fitted, "
    f"more sources than channels, or {ANOTHER})",
    "coherence": "the components go together within bands of frequencies (more sources than "
    "channels, noise in all of them, sources that move, or an echo)",
}
"""What each kind of misfit means."""
UNSTEADY_FILTERS = (
    "there may be more sources than channels, noise, sources that move, or too little sound for "
    "such long filters"
)
"""Why filters differ that are fitted to halves of the data."""
ONE_COMPONENT = "one component only: there was nothing to separate it from"
TOO_BRIEF = (
    "some components are heard so briefly that halves of the data do not hold them all: there is "
    "nothing to check them by"
)
NO_RIVAL = (
    "fewer than two restarts explain the data well: there is nothing to compare the best one "
    "with, ask for more"
)


def ordinals(numbers: Sequence[int]) -> str:
    """Put numbers that begin at 0 into words: ``"1st, 3rd and 12th"``."""
    words = [f"{k}{_ending(k)}" for k in (number + 1 for number in numbers)]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _ending(k: int) -> str:
    if k % 100 in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(k % 10, "th")


def _of_all(failed: NDArray[np.bool_]) -> str:
    """Which components: ``"the 2nd of the 5 components"``."""
    which = np.flatnonzero(failed).tolist()
    if len(which) == len(failed):
        return "both components" if len(which) == 2 else f"all {len(which)} components"
    named = f"the {ordinals(which)}" if len(which) <= FEW else f"{len(which)}"
    return f"{named} of the {len(failed)} components"


def nothing_tells_apart(alike: NDArray[np.bool_]) -> str:
    """Say which components, of a boolean for each, nothing tells from another."""
    return (
        f"nothing in the data tells {_of_all(alike)} apart beyond chance: any mixture of them "
        "would fit as well, do not read them as sources"
    )


def misfits(excess: Misfit) -> list[str]:
    """Say what components still say of each other, given in units of what is allowed."""
    wrong = {name: value for name, value in excess._asdict().items() if value > 1}
    if "power" in wrong:
        wrong.pop("energy", None)  # one cause, said once
    return [MISFITS[name] for name in sorted(wrong, key=wrong.__getitem__, reverse=True)]


def too_few(n_samples: int, wanted: int) -> str:
    """Say that so few samples would not show whether the mixing bends."""
    return (
        f"every check is passed, but {n_samples} samples are too few to tell a matrix from a "
        f"bend: at least {wanted} are needed"
    )


def too_short(seconds: float, wanted: float) -> str:
    """Say that a sound is too short to be checked for a room."""
    return (
        f"{seconds:.2g} s are too short to tell whether the sound comes through a room: at least "
        f"{wanted:g} s are needed"
    )


def not_calibrated(family: str) -> str:
    """Say that nobody knows how often such a fit is right."""
    return (
        f"every check is passed, but how often that is right for {family} mixing has not been "
        "measured yet"
    )


def not_mixed(alone: NDArray[np.bool_]) -> list[str]:
    """Say which channels, of a boolean for each, have nothing in common with the others."""
    which = np.flatnonzero(alone).tolist()
    if not which:
        return []
    open_question = "one source, several or noise: there was nothing to separate it from"
    if len(which) == len(alone):
        return [
            "the channels have nothing in common: each component is a channel as it was, "
            f"{open_question}"
        ]
    if len(which) == 1:
        return [
            f"the {ordinals(which)} of the {len(alone)} channels has nothing in common with the "
            f"others: its component is that channel as it was, {open_question}"
        ]
    named = f"the {ordinals(which)}" if len(which) <= FEW else f"{len(which)}"
    return [
        f"{named} of the {len(alone)} channels have nothing in common with the others: their "
        f"components are these channels as they were, each {open_question}"
    ]


def doubts(
    alike: NDArray[np.bool_], differ: NDArray[np.bool_] | None, compared: str, causes: str = ""
) -> list[str]:
    """Say which components other fits or the data do not bear out, the first reason first.

    Parameters
    ----------
    alike : ndarray of bool, shape (n_components,)
        Which components cannot be told from another.
    differ : ndarray of bool, shape (n_components,), or None
        Which come out differently from other fits; None if there are no others.
    compared : str
        What the other fits are, in the plural.
    causes : str
        What may make them differ, to be added in brackets.
    """
    found = []
    if alike.any():
        found.append(f"{_of_all(alike)} cannot be told apart from another one, the others can")
    if differ is None:
        found.append(NO_RIVAL)
    elif (differ & ~alike).any():  # that those come out differently which are alike goes unsaid
        comes = "comes" if (differ & ~alike).sum() == 1 else "come"
        because = f" ({causes})" if causes else ""
        which = f"{_of_all(differ & ~alike)} {comes}"
        found.append(f"{which} out differently from two {compared}{because}")
    return found


def in_one_sentence(reasons: Sequence[str]) -> str:
    """Join reasons, and count them where there are several."""
    if len(reasons) == 1:
        return reasons[0]
    return f"{len(reasons)} reasons: {'; '.join(reasons)}"


def passed(compared: str) -> str:
    """Say that every check is passed."""
    return (
        f"the components differ in ways the data show clearly, {compared} give the same ones, "
        "and nothing speaks against the model"
    )
