import math

import pytest

from baffle.report.quantities import brief, count, duration, percent, plain, size


@pytest.mark.parametrize(
    ("quantity", "text", "exact"),
    [
        (percent(0.91372), "91.37%", "0.91372"),
        (percent(1.0), "100.00%", "1"),
        (plain(0.312345), "0.3123", "0.312345"),
        (count(0, "rounds"), "0", "0 rounds"),
        (count(9_999, "rounds"), "9,999", "9,999 rounds"),
        (count(9_999.7, "rounds"), "10k", "9,999.7 rounds"),
        (count(40_404.0, "forward equivalents"), "40.4k", "40,404 forward equivalents"),
        (count(999_600, "x"), "1M", "999,600 x"),
        (count(2.5e9, "x"), "2.5G", "2,500,000,000 x"),
        (size(0), "0 B", "0 bytes"),
        (size(999), "999 B", "999 bytes"),
        (size(999.6), "1 kB", "999.6 bytes"),
        (size(412_316_860), "412 MB", "412,316,860 bytes"),
        (size(5e16), "50,000 TB", "50,000,000,000,000,000 bytes"),
        (brief(0.2146), "215 ms", "0.2146 seconds"),
        (brief(9.9), "9,900 ms", "9.9 seconds"),
        (brief(12.5), "12.5 s", "12.5 seconds"),
        (duration(3.24), "3.2 s", "3.24 seconds"),
        (duration(99.96), "1 min 40 s", "99.96 seconds"),
        (duration(132.4), "2 min 12 s", "132.4 seconds"),
        (duration(3599.7), "1 h 00 min", "3,599.7 seconds"),
        (duration(90_000), "25 h 00 min", "90,000 seconds"),
    ],
)
def test_a_number_reads_short_and_keeps_its_exact_value(quantity, text, exact):
    assert (quantity.text, quantity.exact) == (text, exact)


@pytest.mark.parametrize("show", [percent, plain, size, brief, duration, lambda value: count(value, "rounds")])
def test_what_is_not_finite_says_so(show):
    assert show(math.nan).exact == "not known"
    assert (show(math.inf).text, show(math.inf).exact) == ("+inf", "not finite")
    assert show(-math.inf).text == "-inf"
