"""The exception tree: everything sourcesep raises on purpose.

A message names the offending value as ``name=value``, says what is allowed and
what to do next. Errors that the standard library would call a ``ValueError``
or an ``OSError`` are one, so that callers can catch what they already know.
"""

__all__ = [
    "InputError",
    "MissingDependencyError",
    "ModelFileError",
    "OutputError",
    "SettingsError",
    "SourcesepError",
    "SourcesepWarning",
]


class SourcesepError(Exception):
    """Base of every error that sourcesep raises on purpose."""


class InputError(SourcesepError, ValueError):
    """A recording, file or array that cannot be used."""


class SettingsError(SourcesepError, ValueError):
    """A setting that is not possible, by itself or for this input."""


class OutputError(SourcesepError, OSError):
    """A result that cannot be written where it was asked for."""


class ModelFileError(InputError):
    """A model file that cannot be read, or does not fit the recording."""


class MissingDependencyError(SourcesepError, ImportError):
    """An optional package that the request needs and that cannot be imported."""


class SourcesepWarning(UserWarning):
    """Something in the input that was handled, and that the user should know about."""
