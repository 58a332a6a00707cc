#!/usr/bin/env python3
"""Compares ids by what `headway tokenizer import` makes of files that are no tokenizer.json.

    tokenizer_files.py [--lines 20000] [--headway build/release/headway]

vocab.json with merges.txt, as Hugging Face's `tokenizers` writes them, must give its ids. A
tiktoken file must give those of `tiktoken` itself, where Python has it. Ends with 1 when not.
"""
import argparse
import base64
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import peer
import peer_tokenizers
import tokenizer_ids
import varied_text

# The pipelines that Headway has by name, so that a file may leave them unsaid.
NAMED = {"gpt2": None, "cl100k": peer_tokenizers.WORDS_AND_3_DIGITS,
         "llama3": peer_tokenizers.WORDS_AND_3_DIGITS, "qwen2": None}


def imported_differ(name, args, source, how, text, expected):
    """How many lines the tokenizer imported from `source` encodes to other ids."""
    with tempfile.TemporaryDirectory(prefix="headway-files-") as folder:
        model, ids = Path(folder) / "imported.json", Path(folder) / "ids.jsonl"
        tokenizer_ids.headway(args, "import", "--from", source, "--out", model, *how,
                              stdout=subprocess.DEVNULL)
        tokenizer_ids.encode(args, model, text, ids, "--ids")
        return tokenizer_ids.lines_differ(name, expected, ids)


def vocab_and_merges_differ(kind, args, tokenizer, text, folder):
    tokenizer.model.save(str(folder))
    how = ["--pattern", kind, "--specials", ",".join(peer_tokenizers.KINDS[kind].specials)]
    expected = tokenizer_ids.theirs(tokenizer, tokenizer_ids.read_lines(text))
    return imported_differ(f"{kind}, vocab.json and merges.txt", args, folder / "vocab.json", how,
                           text, expected)


def byte_alphabet():
    """The byte that each character of a tokenizer.json stands for, as GPT-2 chose them."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printable)
    return ({chr(byte): byte for byte in printable} |
            {chr(256 + i): byte for i, byte in enumerate(others)})


def ranks_of(tokenizer, specials):
    """Every token's bytes and its rank, in the order in which they were learnt."""
    byte = byte_alphabet()
    vocab = tokenizer.get_vocab()
    learnt = sorted((token for token in vocab if token not in specials), key=vocab.get)
    return {bytes(byte[c] for c in token): rank for rank, token in enumerate(learnt)}


def tiktoken_differs(kind, args, tokenizer, text, folder):
    tiktoken = importlib.import_module("tiktoken")
    names = peer_tokenizers.KINDS[kind].specials
    ranks = ranks_of(tokenizer, names)
    specials = {name: len(ranks) + i for i, name in enumerate(names)}
    encoding = tiktoken.Encoding(kind, pat_str=NAMED[kind], mergeable_ranks=ranks,
                                 special_tokens=specials)
    source = folder / f"{kind}.tiktoken"
    source.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n"
                              for token, rank in ranks.items()))
    how = ["--pattern", kind, "--specials", ",".join(f"{s}={i}" for s, i in specials.items())]
    expected = ((line, encoding.encode(line, allowed_special="all"))
                for line in tokenizer_ids.read_lines(text))
    return imported_differ(f"{kind}, tiktoken file", args, source, how, text, expected)


def main():
    o = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    o.add_argument("--headway", type=Path, default=tokenizer_ids.ROOT / "build/release/headway")
    o.add_argument("--lines", type=int, default=20000)
    o.add_argument("--seed", type=int, default=1)
    o.add_argument("--vocab", type=int, default=4000)
    args = o.parse_args()
    if not args.headway.exists():
        peer.skip(f"{args.headway}", "./run build")
    has_tiktoken = importlib.util.find_spec("tiktoken") is not None
    if not has_tiktoken:
        print("without tiktoken files: the Python module tiktoken is missing")
    # Shorter than the longest token that Headway reads from a tiktoken file.
    training = [line for line in varied_text.lines(21, 20000, breaks=True)
                if len(line.encode()) <= 512]
    differ = 0
    with tempfile.TemporaryDirectory(prefix="headway-files-") as name:
        folder = Path(name)
        text = folder / "lines.txt"
        lines = varied_text.lines(args.seed, args.lines, peer_tokenizers.specials(*NAMED))
        text.write_bytes(b"".join(line.encode() + b"\n" for line in lines))
        for kind, pattern in NAMED.items():
            tokenizer = peer_tokenizers.trained(kind, training, args.vocab)
            differ += vocab_and_merges_differ(kind, args, tokenizer, text, folder)
            if has_tiktoken and pattern:
                differ += tiktoken_differs(kind, args, tokenizer, text, folder)
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
