"""The invertible map of the `nonlinear` family: coupling blocks between matrices.

A block is an affine coupling in both directions (Dinh, Sohl-Dickstein & Bengio 2017,
arXiv:1605.08803): one half of the components, through a small network, scales and shifts
the other half, and then the other way round. Between blocks stands a full matrix.
Several flows, the restarts, run side by side on the first axis of every tensor; the
samples are on the last, so that slices of components are contiguous.

The gradient is written out by hand, over memory that is laid out once: for blocks this
small, autograd's bookkeeping costs more than the arithmetic. For the same reason offsets
and biases are columns of their matrices, and every input has a row of ones. In z it stands
between the two halves, where both have it as their neighbour::

    first half | 1 | second half

A matrix between blocks maps that row onto itself, so that its log-determinant is the one
of its linear part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sourcesep.ivae.model import Array
from sourcesep.ivae.networks import size, split

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Flow", "Tape"]

STRETCH = 1.0
"""A coupling scales by at most exp(STRETCH), and at least its inverse."""

CHUNK = 4096
"""Samples mapped at once by `encode` and `decode`: the memory they take is bounded."""
LAYERS = 3
"""Of a coupling's network."""


def _shapes(n: int, n_blocks: int, n_hidden: int) -> dict[str, tuple[int, ...]]:
    """Shapes of one restart's parameters; coupling 0 changes the second half of z, 1 the first."""
    half = n // 2
    shapes: dict[str, tuple[int, ...]] = {"matrix": (n_blocks + 1, n + 1, n + 1)}
    for j, (given, changed) in enumerate(((half, n - half), (n - half, half))):
        widths = (given, n_hidden, n_hidden, 2 * changed)
        for layer in range(LAYERS):
            shapes[f"weight{j}{layer}"] = (n_blocks, widths[layer + 1], widths[layer] + 1)
    return shapes


@dataclass
class _Coupling:
    """Where one coupling reads and writes: views, made once, by layer where there are three."""

    weights: tuple[Tensor, ...]  # with the ones' column
    gradients: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]  # `given` and both hidden layers, with the row of ones
    sigmoids: tuple[Tensor, ...]  # of both hidden layers
    changed: Tensor
    result: Tensor
    bounded: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        # transposed, and the ones' column left out but in layer 0
        self.weights_back = (self.weights[0].mT, *(w[..., :-1].mT for w in self.weights[1:]))
        self.inputs_back = tuple(x.mT for x in self.inputs)
        self.hidden = tuple(x[:, :-1] for x in self.inputs[1:])


class Tape:
    """Memory for one pass of `n_samples` through a flow, forward and, if asked, backward.

    A pass forward only needs one block's worth of it.
    """

    def __init__(self, flow: Flow, n_samples: int, *, backward: bool) -> None:
        n, half, n_restarts = flow.n_components, flow.half, flow.n_restarts
        depth = flow.n_blocks if backward else 1
        new, size = flow.parameters.new_empty, (n_restarts, flow.n_hidden, n_samples)
        self.n_samples = n_samples
        self.input = new(n_restarts, n + 1, n_samples)
        self.before = new(depth, n_restarts, n + 1, n_samples)
        self.after = new(depth, n_restarts, n + 1, n_samples)
        self.bounded = new(flow.n_blocks, n_restarts, n, n_samples)
        scale = new(depth, n_restarts, n, n_samples)
        sigmoids = new(depth, 2, 2, *size)
        hidden = new(depth, 2, 2, n_restarts, flow.n_hidden + 1, n_samples)
        for with_ones, row in ((self.input, half), (self.after, half), (hidden, -1)):
            with_ones[..., row, :] = 1
        self.scratch = new(size)
        self.gradients: dict[str, Tensor] = {}
        if backward:
            for name, shape in flow.shapes.items():
                self.gradients[name] = new(shape[0], n_restarts, *shape[1:])
        lower, upper = slice(None, half), slice(half + 1, None)
        self.couplings = []
        for i in range(flow.n_blocks):
            k = i % depth
            before, after = self.before[k], self.after[k]
            places = (
                (before[:, : half + 1], before[:, upper], after[:, upper], slice(half, None)),
                (after[:, half:], before[:, lower], after[:, lower], lower),
            )
            for j, (given, changed, result, rows) in enumerate(places):
                names = [f"weight{j}{layer}" for layer in range(LAYERS)]
                self.couplings.append(
                    _Coupling(
                        tuple(flow.views[name][:, i] for name in names),
                        tuple(self.gradients[name][i] for name in names if backward),
                        (given, *hidden[k, j]),
                        tuple(sigmoids[k, j]),
                        changed,
                        result,
                        self.bounded[i, :, rows],
                        scale[k, :, rows],
                    )
                )


class Flow:
    """Restarts of an invertible map from y to z.

    Both are Tensors of shape (n_restarts, n_components, n_samples).

    Parameters
    ----------
    parameters : Tensor, shape (n_restarts, n_parameters)
        Not copied: who changes it changes the flow.
    n_components : int
        At least 2.
    n_blocks, n_hidden : int
        Coupling blocks, and hidden units in their networks.
    """

    def __init__(
        self, parameters: Tensor, n_components: int, n_blocks: int, n_hidden: int
    ) -> None:
        self.parameters = parameters
        self.n_components = n_components
        self.n_blocks = n_blocks
        self.n_hidden = n_hidden
        self.half = n_components // 2
        self.shapes = _shapes(n_components, n_blocks, n_hidden)
        self.views = split(parameters, self.shapes)

    @classmethod
    def identity(
        cls,
        n_components: int,
        n_blocks: int,
        n_hidden: int,
        n_restarts: int,
        generator: torch.Generator,
        dtype: torch.dtype,
    ) -> Flow:
        """Draw flows that differ in everything but what they do: z = y, exactly.

        The couplings start at the identity and the matrices are rotations, each undone by
        the next, so that every block sees the components from another side.
        """
        import torch

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        n_parameters = size(_shapes(n_components, n_blocks, n_hidden))
        flow = cls(
            torch.zeros(n_restarts, n_parameters, dtype=dtype), n_components, n_blocks, n_hidden
        )
        turn = torch.linalg.qr(normal(n_restarts, n_blocks, n_components, n_components))[0]
        chain = torch.cat((turn[:, :1], turn[:, 1:] @ turn[:, :-1].mT, turn[:, -1:].mT), 1)
        flow.views["matrix"].copy_(flow._with_ones(chain))
        for j, ones in enumerate((-1, 0)):
            first, second = flow.views[f"weight{j}0"], flow.views[f"weight{j}1"]
            first.copy_(normal(*first.shape) / math.sqrt(first.shape[-1] - 1))
            first[..., ones] = normal(*first.shape[:-1]) / 2
            second[..., :-1] = normal(*second[..., :-1].shape) / math.sqrt(n_hidden)
        return flow

    def turn(self, generator: torch.Generator) -> None:
        """Follow every flow but the first with a random rotation, in place."""
        import torch

        n = self.n_components
        shape = (self.n_restarts, n, n)
        turn = torch.linalg.qr(torch.randn(shape, generator=generator, dtype=torch.float64))[0]
        turn[0] = torch.eye(n)
        self.absorb(turn.to(self.parameters), self.parameters.new_zeros(shape[:2]))

    @property
    def n_restarts(self) -> int:
        """Flows side by side."""
        return len(self.parameters)

    def with_parameters(self, parameters: Tensor) -> Flow:
        """Return a flow of this shape with other parameters: dtype, device, fewer restarts."""
        return Flow(parameters, self.n_components, self.n_blocks, self.n_hidden)

    @property
    def best(self) -> Flow:
        """The first restart alone."""
        return self.with_parameters(self.parameters[:1])

    def encode(self, y: Array) -> tuple[Array, Array]:
        """Map y of shape (n_components, n_times) by every restart.

        Returns
        -------
        z : ndarray of shape (n_restarts, n_components, n_times)
        log_det : ndarray of shape (n_restarts, n_times)
        """
        import torch

        with torch.no_grad():
            parts = [
                self.forward(chunk.expand(self.n_restarts, -1, -1), tape)
                for chunk, tape in self._in_chunks(y)
            ]
        z, log_det = (torch.cat(part, -1).numpy() for part in zip(*parts, strict=True))
        return z, log_det

    def decode(self, z: Array) -> Array:
        """Map z of shape (n_components, n_times) back by the first restart."""
        import torch

        best = self.best
        with torch.no_grad():
            parts = [best.inverse(chunk[None], tape)[0] for chunk, tape in best._in_chunks(z)]
        y: Array = torch.cat(parts, -1).numpy()
        return y

    def _in_chunks(self, samples: Array) -> Iterator[tuple[Tensor, Tape]]:
        """Samples on the last axis, so many at once, with memory that all but the last share."""
        import torch

        tape = None
        for chunk in torch.split(torch.tensor(samples).to(self.parameters), CHUNK, -1):
            if tape is None or tape.n_samples != chunk.shape[-1]:
                tape = Tape(self, chunk.shape[-1], backward=False)
            yield chunk, tape

    def _with_ones(self, matrix: Tensor, offset: Tensor | float = 0.0) -> Tensor:
        """Turn z -> matrix z + offset into one matrix for z with its row of ones."""
        n, half = self.n_components, self.half
        out = matrix.new_zeros(*matrix.shape[:-2], n + 1, n + 1)
        rows = [i for i in range(n + 1) if i != half]
        for i, row in enumerate(rows):
            out[..., row, rows] = matrix[..., i, :]
        out[..., rows, half] = offset
        out[..., half, half] = 1
        return out

    def forward(self, y: Tensor, tape: Tape | None = None) -> tuple[Tensor, Tensor]:
        """Map y to z; return z, and log|det dz/dy| of shape (n_restarts, n_samples).

        `tape`, of as many samples as y, remembers the pass for `backward`.
        """
        import torch

        if tape is None:
            tape = Tape(self, y.shape[-1], backward=False)
        matrix, half = self.views["matrix"], self.half
        z = tape.input
        z[:, :half], z[:, half + 1 :] = y[:, :half], y[:, half:]
        for i in range(self.n_blocks):
            torch.bmm(matrix[:, i], z, out=tape.before[i % len(tape.before)])
            for coupling in tape.couplings[2 * i : 2 * i + 2]:
                shift, log_scale = _network(coupling, tape.scratch)
                torch.tanh(log_scale, out=coupling.bounded)
                torch.mul(coupling.bounded, STRETCH, out=coupling.scale).exp_()
                torch.addcmul(shift, coupling.changed, coupling.scale, out=coupling.result)
            z = tape.after[i % len(tape.after)]
        z = torch.bmm(matrix[:, -1], z)
        log_det = torch.linalg.slogdet(matrix)[1].sum(1)[:, None]
        return self._without_ones(z), log_det + STRETCH * tape.bounded.sum((0, 2))

    def _without_ones(self, z: Tensor) -> Tensor:
        import torch

        return torch.cat((z[:, : self.half], z[:, self.half + 1 :]), 1)

    def backward(self, grad_z: Tensor, grad_log_det: Tensor, tape: Tape) -> Tensor:
        """Gradient with respect to the parameters, shape (n_restarts, n_parameters).

        Parameters
        ----------
        grad_z : Tensor, shape (n_restarts, n_components, n_samples)
        grad_log_det : Tensor, shape (1 or n_restarts, n_samples)
        tape : Tape
            Of the last `forward`.
        """
        import torch

        matrix, half, n_blocks = self.views["matrix"], self.half, self.n_blocks
        into = tape.gradients
        grad_bounded = grad_log_det[:, None] * STRETCH
        lower, upper = slice(None, half), slice(half + 1, None)
        grad = torch.cat((grad_z[:, :half], torch.zeros_like(grad_z[:, :1]), grad_z[:, half:]), 1)
        for i in range(n_blocks, 0, -1):
            torch.bmm(grad, tape.after[i - 1].mT, out=into["matrix"][i])
            grad = torch.bmm(matrix[:, i].mT, grad)
            for coupling, changed, given in (
                (tape.couplings[2 * i - 1], grad[:, lower], grad[:, half:]),
                (tape.couplings[2 * i - 2], grad[:, upper], grad[:, : half + 1]),
            ):
                given += _back(coupling, changed, grad_bounded)
                changed *= coupling.scale
        torch.bmm(grad, tape.input.mT, out=into["matrix"][0])
        flat = torch.empty_like(self.parameters)
        for name, view in split(flat, self.shapes).items():
            view.copy_(into[name].transpose(0, 1))
            if name == "matrix":
                # d log|det M| / dM, once for every matrix
                view.add_(torch.linalg.inv(matrix).mT * grad_log_det.sum(1)[:, None, None, None])
                view[..., half, :] = 0
        return flat

    def inverse(self, z: Tensor, tape: Tape | None = None) -> Tensor:
        """Map z back to y, exactly. `tape` is memory for as many samples."""
        import torch

        if tape is None:
            tape = Tape(self, z.shape[-1], backward=False)
        matrix, half = self.views["matrix"], self.half
        before, after = tape.before[0], tape.after[0]
        y = torch.cat((z[:, :half], torch.ones_like(z[:, :1]), z[:, half:]), 1)
        for i in range(self.n_blocks - 1, -1, -1):
            after.copy_(torch.linalg.solve(matrix[:, i + 1], y))
            before.copy_(after)
            for coupling in (tape.couplings[2 * i + 1], tape.couplings[2 * i]):
                shift, log_scale = _network(coupling, tape.scratch)
                scale = (log_scale.tanh() * -STRETCH).exp_()
                torch.mul(coupling.result - shift, scale, out=coupling.changed)
            y = before
        return self._without_ones(torch.linalg.solve(matrix[:, 0], y))

    def absorb(self, matrix: Tensor, offset: Tensor) -> None:
        """Follow the flow with z -> matrix z + offset, in place.

        matrix is (n_restarts, n_components, n_components), offset (n_restarts, n_components).
        """
        last = self.views["matrix"][:, -1]
        last.copy_(self._with_ones(matrix, offset) @ last)


def _network(coupling: _Coupling, scratch: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and raw log-scale: two hidden layers of SiLU units."""
    import torch

    for layer in range(LAYERS - 1):
        torch.bmm(coupling.weights[layer], coupling.inputs[layer], out=scratch)
        torch.sigmoid(scratch, out=coupling.sigmoids[layer])
        torch.mul(scratch, coupling.sigmoids[layer], out=coupling.hidden[layer])
    out = torch.bmm(coupling.weights[-1], coupling.inputs[-1])
    n = out.shape[1] // 2
    return out[:, :n], out[:, n:]


def _back(coupling: _Coupling, grad: Tensor, grad_bounded: Tensor) -> Tensor:
    """Gradient with respect to `given`, from the one of `result`; the weights' are filled in."""
    import torch

    bounded = coupling.bounded
    slope = torch.addcmul(grad_bounded, grad * coupling.scale, coupling.changed, value=STRETCH)
    slope.addcmul_(slope * bounded, bounded, value=-1)
    g = torch.cat((grad, slope), 1)
    for layer in range(LAYERS - 1, -1, -1):
        torch.bmm(g, coupling.inputs_back[layer], out=coupling.gradients[layer])
        g = torch.bmm(coupling.weights_back[layer], g)
        if layer > 0:
            # SiLU: a = h s, da/dh = s + a (1 - s)
            a, s = coupling.hidden[layer - 1], coupling.sigmoids[layer - 1]
            g.mul_(torch.addcmul(a, a, s, value=-1).add_(s))
    return g
