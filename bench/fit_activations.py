"""Derives the constants in csrc/kernels/math.h: run it and compare (needs mpmath).

Both activations need exp(-r) for |r| <= ln(2)/2, written so that no accuracy is lost near zero:

    sigmoid  exp(-r) = 1 - r h(r)
    tanh     (exp(2 r) - 1) / 2 = r + r^2 h(r),  |r| <= ln(2)/4

softplus needs artanh(q) = q h(q^2) for 0 <= q <= 1/3.

Remez exchange minimises the largest relative error of the result.
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
    """(1 - exp(-r)) / r."""
    return mpf(1) if r == 0 else -expm1(-r) / r


def tanh_h(r: mpf) -> mpf:
    """((exp(2 r) - 1) / 2 - r) / r^2."""
    if abs(r) < mpf(2) ** -60:
        return mpf(1)
    return (expm1(2 * r) / 2 - r) / r**2


def sigmoid_weight(r: mpf) -> mpf:
    """Relative error of exp(-r) for an error 1 of h; kept off zero, where it vanishes."""
    return max(abs(r), mpf("0.003")) * exp(r)


def tanh_weight(r: mpf) -> mpf:
    """Relative error of tanh for an error 1 of h: k = 0 below zero (tanh(r)), k = -1 above; kept off zero."""
    r = r if abs(r) > mpf("0.002") else mpf("-0.002")
    return 4 * r**2 / -expm1(4 * r) if r < 0 else 2 * r**2 / (1 - exp(4 * r) / 4)


MIDDLE = mpf(1) / 18  # of [0, 1/9], where the square of artanh's argument lies


def artanh_h(s: mpf) -> mpf:
    """artanh(q) / q for q^2 = s + MIDDLE."""
    q = sqrt(max(mpf(0), s + MIDDLE))
    return mpf(1) if q == 0 else atanh(q) / q


def artanh_weight(s: mpf) -> mpf:
    """Relative error of artanh for an error 1 of h."""
    return 1 / artanh_h(s)


def from_middle(coefficients: list[mpf]) -> list[mpf]:
    """The same polynomial in q^2."""
    result = [mpf(0)] * len(coefficients)
    for j, c in enumerate(coefficients):
        for i in range(j + 1):
            result[i] += c * binomial(j, i) * (-MIDDLE) ** (j - i)
    return result


def remez(f: Function, weight: Function, degree: int, bound: mpf) -> tuple[list[mpf], mpf]:
    """Coefficients, lowest power first, of the polynomial with the smallest weighted error on [-bound, bound]."""
    count = degree + 2
    points = [-bound * cos(pi * (2 * i + 1) / (2 * count)) for i in range(count)]
    grid = [-bound * cos(pi * i / 2000) for i in range(2001)]
    coefficients: list[mpf] = []
    for _ in range(12):
        rows = [[x**j for j in range(degree + 1)] + [(-1) ** i / weight(x)] for i, x in enumerate(points)]
        solution = lu_solve(matrix(rows), matrix([f(x) for x in points]))
        coefficients = list(solution)[:-1]
        errors = [(polyval(coefficients[::-1], x) - f(x)) * weight(x) for x in grid]
        # one extremum from each run of equal sign
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
    """The logarithm of 2 as hi + lo, hi of so few bits that its product with an integer exponent is exact."""
    hi = floor(ln(2) * 2**bits) / mpf(2) ** bits
    return hi, ln(2) - hi


def main() -> None:
    """Print every constant, and the error of each polynomial in units of the type's half ULP of 1."""
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
