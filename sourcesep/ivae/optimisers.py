"""How a gradient becomes a step: Adam, and Adam in the eigenbasis of each matrix's gradients.

Restarts are rows: no number of one touches another.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sourcesep.ivae.networks import split

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Adam", "Soap"]

EVERY = 5
"""Steps from one eigendecomposition to the next."""


class Adam:
    """Adam (Kingma & Ba 2015).

    Parameters
    ----------
    parameters : Tensor, shape (n_restarts, n_parameters)
        Of the kind and size that are to be optimised.
    betas : tuple of float
        Decay rates of the first and the second moment.
    """

    def __init__(self, parameters: Tensor, betas: tuple[float, float]) -> None:
        self.betas = betas
        self.first, self.second = parameters.new_zeros(2, *parameters.shape)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that later steps depend on, by name; the first axis is the restart."""
        return {"first": self.first, "second": self.second}

    def forget(self, which: Tensor) -> None:
        """Begin anew where the mask `which`, of shape (n_restarts,), says so."""
        for tensor in self.tensors().values():
            tensor[which] = 0

    def size(self, rate: float, n_done: int) -> float:
        """Of the n-th step at this rate; it makes up for moments that began at 0."""
        first, second = self.betas
        size: float = rate / (1 - first**n_done) * math.sqrt(1 - second**n_done)
        return size

    def direction(self, gradient: Tensor, n_done: int) -> Tensor:
        """Take the n-th gradient in, and return where not to go: the step is -size of it."""
        self.first.lerp_(gradient, 1 - self.betas[0])
        return self._scaled(self.first, gradient)

    def _scaled(self, first: Tensor, gradient: Tensor) -> Tensor:
        """Divide the first moment by the root of the second, which takes the gradient in."""
        decay = self.betas[1]
        self.second.mul_(decay).addcmul_(gradient, gradient, value=1 - decay)
        scaled: Tensor = first / (self.second.sqrt() + 1e-8)
        return scaled


class Soap(Adam):
    """Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2025, arXiv:2409.11321).

    The gradients G of a matrix of weights have the running moments G G' and G' G, and Adam
    runs in the eigenvectors of both: it then scales directions in which the loss is curved,
    where Adam alone scales single weights. For matrices as small as a coupling's that costs
    little beside the gradient. Until the first eigenvectors are there it is Adam: those of a
    single gradient would leave directions in which rounding alone decides.

    Parameters
    ----------
    parameters, betas
        As of `Adam`; the second rate is also that of the moments of G.
    shapes : dict of str to tuple of int
        The arrays that a restart's parameters are made of, in order: stacks of matrices.
    """

    def __init__(
        self,
        parameters: Tensor,
        betas: tuple[float, float],
        shapes: dict[str, tuple[int, ...]],
    ) -> None:
        import torch

        super().__init__(parameters, betas)
        self.shapes = shapes
        self._moments: dict[str, Tensor] = {}
        self._bases: dict[str, Tensor] = {}
        for name, (*stack, n_rows, n_columns) in shapes.items():
            for side, n in (("left", n_rows), ("right", n_columns)):
                zeros = parameters.new_zeros(len(parameters), *stack, n, n)
                self._moments[f"{side}.{name}"] = zeros
                self._bases[f"{side}.{name}"] = zeros + torch.eye(n).to(zeros)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that later steps depend on, by name; the first axis is the restart."""
        bases = {f"basis.{name}": basis for name, basis in self._bases.items()}
        return super().tensors() | self._moments | bases

    def forget(self, which: Tensor) -> None:
        """Begin anew where the mask `which`, of shape (n_restarts,), says so."""
        super().forget(which)
        for basis in self._bases.values():
            basis[which] = basis.new_ones(basis.shape[-1]).diag()

    def direction(self, gradient: Tensor, n_done: int) -> Tensor:
        """Take the n-th gradient in, and return where not to go: the step is -size of it."""
        self.first.lerp_(gradient, 1 - self.betas[0])
        self._follow(gradient, renew=n_done % EVERY == 0)
        step = self._scaled(self._turned(self.first), self._turned(gradient))
        # what is no weight, as a row of ones, has no gradient, and rounding is not to move it
        return self._turned(step, back=True).masked_fill_(gradient == 0, 0)

    def _follow(self, gradient: Tensor, *, renew: bool) -> None:
        """Take a gradient into the moments of each matrix, and renew the eigenvectors."""
        import torch

        decay = self.betas[1]
        for name, part in split(gradient, self.shapes).items():
            for side, fresh in (("left", part @ part.mT), ("right", part.mT @ part)):
                moment = self._moments[f"{side}.{name}"].lerp_(fresh, 1 - decay)
                if renew:
                    # on the CPU: not every device has eigenvectors, and these are small
                    basis = torch.linalg.eigh(moment.cpu())[1]
                    self._bases[f"{side}.{name}"].copy_(basis)

    def _turned(self, flat: Tensor, *, back: bool = False) -> Tensor:
        """Matrices of weights in the eigenvectors' coordinates, or back from these."""
        import torch

        out = torch.empty_like(flat)
        parts, into = split(flat, self.shapes), split(out, self.shapes)
        for name, part in parts.items():
            left, right = self._bases[f"left.{name}"], self._bases[f"right.{name}"]
            into[name].copy_(left @ part @ right.mT if back else left.mT @ part @ right)
        return out
