"""Derivation of the constants in csrc/kernels/math.h (needs mpmath).

Both activations need exp(-r) for |r| <= ln(2)/2, in a form that loses no accuracy near zero:

    sigmoid  exp(-r) = 1 - r h(r)
    tanh     (exp(2 r) - 1) / 2 = r + r^2 h(r),  |r| <= ln(2)/4

softplus needs artanh(q) = q h(q^2) for 0 <= q <= 1/3.

The Remez exchange algorithm minimises the largest relative error of the result.
"""

from __future__ import annotations

from collections.abc import Callable

from mpmath import (  # type: ignore[import-untyped]
    atanh,
    binomial,
    chop,
    cos,
    exp,
    expm1,
    floor,
    ln,
    lu_solve,
    matrix,
    mp,
    mpf,
    nstr,
    pi,
    polyval,
    sqrt,
)

mp.prec = 200
Function = Callable[[mpf], mpf]


def sigmoid_h(r: mpf) -> mpf:
    """Return (1 - exp(-r)) / r."""
    return mpf(1) if r == 0 else -expm1(-r) / r


def tanh_h(r: mpf) -> mpf:
    """Return ((exp(2 r) - 1) / 2 - r) / r^2."""
    if abs(r) < mpf(2) ** -60:
        return mpf(1)
    return (expm1(2 * r) / 2 - r) / r**2


def sigmoid_weight(r: mpf) -> mpf:
    """Return the relative error of exp(-r) for an error 1 of h, bounded away from zero near r = 0."""
    return max(abs(r), mpf("0.003")) * exp(r)


def tanh_weight(r: mpf) -> mpf:
    """Return the relative error of tanh for an error 1 of h, bounded away from zero near r = 0.

    For r < 0 the exponent k is 0 and the result tanh(r); for r > 0 the exponent is -1.
    """
    r = r if abs(r) > mpf("0.002") else mpf("-0.002")
    return 4 * r**2 / -expm1(4 * r) if r < 0 else 2 * r**2 / (1 - exp(4 * r) / 4)


MIDDLE = mpf(1) / 18  # middle of [0, 1/9], the interval of the square of artanh's argument


def artanh_h(s: mpf) -> mpf:
    """Return artanh(q) / q for q^2 = s + MIDDLE."""
    q = sqrt(max(mpf(0), s + MIDDLE))
    return mpf(1) if q == 0 else atanh(q) / q


def artanh_weight(s: mpf) -> mpf:
    """Return the relative error of artanh for an error 1 of h."""
    return 1 / artanh_h(s)


def from_middle(coefficients: list[mpf]) -> list[mpf]:
    """Convert the coefficients of a polynomial in q^2 - MIDDLE to those of the same polynomial in q^2."""
    result = [mpf(0)] * len(coefficients)
    for j, c in enumerate(coefficients):
        for i in range(j + 1):
            result[i] += c * binomial(j, i) * (-MIDDLE) ** (j - i)
    return result


def remez(f: Function, weight: Function, degree: int, bound: mpf) -> tuple[list[mpf], mpf]:
    """Return the coefficients, lowest power first, of the polynomial of least weighted error on [-bound, bound].

    The second result is that error.
    """
    count = degree + 2
    points = [-bound * cos(pi * (2 * i + 1) / (2 * count)) for i in range(count)]
    grid = [-bound * cos(pi * i / 2000) for i in range(2001)]
    coefficients: list[mpf] = []
    for _ in range(12):
        rows = [[x**j for j in range(degree + 1)] + [(-1) ** i / weight(x)] for i, x in enumerate(points)]
        solution = lu_solve(matrix(rows), matrix([f(x) for x in points]))
        coefficients = list(solution)[:-1]
        errors = [(polyval(coefficients[::-1], x) - f(x)) * weight(x) for x in grid]
        # The exchange keeps one extremum of each run of errors of equal sign.
        runs: list[list[int]] = []
        for i, e in enumerate(errors):
            if e == 0:
                continue
            if runs and errors[runs[-1][-1]] * e > 0:
                runs[-1].append(i)
            else:
                runs.append([i])
        peaks = [max(run, key=lambda i: abs(errors[i])) for run in runs]
        while len(peaks) > count:
            peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
        if len(peaks) < count:
            break
        points = [grid[i] for i in peaks]
    return coefficients, max(abs(e) for e in errors)


def split_ln2(bits: int) -> tuple[mpf, mpf]:
    """Return ln(2) as hi + lo; hi has few bits, so that its product with an integer exponent is exact."""
    hi = floor(ln(2) * 2**bits) / mpf(2) ** bits
    return hi, ln(2) - hi


def main() -> None:
    """Print every constant, and the error of each polynomial in units of half an ULP of 1."""
    half = ln(2) / 2
    for name, digits, bits, hi_bits, sigmoid_degree, tanh_degree, artanh_degree in (
        ("float", 10, 24, 16, 5, 4, 4),
        ("double", 19, 53, 41, 10, 10, 10),
    ):
        unit = mpf(2) ** -bits
        hi, lo = split_ln2(hi_bits)
        nearest = mpf(round(ln(2) * 2**bits)) / mpf(2) ** bits
        print(f"{name}: 1/ln2 {nstr(1 / ln(2), digits)} ln2 {nstr(hi, 20)} + {nstr(lo, digits)}")
        print(f"  ln2/2 as {name} lacks {nstr((ln(2) - nearest) / 2, digits)}")
        fits = (
            ("sigmoid", sigmoid_h, sigmoid_weight, sigmoid_degree, half * (1 + 16 * unit)),
            ("tanh", tanh_h, tanh_weight, tanh_degree, half / 2 * (1 + 16 * unit)),
            ("artanh", artanh_h, artanh_weight, artanh_degree, MIDDLE),
        )
        for label, f, weight, n, bound in fits:
            coefficients, error = remez(f, weight, n, bound)
            print(f"  {label}: error {nstr(chop(error / unit), 3)}")
            for c in from_middle(coefficients) if label == "artanh" else coefficients:
                print(f"    {nstr(c, digits)}")


if __name__ == "__main__":
    main()
