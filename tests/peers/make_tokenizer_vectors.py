#!/usr/bin/env python3
"""Writes tests/vectors/tokenizer/: small tokenizers of Hugging Face, and ids for varied texts.

    make_tokenizer_vectors.py [--out tests/vectors/tokenizer]

gpt2.json, cl100k.json and llama3.json are tokenizer.json files trained on generated text.
lines.jsonl has one object per line: "text", and under each tokenizer's name the ids that it gives
with no token added at either end. Special tokens inside a text count as such.
"""
import argparse
import json
from pathlib import Path

import peer_tokenizers
import varied_text

VOCAB, TRAINING_LINES, LINES = 2000, 20000, 2000
KINDS = ("gpt2", "cl100k", "llama3")


def main():
    o = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    o.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "vectors/tokenizer")
    args = o.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    corpus = list(varied_text.lines(11, TRAINING_LINES, breaks=True))
    tokenizers = {kind: peer_tokenizers.trained(kind, corpus, VOCAB) for kind in KINDS}
    for kind, tokenizer in tokenizers.items():
        (args.out / f"{kind}.json").write_text(tokenizer.to_str(pretty=False) + "\n")
    specials = sorted({s for kind in KINDS for s in peer_tokenizers.specials(kind)})
    with open(args.out / "lines.jsonl", "w", encoding="utf-8") as out:
        for text in varied_text.lines(12, LINES, specials, breaks=True):
            row = {"text": text} | {
                kind: tokenizer.encode(text, add_special_tokens=False).ids
                for kind, tokenizer in tokenizers.items()}
            out.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
