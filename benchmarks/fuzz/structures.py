"""Files of structures: whatever `read_frames` takes, and the graphs that are made of it."""

import gzip
import io
import json
import lzma
import pickle
import struct
import sys
import tempfile
import types
import zipfile
import zlib
from pathlib import Path
from random import Random
from typing import Any

import ase.db
import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db.row import atoms2dict

from fuzz.archives import change_pickle
from fuzz.mutate import LENGTHS, change_bytes, change_tree
from fuzz.targets import Target, of_bytes, of_text

CUTOFF = 4.0
ATOMS = 5


def list_targets(work: Path) -> list[Target]:
    """One for each format."""
    from surefoot.data.convert import to_samples
    from surefoot.data.read import read_frames
    from surefoot.hat.protein_files import read_structure

    def read(path: Path) -> Any:
        return read_frames([path])

    def to_graphs(path: Path) -> Any:
        frames = [frame for frame in read_frames([path]) if len(frame.atoms) < 1000]
        return to_samples(frames, CUTOFF)

    plain = [as_file(images(), "extxyz"), as_file(images()[:1], "extxyz")]
    proteins = [as_file([molecule("CH3CONH2")], "proteindatabank"), gro()]
    chunk = b"".join(b"random%d,frame%d,%f\n" % (n, n, -1.5 * n) for n in range(3))
    return [
        Target(name="extended XYZ", file="a.xyz", make=of_text(plain), read=read, share=4.0),
        Target(name="extended XYZ, bytes", file="a.extxyz", make=of_bytes(plain), read=read),
        Target(name="extended XYZ to graphs", file="a.xyz", make=of_text(plain), read=to_graphs,
               share=2.0),
        Target(name="text of OC20", file="a.txt", make=of_text([chunk]),
               read=lambda path: read_frames([path.with_suffix(".xyz")]),
               beside=(("a.xyz", plain[0]),), share=0.5),
        Target(name="gzip", file="a.xyz.gz", make=of_bytes([gzip.compress(plain[0])]), read=read),
        Target(name="xz", file="a.xyz.xz", make=of_bytes([lzma.compress(plain[0])]), read=read),
        Target(name="npz", file="a.npz", make=make_npz, read=read, share=2.0),
        Target(name="database of ASE", file="a.db", make=make_database(work), read=read,
               strict=False, share=0.7),
        Target(name="LMDB, pages", file="a.lmdb", make=of_bytes([geometric(work)]), read=read,
               share=2.0),
        Target(name="LMDB, records", file="a.lmdb", make=make_geometric(work), read=read,
               share=1.0),
        Target(name="aselmdb, pages", file="a.aselmdb", make=of_bytes([aselmdb(work, rows())]),
               read=read, share=1.0),
        Target(name="aselmdb, rows", file="a.aselmdb", make=make_aselmdb(work), read=read),
        Target(name="trajectory of ASE", file="a.traj", make=of_bytes([as_file(images(), "traj")]),
               strict=False, read=read),
        Target(name="POSCAR", file="POSCAR", make=of_text([as_file(images()[2:], "vasp")]),
               strict=False, read=read, share=0.5),
        Target(name="CIF", file="a.cif", make=of_text([as_file(images()[2:], "cif")]), read=read,
               strict=False, share=0.5),
        Target(name="JSON of ASE", file="a.json", make=of_text([as_file(images(), "json")]),
               strict=False, read=read, share=0.5),
        Target(name="PDB", file="a.pdb", make=of_text(proteins[:1]), read=read_structure,
               share=0.5),
        Target(name="GRO", file="a.gro", make=of_text(proteins[1:]), read=read_structure,
               share=0.5),
    ]  # fmt: skip


def images() -> list[Atoms]:
    """Water with everything that a label may be, a box of it, and a crystal."""
    generator = np.random.default_rng(0)
    found = [molecule("H2O"), molecule("H2O"), bulk("Cu", cubic=True)]
    found[1].cell, found[1].pbc = np.diag([5.0, 6.0, 7.0]), (True, True, False)
    for atoms in found:
        count = len(atoms)
        labels = {"energy": -1.5, "forces": generator.normal(size=(count, 3))}
        if atoms.pbc.all():
            labels["stress"] = generator.normal(size=6)
        atoms.calc = SinglePointCalculator(atoms, **labels)
        atoms.info |= {
            "charge": 0, "spin": 1, "config_type": "a", "group": "g", "REF_energy": -2.0,
            "virial": generator.normal(size=(3, 3)), "note": {"a": [1, 2]}, "ok": True,
        }  # fmt: skip
        atoms.arrays["REF_forces"] = generator.normal(size=(count, 3))
        atoms.set_tags(range(count))
        atoms.set_constraint(FixAtoms([0]))
    return found


def as_file(structures: list[Atoms], form: str) -> bytes:
    """The bytes of a file in a format of ASE."""
    with tempfile.TemporaryDirectory() as folder:
        name = Path(folder) / f"seed.{form}"
        ase.io.write(name, structures if form != "vasp" else structures[0], format=form)
        return name.read_bytes()


def gro() -> bytes:
    """A residue of GROMACS."""
    lines = [b"a peptide", b"    4"]
    for number, name in enumerate((b"N", b"CA", b"C", b"O"), start=1):
        lines.append(b"%5d%-5s%5s%5d%8.3f%8.3f%8.3f" % (1, b"GLY", name, number, 0.1, 0.2, 0.3))
    return b"\n".join([*lines, b"   2.0   2.0   2.0", b""])


def make_npz(random: Random) -> bytes:
    """Headers that lie about shapes, zip files that swell, and changed bytes."""
    positions = np.ones((4, 3, 3)) * np.arange(3)[:, None]
    arrays: dict[str, np.ndarray] = {"energies": np.arange(4.0), "forces": np.zeros((4, 3, 3))}
    if random.random() < 0.5:
        arrays |= {"nuclear_charges": np.array([8, 1, 1]), "coords": positions}
    else:
        arrays |= {"atomic_numbers": np.full((4, 3), 8), "pos": positions, "cell": np.eye(3) * 5}
        arrays |= {"pbc": np.ones((4, 3), bool)} if random.random() < 0.7 else {}
    packed = zipfile.ZIP_DEFLATED if random.random() < 0.3 else zipfile.ZIP_STORED
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", packed) as archive:
        for name, value in arrays.items():
            content = io.BytesIO()
            np.save(content, value)
            entry = content.getvalue()
            if random.random() < 0.15:
                entry = lie(entry, random)
            archive.writestr(f"{name}.npy", entry)
    whole = found.getvalue()
    return change_bytes(whole, random, [whole]) if random.random() < 0.5 else whole


def lie(entry: bytes, random: Random) -> bytes:
    """An array whose header says something else, or a large one of zeros."""
    shape = tuple(random.choice((0, 1, 3, 4, 10**6, *LENGTHS)) for _ in range(random.randint(0, 4)))
    kind = random.choice(("<f8", "|O", "<i8", "|S1000000000", "<U10", "|V9", "<f2", "b1", ">c16"))
    header = repr({"descr": kind, "fortran_order": random.random() < 0.5, "shape": shape})
    if random.random() < 0.2:
        header = "(" * random.choice((10, 200, 5000)) + header
    text = header.encode().ljust(64) + b"\n"
    rest = entry[128:] if random.random() < 0.8 else bytes(2**22)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) % 65536) + text + rest


def make_database(work: Path) -> Any:
    """SQLite with changed bytes, and rows whose texts are changed."""
    path = work / "seed.db"
    path.unlink(missing_ok=True)
    with ase.db.connect(path, use_lock_file=False) as database:
        for atoms in images():
            database.write(atoms, data={"energy": -1.0, "forces": np.zeros((len(atoms), 3))})
    whole = path.read_bytes()
    return lambda random: change_bytes(whole, random, [whole])


def store(work: Path, values: dict[bytes, bytes]) -> bytes:
    """The bytes of a database of LMDB."""
    import lmdb

    path = work / "seed.lmdb"
    path.unlink(missing_ok=True)
    with (
        lmdb.open(str(path), subdir=False, lock=False, map_size=2**22) as data,
        data.begin(write=True) as transaction,
    ):
        for key, value in values.items():
            transaction.put(key, value)
    return path.read_bytes()


def records(form: str) -> bytes:
    """A pickle of torch-geometric, of version 1 or 2."""
    generator = torch.Generator().manual_seed(3)
    fields = {
        "pos": 9 * torch.rand(ATOMS, 3, generator=generator),
        "cell": 9 * torch.eye(3)[None],
        "atomic_numbers": torch.tensor([29.0, 29.0, 29.0, 6.0, 8.0]),
        "natoms": ATOMS,
        "tags": torch.tensor([0, 0, 1, 2, 2]),
        "fixed": torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]),
        "y": -1.25,
        "force": torch.zeros(ATOMS, 3),
        "sid": 17,
        "fid": torch.tensor([4]),
    }
    names = [f"torch_geometric.data.{name}" for name in ("data", "storage")]
    modules = {name: types.ModuleType(name) for name in ("torch_geometric", *names)}
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules |= modules
    try:
        kinds = {}
        for place, name in zip(names, ("Data", "GlobalStorage"), strict=True):
            kinds[name] = type(name, (), {"__module__": place})
            setattr(modules[place], name, kinds[name])
        record = kinds["Data"]()
        if form == "1":
            record.__dict__ |= fields
        else:
            held = kinds["GlobalStorage"]()
            held.__dict__ |= {"_parent": record, "_mapping": fields}
            record.__dict__ |= {"_store": held}
        return pickle.dumps(record, protocol=4)
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]


def geometric(work: Path) -> bytes:
    """A sound database of torch-geometric."""
    values = {str(n).encode(): records("12"[n % 2]) for n in range(6)}
    return store(work, {**values, b"length": pickle.dumps(6)})


def make_geometric(work: Path) -> Any:
    """Sound pages around changed pickles."""
    seeds = [records("1"), records("2")]

    def make(random: Random) -> bytes:
        return store(work, {b"0": change_pickle(random.choice(seeds), random)})

    return make


def rows() -> list[dict[str, Any]]:
    """Rows of a database of ASE as JSON."""
    found = []
    for atoms in images():
        row = atoms2dict(atoms) | {"energy": -1.5, "forces": np.zeros((len(atoms), 3))}
        row |= {"ctime": 1.0, "mtime": 1.0, "user": "", "key_value_pairs": {"sid": 3}}
        row["data"] = {"y": {"__ndarray__": [[2, 2], "float64", [1.0, 2.0, 3.0, 4.0]]}}
        found.append(json.loads(json.dumps(row, default=lambda one: np.asarray(one).tolist())))
    return found


def aselmdb(work: Path, trees: list[Any]) -> bytes:
    """Rows in their database."""
    packed = [zlib.compress(json.dumps(tree).encode()) for tree in trees]
    values = {str(n).encode(): one for n, one in enumerate(packed, start=1)}
    return store(work, {**values, b"nextid": zlib.compress(b"4")})


def make_aselmdb(work: Path) -> Any:
    """Changed rows, and rows that swell, in sound pages."""
    seeds = rows()
    unpack = zlib.compressobj()
    swelling = b"".join(unpack.compress(bytes(2**20)) for _ in range(300)) + unpack.flush()

    def make(random: Random) -> bytes:
        if random.random() < 0.03:
            return store(work, dict.fromkeys((b"1", b"2")[: random.randint(1, 2)], swelling))
        if random.random() < 0.03:
            text = b"[" * 100_000 if random.random() < 0.5 else b'{"a":' * 100_000
            return store(work, {b"1": zlib.compress(text)})
        return aselmdb(work, [change_tree(random.choice(seeds), random)])

    return make
