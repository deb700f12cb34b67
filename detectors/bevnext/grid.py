"""The BEV raster and the depth bins, as numbers derived from the recipe."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from configs.schema import BevGridConfig, DepthConfig


@dataclass(frozen=True, slots=True)
class Axis:
    """Cells of `step` metres from `lower` on."""

    lower: float
    step: float
    cells: int

    @classmethod
    def of(cls, bounds: tuple[float, float, float]) -> Axis:
        lower, upper, step = bounds
        return cls(lower, step, round((upper - lower) / step))

    def coordinate(self, metres: Tensor) -> Tensor:
        """Position in cells, 0 at the lower bound."""
        # A tensor divisor: by a Python number, some devices multiply with the rounded inverse.
        return (metres - self.lower) / metres.new_full((), self.step)

    def index(self, metres: Tensor) -> Tensor:
        """int32 cell, truncated toward zero (not floored) as published."""
        return self.coordinate(metres).int()

    def holds(self, index: Tensor) -> Tensor:
        """Whether the cell exists."""
        return (index >= 0) & (index < self.cells)


@dataclass(frozen=True, slots=True)
class BevGrid:
    """The raster, row-major (y, x)."""

    x: Axis
    y: Axis
    z: Axis

    @classmethod
    def of(cls, config: BevGridConfig) -> BevGrid:
        return cls(Axis.of(config.x), Axis.of(config.y), Axis.of(config.z))

    @property
    def cells(self) -> int:
        """Cells of one sample's BEV raster."""
        return self.y.cells * self.x.cells

    def holds(self, points: Tensor) -> Tensor:
        """Whether points `[..., 3]` (metres) lie above or below a cell of the raster."""
        x, y = (axis.coordinate(points[..., i]).floor() for i, axis in enumerate((self.x, self.y)))
        return self.x.holds(x) & self.y.holds(y)


@dataclass(frozen=True, slots=True)
class DepthBins:
    """Depth bins along a ray; a bin stands at its lower edge."""

    lower: float
    step: float
    count: int

    @classmethod
    def of(cls, config: DepthConfig) -> DepthBins:
        lower, upper, step = config.bins
        return cls(lower, step, round((upper - lower) / step))
