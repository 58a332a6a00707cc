"""Byte-level BPE tokenizers as Hugging Face's `tokenizers` trains them, one per pipeline."""
from typing import Any, NamedTuple

import peer

hf = peer.need("tokenizers")

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SYMBOLS = r"| ?[^\s\p{L}\p{N}]+"
SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
REST = SYMBOLS + r"[\r\n]*" + SPACES
WORDS_AND_3_DIGITS = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST
WORDS_AND_1_DIGIT = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST
# GPT-4o tells capitals from small letters and keeps contractions with their words.
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?"
         rf"|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?"
         r"|\p{N}{1,3}" + SYMBOLS + r"[\r\n/]*" + SPACES)
# DeepSeek V3 cuts three times.
DEEPSEEK = (r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
            r"| ?[\p{P}\p{S}]+[\r\n]*" + SPACES)


def byte_level(**how):
    return hf.pre_tokenizers.ByteLevel(**{"add_prefix_space": False} | how)


def split(*patterns, **how):
    """Splits by patterns, then bytes: how GPT-4's and later tokenizers are written down."""
    steps = [hf.pre_tokenizers.Split(hf.Regex(pattern), **how) for pattern in patterns]
    return hf.pre_tokenizers.Sequence([*steps, byte_level(use_regex=False)])


class Kind(NamedTuple):
    pre_tokenizer: Any
    specials: list  # get the first ids
    normalizer: Any = None
    ignore_merges: bool = False  # whole words that are tokens skip the merges
    added: list = []  # found before anything else, by flags of their own


# Every flag of an added token, alone and together, in contents that occur in varied text.
FLAGGED = [
    hf.AddedToken("<mask>", special=True, lstrip=True),
    hf.AddedToken("<sep>", special=True, rstrip=True),
    hf.AddedToken("<both>", special=True, lstrip=True, rstrip=True, normalized=True),
    hf.AddedToken("[w]", single_word=True),
    hf.AddedToken("shou", single_word=True, normalized=True),
    hf.AddedToken("thi", normalized=False),
    hf.AddedToken("thing", normalized=False),
    hf.AddedToken("e\u0301t", normalized=True),
    hf.AddedToken("\U0001f600", normalized=False, single_word=True, rstrip=True),
]

KINDS = {
    # The four patterns that have a scanner of their own.
    "gpt2": Kind(byte_level(), ["<|endoftext|>"]),
    "cl100k": Kind(split(WORDS_AND_3_DIGITS, behavior="removed", invert=True),
                   ["<|endoftext|>", "<|fim_prefix|>"]),
    "llama3": Kind(split(WORDS_AND_3_DIGITS, behavior="isolated"),
                   ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"], ignore_merges=True),
    "qwen2": Kind(split(WORDS_AND_1_DIGIT, behavior="isolated"),
                  ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], hf.normalizers.NFC()),
    # Patterns that run as regular expressions.
    "o200k": Kind(split(O200K, behavior="isolated"), ["<|endoftext|>"]),
    "deepseek": Kind(split(*DEEPSEEK, behavior="isolated"), ["<|endoftext|>"]),
    # The remaining normalizers and steps, and added tokens.
    "nfd": Kind(byte_level(), ["<|endoftext|>"], hf.normalizers.NFD()),
    "nfkc": Kind(byte_level(), ["<|endoftext|>"], hf.normalizers.NFKC()),
    "nfkd": Kind(byte_level(), ["<|endoftext|>"], hf.normalizers.NFKD()),
    "prefix": Kind(hf.pre_tokenizers.Sequence([hf.pre_tokenizers.Digits(individual_digits=True),
                                               byte_level(add_prefix_space=True)]),
                   ["<|endoftext|>"]),
    "added": Kind(byte_level(), ["<|endoftext|>"], added=FLAGGED),
    "added-nfc": Kind(split(WORDS_AND_3_DIGITS, behavior="isolated"), ["<|endoftext|>"],
                      hf.normalizers.NFC(), added=FLAGGED),
}


def specials(*kinds):
    """The contents of all tokens that these kinds look for before anything else."""
    found = {str(content) for kind in kinds for content in KINDS[kind].specials}
    return sorted(found | {token.content for kind in kinds for token in KINDS[kind].added})


def untrained(kind):
    k = KINDS[kind]
    tokenizer = hf.Tokenizer(hf.models.BPE(ignore_merges=k.ignore_merges))
    tokenizer.pre_tokenizer = k.pre_tokenizer
    if k.normalizer:
        tokenizer.normalizer = k.normalizer
    tokenizer.decoder = hf.decoders.ByteLevel()
    return tokenizer


def trainer(kind, vocab):
    return hf.trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=KINDS[kind].specials, show_progress=False,
        initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet())


def trained(kind, texts, vocab):
    tokenizer = untrained(kind)
    tokenizer.train_from_iterator(texts, trainer(kind, vocab))
    tokenizer.add_tokens(KINDS[kind].added)
    return tokenizer
