"""The parts that a synthetic scene is made of: drawing order, LiDAR, trajectories, models, placement."""

import numpy as np
import pytest

from scenes.synthetic.catalogue import SIZES
from scenes.synthetic.drafts import BUILDERS
from scenes.synthetic.ground import paint_ground
from scenes.synthetic.layout import lay_out
from scenes.synthetic.lidar import Scanner
from scenes.synthetic.motion import Fleet, overlap
from scenes.synthetic.obstacles import Obstacles
from scenes.synthetic.paint_order import box_order, upright_order
from scenes.synthetic.rig import BEAMS, LIDAR_COLUMNS, ego_pose_matrix, mount
from scenes.synthetic.shadows import Shade
from scenes.synthetic.small_objects import bicycle, motorcycle, pedestrian


@pytest.fixture(scope="module")
def world():
    return lay_out(seed=1, scene=0, duration=4.0, reach=60.0)


def _entries(lower, upper, origin, direction):
    """Distance at which a ray enters axis-aligned boxes; infinity where it misses."""
    with np.errstate(divide="ignore", invalid="ignore"):
        near, far = (lower - origin) / direction, (upper - origin) / direction
    enter, leave = np.minimum(near, far).max(axis=1), np.maximum(near, far).min(axis=1)
    return np.where((enter < leave) & (enter > 0), enter, np.inf)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_drawn_last_is_what_is_in_front(seed):
    rng = np.random.default_rng(seed)
    lower, upper = np.empty((0, 3)), np.empty((0, 3))
    while len(lower) < 25:
        corner = rng.uniform([-20, -20, 0], [20, 20, 4])
        size = rng.uniform(0.5, 7, 3)
        if ((corner + size <= lower) | (corner >= upper)).any(axis=1).all():
            lower, upper = np.vstack([lower, corner]), np.vstack([upper, corner + size])
    camera = np.array([0.5, -26.0, 2.0])
    everything = np.ones((25, 25), dtype=bool)
    centre, half = (lower + upper)[:, :2] / 2, (upper - lower)[:, :2] / 2
    axes = np.broadcast_to(np.eye(2), (25, 2, 2))
    orders = [
        box_order(lower, upper, camera),
        upright_order(centre, axes, half, lower[:, 2], upper[:, 2], camera, everything),
    ]
    for order in orders:
        place = np.empty(25, dtype=int)
        place[order] = np.arange(25)
        for _ in range(400):
            direction = rng.normal([0, 1, 0], [0.6, 0.1, 0.15])
            entries = _entries(lower, upper, camera, direction)
            hit = np.flatnonzero(np.isfinite(entries))
            if len(hit):
                assert hit[place[hit].argmax()] == hit[entries[hit].argmin()]


def test_turned_boxes_are_ordered_along_their_own_sides():
    # a long wall, turned by 45 degrees, with its centre farther away than the post behind its near end
    turn = np.pi / 4
    centre = np.array([[10.0, 10.0], [4.0, 1.0]])
    axes = np.array([[[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]], np.eye(2)])
    half, low, high = np.array([[13.0, 0.2], [0.3, 0.3]]), np.zeros(2), np.full(2, 3.0)
    order = upright_order(centre, axes, half, low, high, np.array([0.0, 5.0, 1.5]), np.ones((2, 2), dtype=bool))
    assert order.tolist() == [1, 0]


def test_the_lidar_meets_what_a_search_over_all_solids_meets(world):
    """Trying only the beams within a solid's angles loses none."""
    ground = paint_ground(world, world.ego.pose(np.array([1.0]))[:, :2], 0.25, Shade([], []))
    rig = mount(np.random.default_rng(0), (900, 1600))
    ego = ego_pose_matrix(world.ego.pose(1.0))
    sweep = Scanner(world, ground, rig.ego_from_lidar).scan(1.0, ego, np.random.default_rng(0))
    pose = ego @ rig.ego_from_lidar
    solids = Obstacles(world).at(1.0, pose[:3, 3])
    solid = solids.only(~solids.porous)
    chosen = np.random.default_rng(1).choice(len(sweep.points), 600, replace=False)
    local = sweep.points[chosen, :3].astype(np.float64)
    reach = np.linalg.norm(local, axis=1)
    directions = local @ pose[:3, :3].T / reach[:, None]
    slope = np.einsum("skj,nj->nsk", solid.planes[..., :3], directions)
    room = solid.planes[..., 3] - solid.planes[..., :3] @ pose[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = room / slope
    enter = np.where(slope < 0, crossing, -np.inf).max(axis=2)
    leave = np.where(slope > 0, crossing, np.inf).min(axis=2)
    outside = ((slope == 0) & (room < 0)).any(axis=2)
    nearest = np.where((enter > 0.3) & (enter <= leave) & ~outside, enter, np.inf).min(axis=1)
    on_ground = np.where(directions[:, 2] < 0, -pose[2, 3] / np.minimum(directions[:, 2], -1e-9), np.inf)
    expected = np.minimum(nearest, on_ground)
    leaf = sweep.semantics[chosen] == 30
    assert (reach[leaf] < expected[leaf] + 0.1).all()
    assert np.abs(reach - expected)[~leaf].max() < 0.1
    assert len(sweep.points) <= BEAMS * LIDAR_COLUMNS


def test_together_trajectories_are_where_each_alone_is(world):
    fleet = Fleet([actor.trajectory for actor in world.actors])
    for t in (0.0, 1.7):
        alone = np.array([actor.trajectory.pose(t) for actor in world.actors])
        together = fleet.poses(t)
        assert np.allclose(together[:, :2], alone[:, :2])
        assert np.allclose(np.exp(1j * together[:, 2]), np.exp(1j * alone[:, 2]))


def test_velocity_is_the_change_of_position(world):
    for actor in world.actors:
        for t in (0.5, 2.0):
            moved = actor.trajectory.pose(t + 0.25)[:2] - actor.trajectory.pose(t - 0.25)[:2]
            assert np.allclose(moved / 0.5, actor.trajectory.velocity(t), atol=0.15)


def test_nobody_touches_anybody(world):
    times = np.arange(0, 4.0, 0.5)
    tracks = np.array([actor.trajectory.pose(times) for actor in world.actors])
    halves = np.array([actor.size_lwh[:2] / 2 for actor in world.actors])[:, None]
    for index in range(len(tracks)):
        others = np.arange(len(tracks)) != index
        meets = overlap(tracks[others], halves[others], tracks[index][None], halves[index], gap=0.0)
        assert not meets.any(), world.actors[index].category


def test_models_fill_their_boxes_and_face_outwards():
    rng = np.random.default_rng(0)
    models = []
    for kind, (_, build) in BUILDERS.items():
        size = SIZES[kind]
        models += [(build(rng, size.length, size.width, size.height), size) for _ in range(6)]
    for build in (bicycle, motorcycle):
        models.append((build(rng, 1.9, 0.7, 1.2, False), SIZES["bicycle"]))
        models.append((build(rng, 1.9, 0.7, 1.8, True), SIZES["bicycle"]))
    models += [(model, SIZES["pedestrian"]) for model in pedestrian(rng, 0.7, 0.7, 1.75)]
    for model, _ in models:
        assert np.isfinite(model.points).all()
        assert np.allclose(np.linalg.norm(model.normals, axis=1), 1)
        centre = model.bounds.mean(axis=1)[model.solid_of]
        outwards = ((model.points[model.starts[:-1]] - centre) * model.normals).sum(axis=1)
        assert (outwards[~model.two_sided] > 0).all()
        inside = (model.planes[:, :, :3] * model.bounds.mean(axis=1)[:, None]).sum(-1) <= model.planes[..., 3] + 1e-9
        assert inside.all()


def test_worlds_differ_from_scene_to_scene():
    first, second = lay_out(0, 0, 2.0, 60.0), lay_out(0, 1, 2.0, 60.0)
    assert first.road.section != second.road.section
    assert len(first.actors) > 60
    assert first.weather.sun.tolist() != second.weather.sun.tolist()
