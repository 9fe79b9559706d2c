"""Commented configs: every key with its meaning, and values that fit the frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_origin

import yaml
from pydantic import BaseModel

from surefoot.cli.config import CHOICES, Config
from surefoot.cli.recipes import recipe
from surefoot.cli.screen import UserError
from surefoot.cli.sections import section_class, settings_class
from surefoot.cli.tasks import TASKS
from surefoot.data.read import Frame
from surefoot.data.states import check_states
from surefoot.data.statistics import is_isolated
from surefoot.heads import HEADS
from surefoot.models import MODELS
from surefoot.posteriors import METHODS
from surefoot.posteriors.ensemble import EnsembleSettings
from surefoot.settings import Settings
from surefoot.wording import counted

VALID = 0.1  # set aside, to calibrate what learns from all training frames
HEAD, HEAD_OF_FEW = "mean_variance", "scalar"
"""What a template begins with (`benchmarks/uncertainty/README.md`), and with few frames."""
FEWEST_HELD = 20  # frames that calibrate, where only some are set aside; and half as many groups
FEWEST_GROUPS = 4  # with fewer, members that leave out two folds see half of the data or less


def write_template(
    train: Sequence[str],
    frames: Sequence[Frame] = (),
    model: str = "schnet",
    head: str | None = None,
    posterior: str = "ensemble",
    task: str | None = None,
) -> str:
    """A commented config with all keys at their defaults, or such that these frames will do.

    Args:
        train: files to train on.
        frames: what they hold; where there are fewer groups than members, the posterior is adapted,
            and where one composition is in two states, the conditioning.
        model: whose keys are written, with the recipe that was found to train it well.
        head: the same for the head; None picks one that the frames can teach, see `_pick_head`.
        posterior: whose keys are written.
        task: a whole recipe, in place of model, head and posterior.

    Raises:
        UserError: if there is no such model, head, posterior or task.
    """
    if task is not None:
        return _write_task(train, task, (model, head, posterior))
    head = _pick_head(frames) if head is None else head
    chosen_by_name = (("model", model, MODELS), ("head", head, HEADS),
                      ("posterior", posterior, METHODS))  # fmt: skip
    for option, name, known in chosen_by_name:
        if name not in known:
            raise UserError(f"--{option} {name}: not known; there is {', '.join(known)}.")
    start = recipe(model, head)
    given, notes = _adapt(frames, start, posterior)
    fitted = ", or fits these frames as said below" if given else ""
    for section, values in start.items():
        if section != "posterior" or posterior == "ensemble":
            given[section] = {**values, **given.get(section, {})}
    if posterior != "ensemble":
        given.setdefault("data", {}).setdefault("valid", VALID)
    given["model"] = {"name": model, **given.get("model", {})}
    given["head"] = {"energy": head, **given.get("head", {})}
    given["posterior"] = {"name": posterior, **given.get("posterior", {})}
    given["data"] = {**given.get("data", {}), "train": list(train)}
    chosen = f" or a value to begin with for {model} with head {head}" if start else ""
    lines = [
        f"# surefoot config. Every key is at its default{chosen}{fitted}.",
        "# Without a key its default holds; only data: train has none.",
        "# A mistyped key is an error that names the nearest valid ones.",
        *notes,
        *_sections(given),
    ]
    return "\n".join(lines) + "\n"


def _write_task(train: Sequence[str], task: str, others: tuple[str | None, ...]) -> str:
    """A commented config of a recipe, as it is: it is not fitted to any frames."""
    if task not in TASKS:
        raise UserError(f"--task {task}: not known; there is {', '.join(TASKS)}.")
    if others != ("schnet", None, "ensemble"):
        raise UserError("--task names model, head and posterior; leave the other options out.")
    given = {name: dict(values) for name, values in TASKS[task].items()}
    given["data"]["train"] = list(train)
    title = f"# surefoot config: the recipe {task}; a key that it does not set is at its default."
    return "\n".join([title, *_sections(given)]) + "\n"


def _sections(given: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """All sections with these values."""
    lines = []
    for name, field in Config.model_fields.items():
        inner = section_class(name, field, given, CHOICES)
        if inner is not None:
            lines += ["", f"{name}:", *section_lines(inner, given.get(name, {}), 1)]
    return lines


def _adapt(
    frames: Sequence[Frame], start: Mapping[str, Mapping[str, Any]], posterior: str
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Values that differ from the defaults, and comments that say why."""
    if not frames:
        return {}, []
    one = posterior != "ensemble" or start.get("posterior", {}).get("members") == 1
    given, notes = _adapt_split(frames) if one else _adapt_posterior(frames, start)
    if check_states(frames):
        given["conditioning"] = {"name": "charge_spin"}
        notes.append(
            "# A composition is labelled in two states of charge or spin: conditioning tells them "
            "apart."
        )
    return given, notes


def _pick_head(frames: Sequence[Frame]) -> str:
    """Variances are learned from many frames; few are better left out by many members in turn."""
    return HEAD if not frames or _suffice(frames) else HEAD_OF_FEW


def _suffice(frames: Sequence[Frame]) -> bool:
    """Whether the usual share of them can calibrate alone."""
    groups = [frame.group for frame in frames if not is_isolated(frame)]
    return VALID * min(len(groups), 2 * len(set(groups))) >= FEWEST_HELD


def _adapt_split(frames: Sequence[Frame]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Frames drawn at random where there are no groups to set aside for calibration."""
    groups = {frame.group for frame in frames if not is_isolated(frame)}
    found = f"# Found {counted(len(frames), 'frame')} in {counted(len(groups), 'group')}"
    if len(groups) >= FEWEST_GROUPS:
        return {}, [f"{found}."]
    return {"data": {"split": "random"}}, [
        f"{found}: too few to set some aside, so frames drawn at random calibrate.",
        "# Error bars then hold for structures like these only; state `group` in info if you can.",
    ]


def _adapt_posterior(
    frames: Sequence[Frame], start: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Enough to set aside for all members; else folds, of as many as there are groups for them."""
    usual = EnsembleSettings()
    groups = {frame.group for frame in frames if not is_isolated(frame)}
    found = f"# Found {counted(len(frames), 'frame')} in {counted(len(groups), 'group')}"
    share = start.get("data", {}).get("valid", 0.0)
    if share > 0 and _suffice(frames):
        return {}, [f"{found}."]
    if len(groups) >= FEWEST_GROUPS:
        members = min(usual.members, len(groups))
        folds = {"members": members, "left_out": usual.left_out}
        how = f": each of {members} members leaves out {usual.left_out} of {members} folds of them"
        few = ", too few to set some aside" * (share > 0)
        return {"data": {"valid": 0.0}, "posterior": folds}, [f"{found}{few}{how}."]
    adapted = {
        "data": {"valid": VALID, "split": "random"},
        "posterior": {"members": FEWEST_GROUPS, **start.get("posterior", {}), "left_out": 0},
    }
    return adapted, [
        f"{found}: too few to leave some out, so frames drawn at random calibrate.",
        "# Error bars then hold for structures like these only; state `group` in info if you can.",
    ]


def section_lines(settings: type[Settings], given: Mapping[str, Any], depth: int) -> list[str]:
    """Commented lines of YAML with all keys of a section, at these values or their defaults.

    Args:
        settings: of the section.
        given: values that differ from the defaults.
        depth: of the indentation.
    """
    indent = "  " * depth
    lines = []
    for name, field in settings.model_fields.items():
        inner = settings_class(field.annotation)
        if inner is not None and field.default is None:
            continue  # a group that a run fills in, such as bins that it measures
        if field.description:
            lines.append(f"{indent}# {field.description}")
        if inner is not None and field.annotation is not None:
            lines.append(f"{indent}{name}:")
            usual = field.default.model_dump() if isinstance(field.default, BaseModel) else {}
            if get_origin(field.annotation) is dict:  # sections that the user has named
                for key, values in given.get(name, {}).items():
                    lines += [f"{indent}  {key}:", *section_lines(inner, values, depth + 2)]
            else:
                lines += section_lines(inner, {**usual, **given.get(name, {})}, depth + 1)
            continue
        value = given.get(name, field.default)
        text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
        lines.append(f"{indent}{name}: {text.removesuffix('...' + chr(10)).strip()}")
    return lines
