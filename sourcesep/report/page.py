"""`write_report`: one page about a separation that needs nothing but a browser."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sourcesep.report import prior, sources
from sourcesep.report.effects import effects
from sourcesep.report.panels import number

if TYPE_CHECKING:
    from sourcesep.result import Separation

__all__ = ["REPORT", "Check", "checks", "write_report"]

REPORT = "report.html"

KINDS = {"audio": "audio", "eeg": "EEG", "table": "table", "array": "array"}
CHANNELS = {"audio": "channel", "eeg": "channel", "table": "column", "array": "channel"}
"""What kinds of recording, and their channels, are called."""
CHOICES = {
    "n_components": "Number of components",
    "gain": "Gain over linear mixing",
}
"""What was chosen among, where it is not the candidates within a family."""
DEPENDENCES = {
    "delay": "each other at some delay, as echoes leave it",
    "power": "each other\N{RIGHT SINGLE QUOTATION MARK}s amplitudes, as saturation leaves it",
    "energy": "how large the others are, as any bend leaves it",
}
"""What each kind of misfit is about."""


@dataclass(frozen=True)
class Check:
    """One of the verdict's checks.

    Parameters
    ----------
    name : str
        What it is called.
    question : str
        What it asks.
    value, bound : str
        What was measured, and what is wanted.
    passed : bool or None
        None where it could not be measured.
    count : str
        How many components pass, where not all do.
    """

    name: str
    question: str
    value: str
    bound: str
    passed: bool | None
    count: str = ""


def checks(evidence: dict[str, Any], bounds: dict[str, Any]) -> list[Check]:
    """Put the evidence of a result, and what is wanted of it, into words."""
    rich, agree = evidence["richness"], evidence["agreement"]
    return [
        _of_all(
            "Richness",
            "Does something in the data tell each component from every other? The weakest "
            "evidence, in standard errors.",
            rich,
            [_is_rich(value, bounds) for value in rich],
            f"> {bounds['richness']:g}",
            decimals=1,
        ),
        _of_all(
            "Agreement",
            "Do other fits, on halves of the data or from other starts, find the same "
            "components? The lowest correlation.",
            agree,
            [_agrees(value, bounds) for value in agree],
            f"\N{GREATER-THAN OR EQUAL TO} {bounds['agreement']:g}",
            decimals=3,
        ),
        *(_misfit(n, evidence["misfit"][n], bounds["misfit"][n]) for n in DEPENDENCES),
        *_correlation("correlation", "labels", "bent ones", evidence, bounds),
        *_correlation("coherence", "bands of frequencies", "noise", evidence, bounds),
    ]


def _misfit(name: str, value: float, most: float | None) -> Check:
    """The check of one kind of misfit; exactly 0 is what stands there if nothing was compared."""
    measured = bool(value)
    return Check(
        f"Misfit by {name}",
        f"Do the components still depend on {DEPENDENCES[name]}? The largest dependence, in "
        "standard errors.",
        number(value, 1) if measured else "not measured",
        "no bound" if most is None else f"\N{LESS-THAN OR EQUAL TO} {most:.3g}",
        value <= most if measured and most is not None else None,
    )


def _correlation(
    name: str, where: str, why: str, evidence: dict[str, Any], bounds: dict[str, Any]
) -> list[Check]:
    """The check of what goes together within labels or bands, where that was looked for."""
    most = bounds["misfit"].get(name)
    if most is None:
        return []
    return [
        Check(
            f"Misfit by {name}",
            f"Do components still go together within single {where}, as where there are more "
            f"sources than channels or {why}? The largest correlation beyond chance.",
            number(evidence["misfit"][name], 3),
            f"\N{LESS-THAN OR EQUAL TO} {most:g}",
            evidence["misfit"][name] <= most,
        )
    ]


def _of_all(
    name: str,
    question: str,
    values: Sequence[float | None],
    passed: Sequence[bool | None],
    bound: str,
    *,
    decimals: int,
) -> Check:
    """One check of all components: the lowest value, and how many pass."""
    known = [value for value in values if value is not None]
    if not known:
        return Check(name, question, "not measured", bound, None)
    n_passed = sum(map(bool, passed))
    all_pass = n_passed == len(values)
    count = "" if all_pass else f"{n_passed} of {len(values)} pass"
    return Check(name, question, number(min(known), decimals), bound, all_pass, count)


def _is_rich(value: float | None, bounds: dict[str, Any]) -> bool | None:
    return None if value is None else value > bounds["richness"]


def _agrees(value: float | None, bounds: dict[str, Any]) -> bool | None:
    return None if value is None else value >= bounds["agreement"]


def write_report(separation: Separation, result: dict[str, Any], folder: Path) -> str:
    """Write the page that shows a separation, and return its name.

    The page holds its pictures, its style and a listening copy of the sound; it needs no
    network. Audio players take the files beside the page where they are, for those are
    whole and in full quality, and else the copy. Same result, same bytes.

    Parameters
    ----------
    separation : Separation
        What to show.
    result : dict
        What result.json says of it, but for the block ``run``.
    folder : pathlib.Path
        Where its other files are.

    Returns
    -------
    str
        The name of the file.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sourcesep.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": lambda share: f"{100 * share:.1f}\N{NARROW NO-BREAK SPACE}%",
        "grouped": lambda number: f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}"),
        "number": number,
        "signed": sources.signed,
    }
    script = environment.get_template("script.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template("page.html").render(
        _facts(separation, result), script=Markup(script), script_hash=digest
    )
    (folder / REPORT).write_bytes(page.encode("utf-8", "xmlcharrefreplace"))
    return REPORT


def _facts(separation: Separation, result: dict[str, Any]) -> dict[str, Any]:
    """What the template is filled with."""
    recording = separation.recording
    called = sources.names(separation, result["output"]["files"])
    shown = sources.gallery(separation, called)
    is_audio = recording.kind == "audio"
    is_time = separation.u.is_time
    return {
        "result": result,
        "kind": KINDS[recording.kind],
        "channel": CHANNELS[recording.kind],
        "is_audio": is_audio,
        "title": result["input"]["name"] or KINDS[recording.kind],
        "duration": recording.seconds,
        "verdict": result["verdict"],
        "sentence": _sentence(result["sentence"]),
        "checks": checks(result["evidence"], result["bounds"]),
        "along": sources.along(recording),
        "names": called,
        "gallery": shown,
        "components": _components(called, result),
        "loadings": None
        if is_audio or any(card.scalp for card in shown.sources)
        else list(zip(recording.names, sources.standard_loadings(separation), strict=True)),
        "is_linear": separation.mixing is not None,
        "time_prior": prior.time_prior(separation, called) if is_time else None,
        "label_prior": None if is_time else prior.label_prior(separation),
        "effects": effects(separation, called) if _has_effects(separation) else None,
        "choices": [_choice(name, scores) for name, scores in result["candidates"].items()],
    }


def _has_effects(separation: Separation) -> bool:
    """Whether a component's value at one row says what the row is, at any level alike."""
    model, kind = separation.ivae.model_, separation.recording.kind
    is_instant = model.representation == "time" and model.memory == 1
    is_instant &= not model.condition_decoder
    return kind in ("table", "array") and is_instant and not separation.u.is_time


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


@dataclass(frozen=True)
class Component:
    """A row of the table of components; flags are None where nothing was measured."""

    name: str
    share: float | None
    richness: float | None
    is_rich: bool | None
    agreement: float | None
    agrees: bool | None


def _components(called: Sequence[str], result: dict[str, Any]) -> list[Component]:
    evidence, bounds = result["evidence"], result["bounds"]
    return [
        Component(name, share, rich, _is_rich(rich, bounds), agree, _agrees(agree, bounds))
        for name, share, rich, agree in zip(
            called,
            result["explained_power"],
            evidence["richness"],
            evidence["agreement"],
            strict=True,
        )
    ]


def _choice(name: str, scores: dict[str, float]) -> dict[str, Any]:
    """Candidates in the order of their scores, with how far each is behind the best."""
    best = max(scores.values(), default=0.0)
    ranked = sorted(scores.items(), key=lambda item: -item[1])
    return {
        "title": CHOICES.get(name, f"Candidates within {name} mixing"),
        "is_gain": name == "gain",
        "rows": [(candidate, score, best - score) for candidate, score in ranked],
    }
