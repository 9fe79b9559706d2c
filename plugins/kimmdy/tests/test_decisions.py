# SPDX-License-Identifier: GPL-3.0-or-later
"""Rates, doubts and policies, without files."""

import json
from importlib.resources import files
from types import SimpleNamespace
from typing import get_args

import pytest
from surefoot.barriers.heights import Barrier
from surefoot.units import KCAL_PER_MOL

pytest.importorskip("kimmdy", reason="kimmdy is not installed: pip install kimmdy")

from surefoot_kimmdy.options import Options, read_options
from surefoot_kimmdy.predictions import decide, find_doubts


def options(**given: object) -> Options:
    return Options.model_validate({"potential": "none.safetensors"} | given)


def barrier(value: float, std: float | None = 0.5, top: str = "inside") -> Barrier:
    error = None if std is None else std * KCAL_PER_MOL
    return Barrier(value=value * KCAL_PER_MOL, std=error, reference=None, top=top)


def test_rates_are_those_of_kimmdy() -> None:
    kind, rate = decide(barrier(10.0), (), options())
    assert kind == "use"
    assert rate == pytest.approx(1.5e-8, rel=0.02)
    _, faster = decide(barrier(10.0), (), options(rate="eyring"))
    assert faster / rate == pytest.approx(6.25 / 0.288, rel=1e-3)


def test_doubts() -> None:
    found = options(interval_limit=5.0, ood_limit=1.0)
    assert find_doubts(barrier(20.0), 0.9, found) == ()
    assert find_doubts(barrier(20.0), None, found) == ()
    assert find_doubts(barrier(20.0, std=2.0), 0.9, found) == ("interval 6.6 kcal/mol wide",)
    assert find_doubts(barrier(20.0, std=2.0), 0.9, options(interval_limit=7.0)) == ()
    assert find_doubts(barrier(20.0), 1.2, found) == ("ood 1.2",)
    assert find_doubts(barrier(20.0, std=None), 0.9, found) == ("no error bar",)
    assert find_doubts(barrier(0.0, top="first"), 0.9, found) == ("highest at its start",)
    assert find_doubts(barrier(9.0, top="last"), 0.9, found) == ("highest at its end",)


def test_policies() -> None:
    wide, doubts = barrier(20.0, std=3.0), ("wide",)
    _, plain = decide(wide, (), options())
    assert decide(wide, doubts, options(uncertain="use")) == ("use", plain)
    assert decide(wide, doubts, options(uncertain="skip")) == ("skip", None)
    assert decide(wide, doubts, options(uncertain="label_first")) == ("label_first", None)
    kind, bound = decide(wide, doubts, options(uncertain="upper_bound"))
    _, lower_end = decide(barrier(20.0 - 1.6449 * 3.0), (), options())
    assert kind == "upper_bound"
    assert bound == pytest.approx(lower_end, rel=1e-3)
    for policy in ("skip", "label_first", "upper_bound"):
        assert decide(wide, (), options(uncertain=policy)) == ("use", plain)


def test_an_upper_bound_needs_an_interval() -> None:
    with pytest.raises(ValueError, match="upper_bound needs error bars"):
        decide(barrier(20.0, std=None), ("no error bar",), options(uncertain="upper_bound"))


def test_the_schema_says_what_the_options_are() -> None:
    text = (files("surefoot_kimmdy") / "kimmdy-yaml-schema.json").read_text()
    told = json.loads(text)["properties"]
    assert told.pop("kmc")["default"] == "extrande_mod"
    assert told.keys() == Options.model_fields.keys()
    for name, field in Options.model_fields.items():
        if not field.is_required() and name != "charges":
            assert told[name]["default"] == field.default, name
        if "enum" in told[name]:
            assert tuple(told[name]["enum"]) == get_args(field.annotation), name


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match=r"reactions\.hat\.potential: Field required"):
        read_options(SimpleNamespace(radius=8.0), "hat")
    with pytest.raises(ValueError, match=r"reactions\.hat\.radius"):
        read_options(SimpleNamespace(potential="x", radius=1.0), "hat")
    with pytest.raises(ValueError, match="'l4y=none' is none"):
        options(charges="l4y=none").search()
    assert options(charges="l4y=0, l5y=-1").search().charges == {"L4Y": 0, "L5Y": -1}
