"""Text that finds mistakes in tokenizers: the same lines on every machine, from a seed.

Prose of invented words, code, numbers, and what a hand-written test forgets: emoji sequences,
stacked marks, scripts of every direction, invisible characters, white space of all kinds, control
characters, long runs, and code points drawn from everywhere. No surrogates, which UTF-8 cannot hold.
"""
import random
from itertools import accumulate

SYLLABLES = [a + b for a in "b c d f g h l m n p r s t v w ch sh th st tr".split()
             for b in "a e i o u ai ea ou an en er in on or ing".split()]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "'rE", "\u2019s", "'\u017f", "'x"]
SPACES = " \t\u00a0\u1680\u180e\u2000\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000\x0b\x0c\x1c\x1f\x85\r"
INVISIBLE = "\u00ad\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202e\u2060\u2066\u2069\ufeff\ufe0f"
EMOJI = ["\U0001f600", "\U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u2764\ufe0f",
         "1\ufe0f\u20e3", "\U0001f1eb\U0001f1f7", "\U0001f3f4\U000e0067\U000e0062\U000e007f", "\u263a", "\U0001fae8"]
CODE = ["for (int i = 0; i < n; i++) {", "return x->next[0] ?: NULL;", "\tif a != b: pass  # why",
        "def f(x, *args, **kw):", "0xDEADBEEF", "a+=b<<3;", "https://example.org/a?b=c&d=%20#e",
        "SELECT * FROM t WHERE id='1';", "\\frac{1}{2}", "camelCase_snake_case", "}};", "#!/bin/sh", "<!-- -->",
        "x\u2032 \u2264 \u03b1\u00b7\u03b2", "{\"k\": [1,2.5e-3,null]}"]
# Ranges of code points: (first, last).
SCRIPTS = {
    "latin": (0x00C0, 0x024F), "greek": (0x0370, 0x03FF), "cyrillic": (0x0400, 0x04FF),
    "hebrew": (0x0591, 0x05F4), "arabic": (0x0600, 0x06FF), "devanagari": (0x0900, 0x097F),
    "thai": (0x0E01, 0x0E5B), "jamo": (0x1100, 0x11FF), "kana": (0x3041, 0x30FF),
    "han": (0x4E00, 0x9FFF), "hangul": (0xAC00, 0xD7A3), "presentation": (0xFB50, 0xFDFF),
    "halfwidth": (0xFF01, 0xFFEE), "gothic": (0x10330, 0x1034A), "maths": (0x1D400, 0x1D7FF),
    "han extended": (0x20000, 0x2A6DF), "new letters": (0x31350, 0x323AF), "garay": (0x10D40, 0x10D8F),
}
DIGITS = ["0123456789"] * 6 + ["\u0660\u0661\u0662\u0669", "\u0966\u096f", "\u00b2\u00b3\u00bd\u2167\u2460\u3007",
                              "\U0001d7ce\U0001d7d9"]

REPEATED = ("a", " ", "=", "0", "ab", "\u00e9", "\u4e00", "!?", "\u200d", "\U0001f600")


class Writer:
    """Makes fragments of text from one stream of random numbers."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        vocabulary = random.Random(0)
        self.words = ["".join(vocabulary.choices(SYLLABLES, k=vocabulary.choice((1, 1, 2, 2, 3))))
                      for _ in range(3000)]
        # As in real text, the k-th most frequent word is 1/k as frequent as the first.
        self.frequency = list(accumulate(1 / (k + 1) for k in range(len(self.words))))
        self.kinds = [(self.prose, 40), (self.code, 10), (self.number, 10), (self.emoji, 5),
                      (self.marks, 5), (self.script, 12), (self.invisible, 4), (self.spaces, 5),
                      (self.controls, 3), (self.anything, 4), (self.run, 2)]

    def some(self, characters, most):
        return "".join(self.random.choices(characters, k=self.random.randint(1, most)))

    def prose(self):
        words = self.random.choices(self.words, cum_weights=self.frequency,
                                    k=self.random.randint(1, 12))
        for i, word in enumerate(words):
            chance = self.random.random()
            if chance < 0.1:
                words[i] = word.capitalize()
            elif chance < 0.14:
                words[i] = word.upper()
            elif chance < 0.2:
                words[i] = word + self.random.choice(CONTRACTIONS)
            elif chance < 0.3:
                words[i] = word + self.random.choice(",.;:!?-\u2014\u2026)\"")
        return " ".join(words)

    def code(self):
        return " " * self.random.choice((0, 1, 2, 4, 8, 12)) + self.random.choice(CODE)

    def number(self):
        groups = [self.some(self.random.choice(DIGITS), 7) for _ in range(self.random.randint(1, 4))]
        return self.random.choice(["", " ", ",", ".", "-", "/", ":", "e"]).join(groups)

    def emoji(self):
        return "".join(self.random.choices(EMOJI, k=self.random.randint(1, 5)))

    def marks(self):
        return "".join(letter + self.some([chr(c) for c in range(0x300, 0x370)], 4)
                       for letter in self.some("aeiounAEO \u0391\u05d0\u0915", 6))

    def script(self):
        first, last = self.random.choice(list(SCRIPTS.values()))
        letters = [chr(self.random.randint(first, last)) for _ in range(self.random.randint(1, 14))]
        return "".join(c + self.random.choice(("", "", "", " ")) for c in letters)

    def invisible(self):
        return "".join(c + self.random.choice(("", "a", " "))for c in self.some(INVISIBLE, 5))

    def spaces(self):
        return self.random.choice((self.some(SPACES, 6), " " * self.random.randint(1, 40),
                                   "\t" * self.random.randint(1, 8)))

    def controls(self):
        return self.some([chr(c) for c in [*range(0x0A), *range(0x0B, 0x20), *range(0x7F, 0xA0)]], 6)

    def anything(self):
        codes = [self.random.randrange(0x110000) if self.random.random() < 0.3 else
                 self.random.randrange(0x20, 0x3000) for _ in range(self.random.randint(1, 12))]
        return "".join(chr(c) for c in codes if not 0xD800 <= c < 0xE000)

    def run(self):
        unit = self.random.choice(REPEATED)
        return unit * int(2 ** self.random.uniform(2, 9))

    def line(self, specials=(), breaks=False):
        """One line; with breaks, sometimes several. One in fifty holds a special token."""
        makers, weights = zip(*self.kinds)
        parts = [make() for make in self.random.choices(makers, weights,
                                                        k=self.random.choice((1, 1, 2, 3, 4)))]
        if specials and self.random.random() < 0.02:
            parts.insert(self.random.randint(0, len(parts)), self.random.choice(specials))
        joints = ("", " ", " ", " ") + (("\n", "\r\n", "\n\n  ", " \n\t") if breaks else ())
        return "".join(p + self.random.choice(joints) for p in parts)


def lines(seed, count, specials=(), breaks=False):
    """count lines, one after another. Without breaks none contains a line feed."""
    writer = Writer(seed)
    for _ in range(count):
        yield writer.line(specials, breaks)


def runs(size):
    """UTF-8 texts of at most `size` bytes that repeat one thing, for programs that lose patience."""
    for unit in (*REPEATED, "A", "Aa", " a", "'", "'s", "\r", "\u0301", "a\u0301\u0323", "\u00a0"):
        data = unit.encode()
        yield data * (size // len(data))


def damaged(seed, texts, share=0.05):
    """Their UTF-8; this share of them with one to three bytes changed, lost or put in."""
    dice = random.Random(seed)
    others = bytes(c for c in range(256) if c != 0x0A)
    for text in texts:
        data = bytearray(text.encode())
        if data and dice.random() < share:
            for _ in range(dice.randint(1, 3)):
                at = dice.randrange(len(data) + 1)
                data[at:at + dice.randint(0, 1)] = bytes(dice.choices(others, k=dice.randint(0, 2)))
        yield bytes(data)
