"""Peptide sequences as chemists write them: GPO, Gly-Pro-Hyp, H-Asp(-)-Lys(+)-NH2."""

from __future__ import annotations

import re
from typing import Literal

from surefoot.hat.compounds import Compound, peptide
from surefoot.hat.fragments import (
    BEGINNINGS,
    ENDS,
    FORMS,
    FRAGMENTS,
    LETTERS,
    PHYSIOLOGICAL,
    SYNONYMS,
    TERMINI,
)

Charges = Literal["neutral", "physiological"]
Termini = Literal["capped", "neutral", "zwitterion", "amidated"]

LETTER = re.compile(r"([^()])(\([^()]*\))?")
NAME = re.compile(r"([A-Z0-9]+)(\([^()]*\))?")
OTHER_ENDS = {"AC": "ACE", "NHME": "NME", "H2(+)": "H(+)"}


class BadSequence(ValueError):
    """A text that is no sequence of amino acids."""


def parse_sequence(
    text: str, termini: Termini = "capped", charges: Charges = "neutral"
) -> Compound:
    """The peptide of a sequence.

    Letters without a dash are one-letter codes, O for hydroxyproline: `GPO`. Names with dashes, or
    with small letters, are three-letter codes: `Gly-Pro-Hyp`; they may begin with Ace, H or H(+)
    and end with NMe, NH2, OH or O(-). A charge is written behind its amino acid: `D(-)`, `Lys(+)`,
    `His(0)`.

    Args:
        text: the sequence.
        termini: beginning and end where the sequence names none.
        charges: of Asp, Glu, Lys, Arg and His where the sequence states none: all neutral, or as
            they prevail in water at pH 7 (His neutral). A neutral His is HIE.

    Raises:
        BadSequence: with what is not known, where it stands, and what is allowed.
    """
    plain = "".join(text.split())
    if not plain:
        raise BadSequence("A sequence is empty; write amino acids such as GPO or Gly-Pro-Hyp.")
    beginning, end = TERMINI[termini]
    outside = re.sub(r"\([^()]*\)", "", plain)
    if "-" in outside or outside != outside.upper():
        tokens = [OTHER_ENDS.get(part, part) for part in re.split(r"-(?!\))", plain.upper())]
        if tokens[0] in BEGINNINGS:
            beginning = tokens.pop(0)
        if tokens and tokens[-1] in ENDS:
            end = tokens.pop()
        codes = tuple(_code(token, place, text, charges) for place, token in enumerate(tokens, 1))
    else:
        codes = _read_letters(plain, text, charges)
    if not codes:
        raise BadSequence(f"Sequence '{text}': there is no amino acid between its ends.")
    return peptide(_name(codes, beginning, end), codes, beginning, end)


def parse_residue(text: str, charges: Charges = "neutral") -> Compound:
    """A capped amino acid by its three-letter code, such as ALA, Asp(-), HIP or DOPA.

    Args:
        text: the code, a charge behind it where there are several forms.
        charges: of those that state none.

    Raises:
        BadSequence: with what is not known and what is allowed.
    """
    code = _code(text.strip().upper(), 0, text, charges)
    return peptide(_name((code,), *TERMINI["capped"]), (code,), *TERMINI["capped"])


def _read_letters(plain: str, text: str, charges: Charges) -> tuple[str, ...]:
    codes, at = [], 0
    while at < len(plain):
        found = LETTER.match(plain, at)
        letter = plain[at] if found is None else found[1]
        if found is None or letter not in LETTERS:
            raise BadSequence(
                f"Sequence '{text}': '{letter}' at place {len(codes) + 1} is no amino acid. "
                f"Allowed are {', '.join(LETTERS)} (O is hydroxyproline), a charge behind them as "
                "in D(-), and for all others three-letter codes with dashes."
            )
        codes.append(_form(LETTERS[letter], found[2], len(codes) + 1, text, charges))
        at = found.end()
    return tuple(codes)


def _code(token: str, place: int, text: str, charges: Charges) -> str:
    """The key of `FRAGMENTS` of a three-letter code; place 0 where it stands alone."""
    found = NAME.fullmatch(token)
    name, mark = (token, None) if found is None else (found[1], found[2])
    if mark is None and name in SYNONYMS:
        return _code(SYNONYMS[name], place, text, charges)
    if found is None or (name not in FRAGMENTS and name not in FORMS):
        where = (
            f"Residue '{text}'" if not place else f"Sequence '{text}': '{token}' at place {place}"
        )
        allowed = sorted({code.rstrip("+-") for code in FRAGMENTS} | {*FORMS, *SYNONYMS})
        ends = "" if not place else (
            f"; it may begin with {', '.join(BEGINNINGS)} and end with {', '.join(ENDS)}"
        )  # fmt: skip
        raise BadSequence(
            f"{where} is no amino acid that is known. Allowed are {', '.join(allowed)}{ends}."
        )
    return _form(name, mark, place, text, charges)


def _form(name: str, mark: str | None, place: int, text: str, charges: Charges) -> str:
    """The key of `FRAGMENTS` of an amino acid with a charge in brackets behind it, or without."""
    stated = None if mark is None else mark[1:-1]
    if name not in FORMS:
        if stated is None:
            return name
        where = f"Residue '{text}'" if not place else f"Sequence '{text}', place {place}"
        raise BadSequence(
            f"{where}: {name} is known in one form only; charges may stand behind "
            f"{', '.join(FORMS)}."
        )
    forms = FORMS[name]
    if stated is None:
        stated = PHYSIOLOGICAL[name] if charges == "physiological" else "0"
    if stated not in forms:
        where = f"Residue '{text}'" if not place else f"Sequence '{text}', place {place}"
        raise BadSequence(
            f"{where}: {name} has no form ({stated}); allowed are "
            f"{', '.join(f'{name}({form})' for form in forms)}."
        )
    return forms[stated]


def _name(codes: tuple[str, ...], beginning: str, end: str) -> str:
    """Codes with dashes; ends are named unless both are caps."""
    shown = [re.sub(r"([+-])$", r"(\1)", code) for code in codes]
    chain = "-".join(shown)
    return chain if (beginning, end) == TERMINI["capped"] else f"{beginning}-{chain}-{end}"
