"""Numbers on the command line that another number would replace, or that no machine can bear, are refused."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from weakcell.host.api.campaigns import check_workers
from weakcell.host.cli import app
from weakcell.memmodels.errors import UsageError

REFUSED = (
    ("emulate --memory uniform:ber=1e-400", 5),
    ("emulate --memory uniform:ber=１", 5),
    ("emulate --memory uniform --sweep ber=1e-400,0.1", 2),
    ("emulate --memory uniform --sweep ber=０.1", 2),
    ("emulate --place conv1@１=uniform:ber=0", 2),
    ("emulate --task classes:top=１", 2),
    ("emulate --task logit:threshold=1e-400", 2),
    ("emulate --trials １２", 2),
    ("emulate --memory in-place+interleave[stride=４]+uniform:ber=0", 5),
    ("optimize --share 1e-400", 2),
    ("optimize --max-drop 1e-400%", 2),
    ("optimize --nominal 1e-400", 2),
    ("board measure --vdd ０.9", 2),
    ("board serve --misbehave hang=1e-400", 2),
    ("train --loss mhl:b=1e-400", 2),
    ("train --loss mcel:rls=１６%", 2),
    ("train --tolerance 1e-400,0.1", 2),
    ("train --output-scale １", 2),
    ("emulate --trials 99999999999999999", 2),
    ("emulate --trials 1000001", 2),
    ("predict --check-trials 99999999999999999", 2),
    ("validate --trials 99999999999999999", 2),
    ("rank --check-trials 99999999999999999 --dry-run", 2),
    ("emulate --first-trial 9223372036854775807 --trials 3 --images 2", 2),
    ("validate --first-trial 9223372036854775807 --trials 3 --images 2", 2),
    ("predict --samples 99999999999999999 --images 2", 2),
    ("margins --certify 99999999999999999 --images 2", 2),
    ("train --width 1e-300 --dry-run", 2),
    ("train --tolerance nan,nan --dry-run", 2),
    ("optimize --memory uniform --dry-run", 2),
    ("optimize --nominal nan --dry-run", 5),
    ("board measure --port virtual:rp2040 --vdd 1.0 --dwell-ms nan", 2),
    ("board measure --port virtual:rp2040 --vdd 1.0 --dwell-ms -1", 2),
)


@pytest.mark.parametrize(("line", "code"), REFUSED)
def test_refused(line: str, code: int) -> None:
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == code, (result.output, result.exception)
    assert "Error: " in result.stderr
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    "address",
    ["local:²", "local:0", "local:x", "tcp://host", "tcp://host:1e3", "tcp://host:70000", "tcp://host:８０", "no://host:1"],
)
def test_addresses_of_schedulers_that_cannot_be(address: str) -> None:
    cluster = pytest.importorskip("weakcell.host.campaign.cluster", reason="needs Dask")
    with pytest.raises(UsageError, match="no address of a scheduler"):
        cluster.parse_local_workers(address)
    with pytest.raises(UsageError, match="are the most"):
        cluster.parse_local_workers("local:99999999999999999999")
    with pytest.raises(UsageError, match="are the most"):
        check_workers(None, 99999999999, None)
    assert cluster.parse_local_workers("local:3") == 3
    assert cluster.parse_local_workers("tcp://[::1]:8786") is None
