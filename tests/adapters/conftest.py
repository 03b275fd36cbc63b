from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sourcesep.recording import Recording


@dataclass
class FakeSeparation:
    """The least that a writer needs: images that are an outer product, or given."""

    recording: Recording
    sources: NDArray[np.float64]
    mixing: NDArray[np.float64] | None
    images: NDArray[np.float64] | None = None
    warnings: list[str] = field(default_factory=list)

    keeps_input: bool = True

    @property
    def prior_here(self) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        mean = np.arange(2.0 * self.n_components).reshape(2, -1)
        return ("a", "b"), mean, mean + 0.5

    @property
    def n_components(self) -> int:
        return len(self.sources)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        images = np.stack([self.image(k) for k in range(self.n_components)])
        for part in (slice(0, 300), slice(300, None)):
            yield self.recording.data[:, part], images[:, :, part]

    def image(self, k: int) -> NDArray[np.float64]:
        if self.images is not None:
            return self.images[k]
        assert self.mixing is not None
        return np.outer(self.mixing[:, k], self.sources[k])


def separate(recording: Recording, n_components: int, seed: int = 0) -> FakeSeparation:
    """Rotated principal components: unit variance, and images that leave a residual."""
    rng = np.random.default_rng(seed)
    sources = rng.standard_normal((n_components, recording.n_times))
    mixing = recording.data @ np.linalg.pinv(sources)
    return FakeSeparation(recording, sources, mixing)


@pytest.fixture
def fake() -> Callable[..., FakeSeparation]:
    return separate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "result"
    made.mkdir()
    return made
