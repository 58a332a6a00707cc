"""Byte-level BPE tokenizers as Hugging Face's `tokenizers` trains them, one per pre-tokenizer."""
import peer

hf = peer.need("tokenizers")

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS_AND_3_DIGITS = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST
WORDS_AND_1_DIGIT = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST


def split(pattern, **how):
    """The split by a pattern, then bytes: how GPT-4's and later tokenizers are written down."""
    return hf.pre_tokenizers.Sequence([
        hf.pre_tokenizers.Split(hf.Regex(pattern), **how),
        hf.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


# The pre-tokenizer, the normalizer, whether whole words skip the merges, special tokens.
KINDS = {
    "gpt2": (hf.pre_tokenizers.ByteLevel(add_prefix_space=False), None, False,
             ["<|endoftext|>"]),
    "cl100k": (split(WORDS_AND_3_DIGITS, behavior="removed", invert=True), None, False,
               ["<|endoftext|>", "<|fim_prefix|>"]),
    "llama3": (split(WORDS_AND_3_DIGITS, behavior="isolated"), None, True,
               ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]),
    "qwen2": (split(WORDS_AND_1_DIGIT, behavior="isolated"), hf.normalizers.NFC(), False,
              ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
}


def specials(kind):
    return KINDS[kind][3]


def untrained(kind):
    pre_tokenizer, normalizer, ignore_merges, _ = KINDS[kind]
    tokenizer = hf.Tokenizer(hf.models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = hf.decoders.ByteLevel()
    return tokenizer


def trainer(kind, vocab):
    return hf.trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=specials(kind), show_progress=False,
        initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet())


def trained(kind, texts, vocab):
    tokenizer = untrained(kind)
    tokenizer.train_from_iterator(texts, trainer(kind, vocab))
    return tokenizer
