"""Laws at fixed operating points. A changed law needs a new version, or stored runs of the old one would be used again."""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest

from weakcell.memmodels.catalogue import names, parse_spec, technology

POINTS = {
    "uniform": ("uniform:ber=0.01",),
    "eden": ("eden:p=0.01,f=0.5",),
    "sram-14nm": ("sram-14nm:v_over_vmin=0.75", "sram-14nm:v_over_vmin=0.9"),
    "sram-28nm-kc705b": ("sram-28nm-kc705b:vdd=0.54", "sram-28nm-kc705b:vdd=0.6"),
    "sram-28nm-vc707": ("sram-28nm-vc707:vdd=0.55", "sram-28nm-vc707:vdd=0.6"),
    "sram-6t": ("sram-6t:vdd=0.5,read_mu=0.4,read_s=0.05", "sram-6t:vdd=0.7,hold_mu=0.6,hold_s=0.05"),
    "dram": ("dram:trcd=5", "dram:trcd=7.5,vendor=A", "dram:refresh_interval=2,temperature=60"),
    "ddr4": ("ddr4:interval=8", "ddr4:interval=64,temperature=60", "ddr4:module=axmicr02,interval=64"),
    "rowhammer": ("rowhammer", "rowhammer:module=B11,spacing=even,activations=8e5,rows=0.5,polarity=true"),
    "rram": ("rram", "rram:g_high=10"),
    "rram-mlc": ("rram-mlc",),
    "rram-relaxation": ("rram-relaxation", "rram-relaxation:bake=180"),
    "sttram": ("sttram:tau=5", "sttram:tau=3"),
    "fefet": ("fefet:domains=60", "fefet:domains=100"),
}
"""Operating points of each technology."""

LAWS: dict[str, tuple[int, str]] = {
    "uniform": (1, "75040ea28c2902a2"),
    "eden": (1, "ee1a75ff30079bd0"),
    "sram-14nm": (1, "fa171353d534743d"),
    "sram-28nm-kc705b": (1, "6375a37c0403de2e"),
    "sram-28nm-vc707": (1, "e42cccbb32683e46"),
    "sram-6t": (1, "888748a35b738bc0"),
    "dram": (1, "ef4d0ed59c2d77a8"),
    "ddr4": (2, "357ac12024846673"),
    "rowhammer": (1, "74d679bf1b2bdc77"),
    "rram": (1, "6e563cc402fd0d80"),
    "rram-mlc": (1, "7976b7f445015fd5"),
    "rram-relaxation": (1, "20f8d62e5cf0de94"),
    "sttram": (1, "f9303e46337b6343"),
    "fefet": (1, "f45d1cc337bc056e"),
}
"""Version and digest of the terms at these points."""


def flatten(value: Any) -> list[str]:
    """Return all numbers and words of a term; numbers to six digits, below 1e-12 as 0."""
    if is_dataclass(value):
        return [part for f in fields(value) for part in (f"{f.name}:", *flatten(getattr(value, f.name)))]
    if isinstance(value, tuple | list | np.ndarray):
        return [part for one in value for part in flatten(one)]
    return [f"{value if value > 1e-12 else 0.0:.5e}" if isinstance(value, float) else str(value)]


def digest(name: str) -> str:
    """Return a digest of all error terms of a technology at its points."""
    text = []
    for spec in map(parse_spec, POINTS[name]):
        tech = spec.technology
        for term in tech.terms(tech.resolve(spec.conditions)):
            text += flatten(term)
    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:16]


def test_every_technology_has_points() -> None:
    assert set(POINTS) == set(names()) == set(LAWS)


@pytest.mark.parametrize("name", sorted(POINTS))
def test_a_changed_law_has_a_new_version(name: str) -> None:
    assert (technology(name).version, digest(name)) == LAWS[name], "raise `version` of the technology, and state the digest here"
