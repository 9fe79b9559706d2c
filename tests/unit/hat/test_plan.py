"""The order in which transfers are drawn."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from surefoot.hat.compounds import bond_distances, bonds, from_smiles
from surefoot.hat.ensembles import Ensemble
from surefoot.hat.plan import Member, Pairing, plan
from surefoot.hat.sequences import parse_sequence
from surefoot.hat.sites import compound_sites


def member(smiles: str) -> Member:
    compound = from_smiles(smiles, smiles)
    ensemble = Ensemble(compound, (), bonds(compound), bond_distances(compound))
    return Member(smiles, ensemble, tuple(compound_sites(compound, ("C", "N", "O", "S"))))


MEMBERS = [member("CO"), member("CCS"), member("C")]
SMALL = [member("CN")]


@pytest.mark.parametrize("shares", [(1.0, 1.0, 1.0), (1.0, 0.0, 3.0), (0.5, 0.3, 0.2)])
def test_ways_have_their_shares_at_any_length(shares) -> None:
    pairing = Pairing(radical=shares[0], molecule=shares[1], intramolecular=shares[2])
    requests = list(islice(plan("a", "frames", MEMBERS, SMALL, pairing), 60))
    assert [request.number for request in requests] == list(range(60))
    ways = [
        "intramolecular"
        if request.acceptor is None
        else ("radical" if request.acceptor is SMALL[0] else "molecule")
        for request in requests
    ]
    for length in (10, 30, 60):
        found = Counter(ways[:length])
        for way, share in zip(("radical", "molecule", "intramolecular"), shares, strict=True):
            assert abs(found[way] - share / sum(shares) * length) <= 1.5


def test_every_donor_meets_every_site_and_acceptor() -> None:
    pairing = Pairing(radical=0, molecule=1, intramolecular=0)
    requests = list(islice(plan("a", "frames", MEMBERS, SMALL, pairing), 3 * 3 * 6))
    met = {(r.donor.name, r.giving, r.acceptor.name, r.taking) for r in requests if r.acceptor}
    donors = sum(len(m.heavy()) for m in MEMBERS)
    assert len(met) == donors * donors
    assert Counter(r.donor.name for r in requests) == dict.fromkeys(("CO", "CCS", "C"), 18)


def test_within_one_molecule_there_are_two_atoms_with_hydrogens() -> None:
    pairing = Pairing(radical=0, molecule=0, intramolecular=1)
    requests = list(islice(plan("a", "paths", MEMBERS, SMALL, pairing), 8))
    assert {r.donor.name for r in requests} == {"CO", "CCS"}
    with pytest.raises(
        ValueError, match="Split 'a': no molecule has abstractable hydrogens on two"
    ):
        next(plan("a", "paths", MEMBERS[2:], SMALL, pairing))


def test_labels_name_the_amino_acid_where_there_are_several(rng: np.random.Generator) -> None:
    chain = parse_sequence("GA")
    ensemble = Ensemble(chain, (), bonds(chain), bond_distances(chain))
    whole = Member(chain.name, ensemble, tuple(compound_sites(chain, ("C",))))
    assert [whole.label(site) for site in whole.sites][::2] == ["GLY1-CA", "ALA2-CA", "ALA2-CB"]
    assert whole.pick(whole.heavy()[-1], rng).name == "CB"
    assert {m.label(site) for m in MEMBERS for site in m.sites} == {"C0", "O1", "C1", "S2"}


def test_shares_that_are_all_zero() -> None:
    with pytest.raises(ValueError, match="all shares are 0"):
        Pairing(radical=0, molecule=0, intramolecular=0)
