"""Stored runs belong to the version of a memory's law that made them."""

from __future__ import annotations

from dataclasses import replace

import pytest

import weakcell
from weakcell.host.study import study
from weakcell.memmodels.catalogue import technology


def test_runs_of_another_version_of_a_law_have_another_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first version is not named, so older stores keep their identities; wrappers change nothing."""
    resolved = weakcell.emulate("digits-bnn", memory="secded+uniform:ber=0.01", trials=1, images=5).resolved
    (point,) = resolved.points
    first = resolved.cell_identity(point)
    assert "laws" not in first
    monkeypatch.setattr(study, "technology", lambda name: replace(technology(name), version=2))
    assert resolved.cell_identity(point) == {**first, "laws": {"uniform": 2}}
    again = weakcell.emulate("digits-bnn", memory="secded+uniform:ber=0.01", trials=1, images=5).resolved
    assert again.identity["laws"] == {"uniform": 2}
