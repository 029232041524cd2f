"""`weakcell memories --check`: usable profiles and what they lack, and profiles that give no rates."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator
from scipy.stats import norm
from typer.testing import CliRunner

from weakcell.host.cli import app
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.level_law import LevelLaw
from weakcell.memmodels.profile import OperatingPoint, ProbitLaw, Profile, load
from weakcell.memmodels.profile_check import check_profile
from weakcell.memmodels.retention_law import TimeLaw

WEAK = ErrorTerm("access", Lifetime.DIE, 0.01, 0.02)
LAW = TimeLaw(
    "p10", 4.0, 4096.0, 90.0, 50.0, 90.0, energy=0.53, level=-2.8, body=0.28, knee=2.0,
    times=(4.0, 64.0, 4096.0), offsets=(0.02, -0.01, 0.03), gain_offset=-24.0, gain_slope=2.0, gain_energy=0.25,
)  # fmt: skip
SPREADS = tuple((tuple(spread * z for z in range(-5, 6)),) * 2 for spread in (1.0, 2.0))
LEVELS = LevelLaw("time", (1.0, 100.0), (10.0, 90.0), SPREADS)
PROFILES = {
    "levels": Profile("a", law=LEVELS),
    "points": Profile("a", (OperatingPoint({"vdd": 0.5}, (WEAK,)), OperatingPoint({"vdd": 0.4}, (WEAK,), "p01"))),
    "probit": Profile("a", law=ProbitLaw("vdd", "V", 0.4, 0.6, 0.3, 0.03, 0.5, 0.5, replace(WEAK, p01=0.0, p10=0.0))),
    "retention": Profile("a", law=LAW, title="a module", source="us", about={"licence": "MIT", "board": "7", "lot": "b"}),
}


def run(path: Path, *more: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["memories", "--check", str(path), *more])
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_comes_back_and_is_checked(name: str, tmp_path: Path) -> None:
    path = PROFILES[name].save(tmp_path / "p.toml")
    assert load(path) == PROFILES[name]
    assert f"schema = {3 if name in {'retention', 'levels'} else 2}" in path.read_text()
    code, text = run(path)
    assert code == 0, text
    code, text = run(path, "--json")
    assert json.loads(text)["missing"] == list(check_profile(path).missing)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    bare = check_profile(PROFILES["points"].save(tmp_path / "a.toml")).missing
    assert any("about.licence" in text for text in bare)
    assert any("p01 was not measured" in text for text in bare)
    full = check_profile(PROFILES["retention"].save(tmp_path / "b.toml")).missing
    assert full == ("how far it misses points that took no part in the fit (fit.held_out_rms_decades)",)


def test_the_page_gives_the_law_of_retention() -> None:
    """The formula of PROFILES.md, written down with scipy, gives the rates of the profile."""
    kelvin = np.array([90.0, 70.0]) + 273.15
    for interval in (30.0, 700.0):
        t, gained = (interval * np.exp(e / 8.617333e-5 * (1 / kelvin[0] - 1 / kelvin[1])) for e in (LAW.energy, LAW.gain_energy))
        x = np.log(t)
        z = LAW.level + LAW.body * x - (LAW.tail - LAW.body) * LAW.width * np.log1p(np.exp(-(x - LAW.knee) / LAW.width))
        z += PchipInterpolator(np.log(LAW.times), LAW.offsets)(x)
        lost, gain = LAW.terms({"interval": interval, "temperature": 70.0}, "a")
        assert (lost.p01, lost.p10) == pytest.approx((0.0, norm.cdf(z)), rel=1e-9)
        assert (gain.p01, gain.p10) == pytest.approx((np.exp(-24.0 + 2.0 * np.log(gained)), 0.0), rel=1e-9)


def test_the_examples_of_the_page_are_profiles(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "memmodels" / "PROFILES.md").read_text(encoding="utf-8")
    examples = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    assert len(examples) == 2
    rates = []
    for number, example in enumerate(examples):
        path = tmp_path / f"{number}.toml"
        path.write_text(example, encoding="utf-8")
        assert run(path)[0] == 0
        spec = parse_spec(f"file:{path}:vdd=0.6")
        (term,) = spec.technology.terms(spec.technology.resolve(spec.conditions))
        rates.append((term.p01, term.p10))
    assert rates[0] == (0.01, 0.02)
    assert rates[1] == pytest.approx((0.5 * norm.cdf(-2.5),) * 2)


@pytest.mark.parametrize(
    ("removed", "added", "said"),
    [
        ("like = .*", "", "key 'like' is missing"),
        ("mu = .*", "", "mu missing"),
        ("mu = .*", "mo = 0.4", "unknown mo; mu missing"),
        ("share01 = .*", "share01 = 40.0", "must lie in"),
        ('lifetime = "die", ', "", "key 'lifetime' is missing"),
    ],
)
def test_missing_and_unknown_keys_are_named(removed: str, added: str, said: str, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "memmodels" / "PROFILES.md").read_text(encoding="utf-8")
    law = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)[1]
    (tmp_path / "p.toml").write_text(re.sub(removed, added, law), encoding="utf-8")
    with pytest.raises(InputError, match=said):
        load(tmp_path / "p.toml")


def test_the_page_names_every_key() -> None:
    page = (Path(__file__).parents[2] / "memmodels" / "PROFILES.md").read_text(encoding="utf-8")
    keys = {each.name for kind in (Profile, ProbitLaw, TimeLaw, LevelLaw, ErrorTerm) for each in fields(kind)}
    saved = keys - {"points", "law", "failure_probability", "resampled", "condition"} | {"fails", "redrawn", "[[points]]", "[law]"}
    assert [key for key in sorted(saved) if not re.search(rf"`[^`]*{re.escape(key)}", page) and key not in page] == []


DAMAGED = {
    "a rate above 1": ("p10 = 0.02", "p10 = 1.5"),
    "both rates": ("p10 = 0.02", "p10 = 0.995"),
    "another schema": ("schema = 2", "schema = 9"),
    "no number": ("p10 = 0.02", 'p10 = "x"'),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_profile_is_refused(name: str, tmp_path: Path) -> None:
    path = PROFILES["points"].save(tmp_path / "p.toml")
    path.write_text(path.read_text().replace(*DAMAGED[name]))
    code, text = run(path)
    assert (code, "Error" in text) == (3, True), text


DAMAGED_LAWS = {
    "width": "0.0", "low": "9000.0", "times": "[64.0, 4.0, 4096.0]", "offsets": "[0.1]", "kind": '"bends"', "level": "nan",
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"), [("values", "[100.0, 1.0]"), ("starts", "[10.0]"), ("changes", "[[[1.0]]]"), ("condition", '"vdd"')]
)
def test_a_damaged_law_of_levels_is_refused(key: str, value: str, tmp_path: Path) -> None:
    path = PROFILES["levels"].save(tmp_path / "p.toml")
    path.write_text(re.sub(rf"^{key} = .*$", f"{key} = {value}", path.read_text(), flags=re.MULTILINE))
    with pytest.raises(InputError):
        check_profile(path)


@pytest.mark.parametrize(("key", "value"), DAMAGED_LAWS.items())
def test_a_damaged_law_of_retention_is_refused(key: str, value: str, tmp_path: Path) -> None:
    path = PROFILES["retention"].save(tmp_path / "p.toml")
    path.write_text(re.sub(rf"^{key} = .*$", f"{key} = {value}", path.read_text(), flags=re.MULTILINE))
    with pytest.raises(InputError):
        check_profile(path)
