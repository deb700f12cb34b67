"""Reading and writing recipes: YAML files checked against `configs.schema`, every mistake named with its place."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from pydantic import BaseModel, ValidationError

from configs.errors import UsageError
from configs.replaced_file import replace_text
from configs.schema import Recipe, Section

FOLDER: Final = Path(__file__).resolve().parent

OTHER_FOLDERS: Final = ("sam2",)
"""Folders beside the recipes' that hold YAML of other kinds: SAM 2's own model descriptions."""

SPLITS_OF_VERSION: Final = {
    "v1.0-trainval": ("train", "val"),
    "v1.0-mini": ("mini_train", "mini_val"),
    "v1.0-synthetic": ("synthetic_train", "synthetic_val"),
}
"""Training and validation split of each version of the data."""


def known_recipes() -> list[str]:
    """Names of the recipes that come with the project, such as `bevnext/bevnext-stage1`."""
    files = (path for path in FOLDER.glob("*/*.yaml") if path.parent.name not in OTHER_FOLDERS)
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in files)


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe of that name, or the YAML file at that path, and apply `section.key=value` overrides in turn.

    A recipe that says `extends: NAME` is that recipe with the keys it gives changed.
    Values of overrides are YAML (`engine.ema=null`, `data.image_size=[96, 256]`).

    Raises:
        UsageError: no such recipe, not YAML, an unknown key (the closest known one is named), or a wrong value.
    """
    path = _find(name_or_path)
    content = _read_extended(path)
    places = [(_apply(content, override), override) for override in overrides]
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise _explain(error, path, places) from error


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe, every value spelled out, so that a reader sees the old file or the new one."""
    content = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    replace_text(path, content)


def with_version(recipe: Recipe, version: str) -> Recipe:
    """The recipe on another version of the data, with that version's splits; unchanged when it is the recipe's own.

    Raises:
        UsageError: a version without known training splits.
    """
    if version == recipe.data.version:
        return recipe
    if version not in SPLITS_OF_VERSION:
        raise UsageError(
            f"--version {version}: its training and validation splits are not known",
            fix=f"use one of {', '.join(SPLITS_OF_VERSION)}, or set data.version, data.train_split and data.val_split",
        )
    train, val = SPLITS_OF_VERSION[version]
    data = recipe.data.model_copy(update={"version": version, "train_split": train, "val_split": val})
    return recipe.model_copy(update={"data": data})


def fingerprint(section: Section) -> str:
    """SHA-256 of a recipe or a part of one: equal for equal values, however they were written."""
    return hashlib.sha256(json.dumps(section.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


# --- reading -------------------------------------------------------------------------------------------------------


class _UniqueKeyLoader(yaml.SafeLoader):
    """`yaml.safe_load`, except that a key given twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for position, key in enumerate(keys):
            if key.value in (earlier.value for earlier in keys[:position]):
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
        return super().construct_mapping(node, deep)


def _find(name_or_path: str) -> Path:
    for path in (FOLDER / f"{name_or_path}.yaml", Path(name_or_path)):
        if path.is_file():
            return path
    names = known_recipes()
    close = difflib.get_close_matches(name_or_path, names, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UsageError(
        f"recipe {name_or_path!r} is neither a recipe of the project nor a file",
        fix=f"{hint}known recipes: {', '.join(names)}",
    )


def _read_extended(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The content of a recipe, merged into that of the recipe it extends."""
    if path in extended_by:
        raise UsageError(f"recipe {path} extends itself", fix="take one `extends` out")
    content = _read(path)
    base = content.pop("extends", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise UsageError(f"recipe {path}: extends: {base!r} is not the name of a recipe", fix="name one recipe")
    return _merged(_read_extended(_find(base), (*extended_by, path)), content)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe {path} is not YAML: {error}", fix="correct the file") from error
    if not isinstance(content, dict):
        raise UsageError(
            f"recipe {path} holds no sections", fix=f"start from one of the project's: {', '.join(known_recipes())}"
        )
    return content


def _apply(content: dict[str, Any], override: str) -> tuple[str, ...]:
    """Set the override's value in `content`; returns the place as keys."""
    keys, equals, text = override.partition("=")
    place = tuple(keys.strip().split("."))
    if not equals or not all(place):
        raise UsageError(f"--set {override!r} is not of the form section.key=value", fix="write --set engine.seed=1")
    try:
        value = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {override!r}: the value is not YAML: {error}", fix="quote the value") from error
    section = content
    for key in place[:-1]:
        if section.get(key) is None:
            section[key] = {}
        section = section[key]
        if not isinstance(section, dict):
            raise UsageError(f"--set {override!r}: {key} is a value, not a section", fix=f"set {key} itself")
    section[place[-1]] = value
    return place


# --- explaining ----------------------------------------------------------------------------------------------------


def _explain(error: ValidationError, path: Path, places: Sequence[tuple[tuple[str, ...], str]]) -> UsageError:
    """All mistakes of a recipe in one error, each with the file or override it came from."""
    messages, fixes = [], []
    for mistake in error.errors():
        keys = tuple(str(key) for key in mistake["loc"])
        source = next((f"--set {text}" for place, text in reversed(places) if _overlap(place, keys)), str(path))
        if mistake["type"] == "extra_forbidden":
            messages.append(f"{source}: unknown key {'.'.join(keys)!r}")
            fixes.append(_closest_key(keys))
        elif mistake["type"] == "value_error":  # of a check of ours, which knows the fix
            message, *known_fix = mistake["ctx"]["error"].args
            messages.append(f"{source}: {'.'.join(keys)}: {message}")
            fixes += known_fix or [f"correct {'.'.join(keys)}"]
        else:
            messages.append(f"{source}: {'.'.join(keys)}: {mistake['msg']} (got {mistake['input']!r})")
            fixes.append(f"correct {'.'.join(keys)}")
    return UsageError("\n".join(messages), fix="; ".join(fixes))


def _overlap(place: tuple[str, ...], keys: tuple[str, ...]) -> bool:
    """One place lies within the other."""
    shorter = min(len(place), len(keys))
    return place[:shorter] == keys[:shorter]


def _closest_key(keys: tuple[str, ...]) -> str:
    model: type[BaseModel] = Recipe
    for key in keys[:-1]:
        field = model.model_fields.get(key)
        model = _section_of(field.annotation) or model if field else model
    known = list(model.model_fields)
    close = difflib.get_close_matches(keys[-1], known, n=1, cutoff=0.5)
    where = ".".join(keys[:-1]) or "the recipe"
    return f"did you mean {close[0]!r}?" if close else f"{where} knows {', '.join(known)}"


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The section class in an annotation such as `EmaConfig | None`."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None
