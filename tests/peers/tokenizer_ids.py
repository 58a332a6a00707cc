#!/usr/bin/env python3
"""Compares the ids of `headway tokenizer encode` with Hugging Face's, line by line.

    tokenizer_ids.py [--lines 1000000] [--headway build/release/headway] [KIND ...]

Trains a tokenizer of each kind with `tokenizers`, encodes varied lines with both programs, and
reports the first line that differs. Ends with 1 when one does.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

import peer
import peer_tokenizers
import varied_text

ROOT = Path(__file__).resolve().parents[2]
BATCH = 10000  # lines that the peer encodes at once


def theirs(tokenizer, lines):
    """Ids by the peer, in batches, because a million results at once fill the memory."""
    while batch := list(islice(lines, BATCH)):
        for text, encoding in zip(batch, tokenizer.encode_batch_fast(batch, add_special_tokens=False)):
            yield text, encoding.ids


def write_lines(path, lines):
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        out.writelines(line + "\n" for line in lines)


def compare(kind, args, folder):
    """True when all lines agree."""
    specials = peer_tokenizers.specials(kind)
    tokenizer = peer_tokenizers.trained(kind, varied_text.lines(21, 20000, breaks=True), args.vocab)
    model, text, ids = folder / "tokenizer.json", folder / "lines.txt", folder / "ids.jsonl"
    tokenizer.save(str(model))
    write_lines(text, varied_text.lines(args.seed, args.lines, specials))
    with open(text, "rb") as stdin, open(ids, "wb") as stdout:
        subprocess.run([args.headway, "tokenizer", "encode", "--tokenizer", model, "--ids"],
                       stdin=stdin, stdout=stdout, check=True)
    count = 0
    with open(ids) as ours:
        for line, expected in theirs(tokenizer, varied_text.lines(args.seed, args.lines, specials)):
            got = json.loads(ours.readline() or "null")
            if got != expected:
                print(f"{kind}: line {count + 1} differs\n  text   {line!r}\n  theirs {expected}\n"
                      f"  ours   {got}")
                return False
            count += 1
        if ours.readline():
            print(f"{kind}: headway printed more than {count} lines")
            return False
    print(f"{kind}: the same ids on {count} lines")
    return True


def main():
    o = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    o.add_argument("--headway", type=Path, default=ROOT / "build/release/headway")
    o.add_argument("--lines", type=int, default=20000)
    o.add_argument("--seed", type=int, default=1)
    o.add_argument("--vocab", type=int, default=4000)
    o.add_argument("kinds", nargs="*", metavar="KIND", default=list(peer_tokenizers.KINDS),
                   help=f"of {', '.join(peer_tokenizers.KINDS)} (default: all)")
    args = o.parse_args()
    for kind in args.kinds:
        if kind not in peer_tokenizers.KINDS:
            o.error(f"there is no kind {kind}; there are {', '.join(peer_tokenizers.KINDS)}")
    if not args.headway.exists():
        peer.skip(f"{args.headway}", "./run build")
    with tempfile.TemporaryDirectory(prefix="headway-ids-") as folder:
        agree = [compare(kind, args, Path(folder)) for kind in args.kinds]
    sys.exit(0 if all(agree) else 1)


if __name__ == "__main__":
    main()
