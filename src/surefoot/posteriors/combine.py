"""Potentials that were trained apart as one ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from surefoot.blocks.dense import Weights, stack
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.learnt import side_by_side
from surefoot.posteriors.posterior import Single
from surefoot.posteriors.predictor import Predictor, build_predictor


def combine(members: Mapping[str, Predictor]) -> Predictor:
    """The ensemble of these members, with no error bars and no gate yet.

    Each was calibrated as if it were alone; what that says of them together is nothing.

    Args:
        members: name, such as a file's, → a predictor with one set of weights.
    Raises:
        ValueError: if there are fewer than two, one has more than one set of weights, two differ in
            settings, reference energies, scale or precision, or two are the same.
    """
    if len(members) < 2:
        raise ValueError(f"an ensemble has at least two members; there is {len(members)}.")
    (first_name, first), *others = members.items()
    for name, member in members.items():
        if not isinstance(member.posterior, Single):
            raise ValueError(
                f"{name}: holds the posterior {member.posterior.name}; members of an ensemble are "
                "potentials with one set of weights (`posterior: {members: 1}`)."
            )
    trees = {name: member.posterior.tree() for name, member in members.items()}
    for name, member in others:
        for part in ("model", "head", "states", "baseline"):
            if getattr(member.potential, part) != getattr(first.potential, part):
                raise ValueError(
                    f"{name}: its {part} is not that of {first_name}; members are trained with one "
                    "config on the same frames and differ by `train: {seed}` alone (name "
                    "`data: {split_seed}`, or a share of the frames is drawn by that seed)."
                )
    _require_distinct(trees)
    files = {file: sha for m in members.values() for file, sha in _files(m).items()}
    provenance = {**first.provenance, "files": files, "members": list(members)}
    seconds = [member.provenance.get("seconds") for member in members.values()]
    known = [one for one in seconds if one is not None]
    provenance["seconds"] = sum(known) if len(known) == len(members) else None
    pool = build_predictor(
        first.potential, Ensemble(stack(list(trees.values()))), Calibration(), provenance
    )
    learnt = [member.learnt for member in members.values() if member.learnt is not None]
    return replace(pool, learnt=side_by_side(learnt) if len(learnt) == len(members) else None)


def _files(member: Predictor) -> Mapping[str, str]:
    """Of two files of one name both, with their content."""
    files = member.provenance.get("files", {})
    return {f"{name} {content[:8]}": content for name, content in files.items()}


def _require_distinct(trees: Mapping[str, Weights]) -> None:
    seen: dict[str, Weights] = {}
    for name, tree in trees.items():
        for other, known in seen.items():
            if any(tree[n].dtype != known[n].dtype for n in known):
                raise ValueError(f"{name}: its precision is not that of {other}.")
            if all(torch.equal(tree[n], known[n]) for n in known):
                raise ValueError(
                    f"{name} and {other} hold the same weights; train each with another "
                    "`train: {seed}`."
                )
        seen[name] = tree
