"""Translate dates in words, from 24 languages, to ISO dates: sequence to vector to sequence, with beam search.

    pip install ".[gallery]"
    python examples/translate.py

Babel writes days between 1950 and 2049 in three styles of each language: "lördag 28 november 2026" is 2026-11-28. An
LSTM reads the letters; its state behind the last one is all that it keeps, and from there it writes the ISO date,
letter by letter. It learns to predict the written letters only (`sample_weight` is 0 on those it reads). A tenth of
all days is held out, in every language; counted is who gets all ten letters right. The baseline takes the date of the
most similar line that it has seen, by pieces of one to three letters.
"""

from __future__ import annotations

import argparse
import datetime
import sys

import numpy as np
import quadgate as qg
from command_line import at_least, picture
from quadgate import train

try:
    import matplotlib as mpl
    from babel.dates import format_date
    from sklearn.feature_extraction.text import TfidfVectorizer
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f'{error.name} is missing, which only this example needs: pip install ".[gallery]" installs it')

LOCALES = "en en_GB de fr es it pt nl sv da fi pl cs hu ro tr id vi el ru uk ja zh ko".split()  # noqa: SIM905
PAD, WRITE, END = 0, 1, 2  # symbols that are no letters
FIRST, DAYS = datetime.date(1950, 1, 1), 36524


def lines(count: int, days: np.ndarray, rng: np.random.Generator) -> tuple[list[str], list[str], list[str]]:
    """Return dates in words, in ISO form, and their locales."""
    words, iso, used = [], [], []
    for day in rng.choice(days, count):
        date, locale = FIRST + datetime.timedelta(int(day)), str(rng.choice(LOCALES))
        words.append(format_date(date, rng.choice(["full", "long", "medium"]), locale=locale).lower())
        iso.append(date.isoformat())
        used.append(locale)
    return words, iso, used


class Alphabet:
    """Letters and their symbols; a letter that was never seen is left out."""

    def __init__(self, texts: list[str]) -> None:
        self.letters = sorted({letter for text in texts for letter in text})
        self.symbols = {letter: k + 3 for k, letter in enumerate(self.letters)}

    def read(self, text: str) -> list[int]:
        return [self.symbols[letter] for letter in text if letter in self.symbols]

    def text(self, symbols: np.ndarray) -> str:
        return "".join(self.letters[k - 3] for k in symbols if k > END)


def rows_of(words: list[str], iso: list[str], alphabet: Alphabet) -> dict[str, np.ndarray]:
    """Return x, y and lengths of rows: a line, WRITE, its date and END; only what is written counts."""
    rows = [[*alphabet.read(w), WRITE, *alphabet.read(d), END] for w, d in zip(words, iso, strict=True)]
    lengths = np.array([len(row) - 1 for row in rows])
    table = np.zeros((len(rows), lengths.max() + 1), np.int64)
    for k, row in enumerate(rows):
        table[k, : len(row)] = row
    steps = np.arange(lengths.max())
    counts = (steps >= lengths[:, None] - 11) & (steps < lengths[:, None])
    return {"x": table[:, :-1], "y": table[:, 1:], "lengths": lengths, "sample_weight": counts.astype(np.float32)}


def translations(model: train.Sequential, words: list[str], alphabet: Alphabet, beams: int) -> list[str]:
    """Return the ISO dates that a model writes; beams=1 is greedy. Lines of one length run together."""
    starts, found = [[*alphabet.read(w), WRITE] for w in words], [""] * len(words)
    for length in tqdm(sorted({len(s) for s in starts}), desc=f"beams {beams}", unit="length", leave=False):
        places = [k for k, start in enumerate(starts) if len(start) == length]
        start = np.array([starts[k] for k in places])
        if beams == 1:
            written = list(train.generate(model, start, 11, temperature=0.0, end=END))
        else:
            written = [best[0].symbols for best in train.beam_search(model, start, 11, beams=beams, end=END)]
        for k, symbols in zip(places, written, strict=True):
            found[k] = alphabet.text(symbols)
    return found


def main() -> None:
    """Learn, then translate held-out days, greedily and by beam search."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--epochs", type=at_least(1), default=8, help="(%(default)s)")
    parser.add_argument("--lines", type=at_least(1), default=24_000, help="lines to learn from (%(default)s)")
    parser.add_argument("--units", type=at_least(1), default=192, help="(%(default)s)")
    parser.add_argument("--beams", type=at_least(1), default=4, help="(%(default)s)")
    parser.add_argument("--quick", action="store_true", help="seconds: two languages, little to learn from")
    parser.add_argument("--plot", type=picture, help="write a picture of the exact matches by language to this file")
    args = parser.parse_args()
    tests = 1000
    if args.quick:
        args.epochs, args.lines, args.units, tests = 6, 3000, 64, 100
        LOCALES[:] = LOCALES[:2]
    rng = np.random.default_rng(0)
    days = rng.permutation(DAYS)
    words, iso, _ = lines(args.lines, days[DAYS // 10 :], rng)
    test_words, test_iso, test_locales = lines(tests, days[: DAYS // 10], rng)
    alphabet = Alphabet(words + iso)
    pieces = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False).fit(words)
    nearest = np.asarray((pieces.transform(test_words) @ pieces.transform(words).T).argmax(axis=1)).ravel()
    plain = np.mean([iso[k] == want for k, want in zip(nearest, test_iso, strict=True)])

    size = len(alphabet.letters) + 3
    lstm = qg.LSTM(32, args.units, forget_bias=1.0, rng=0)
    model = train.Sequential([train.Embedding(size, 32), lstm, train.Dense(args.units, size)], rng=0)
    steps = args.epochs * -(-args.lines // 64)
    model.load_params({**model.params, "0.weight": rng.normal(size=(size, 32))})  # letters far apart from the beginning
    rate = train.WarmupCosine(5e-3, steps // 20, steps, floor=1e-4)
    model.compile("softmax_cross_entropy", train.Adam(rate, clip_norm=1.0))
    print(f"{args.lines} lines of {len(LOCALES)} locales, {size} symbols; the nearest line is right for {plain:.1%}")
    model.fit(**rows_of(words, iso, alphabet), epochs=args.epochs, batch_size=64, progress=True)

    greedy = translations(model, test_words, alphabet, 1)
    searched = translations(model, test_words, alphabet, args.beams)
    right, right_greedy = ([a == b for a, b in zip(found, test_iso, strict=True)] for found in (searched, greedy))
    for k in range(6):
        print(f"{test_words[k]:>36} -> {searched[k]}  {'right' if right[k] else 'wrong, it is ' + test_iso[k]}")
    print(
        f"held-out days, all letters right: greedy {np.mean(right_greedy):.1%}, {args.beams} beams {np.mean(right):.1%}"
    )
    letters = np.mean(
        [a == b for found, want in zip(searched, test_iso, strict=True) for a, b in zip(found, want, strict=False)]
    )
    if args.plot:
        mpl.use("Agg")
        import matplotlib.pyplot as plt

        _, axes = plt.subplots(figsize=(9, 3.5), layout="constrained")
        share = [np.mean([r for r, at in zip(right, test_locales, strict=True) if at == one] or [0]) for one in LOCALES]
        axes.bar(LOCALES, share)
        axes.axhline(plain, color="grey", ls=":", label="nearest line")
        axes.set(
            ylabel="exact matches", ylim=(0, 1), title=f"Held-out dates in {len(LOCALES)} locales: {np.mean(right):.1%}"
        )
        axes.tick_params(axis="x", rotation=60)
        axes.legend(loc="lower right")
        plt.savefig(args.plot, dpi=120)
    shares = f"exact={np.mean(right):.4f} greedy={np.mean(right_greedy):.4f} letters={letters:.4f}"
    print(f"RESULT {shares} baseline={plain:.4f}")


if __name__ == "__main__":
    main()
