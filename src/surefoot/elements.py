"""Names of the elements, for the rooms that do not know ASE."""

from __future__ import annotations

from collections.abc import Iterable
from typing import SupportsInt

_TABLE = """
    X
    H He
    Li Be B C N O F Ne
    Na Mg Al Si P S Cl Ar
    K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
    Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe
    Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn
    Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
"""
SYMBOLS = tuple(_TABLE.split())
"""By atomic number; X is none, as in ASE."""


def name_elements(numbers: Iterable[SupportsInt]) -> str:
    """Symbols with commas between them, such as `H, C, O`.

    Args:
        numbers: atomic numbers; what is none is named by its number.
    """
    whole = map(int, numbers)
    return ", ".join(SYMBOLS[n] if 0 <= n < len(SYMBOLS) else str(n) for n in whole)
