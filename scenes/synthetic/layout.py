"""Lays out a whole scene from its random stream: road, ego drive, actors, buildings, trees, weather."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.motion import Pace, Trajectory, overlap
from scenes.synthetic.populate import populate
from scenes.synthetic.road import Road, lay_road
from scenes.synthetic.solids import Model
from scenes.synthetic.street_furniture import lamp_post, sign, signal, trunk
from scenes.synthetic.textures import FACADES, FOLIAGE, SPRITES
from scenes.synthetic.world import Actor, Block, Crown, Prop, Weather, World

Floats = NDArray[np.float64]


def lay_out(seed: int, scene: int, duration: float, reach: float) -> World:
    """The world of scene number `scene` of a set with seed `seed`; `duration` in seconds, `reach` in metres."""
    rng = np.random.default_rng([seed, scene, 0])
    pace = Pace(float(rng.uniform(4.5, 8.5)), float(rng.uniform(0, 1.2)), 0.45, float(rng.uniform(0, 6.28)))
    road = lay_road(rng, float(pace.distance(duration)))
    ego = Trajectory(road, 0.0, -(road.section.lanes_right - 0.5) * road.section.lane, along=pace)
    actors = populate(road, ego, duration, reach, rng)
    blocks = _buildings(road, rng) + _hedges(road, actors, rng)
    props, crowns = _trees_and_lamps(road, actors, blocks, rng)
    return World(
        road=road,
        ego=ego,
        actors=actors,
        blocks=tuple(blocks),
        crowns=tuple(crowns),
        props=tuple(props),
        weather=_weather(rng),
        sky_seed=(seed, scene, 1),
        ground_style=int(rng.integers(1_000_000)),
    )


def _weather(rng: np.random.Generator) -> Weather:
    kind = str(rng.choice(["sunny", "hazy", "overcast", "evening"], p=[0.45, 0.2, 0.2, 0.15]))
    strength, ambient, clouds, haze = {
        "sunny": (0.85, 0.52, 0.35, 420.0),
        "hazy": (0.55, 0.66, 0.5, 190.0),
        "overcast": (0.10, 0.90, 1.0, 260.0),
        "evening": (0.62, 0.45, 0.45, 300.0),
    }[kind]
    elevation = np.radians(rng.uniform(14, 26) if kind == "evening" else rng.uniform(32, 62))
    azimuth = rng.uniform(-np.pi, np.pi)
    exposure = rng.uniform(0.88, 1.08)
    warm = np.array([1.10, 0.98, 0.82]) if kind == "evening" else np.array([1.03, 1.0, 0.95])
    cool = np.array([0.93, 0.99, 1.08])
    zenith, horizon = {
        "sunny": ((92, 138, 200), (196, 212, 228)),
        "hazy": ((140, 166, 200), (208, 212, 214)),
        "overcast": ((176, 182, 190), (206, 208, 211)),
        "evening": ((96, 122, 172), (226, 194, 158)),
    }[kind]
    brightness = exposure * (0.85 if kind == "evening" else 1.0)
    return Weather(
        sun=np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]),
        sun_light=exposure * strength * warm,
        sky_light=exposure * ambient * cool,
        zenith=np.array(zenith) * brightness,
        horizon=np.array(horizon) * brightness,
        clouds=clouds * float(rng.uniform(0.8, 1.2)),
        haze=haze,
        name=kind,
    )


def _buildings(road: Road, rng: np.random.Generator) -> list[Block]:
    """A row of buildings on each side, with gaps, none on the side street."""
    blocks: list[Block] = []
    for side in (-1, 1):
        s = road.s_start + 10
        while s < road.s_end - 30:
            length, depth, height = rng.uniform(12, 32), rng.uniform(9, 16), rng.uniform(6, 26)
            middle = s + length / 2
            d = side * (road.section.building_line(side) + rng.uniform(0.5, 3.0) + depth / 2)
            s += length + rng.choice([0.6, rng.uniform(3, 14)])
            pose = np.array([*road.at(middle, d), float(road.heading_at(middle)) + (np.pi if side < 0 else 0.0)])
            block = Block(pose, np.array([length, depth, height]), int(rng.integers(FACADES)), is_hedge=False)
            if road.near_crossing(middle, length / 2 + 4) or rng.random() < 0.12:
                continue
            if not _hits(block, [(b.pose, b.size_lwh) for b in blocks], 0.3):
                blocks.append(block)
    return blocks


def _hedges(road: Road, actors: tuple[Actor, ...], rng: np.random.Generator) -> list[Block]:
    """Hedges along the outer edge of the yards."""
    blocks: list[Block] = []
    taken = _resting_places(actors)
    for side in (-1, 1):
        for s in np.arange(road.s_start + 10, road.s_end - 10, 14.0):
            if rng.random() < 0.5 or road.near_crossing(float(s), 8):
                continue
            d = side * (road.section.building_line(side) - rng.uniform(0.3, 1.2))
            pose = np.array([*road.at(float(s), d), float(road.heading_at(float(s)))])
            size = np.array([rng.uniform(4, 9), rng.uniform(0.7, 1.1), rng.uniform(0.8, 1.7)])
            block = Block(pose, size, int(rng.integers(FOLIAGE)), is_hedge=True)
            if not _hits(block, taken, 0.3):
                blocks.append(block)
    return blocks


def _trees_and_lamps(
    road: Road, actors: tuple[Actor, ...], blocks: list[Block], rng: np.random.Generator
) -> tuple[list[Prop], list[Crown]]:
    """Trees in the yards and lamp posts at the kerb."""
    props: list[Prop] = []
    crowns: list[Crown] = []
    taken = _resting_places(actors) + [(block.pose, block.size_lwh) for block in blocks]
    for side in (-1, 1):
        section = road.section
        for s in np.arange(road.s_start + 5, road.s_end - 5, 9.0) + rng.uniform(-3, 3):
            position = float(s) + rng.uniform(-3, 3)
            d = side * (section.pavement_edge(side) + rng.uniform(0.4, 0.95) * section.yard)
            radius, stem = rng.uniform(1.5, 2.9), rng.uniform(2.6, 3.8)
            sprite, shade = int(rng.integers(SPRITES)), float(rng.uniform(0.8, 1.2))
            pose = np.array([*road.at(position, d), rng.uniform(-3, 3)])
            footprint = Block(pose, np.array([1.2 * radius, 1.2 * radius, 1.0]), 0, is_hedge=True)
            if rng.random() < 0.7 and not road.near_crossing(position, 5) and not _hits(footprint, taken, 0.3):
                props.append(Prop(trunk(stem + 0.6 * radius, shade), pose, vegetation=True))
                crowns.append(Crown(np.array([*pose[:2], stem + radius * 0.8]), radius, sprite))
                taken.append((pose, footprint.size_lwh))
        _line_kerb(road, side, taken, props, rng)
    return props, crowns


def _line_kerb(
    road: Road, side: int, taken: list[tuple[Floats, Floats]], props: list[Prop], rng: np.random.Generator
) -> None:
    """Lamp posts and signs along the kerb, signals at the side street, where nothing stands yet."""
    d = side * (road.section.asphalt(side) + 0.35)

    def put(model: Model, s: float, turn: float) -> None:
        pose = np.array([*road.at(s, d), float(road.heading_at(s)) + turn])
        if not _hits(Block(pose, np.array([0.4, 0.4, 1.0]), 0, is_hedge=False), taken, 0.2):
            props.append(Prop(model, pose, vegetation=False))
            taken.append((pose, np.array([0.4, 0.4, 1.0])))

    with_traffic = 0.0 if side < 0 else np.pi
    put(signal(green=True), road.crossing + side * (road.crossing_half_width + 5.2), with_traffic)
    for s in np.arange(road.s_start + 10 + 7 * (side + 1), road.s_end - 5, 28.0):
        if not road.near_crossing(float(s), 2):
            put(lamp_post(), float(s), np.pi / 2 if side < 0 else -np.pi / 2)
    for s in np.arange(road.s_start + 20, road.s_end - 5, 24.0):
        position = float(s + rng.uniform(-8, 8))
        if not road.near_crossing(position, 6):
            put(sign(rng), position, with_traffic)


def _resting_places(actors: tuple[Actor, ...]) -> list[tuple[Floats, Floats]]:
    """Pose and size of everybody at a few moments (a moving actor keeps to roads and pavements, away from scenery)."""
    return [(actor.trajectory.pose(0.0), actor.size_lwh) for actor in actors if actor.trajectory.is_still]


def _hits(block: Block, taken: list[tuple[Floats, Floats]], gap: float) -> bool:
    if not taken:
        return False
    poses, sizes = (np.stack(column) for column in zip(*taken, strict=True))
    return bool(overlap(poses, sizes[:, :2] / 2, block.pose, block.size_lwh[:2] / 2, gap).any())
