# SPDX-License-Identifier: GPL-3.0-or-later
"""The reaction that KIMMDY asks for recipes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from kimmdy.plugins import ReactionPlugin
from kimmdy.recipe import Bind, Break, Place, Recipe, RecipeCollection, Relax
from surefoot.hat.candidate_files import scan_text
from surefoot.hat.frames import search_frames
from surefoot.posteriors.predictor import load_predictor

from surefoot_kimmdy.options import read_options
from surefoot_kimmdy.predictions import Prediction, predict, write_predictions
from surefoot_kimmdy.structure import (
    Trajectory,
    read_radicals,
    read_topology,
    read_trajectory,
)

if TYPE_CHECKING:
    from kimmdy.runmanager import RunManager
    from kimmdy.tasks import TaskFiles

PREDICTIONS, TO_LABEL = "predictions.csv", "to_label.xyz"


class SurefootHat(ReactionPlugin):
    """Hydrogen transfers to radicals, by barriers of rigid scans on a surefoot potential."""

    def __init__(self, name: str, runmng: RunManager) -> None:
        super().__init__(name, runmng)
        self.options = read_options(self.config, name)
        self.search = self.options.search()
        self.predictor = load_predictor(self.options.potential)

    def get_recipe_collection(self, files: TaskFiles) -> RecipeCollection:
        """One recipe for each scan whose barrier is used, at one rate for one span of time.

        Barriers of all scans go to `predictions.csv` of the task's folder, the scans that are to be
        labelled first to `to_label.xyz`.

        Args:
            files: of the task; the trajectory is among its input.

        Raises:
            ValueError: if topology or trajectory can not be read.
        """
        options, log = self.options, files.logger
        path = files.input[options.trajectory_format]
        if path is None:
            raise ValueError(
                f"reactions.{self.name}.trajectory_format: there is no .{options.trajectory_format}"
                " file; write one in the simulation before, or name another format."
            )
        top = self.runmng.top
        trajectory = read_trajectory(path, len(top.atoms))
        topology = read_topology(top, path.name, trajectory.atoms)
        radicals = read_radicals(top, topology)
        names = ", ".join(topology.label(one.atom) for one, _ in radicals)
        log.info(f"{len(radicals)} radicals: {names or 'none'}")
        if not radicals:
            return RecipeCollection([])
        frames = trajectory.snapshots(topology, options.polling_rate)
        try:
            findings = search_frames(topology, frames, radicals, self.search)
        except ValueError as error:
            log.warning(f"No hydrogen can be transferred: {error}")
            return RecipeCollection([])
        for kind, times in findings.skipped.items():
            log.warning(f"Left out {times} times: {findings.reasons[kind]}")
        predictions = list(predict(topology, findings, self.predictor, options))
        write_predictions(files.outputdir / PREDICTIONS, predictions)
        wanted = [one for one in predictions if one.decision == "label_first"]
        if wanted:
            text = "".join(scan_text(one.images) for one in wanted)
            (files.outputdir / TO_LABEL).write_text(text)
        # KIMMDY divides by the largest rate, so that one too small for a number is none.
        recipes = [self._recipe(one, one.rate, trajectory) for one in predictions if one.rate]
        counts = Counter(one.decision for one in predictions)
        log.info(
            f"{findings.frames} frames, {len(findings.rows)} candidates, {len(predictions)} scans: "
            + ", ".join(f"{decision} {count}" for decision, count in sorted(counts.items()))
            + f"; {sum(bool(one.doubts) for one in predictions)} uncertain; "
            f"rates {options.rates().describe()}"
        )
        return RecipeCollection(recipes)

    def _recipe(self, prediction: Prediction, rate: float, trajectory: Trajectory) -> Recipe:
        row = prediction.row
        hydrogen, donor, acceptor = row.source
        x, y, z = row.candidate.end.tolist()
        steps: list[Any] = [
            Break(atom_ix_1=donor, atom_ix_2=hydrogen),
            Place(ix_to_place=hydrogen, new_coords=(x, y, z)),
            Bind(atom_ix_1=hydrogen, atom_ix_2=acceptor),
        ]
        if self.options.change_coords == "lambda":
            steps = [steps[0], steps[2], Relax()]
        span = trajectory.span(row.frame, self.options.polling_rate)
        return Recipe(recipe_steps=steps, rates=[rate], timespans=[span])
