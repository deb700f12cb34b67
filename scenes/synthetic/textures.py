"""Procedural textures: tileable noise, facades, foliage, sky. Each is made once per process from its own number."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

NOISE_SIZE = 1024
FACADES = 10
FACADE_TILE = (256, 384)
FACADE_TILES = (5, 4)
FACADE_TEXEL = 30.0
"""Pixels of the drawn tile (9.6 m by 6.4 m); tiles up and along a wall; pixels a metre of the stored picture."""
HEDGE_SIZE = 256
HEDGE_TEXEL = 100.0
FOLIAGE = 4
SPRITES = 6
SPRITE_SIZE = 320
PANORAMA_SIZE = (480, 2048)
PANORAMA_LOWEST, PANORAMA_HIGHEST = -8.0, 52.0
"""Elevation of the panorama's last and first row, degrees."""


@lru_cache(maxsize=16)
def noise(number: int, exponent: float, size: int = NOISE_SIZE) -> Floats:
    """Tileable noise `[size, size]` of zero mean and unit deviation with a power spectrum `1 / f^exponent`."""
    rng = np.random.default_rng([7919, number])
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1.0
    spectrum = spectrum / frequency ** (exponent / 2)
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, s=(size, size))
    return np.asarray(field / field.std(), np.float32)


@lru_cache(maxsize=16)
def noise_bytes(number: int, exponent: float, strength: float, size: int = NOISE_SIZE) -> Bytes:
    """The same noise as factors: uint8 around 128 with a deviation of `strength`."""
    return np.clip(128 + strength * noise(number, exponent, size), 0, 255).astype(np.uint8)


def pyramid(image: Bytes, levels: int) -> tuple[Bytes, ...]:
    """The image and `levels - 1` halvings of it."""
    result = [image]
    for _ in range(levels - 1):
        half = cv2.resize(result[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        result.append(np.asarray(half, np.uint8))
    return tuple(result)


@dataclass(frozen=True, slots=True)
class Texture:
    """RGBA pyramid of a surface large enough for every wall; alpha is 0: nothing there is annotated.

    Textures are stored tiled, because OpenCV's warps are three times slower where they must wrap around.
    """

    levels: tuple[Bytes, ...]
    texel: float
    """Pixels a metre of the first level."""


@lru_cache(maxsize=FACADES)
def facade(number: int) -> Texture:
    """A wall with rows of windows, 38.4 m by 32 m."""
    rng = np.random.default_rng([104729, number])
    height, width = FACADE_TILE
    walls = [(186, 178, 164), (158, 96, 76), (196, 192, 184), (128, 132, 138), (206, 188, 150), (112, 118, 122)]
    wall = np.array(walls[number % len(walls)], dtype=np.float32) * rng.uniform(0.85, 1.1)
    image = np.broadcast_to(wall, (height, width, 3)).copy()
    if number % 6 == 1:
        _bricks(image, wall)
    columns, rows = int(rng.integers(3, 6)), 2
    glass = np.array([52, 64, 76]) * rng.uniform(0.7, 1.3)
    pane_w, pane_h = rng.uniform(0.5, 0.9), rng.uniform(0.45, 0.75)
    for row in range(rows):
        top = int((row + (1 - pane_h) * 0.45) * height / rows)
        bottom = int(top + pane_h * height / rows)
        cv2.rectangle(image, (0, bottom + 14), (width, bottom + 20), (wall * 0.72).tolist(), -1)
        for column in range(columns):
            left = int((column + (1 - pane_w) / 2) * width / columns)
            right = int(left + pane_w * width / columns)
            cv2.rectangle(image, (left - 3, top - 3), (right + 3, bottom + 3), (wall * 0.62).tolist(), -1)
            shade = glass * rng.uniform(0.6, 1.5)
            cv2.rectangle(image, (left, top), (right, bottom), shade.tolist(), -1)
            blind = int(top + (bottom - top) * rng.choice([0.0, 0.0, 0.3, 0.6]))
            cv2.rectangle(image, (left, top), (right, blind), (wall * 0.9).tolist(), -1)
            cv2.line(image, ((left + right) // 2, top), ((left + right) // 2, bottom), (wall * 0.5).tolist(), 2)
            sky = np.array([[left, bottom], [left, top + 10], [(left + right) // 2, top + 4]])
            cv2.fillConvexPoly(image, sky, (shade * 1.35).tolist())
    shrink = FACADE_TEXEL * 9.6 / width
    tile = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    wide = np.tile(tile, (*FACADE_TILES, 1))
    grime = np.tile(noise(3, 1.8), (1, 2))[: wide.shape[0], : wide.shape[1], None]
    grain = np.tile(noise(5, 0.2), (1, 2))[: wide.shape[0], : wide.shape[1], None]
    return Texture(_opaque(wide * (1 + 0.06 * grime) + 2.5 * grain, 6), FACADE_TEXEL)


def _bricks(image: Floats, wall: Floats) -> None:
    height, width = image.shape[:2]
    for i, y in enumerate(range(0, height, 8)):
        cv2.line(image, (0, y), (width, y), (wall * 0.78).tolist(), 1)
        for x in range((i % 2) * 10, width, 20):
            cv2.line(image, (x, y), (x, y + 8), (wall * 0.78).tolist(), 1)


@lru_cache(maxsize=FOLIAGE)
def foliage(number: int) -> Texture:
    """A hedge's surface, 10.24 m by 2.56 m."""
    rng = np.random.default_rng([1299709, number])
    green = np.array([62, 84, 38]) * rng.uniform(0.8, 1.25, 3)
    leaves = cv2.GaussianBlur(noise(20 + number, 0.4), (0, 0), 1.2)[:HEDGE_SIZE]
    depth = noise(30 + number, 2.0)[:HEDGE_SIZE]
    image = green * (1 + 0.55 * (leaves / leaves.std())[..., None] + 0.18 * depth[..., None])
    return Texture(_opaque(image, 5), HEDGE_TEXEL)


@lru_cache(maxsize=SPRITES)
def tree_crown(number: int) -> tuple[Bytes, ...]:
    """RGBA pyramid of a leafy crown; alpha is 255 where there are leaves."""
    rng = np.random.default_rng([15485863, number])
    size = SPRITE_SIZE
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size * 2 - 1
    shape = np.full((size, size), -2.0, dtype=np.float32)
    light = np.zeros((size, size), dtype=np.float32)
    for _ in range(26):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.62)
        cx, cy, radius = reach * np.cos(angle), reach * np.sin(angle) * 0.85, rng.uniform(0.2, 0.38)
        blob = 1 - ((x - cx) ** 2 + (y - cy) ** 2) / radius**2
        lit = 0.5 - 0.9 * (y - cy) / radius * 0.5 - 0.25 * (x - cx) / radius
        light = np.where(blob > shape, lit, light)
        shape = np.maximum(shape, blob)
    leaves = cv2.GaussianBlur(noise(40 + number, 0.2), (0, 0), 1.3)[:size, :size]
    leaves = leaves / leaves.std()
    green = np.array([66, 92, 36]) * rng.uniform(0.8, 1.2, 3)
    image = green * (0.55 + 0.55 * light[..., None] + 0.32 * leaves[..., None])
    alpha = (shape + 0.22 * leaves > 0.16).astype(np.uint8) * 255
    rgba = np.dstack([np.clip(image, 4, 255).astype(np.uint8), alpha])
    return pyramid(rgba, 6)


def _opaque(image: NDArray[Any], levels: int) -> tuple[Bytes, ...]:
    rgb = np.clip(image, 0, 255).astype(np.uint8)
    return pyramid(np.dstack([rgb, np.zeros(rgb.shape[:2], dtype=np.uint8)]), levels)


def panorama(rng: np.random.Generator, zenith: Floats, horizon: Floats, clouds: float, sun_azimuth: float) -> Bytes:
    """Sky all around `[480, 2048, 3]` RGB: azimuth 0 in the first column, growing; highest elevation in the first row.

    `zenith` and `horizon` are colours, `clouds` the covered part of the sky, 0 to 1.
    """
    height, width = PANORAMA_SIZE
    elevation = np.linspace(PANORAMA_HIGHEST, PANORAMA_LOWEST, height, dtype=np.float32)[:, None, None]
    blend = np.clip(elevation / 45, 0, 1) ** 0.6
    sky: NDArray[Any] = horizon * (1 - blend) + zenith * blend
    cover = _clouds(rng, height, width, clouds)[..., None]
    cloud_colour = np.array([238, 239, 242], dtype=np.float32) * float(horizon.mean() / 225)
    sky = sky * (1 - cover) + cloud_colour * cover
    azimuth = np.arange(width, dtype=np.float32) * (2 * np.pi / width)
    away = np.abs((azimuth - sun_azimuth + np.pi) % (2 * np.pi) - np.pi)
    sky = sky + (1 - clouds) * 34 * np.exp(-((away / 0.6) ** 2))[None, :, None]
    sky = _skyline(rng, sky, horizon)
    return np.asarray(np.clip(sky, 0, 250), np.uint8)


def _clouds(rng: np.random.Generator, height: int, width: int, clouds: float) -> Floats:
    """Cover 0 to 1, flattened towards the horizon as clouds are."""
    field = noise(int(rng.integers(50, 54)), 2.4)
    rows = np.linspace(0, 1, height) ** 0.5 * 900 + rng.uniform(0, 200)
    columns = np.arange(width) * (NOISE_SIZE / width) + rng.uniform(0, NOISE_SIZE)
    v, u = np.meshgrid(rows % NOISE_SIZE, columns % NOISE_SIZE, indexing="ij")
    wisps = cv2.remap(field, u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    level = np.interp(clouds, [0, 0.5, 1], [2.2, 0.4, -2.5])
    return np.clip((wisps - level) * 1.2, 0, 0.92)


def _skyline(rng: np.random.Generator, sky: Floats, horizon: Floats) -> Floats:
    """Hazy far buildings and trees along the horizon."""
    height, width = sky.shape[:2]
    degrees = (PANORAMA_HIGHEST - PANORAMA_LOWEST) / height
    base = int(PANORAMA_HIGHEST / degrees) + 2
    for layer, (haze, tallest) in enumerate(((0.72, 5.0), (0.55, 3.2))):
        x = 0
        while x < width:
            step = int(rng.integers(12, 60))
            if rng.random() < 0.6:
                top = base - int(rng.uniform(0.8, tallest) / degrees)
                shade = np.array([118, 120, 124]) * rng.uniform(0.8, 1.15)
                sky[top:, x : x + step] = horizon * haze + shade * (1 - haze)
            x += step
        ridge = noise(60 + layer, 2.0)[int(rng.integers(NOISE_SIZE))]
        ridge = np.interp(np.arange(width) % NOISE_SIZE, np.arange(NOISE_SIZE), ridge)
        tops = base - ((1.0 + 0.45 * ridge) / degrees).astype(int)
        rows = np.arange(height)[:, None]
        woods = (rows >= tops[None]) & (np.roll(ridge, 333)[None] > -0.3)
        sky = np.where(woods[..., None], horizon * (haze - 0.1) + np.array([52, 66, 40]) * (1.1 - haze), sky)
    return sky
