"""Configs: YAML that is mistyped, damaged, or made to swell."""

from pathlib import Path
from random import Random
from typing import Any

import yaml

from fuzz.mutate import VALUES, change_text, change_tree
from fuzz.targets import Make, Target

TRAINING: list[dict[str, Any]] = [
    {
        "data": {"train": ["a.xyz"], "valid": 0.1, "split": "random", "references": {"1": -1.0}},
        "model": {"name": "schnet", "features": 64, "interactions": 2, "cutoff": 5.0},
        "head": {"energy": "mean_variance", "width": 8},
        "loss": {"energy_rule": "nll", "forces_rule": "nll", "warmup": {"epochs": 3}},
        "train": {"epochs": 5, "batch": {"graphs": 4}, "schedule": {"name": "cosine"}},
        "posterior": {"name": "swag", "rank": 3},
    },
    {
        "data": {"train": ["a.xyz"], "valid": ["b.xyz"], "keys": {"energy": "E"}},
        "model": {"name": "mace", "irreps": "8x0e + 8x1o", "max_ell": 2, "correlation": 3},
        "train": {"compile": "on", "precision": "float64", "threads": 1, "patience": 3},
        "posterior": {"name": "ensemble", "members": 4, "left_out": 2},
        "conditioning": {"name": "charge_spin"},
    },
    {
        "data": {"train": ["a.xyz", "b.xyz"], "units": {"energy": "kcal/mol", "stress": "GPa"}},
        "model": {"name": "race", "irreps": "8x0e + 8x1o", "channels": 4},
        "head": {"energy": "histogram", "atom_bins": 20},
        "posterior": {"name": "laplace", "weights": "all"},
        "start": {"potential": "p.safetensors", "learn": "judges"},
    },
    {
        "data": {"train": ["a.xyz"]},
        "model": {"name": "scn", "lmax": 2, "mmax": 1, "channels": 8},
        "head": {"energy": "categorical", "forces": "direct_frame"},
        "posterior": {"name": "ivon", "noise": 0.5},
    },
    {"data": {"train": ["a.xyz"]}, "model": {"name": "allegro", "lmax": 2, "layers": 1}},
]
CAMPAIGN: list[dict[str, Any]] = [
    {
        "data": {"train": ["a.xyz"], "test": ["b.xyz"], "valid": 0.2},
        "posterior": {"name": "ensemble", "members": 4, "left_out": 0},
        "labeler": {"name": "xtb", "method": "GFN2-xTB"},
        "conduct": {"timeout": 10.0},
        "explore": [
            {"name": "rattle", "count": 12, "width": 0.2},
            {"name": "dynamics", "runs": 2, "steps": 40, "guard": {"ood": 1.0}},
            {"name": "pool", "files": ["c.xyz"]},
        ],
        "acquire": {"by": ["bald_forces", "random"], "count": 5},
        "again": {"begin": "warm", "epochs": 3},
        "rules": {"rounds": 3, "forces_rmse": 50.0},
        "engine": {"name": "slurm", "jobs": 3, "cores": 4, "memory": "8GB", "walltime": "01:00:00"},
    },
    {
        "data": {"train": ["a.xyz"], "test": ["b.xyz"]},
        "again": {"begin": "scratch"},
        "engine": {"name": "dask", "workers": 2},
    },
]
LABELS: list[dict[str, Any]] = [
    {"labeler": {"name": "pyscf", "method": "BMK", "basis": "def2-SVP"}, "conduct": {"deaths": 3}},
    {"labeler": {"name": "ase", "calculator": "emt", "parameters": {"asap_cutoff": True}}},
    {"labeler": {"name": "known", "files": ["a.xyz"]}},
]
BOMB_DEPTH = 40


def list_targets(_: Path) -> list[Target]:
    """One for each kind of config."""
    from surefoot.cli.config import load_config
    from surefoot.cli.hat_build import load_build, write_build_template
    from surefoot.cli.label_config import load_labeler
    from surefoot.cli.learn_config import load_learn_config

    building = [yaml.safe_load(write_build_template())]
    return [
        Target(name="config of train", file="c.yaml", make=of_trees(TRAINING), read=load_config,
               share=1.5),
        Target(name="config of learn", file="c.yaml", make=of_trees(CAMPAIGN),
               read=load_learn_config),
        Target(name="config of label", file="c.yaml", make=of_trees(LABELS),
               read=lambda path: load_labeler(path, None, None)),
        Target(name="config of hat build", file="c.yaml", make=of_trees(building), read=load_build,
               share=0.3),
    ]  # fmt: skip


def of_trees(seeds: list[dict[str, Any]]) -> Make:
    """Changes of the tree, of its text, and now and then a text that swells."""
    texts = [yaml.safe_dump(seed, allow_unicode=True).encode() for seed in seeds]

    def make(random: Random) -> bytes:
        way = random.random()
        if way < 0.03:
            return swell(random, texts)
        if way < 0.5:
            return change_text(random.choice(texts), random, texts)
        tree = change_tree(random.choice(seeds), random, VALUES)
        text = yaml.safe_dump(tree, allow_unicode=random.random() < 0.5)
        return text.encode("utf-8", "surrogatepass" if random.random() < 0.1 else "replace")

    return make


def swell(random: Random, texts: list[bytes]) -> bytes:
    """Aliases of aliases, depths without end, keys without number."""
    way = random.randrange(5)
    if way == 0:
        lines = ["x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1]"]
        depth = random.randint(2, BOMB_DEPTH)
        lines += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 8)}]" for n in range(1, depth)]
        lines.append(f"data: {{train: *x{len(lines) - 1}}}")
        return "\n".join(lines).encode()
    if way == 1:
        lines = ["data: &x0 {train: [a.xyz]}"]
        for n in range(1, random.randint(2, BOMB_DEPTH)):
            lines += [f"m{n}: &x{n} {{<<: [*x{n - 1}, *x{n - 1}], k{n}: *x{n - 1}}}"]
        return "\n".join(lines).encode()
    if way == 2:
        return b"data: &x {train: *x, model: *x}\nmodel: *x" + random.choice(texts)[:50]
    if way == 3:
        opened = random.choice((b"[", b"{a: ", b"- ", b"? "))
        return b"data: " + opened * random.choice((50, 900, 5000))
    count = random.choice((1000, 5000))
    return b"".join(b"k%d: %d\n" % (n, n) for n in range(count)) + random.choice(texts)
