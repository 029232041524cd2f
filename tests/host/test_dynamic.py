"""Dynamically quantized networks from the command line: over the batch in `infer`, image by image under faults, and said so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from typer.testing import CliRunner

from tests.emulator.models import run
from tests.emulator.test_importer_dynamic import chain, images, one_by_one
from weakcell import emulate
from weakcell.host.cli import app
from weakcell.host.report.captions import describe_study


def test_infer_and_emulate_take_their_ranges_as_they_say(tmp_path: Path) -> None:
    proto, x = chain(), images(6)
    onnx.save(proto, tmp_path / "net.onnx")
    np.savez(tmp_path / "in.npz", x=x)
    for choice, want in (([], one_by_one(proto, x)), (["--dynamic", "batch"], run(proto, {"x": x})[0])):
        made = tmp_path / "out.npz"
        call = ["infer", str(tmp_path / "net.onnx"), "--input", str(tmp_path / "in.npz"), "--output", str(made), *choice]
        assert CliRunner().invoke(app, call).exit_code == 0
        np.testing.assert_allclose(np.load(made)["y"], want, rtol=1e-5, atol=1e-4)
    alone = one_by_one(proto, x).argmax(1)
    np.savez(tmp_path / "test.npz", x=x, y=alone)
    found = emulate(tmp_path / "net.onnx", tmp_path / "test.npz", memory="uniform:ber=0", trials=1)
    assert found.resolved.questions.fault_free_answers.tolist() == alone.tolist()
    assert "each image has a range of its own" in describe_study(found.resolved)
