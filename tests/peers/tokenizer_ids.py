#!/usr/bin/env python3
"""Compares the ids of `headway tokenizer encode` with Hugging Face's.

    tokenizer_ids.py [--lines 1000000] [--train FILE] [--headway build/release/headway] [KIND ...]

Trains a tokenizer of each kind with `tokenizers` and encodes the same text with both programs:
varied lines one by one, of which some are damaged so that they are not UTF-8 (policy replace,
which the peer's side gets from Python); runs of one thing, of as many bytes as there are lines;
and one document in which line ends are text too. Then the file that Headway writes for that
tokenizer must give the peer the same ids. Says how many differ and shows the first; ends with 1
when any does.
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
BATCH = 10000  # lines that the peer encodes at once, because a million results fill the memory
DOCUMENT_SHARE = 20  # the document has one line for so many of the others
EXPORT_LINES = 2000
SHOWN = 3  # differences


def headway(args, *command, **how):
    subprocess.run([args.headway, "tokenizer", *command], check=True, **how)


def encode(args, model, text, ids, *options):
    with open(text, "rb") as stdin, open(ids, "wb") as stdout:
        headway(args, "encode", "--tokenizer", model, "--policy", "replace", *options,
                stdin=stdin, stdout=stdout)


def read_lines(path):
    """Lines end at \\n alone; Python's own reading of text would end them at \\r too."""
    with open(path, "rb") as file:
        for line in file:
            yield line.removesuffix(b"\n").decode("utf-8", "replace")


def theirs(tokenizer, lines):
    while batch := list(islice(lines, BATCH)):
        for text, encoding in zip(batch, tokenizer.encode_batch_fast(batch, add_special_tokens=False)):
            yield text, encoding.ids


def lines_differ(name, expected_of_lines, ids):
    """How many of the lines have other ids than in these pairs of line and ids."""
    count = differ = 0
    with open(ids) as ours:
        for line, expected in expected_of_lines:
            got = json.loads(ours.readline() or "null")
            count += 1
            if got != expected:
                differ += 1
                if differ <= SHOWN:
                    print(f"{name}: line {count} differs\n  text   {line!r}\n"
                          f"  theirs {expected}\n  ours   {got}")
        if ours.readline():
            differ += 1
            print(f"{name}: headway printed more than {count} lines")
    print(f"{name}: {count} lines, {differ} with other ids", flush=True)
    return differ


def document_differs(kind, tokenizer, document, ids):
    text = document.read_bytes().decode("utf-8", "replace")
    expected = tokenizer.encode(text, add_special_tokens=False).ids
    got = json.loads(ids.read_bytes())
    same = got == expected
    if not same:
        at = next((i for i, (a, b) in enumerate(zip(got, expected)) if a != b),
                  min(len(got), len(expected)))
        near = [tokenizer.decode(some[max(0, at - 5):at + 5], skip_special_tokens=False)
                for some in (expected, got)]
        print(f"{kind}: token {at} of the document differs\n  theirs {near[0]!r}\n"
              f"  ours   {near[1]!r}")
    print(f"{kind}: a document of {len(text)} characters, {len(expected)} tokens: "
          f"{'the same' if same else 'other'} ids", flush=True)
    return not same


def export_differs(kind, args, tokenizer, model, text, folder):
    """Is what Headway writes for this tokenizer another one to the peer?"""
    again = folder / "again.json"
    headway(args, "import", "--from", model, "--out", again, stdout=subprocess.DEVNULL)
    lines = list(islice(read_lines(text), EXPORT_LINES))
    before, after = (t.encode_batch_fast(lines) for t in
                     (tokenizer, peer_tokenizers.hf.Tokenizer.from_file(str(again))))
    differ = sum(a.ids != b.ids for a, b in zip(before, after))
    print(f"{kind}: {len(lines)} lines by the exported file, {differ} with other ids", flush=True)
    return differ


def compare(kind, args, texts, folder):
    """True when everything agrees."""
    model, ids = folder / "tokenizer.json", folder / "ids.jsonl"
    tokenizer = peer_tokenizers.trained(kind, args.training, args.vocab)
    tokenizer.save(str(model))
    differ = 0
    for what in ("lines", "runs"):
        encode(args, model, texts[what], ids, "--ids")
        expected = theirs(tokenizer, read_lines(texts[what]))
        differ += lines_differ(f"{kind}, {what}", expected, ids)
    encode(args, model, texts["document"], ids)
    differ += document_differs(kind, tokenizer, texts["document"], ids)
    differ += export_differs(kind, args, tokenizer, model, texts["lines"], folder)
    return differ == 0


def write_texts(args, folder):
    specials = peer_tokenizers.specials(*args.kinds)
    texts = {name: folder / f"{name}.txt" for name in ("lines", "runs", "document")}
    with open(texts["lines"], "wb") as out:
        for line in varied_text.damaged(args.seed, varied_text.lines(args.seed, args.lines, specials)):
            out.write(line + b"\n")
    with open(texts["runs"], "wb") as out:
        out.writelines(line + b"\n" for line in varied_text.runs(args.lines))
    with open(texts["document"], "wb") as out:
        lines = varied_text.lines(args.seed + 1, args.lines // DOCUMENT_SHARE, specials, breaks=True)
        out.writelines(varied_text.damaged(args.seed + 1, lines))
    return texts


def main():
    o = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    o.add_argument("--headway", type=Path, default=ROOT / "build/release/headway")
    o.add_argument("--lines", type=int, default=20000)
    o.add_argument("--seed", type=int, default=1)
    o.add_argument("--vocab", type=int, default=4000)
    o.add_argument("--train", type=Path, help="UTF-8 text to train on (default: varied lines)")
    o.add_argument("kinds", nargs="*", metavar="KIND", default=list(peer_tokenizers.KINDS),
                   help=f"of {', '.join(peer_tokenizers.KINDS)} (default: all)")
    args = o.parse_args()
    for kind in args.kinds:
        if kind not in peer_tokenizers.KINDS:
            o.error(f"there is no kind {kind}; there are {', '.join(peer_tokenizers.KINDS)}")
    if not args.headway.exists():
        peer.skip(f"{args.headway}", "./run build")
    args.training = (args.train.read_text("utf-8").splitlines(keepends=True) if args.train
                     else list(varied_text.lines(21, 20000, breaks=True)))
    with tempfile.TemporaryDirectory(prefix="headway-ids-") as name:
        folder = Path(name)
        texts = write_texts(args, folder)
        agree = [compare(kind, args, texts, folder) for kind in args.kinds]
    sys.exit(0 if all(agree) else 1)


if __name__ == "__main__":
    main()
