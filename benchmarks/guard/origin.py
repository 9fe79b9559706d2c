"""What a piece was made of, so that nothing stale is taken for a figure of what is there now."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CLAIM = "made_of.json"
SAMPLED = ("starts", "sampled", "settle", "apart")
"""Of a scale: what decides the data."""


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def digest(settings: Any) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def of_data(scale: Mapping[str, Any], roles: Mapping[str, float]) -> str:
    """The settings that decide the data."""
    return digest({"scale": {name: scale[name] for name in SAMPLED}, "roles": dict(roles)})


def of_posterior(
    config: Mapping[str, Any], scale: Mapping[str, Any], posterior: str, data: str
) -> str:
    """The settings that decide everything else of one posterior, those of its data included."""
    rest = {name: value for name, value in config.items() if name not in ("scales", "posteriors")}
    entry = config["posteriors"][posterior]
    bases = config["posteriors"].get(entry.get("base", ""), {})
    return digest({"rest": rest, "scale": dict(scale), "own": [entry, bases], "data": data})


def claim(folder: Path, made_of: Mapping[str, Any]) -> None:
    """Say what a folder's files are made of, or end where it says something else."""
    file = folder / CLAIM
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(made_of) + "\n")
    require(file, json.loads(file.read_text()), made_of, f"remove the folder {folder}")


def require(
    file: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], remedy: str | None = None
) -> None:
    """End where something was made of another potential or config."""
    for name, value in wanted.items():
        if found.get(name) != value:
            raise SystemExit(
                f"{file}: it was made of another {name}; {remedy or 'remove it'} and make it again."
            )
