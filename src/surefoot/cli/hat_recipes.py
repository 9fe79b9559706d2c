"""Write KIMMDY's table of recipes from candidates and their barriers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def run(
    candidates: Annotated[Path, typer.Argument(help="Folder of `surefoot hat candidates`.")],
    barriers: Annotated[
        Path, typer.Argument(help="Folder of `surefoot barrier` on its scans.xyz.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="CSV to write.")],
    frame_time: Annotated[
        float, typer.Option(min=0.0, help="From one frame of the trajectory to the next, ps.")
    ],
    begin: Annotated[float, typer.Option(help="Time of its first frame, ps.")] = 0.0,
    uncertain: Annotated[
        str, typer.Option(help="Rates of uncertain barriers: use, skip or upper_bound.")
    ] = "use",
    interval_limit: Annotated[
        float, typer.Option(help="A wider interval of a barrier is uncertain, kcal/mol.")
    ] = 5.0,
    ood_limit: Annotated[
        float, typer.Option(help="As is a barrier that is further from the training data.")
    ] = 1.0,
) -> None:
    from surefoot.barriers.paths import read_paths
    from surefoot.cli.motion import read_settings
    from surefoot.cli.screen import UserError, require_writable, say
    from surefoot.data.read import read_frames, refuse_overwriting
    from surefoot.hat.candidate_files import MANIFEST, SCANS, TABLE
    from surefoot.hat.recipes import Policy, make_recipes, write_recipes

    require_writable(output)
    policy = read_settings(
        Policy, uncertain=uncertain, interval_limit=interval_limit, ood_limit=ood_limit
    )
    manifest = _read(candidates / MANIFEST, "hat candidates")
    report = _read(barriers / "barriers.json", "barrier")
    refuse_overwriting(output, [candidates / TABLE, candidates / SCANS])
    every = int(manifest.get("every", 1))
    paths = read_paths(read_frames([str(candidates / SCANS)]))
    frames = {int(path.images[0].info["source_frame"]) for path in paths}
    spans = {
        frame: (begin + frame_time * frame, begin + frame_time * (frame + every))
        for frame in frames
    }
    records = [one for one in report["records"] if one["direction"] == "forward"]
    recipes = make_recipes(records, paths, candidates / TABLE, spans, policy)
    if not recipes:
        raise UserError(
            f"{barriers}: none of {len(records)} barriers has a rate that may be used; look at "
            "`flags` in barriers.csv, and at --uncertain."
        )
    write_recipes(output, recipes)
    rated = [one for one in records if not isinstance(one["rate_per_ps"], str)]
    doubtful = sum(policy.is_uncertain(one) for one in rated)
    say(
        f"{output}: {len(recipes)} recipes of {len(records)} scans; rates {report['rates']}, each "
        f"for {frame_time * every:g} ps"
    )
    say(
        f"{len(records) - len(rated)} scans have no maximum and no rate; {doubtful} barriers are "
        f"uncertain, of which it says {policy.uncertain}"
    )


def _read(file: Path, verb: str) -> dict[str, Any]:
    """A JSON file that another verb has left.

    Raises:
        UserError: if it is not there or holds something else.
    """
    from surefoot.cli.screen import UserError

    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file}: can not be read ({error}); name the folder that `surefoot {verb}` wrote."
        ) from error
    if not isinstance(found, dict) or ("records" if verb == "barrier" else "scans") not in found:
        raise UserError(f"{file}: this is not what `surefoot {verb}` writes.")
    return found
