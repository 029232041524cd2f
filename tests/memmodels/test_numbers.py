"""Numbers in texts are what they say, or they are refused."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.numbers import NumberRangeError, parse_integer, parse_number
from weakcell.memmodels.toml_text import parse_toml

DIGITS = st.text("0123456789_.", max_size=6)
NUMBERS = st.builds("{}{}e{}".format, st.sampled_from(["", "-", "+"]), DIGITS, st.integers(-400, 400))


@given(NUMBERS | st.floats(allow_nan=False, allow_infinity=False).map(repr))
def test_a_number_is_what_exact_arithmetic_says(text: str) -> None:
    """Oracle: decimal and fractions, which neither round nor overflow at these sizes."""
    try:
        value = parse_number(text)
    except NumberRangeError:
        exact = abs(Decimal(text))
        assert 0 < exact < Decimal("1e-323") or exact > Decimal("1.797e308")
        return
    except ValueError:
        with pytest.raises(ValueError, match="could not convert"):
            float(text)
        return
    exact_value = Fraction(Decimal(text))
    assert (value == 0.0) == (exact_value == 0)
    assert abs(Fraction(value) - exact_value) <= max(abs(exact_value) / 2**52, Fraction(5e-324))


@pytest.mark.parametrize("text", ["１２", "٣", "１e-3", "߁.5", "−1"])
def test_digits_of_other_scripts_are_no_numbers(text: str) -> None:
    for parse in (parse_number, parse_integer):
        with pytest.raises(ValueError, match="ASCII"):
            parse(text)
    with pytest.raises(MemorySpecError):
        parse_spec(f"uniform:ber={text}")


@pytest.mark.parametrize("text", ["1e-400", "-1e-400", "0.0000001e-320", "1e400"])
def test_numbers_that_cannot_be_stored_are_refused(text: str) -> None:
    with pytest.raises(MemorySpecError, match="to be stored"):
        parse_spec(f"uniform:ber={text}")
    with pytest.raises(ValueError, match="line 2"):
        parse_toml(f"a = 0.5\nb = {text}")


def test_zero_and_infinity_in_words_stay_what_they_are() -> None:
    assert [parse_number(text) for text in ("0", "0.000", "-0e5", "0e-999", " 1_0 ", "inf")] == [0, 0, 0, 0, 10, float("inf")]
    assert parse_toml("a = 0e-999\nb = inf\nc = 1_0.0") == {"a": 0.0, "b": float("inf"), "c": 10.0}
