"""From the command line to the recipe and plan of a run."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from configs import run_directory
from configs.errors import UsageError
from configs.plan import Plan, PlanOptions, make_plan
from configs.recipes import load_recipe, save_recipe, with_version
from configs.replaced_file import replace_text
from configs.schema import Recipe

from .devices import find_devices
from .start_options import StartOptions


def choose_recipe(options: StartOptions) -> Recipe:
    """The recipe that was named; else the one in the run directory; else the script's own."""
    name = options.config
    if options.run_dir is not None and not options.config_given:
        saved = options.run_dir / run_directory.RECIPE
        name = str(saved) if saved.is_file() else name
    recipe = load_recipe(name, options.overrides)
    return recipe if options.version is None else with_version(recipe, options.version)


def choose_plan(options: StartOptions, run_dir: Path, recipe: Recipe, samples: int, processes: int) -> Plan:
    """The plan in the run directory, where the command line says nothing about it; else a plan made here.

    A plan for a range of machines becomes that for the machines that have met.

    Args:
        samples: samples of one epoch.
        processes: how many were started.

    Raises:
        UsageError: the plan in the run directory is damaged or was made for another data set.
    """
    asked = options.plan_options()
    path = run_dir / run_directory.PLAN
    if asked != PlanOptions() or options.config_given or not path.is_file():
        if asked.gpus is None:
            asked = asked.model_copy(update={"num_devices": processes})
        return make_plan(recipe, samples=samples, devices=find_devices(options.device), options=asked)
    try:
        plan = Plan.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UsageError(f"{path} is not a plan: {error.errors()[0]['msg']}", fix="remove it to plan again") from error
    if plan.epoch_samples != samples:
        raise UsageError(
            f"{path} was made for epochs of {plan.epoch_samples} samples, "
            f"split {recipe.data.train_split!r} of {options.data_root} has {samples}",
            fix="check --data-root, or remove the file to plan again",
        )
    machines = {share.nodes * plan.devices_per_node: share.nodes for share in plan.node_shares}
    return plan.on_nodes(machines[processes]) if processes in machines else plan


def write_start(run_dir: Path, recipe: Recipe, plan: Plan) -> None:
    """Save the resolved recipe and the plan with the run."""
    save_recipe(recipe, run_dir / run_directory.RECIPE)
    replace_text(run_dir / run_directory.PLAN, plan.model_dump_json(indent=2))
