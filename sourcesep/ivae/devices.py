"""Whether torch is there and computes as usual, and where it is to compute."""

from __future__ import annotations

from sourcesep.exceptions import MissingDependencyError, SettingsError

__all__ = ["require_torch", "require_torch_for", "resolve_device"]


def require_torch_for(what: str) -> None:
    """Raise MissingDependencyError, with the cure, where torch cannot be imported."""
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            f"{what} needs torch, which cannot be imported ({error}); install it: "
            "pip install 'sourcesep[nonlinear]'"
        ) from error


def require_torch(family: str = "nonlinear") -> None:
    """Refuse, with the cure, where torch cannot be imported or does not compute as usual.

    Raises
    ------
    MissingDependencyError
        If torch cannot be imported.
    SettingsError
        If it would put tensors elsewhere, or round them, without being asked here.
    """
    require_torch_for(f"mixing={family}")
    import torch

    one = torch.ones(1, 1, dtype=torch.float32)
    if (place := one.device.type) != "cpu":
        raise SettingsError(
            f"torch's default device={place!r}: must be 'cpu' around mixing={family}; ask for "
            "another device by device="
        )
    if (one @ one).dtype != one.dtype:
        raise SettingsError(
            f"torch.autocast: mixing={family} cannot be computed at less precision; leave its "
            "block before the fit"
        )


def resolve_device(device: str) -> str:
    """Return the torch device that ``device=`` asks for; "auto" takes CUDA if there is one."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    present = {"cpu": True, "cuda": torch.cuda.is_available()}
    present["mps"] = torch.backends.mps.is_available()
    kind = device.partition(":")[0]
    if kind not in present:
        raise SettingsError(f"device={device!r} must be auto, cpu, cuda or mps")
    if not present[kind]:
        raise SettingsError(f"device={device!r} is not available here; use 'cpu' or 'auto'")
    return device
