"""Models of other programs: files of `torch.save`, whose pickles may name and call anything."""

import io
import pickle
import pickletools
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import torch

from fuzz.mutate import LENGTHS, change_bytes
from fuzz.targets import Make, Target, of_bytes

ORACLES = Path(__file__).parents[2] / "tests" / "science" / "oracles"
CALLS = (
    (b"posix", b"system"),
    (b"os", b"system"),
    (b"builtins", b"eval"),
    (b"builtins", b"exec"),
    (b"builtins", b"getattr"),
    (b"subprocess", b"Popen"),
    (b"shutil", b"rmtree"),
    (b"torch", b"load"),
    (b"torch._utils", b"_rebuild_tensor_v2"),
    (b"torch.storage", b"_load_from_bytes"),
    (b"collections", b"OrderedDict"),
    (b"torch.nn.modules.container", b"ModuleList"),
    (b"mace.modules.models", b"ScaleShiftMACE"),
    (b"numpy._core.multiarray", b"_reconstruct"),
    (b"numpy._core.multiarray", b"scalar"),
    (b"copyreg", b"_reconstructor"),
)
"""Modules and names that are put into pickles."""
SCN = {
    "num_interactions": 1, "lmax": 2, "mmax": 0, "num_resolutions": 1, "sphere_channels": 3,
    "sphere_channels_reduce": 3, "hidden_channels": 4, "num_basis_functions": 5,
    "distance_resolution": 0.5, "cutoff": 4.0, "max_num_elements": 10, "num_sphere_samples": 16,
    "use_grid": False,
}  # fmt: skip


def list_targets(_: Path) -> list[Target]:
    """Whole archives, the pickles in them, and single pickles."""
    from surefoot.cli.convert import _read
    from surefoot.data.geometric import CLASSES
    from surefoot.pickles.record import read_record

    models = [path.read_bytes() for path in sorted(ORACLES.glob("*.model"))] + [scn()]
    singles = [pickle.dumps({"a": torch.ones(3), "b": [1.5, "x"]}, protocol=n) for n in (2, 4)]

    def record(path: Path) -> Any:
        from surefoot.pickles.archive import Malformed

        try:
            return read_record(path.read_bytes(), CLASSES)
        except Malformed as error:  # the reader of the file adds its name
            raise ValueError(f"{path}: {error}") from error

    return [
        Target(name="archive of torch", file="a.model", make=of_bytes(models),
               read=lambda path: _read(path, None), share=2.0),
        Target(name="pickle in an archive", file="a.model", make=of_pickles(models),
               read=lambda path: _read(path, None), share=3.0),
        Target(name="pickle with tensors", file="a.pickle",
               make=lambda random: change_pickle(random.choice(singles), random), read=record,
               share=3.0),
    ]  # fmt: skip


def scn() -> bytes:
    """A checkpoint in the form of fairchem-core, whose weights are those of no model."""
    state = {"module.module.sphere_embedding.weight": torch.zeros(10, 3)}
    content = {
        "state_dict": state,
        "config": {"model": {"name": "scn", "otf_graph": True, **SCN}},
        "normalizers": {"energy": {"mean": torch.tensor(0.0), "rmsd": torch.tensor(1.0)}},
        "elementrefs": {},
    }
    found = io.BytesIO()
    torch.save(content, found)
    return found.getvalue()


def of_pickles(archives: list[bytes]) -> Make:
    """Archives whose pickle is changed, while the zip file around it is sound."""
    opened = []
    for content in archives:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            opened.append({name: archive.read(name) for name in archive.namelist()})

    def make(random: Random) -> bytes:
        entries, found = random.choice(opened), io.BytesIO()
        with zipfile.ZipFile(found, "w") as archive:
            for name, content in entries.items():
                changed = content
                if name.endswith("data.pkl"):
                    changed = change_pickle(content, random)
                elif random.random() < 0.02:
                    changed = change_bytes(content, random, [content])
                if random.random() > 0.002:
                    archive.writestr(name, changed)
        return found.getvalue()

    return make


def change_pickle(content: bytes, random: Random) -> bytes:
    """Opcodes are put in, taken out, or moved; arguments and bytes are changed."""
    if random.random() < 0.4:
        return change_bytes(content, random, [content])
    pieces = _cut(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        place = random.randrange(len(pieces))
        way = random.random()
        if way < 0.35:
            pieces.insert(place, _opcode(random))
        elif way < 0.5:
            del pieces[place]
        elif way < 0.65:
            pieces.insert(place, random.choice(pieces))
        elif way < 0.75:
            pieces[place] = random.choice(pieces)
        elif way < 0.85:
            pieces[place:place] = pieces[place : place + 20] * random.choice((2, 50, 500))
        else:
            pieces[place] = _swap_name(pieces[place], random)
        pieces = pieces or [b"."]
    return b"".join(pieces)


def _cut(content: bytes) -> list[bytes]:
    """A pickle, opcode by opcode."""
    places = [place for _, _, place in pickletools.genops(content) if place is not None]
    return [content[a:b] for a, b in zip(places, [*places[1:], len(content)], strict=True)]


def _opcode(random: Random) -> bytes:
    """One that names, calls, repeats, or claims a length."""
    module, name = random.choice(CALLS)
    named, length = b"c" + module + b"\n" + name + b"\n", random.choice(LENGTHS)
    short, long = (length % 2**32).to_bytes(4, "little"), (length % 2**64).to_bytes(8, "little")
    ways = (
        named,
        named + b"X\x04\0\0\0true\x85R",
        random.choice((b"R", b"\x81", b"\x92", b"b", b"o", b"Q", b"\x93", b"\x94", b"2")),
        random.choice((b"B", b"X", b"T", b"\x8b")) + short,
        random.choice((b"\x8e", b"\x8d", b"\x96")) + long,
        random.choice((b"(", b"(" * 5000, b"]" * 5000, b"\x85" * 5000, b"}", b"t", b"e", b"u")),
        b"K" + random.randbytes(1) + random.choice((b"s", b"a", b"\x86", b"\x87", b"0", b"1")),
    )
    return random.choice(ways)


def _swap_name(piece: bytes, random: Random) -> bytes:
    """Another name in the place of a text, or another number."""
    module, name = random.choice(CALLS)
    if piece[:1] == b"c":
        return b"c" + module + b"\n" + name + b"\n"
    if piece[:1] in (b"\x8c", b"X"):
        text = random.choice((module, name, b"", b"\xff\xfe", b"_parameters"))
        return b"\x8c" + bytes([len(text)]) + text
    if piece[:1] in (b"K", b"M", b"J"):
        return b"J" + random.randbytes(4)
    return b"\x8a\x08" + random.randbytes(8)
