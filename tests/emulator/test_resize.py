"""Resize against onnxruntime: which neighbour is nearest, and what is interpolated; ONNX's own tests are among its node tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.emulator.models import model, node, run
from weakcell.emulator import compile_plan, infer, onnx_ops
from weakcell.emulator.importer import load
from weakcell.memmodels.errors import ModelError

F = np.float32
POINTS = ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners")
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def both(x: Any, attributes: dict[str, Any], scales: list[float] | None, sizes: list[int] | None) -> tuple[Any, Any]:
    constants = {"n": np.array(sizes, np.int64)} if sizes else {"f": np.array(scales, F)}
    proto = model(
        [node("Resize", "x - - n" if sizes else "x - f", "y", **attributes)], constants, {"x": list(x.shape)}, {"y": [None] * 4}, 19
    )
    inputs = [x, None, None, constants["n"]] if sizes else [x, None, constants["f"]]
    return onnx_ops.apply("Resize", 19, attributes, inputs), run(proto, {"x": x})[0]


@settings(max_examples=150)
@example(7, 5, 1.4, 0.6, "half_pixel", "round_prefer_floor", True)  # points that lie halfway
@given(
    st.integers(1, 9),
    st.integers(2, 9),
    st.floats(0.25, 4, width=32),
    st.floats(0.25, 4, width=32),
    st.sampled_from(POINTS[:3]),
    st.sampled_from(NEAREST),
    st.booleans(),
)
def test_nearest(height: int, width: int, tall: float, wide: float, points: str, rounding: str, by_size: bool) -> None:
    x = np.arange(2 * height * width, dtype=F).reshape(1, 2, height, width)
    attributes = {"mode": "nearest", "coordinate_transformation_mode": points, "nearest_mode": rounding}
    sizes = [1, 2, max(1, int(height * tall)), max(1, int(width * wide))]
    if int(F(tall) * height) < 1 or int(F(wide) * width) < 1:
        by_size = True
    ours, theirs = both(x, attributes, None if by_size else [1, 1, tall, wide], sizes if by_size else None)
    np.testing.assert_array_equal(ours, theirs)


@settings(max_examples=150)
@given(
    st.integers(2, 9),
    st.integers(2, 9),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from(POINTS),
    st.sampled_from(["linear", "cubic"]),
    st.booleans(),
)
def test_interpolation(height: int, width: int, tall: int, wide: int, points: str, mode: str, antialias: bool) -> None:
    x = np.random.default_rng(height * width).normal(size=(1, 2, height, width)).astype(F)
    attributes = {"mode": mode, "coordinate_transformation_mode": points}
    if antialias and points == "half_pixel":
        attributes["antialias"] = 1
    ours, theirs = both(x, attributes, None, [1, 2, tall, wide])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)


FORMS: dict[str, tuple[int, Any, dict[str, Any]]] = {
    "Upsample 7": (7, node("Upsample", "x", "y", scales=[1.0, 1.0, 2.0, 1.5]), {}),
    "Upsample 9": (9, node("Upsample", "x f", "y", mode="linear"), {"f": np.array([1, 1, 2, 1.5], F)}),
    "Resize 10": (10, node("Resize", "x f", "y"), {"f": np.array([1, 1, 2, 0.7], F)}),
    "Resize 11": (11, node("Resize", "x r f", "y", mode="linear"), {"r": np.array([], F), "f": np.array([1, 1, 2, 0.7], F)}),
    "Resize 13, sizes": (13, node("Resize", "x - - n", "y", nearest_mode="ceil"), {"n": np.array([1, 2, 5, 3], np.int64)}),
    "Resize 19, axes": (19, node("Resize", "x - f", "y", mode="cubic", axes=[3]), {"f": np.array([1.7], F)}),
}


@pytest.mark.parametrize("form", FORMS)
def test_opsets(form: str) -> None:
    """A network of any batch, whatever its `sizes` say of it, gives each image what onnxruntime gives it alone."""
    opset, resize, constants = FORMS[form]
    proto = model([resize], constants, {"x": ["N", 2, 3, 4]}, {"y": [None] * 4}, opset)
    x = np.random.default_rng(2).normal(size=(3, 2, 3, 4)).astype(F)
    made = infer(compile_plan(load(proto)), {"x": x})["y"]
    assert len(made) == 3
    for image, ours in zip(x, made, strict=True):
        np.testing.assert_allclose(ours, run(proto, {"x": image[None]})[0][0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "scales", [[1, 1, 0, 2], [1, 1, -1, 2], [1, 1, np.inf, 2], [1, 1, np.nan, 2], [1, 1, 1e9, 2], [1, 2], [1, 1e9, 1, 1]]
)
def test_scales_that_make_no_sense(scales: list[float]) -> None:
    constants = {"f": np.array(scales, F)}
    proto = model([node("Resize", "x - f", "y", mode="linear")], constants, {"x": ["N", 1, 3, 4]}, {"y": [None] * 4}, 19)
    with pytest.raises(ModelError):
        load(proto)
