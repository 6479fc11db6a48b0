"""Three-layer configuration: the schema's defaults < a YAML file < ``key=value``; checked once, then frozen.

OmegaConf does the merging and the types; this module turns its errors into one sentence that says which key of
which layer is wrong, what came and what was meant.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from data_prep.atomic import write_atomic
from data_prep.records import InputError

T = TypeVar("T")
RESOLVED = "config.yaml"


def load(
    schema: type[T],
    yaml_path: Path | None,
    overrides: Sequence[str],
    defaults: Mapping[str, Any] | None = None,
) -> T:
    """An instance of ``schema`` (a frozen dataclass, nested ones included).

    Args:
        schema: declares every key, its type and default; the default ``"???"`` marks a key that must be given.
        yaml_path: file to merge over the defaults, or None.
        overrides: ``section.key=value`` strings, merged last.
        defaults: values in place of the schema's, merged first.

    Raises:
        InputError: unknown key, wrong type, missing value, or a file that is absent or not YAML.
    """
    layers: list[tuple[str, Any]] = [("defaults", dict(defaults))] if defaults else []
    if yaml_path is not None:
        layers.append((f"configuration file {str(yaml_path)!r}", _read_yaml(yaml_path)))
    layers.extend((f"argument {item!r}", _dotlist(item, schema)) for item in overrides)
    return merged(schema, layers)


def merged(schema: type[T], layers: Sequence[tuple[str, Any]]) -> T:
    """An instance of ``schema`` from its defaults and layers; each layer comes with what messages call it.

    Raises:
        InputError: as ``load``.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    config = OmegaConf.structured(schema)
    for source, layer in layers:
        try:
            config = OmegaConf.merge(config, layer)
        except OmegaConfBaseException as error:
            raise InputError(f"{source}: {_explain(error, schema)}") from error
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise InputError(
                f"{', '.join(missing)}: no value; give it as {missing[0]}=VALUE or in the YAML file"
            )
        made: T = OmegaConf.to_object(config)  # type: ignore[assignment]
    except OmegaConfBaseException as error:  # a ${reference} that leads nowhere
        source = layers[0][0] if layers else "configuration"
        key = getattr(error, "full_key", "")
        raise InputError(f"{source}: {key}: {_first_line(error)}; correct the reference") from error
    return made


def save(config: Any, folder: Path) -> Path:
    """Write the resolved configuration beside a result and return its path."""
    path = folder / RESOLVED
    write_atomic(path, to_yaml(config).encode())
    return path


def to_yaml(config: Any) -> str:
    """The resolved configuration as YAML that ``load`` reads back to an equal object."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(config))


def flat(config: Any) -> dict[str, str]:
    """The resolved configuration as dotted keys and text values, for comparing and for parameter tables."""
    from omegaconf import OmegaConf

    return _flat(OmegaConf.to_container(OmegaConf.structured(config)), "")


def _flat(node: Any, prefix: str) -> dict[str, str]:
    if not isinstance(node, dict):
        return {prefix: str(node)}
    values: dict[str, str] = {}
    for key, value in node.items():
        values |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return values


def check_ranges(config: Any, allowed: Mapping[str, tuple[float, float]]) -> None:
    """Raise InputError where the number of a key is outside its (least, greatest), both allowed."""
    values = flat(config)
    for key, (least, greatest) in allowed.items():
        if not least <= float(values[key]) <= greatest:
            wanted = f"from {least} to {greatest}" if greatest < math.inf else f"at least {least}"
            raise InputError(f"{key}={values[key]}: must be {wanted}")


def keys(schema: type[Any], prefix: str = "") -> list[str]:
    """Every dotted key of a schema, sections first; what help and spelling suggestions draw on."""
    names: list[str] = []
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        name = prefix + field.name
        names.append(name)
        if dataclasses.is_dataclass(hints[field.name]):
            names.extend(keys(typing.cast(type[Any], hints[field.name]), name + "."))
    return names


def _read_yaml(path: Path) -> Any:
    from omegaconf import OmegaConf
    from yaml import YAMLError

    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"configuration file {str(path)!r} {kind}; give the path of a YAML file")
    try:
        layer = OmegaConf.load(path)
    except (YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"configuration file {str(path)!r} is not YAML: {error}") from error
    if not OmegaConf.is_dict(layer):
        raise InputError(f"configuration file {str(path)!r} holds a list; sections and keys are wanted")
    return layer


def _dotlist(item: str, schema: type[Any]) -> Any:
    from omegaconf import OmegaConf
    from yaml import YAMLError

    key, equals, _ = item.partition("=")
    if not equals or not key:
        raise InputError(f"argument {item!r}: key=value is wanted, for example {keys(schema)[0]}=VALUE")
    try:
        return OmegaConf.from_dotlist([item])
    except YAMLError as error:
        raise InputError(f"argument {item!r}: the value is not YAML: {error}") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _explain(error: Any, schema: type[Any]) -> str:
    """One sentence about an OmegaConf error, with the dotted key in front and the nearest key that exists."""
    key = str(getattr(error, "full_key", "") or "")
    text = _first_line(error)
    known = keys(schema)
    if key and key not in known:
        leaf = key.rsplit(".", 1)[-1]
        section = key.rsplit(".", 1)[0] + "." if "." in key else ""
        near = difflib.get_close_matches(key, known, 1, 0.75)
        near += [k for k in known if k.rsplit(".", 1)[-1] == leaf]
        near += difflib.get_close_matches(leaf, [k for k in known if "." not in k or section == ""], 1, 0.6)
        allowed = [k for k in known if k.startswith(section) and "." not in k[len(section) :]]
        hint = f"did you mean {near[0]!r}?" if near else f"allowed here: {', '.join(allowed)}"
        return f"unknown key {key!r}; {hint}"
    return f"{key}: {text}" if key else text
