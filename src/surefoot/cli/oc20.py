"""Tasks of Open Catalyst 2020: relaxed structures beside labels, and files for its leaderboard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ase import Atoms

    from surefoot.evaluate.oc20 import Predictions
    from surefoot.posteriors.judge import Judged

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

Split = Annotated[str | None, typer.Option(help="What was predicted of this split.")]
RELAXED, ENERGY = "pos_relaxed", "y_relaxed"  # as OC20's databases call them
STOPPED, BROKEN = "unsure", "broken"  # relax_status where the guard stopped it, or it broke
NO_AFBT = "AFbT is not among them: it needs a DFT calculation of each relaxed structure"


@app.command()
def submit(
    output: Annotated[Path, typer.Option("-o", "--output", help="The .npz to write.")],
    task: Annotated[str, typer.Option(help="s2ef or is2re.")] = "s2ef",
    id_split: Annotated[
        str | None, typer.Option("--id", help="What was predicted of the split id.")
    ] = None,
    ood_ads: Split = None,
    ood_cat: Split = None,
    ood_both: Split = None,
    free_only: Annotated[
        bool, typer.Option("--free-only", help="Forces of free atoms alone, as EvalAI took them.")
    ] = False,
) -> None:
    """Write the file for the leaderboard from what `predict` or `relax` wrote for each split."""
    import io

    import numpy as np

    from surefoot.cli.screen import UserError, complain, require_writable, say
    from surefoot.data.read import refuse_overwriting
    from surefoot.evaluate.oc20 import submission
    from surefoot.train.checkpoint import write_atomically

    files = {"id": id_split, "ood_ads": ood_ads, "ood_cat": ood_cat, "ood_both": ood_both}
    given = {split: file for split, file in files.items() if file is not None}
    if task not in ("s2ef", "is2re"):
        raise UserError(f"--task {task}: not known; there is s2ef and is2re.")
    if free_only and task != "s2ef":
        raise UserError("--free-only: there are forces in s2ef alone; leave it out.")
    if not given:
        raise UserError("no split is given; name what was predicted with --id, --ood-ads, ….")
    if output.suffix != ".npz":
        raise UserError(f"{output}: the leaderboard takes .npz; choose such a name.")
    require_writable(output)
    refuse_overwriting(output, list(given.values()))
    predictions = {name: read_predictions(given[name], task, free_only=free_only) for name in given}
    arrays = submission(task, predictions)
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    write_atomically(output, packed.getvalue())
    counts = ", ".join(f"{name} {len(arrays[f'{name}_ids'])}" for name in given)
    say(f"{output}: {task}, structures by split: {counts}")
    unfinished = sum(one.unfinished for one in predictions.values())
    if unfinished:
        complain(f"surefoot: {unfinished} of them are relaxations that did not converge.")
    missing = [name for name in files if name not in given]
    if missing:
        complain(f"surefoot: the leaderboard wants {', '.join(missing)} too.")


def read_predictions(file: str, task: str, *, free_only: bool = False) -> Predictions:
    """What a file that `predict` or `relax` wrote says of one split."""
    import math

    from surefoot.cli.screen import UserError, complain
    from surefoot.data.images import read_images
    from surefoot.data.read import PREDICTED
    from surefoot.evaluate.oc20 import Predictions
    from surefoot.motion.systems import find_fixed

    ids, energies, forces, unfinished, broken = [], [], [], 0, 0
    for number, atoms in enumerate(read_images(Path(file))):
        place, info = f"{file}, frame {number}", atoms.info
        results = {} if atoms.calc is None else atoms.calc.results
        named = [name for name in ("sid", "fid")[: 2 if task == "s2ef" else 1] if name not in info]
        if named:
            raise UserError(f"{place}: its info has no {named[0]}, by which structures are known.")
        if PREDICTED not in info or "energy" not in results:
            raise UserError(f"{place}: `surefoot predict` or `relax` has not written it.")
        if task == "s2ef" and "forces" not in results:
            raise UserError(f"{place}: it has no predicted forces.")
        if not math.isfinite(results["energy"]):  # of a relaxation that broke
            broken += 1
            continue
        ids.append(f"{info['sid']}_{info['fid']}" if task == "s2ef" else str(info["sid"]))
        energies.append(float(results["energy"]))
        if task == "s2ef":
            forces.append(results["forces"][~find_fixed(atoms)] if free_only else results["forces"])
        unfinished += info.get("relax_status", "converged") != "converged"
    if broken:
        complain(
            f"surefoot: {file}: {broken} structures have an energy that is no number, since their "
            "relaxation broke; they are left out."
        )
    return Predictions(
        ids=ids,
        energy=energies,
        forces=forces,
        unfinished=unfinished,
    )


@app.command()
def relaxed(
    structures: Annotated[str, typer.Argument(help="Structures that `surefoot relax` wrote.")],
    targets: Annotated[
        str | None,
        typer.Argument(
            help="Relaxed structures by sid; where not given, pos_relaxed is looked at."
        ),
    ] = None,
    energy_key: Annotated[
        str, typer.Option(help="Key of the relaxed energy in info; calculator for that of ASE.")
    ] = ENERGY,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write all figures as JSON, too.")
    ] = None,
) -> None:
    """Relaxed structures and energies beside those of DFT (IS2RS, IS2RE)."""
    import json

    from surefoot.cli.screen import UserError, complain, require_writable, say, show_table
    from surefoot.data.images import read_images
    from surefoot.data.read import CALCULATOR, refuse_overwriting
    from surefoot.train.checkpoint import write_atomically

    if energy_key == CALCULATOR and targets is None:
        raise UserError(
            f"--energy-key {CALCULATOR}: the calculator of {structures} holds what was predicted; "
            "name a file of relaxed structures too, or a key in info."
        )
    if output is not None:
        require_writable(output)
        refuse_overwriting(output, [structures, *([targets] if targets else [])])
    ours = read_images(Path(structures))
    theirs = ours if targets is None else _by_sid(ours, structures, targets)
    pairs = [
        _compare(one, other, energy_key, f"{structures}, frame {number}")
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True))
    ]
    whole = [pair for pair in pairs if pair["status"] != BROKEN]
    if len(whole) < len(pairs):
        complain(
            f"surefoot: {structures}: {len(pairs) - len(whole)} of {len(pairs)} relaxations broke; "
            "they are in no figure."
        )
    if not whole:
        raise UserError(f"{structures}: there is no relaxation in it that did not break.")
    pairs = whole
    if energy_key != ENERGY and all(pair["error"] is None for pair in pairs):
        raise UserError(
            f"--energy-key {energy_key}: no structure of {targets or structures} has it."
        )
    found = {"all": summarize(pairs)}
    kept = [pair for pair in pairs if pair["status"] != STOPPED]
    if 0 < len(kept) < len(pairs):
        found["not stopped by the guard"] = summarize(kept)
    columns = list(found["all"])
    show_table(
        "Relaxed structures beside labels",
        ["structures", *columns],
        [[name, *(_show(one.get(column)) for column in columns)] for name, one in found.items()],
    )
    say(NO_AFBT)
    if output is not None:
        write_atomically(output, (json.dumps(found, indent=2) + "\n").encode())
        say(f"wrote {output}")


def _by_sid(ours: Sequence[Atoms], file: str, targets: str) -> list[Atoms]:
    """The target of each structure."""
    from surefoot.cli.screen import UserError
    from surefoot.data.images import read_images

    known: dict[str, Atoms] = {}
    for number, atoms in enumerate(read_images(Path(targets))):
        sid = str(atoms.info.get("sid"))
        if "sid" in atoms.info and sid in known:
            raise UserError(
                f"{targets}, frame {number}: its sid {sid} was there before; one relaxed structure "
                "of each is needed."
            )
        known |= {sid: atoms} if "sid" in atoms.info else {}
    for number, atoms in enumerate(ours):
        sid = str(atoms.info.get("sid"))
        if sid not in known or known[sid].numbers.tolist() != atoms.numbers.tolist():
            raise UserError(
                f"{file}, frame {number}: {targets} has no structure of its sid ({sid}) with the "
                "same atoms."
            )
    return [known[str(atoms.info["sid"])] for atoms in ours]


def _compare(atoms: Atoms, target: Atoms, energy_key: str, place: str) -> dict[str, Any]:
    """Distance, error of the energy and status of one relaxed structure."""
    from surefoot.cli.screen import UserError
    from surefoot.data.read import CALCULATOR, PREDICTED
    from surefoot.evaluate.oc20 import displacements
    from surefoot.motion.systems import find_fixed

    if PREDICTED not in atoms.info or atoms.calc is None:
        raise UserError(f"{place}: `surefoot relax` has not written it.")
    if target is atoms and RELAXED not in atoms.arrays:
        raise UserError(f"{place}: it has no array {RELAXED}; name a file of relaxed structures.")
    free = ~find_fixed(atoms)
    if not free.any():
        raise UserError(f"{place}: all of its atoms are fixed, so it was not relaxed.")
    there = target.arrays.get(RELAXED, target.positions)
    distances = displacements(atoms.positions, there, atoms.cell.array, atoms.pbc)
    held = target.info
    if energy_key == CALCULATOR and target is not atoms:
        held = {CALCULATOR: None if target.calc is None else target.calc.results.get("energy")}
    label = held.get(energy_key)
    return {
        "status": atoms.info.get("relax_status"),
        "distance": float(distances[free].mean()),
        "error": None if label is None else float(atoms.calc.results["energy"]) - float(label),
    }


def summarize(pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """ADwT, mean distance and, where there are labels, errors of the relaxed energies.

    Figures of energies are those of the structures whose relaxed energy is known, which are counted
    by themselves.
    """
    import numpy as np

    from surefoot.evaluate.oc20 import distance_within, energy_mae, energy_within

    distances = np.array([pair["distance"] for pair in pairs])
    errors = np.array([pair["error"] for pair in pairs if pair["error"] is not None])
    figures = {
        "count": len(pairs),
        "ADwT, %": distance_within(distances),
        "mean distance, Å": float(distances.mean()),
    }
    if len(errors):
        figures |= {
            "with energies": len(errors),
            "energy MAE, eV": energy_mae(errors),
            "EwT, %": energy_within(errors),
        }
    return figures


def show_oc20(judged: Judged) -> dict[str, float]:
    """The figures of S2EF, or of IS2RE where there are energies alone."""
    from surefoot.cli.screen import say, show_table

    figures = measure_oc20(judged)
    show_table(
        "OC20, free atoms only; S2EF has all of these, IS2RE the energy's",
        ["figure", "value"],
        [[name, _show(value)] for name, value in figures.items()],
    )
    say(NO_AFBT)
    return figures


def measure_oc20(judged: Judged) -> dict[str, float]:
    """Figures of energies and forces as OC20 defines them."""
    import numpy as np

    from surefoot.cli.screen import UserError
    from surefoot.evaluate import oc20

    targets, prediction = judged.targets, judged.prediction
    labelled = targets.has_energy.numpy()
    if not labelled.any():
        raise UserError("--oc20 needs energies beside the structures, and there are none.")
    energies = targets.energy.numpy() - prediction.energy.mean.numpy()
    figures = {
        "energy MAE, eV": oc20.energy_mae(energies[labelled]),
        "EwT, %": oc20.energy_within(energies[labelled]),
    }
    free = judged.counted_atoms
    if prediction.forces is None or not free.any():
        return figures
    labels, forces = targets.forces.numpy()[free], prediction.forces.mean.double().numpy()[free]
    figures |= {
        "force MAE, eV/Å": oc20.forces_mae(forces - labels),
        "force cosine": oc20.forces_cosine(forces, labels),
        "force magnitude error, eV/Å": oc20.forces_magnitude(forces, labels),
    }
    both = labelled & targets.has_forces.numpy()
    if both.any():
        chosen = both[judged.graph_of_atom[free]]
        places = np.cumsum(both) - 1
        figures["EFwT, %"] = oc20.energy_forces_within(
            energies[both], (forces - labels)[chosen], places[judged.graph_of_atom[free]][chosen]
        )
    return figures


def _show(value: Any) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
