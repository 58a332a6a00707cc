#!/usr/bin/env python3
"""Times Hugging Face's `tokenizers`: one process, one measurement, one JSON line.

    tokenizer_speed.py encode --text FILE --tokenizer tokenizer.json --json
    tokenizer_speed.py train --text FILE --vocab 32000 --threads 2 --json

encode: MB/s of UTF-8 on one thread, in batches of texts, by the call that skips offsets; reading
the file is not counted. A text has --unit bytes and goes on to the next line end: 1 for lines,
more for documents. train: seconds for a byte-level BPE vocabulary, reading included.
"""
import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../tests/peers"))
import peer  # noqa: E402

BATCH = 1000  # texts given to the peer at once


def options():
    o = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    o.add_argument("what", choices=("encode", "train"))
    o.add_argument("--text", type=Path, required=True, help="UTF-8 text")
    o.add_argument("--tokenizer", type=Path, help="tokenizer.json, for encode")
    o.add_argument("--unit", type=int, default=1, help="for encode: bytes of a text, at least")
    o.add_argument("--vocab", type=int, default=32000, help="for train")
    o.add_argument("--kind", default="gpt2", help="for train: a pipeline of tests/peers")
    o.add_argument("--repeat", type=int, default=5)
    o.add_argument("--threads", type=int, help="default: 1 for encode, 2 for train")
    o.add_argument("--json", action="store_true", help="print JSON instead of a sentence")
    args = o.parse_args()
    if args.what == "encode" and not args.tokenizer:
        o.error("encode needs --tokenizer")
    args.threads = args.threads or (1 if args.what == "encode" else 2)
    return args


def timed(call):
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def texts_of(data, unit):
    """The text cut at the first line end at or behind every `unit` bytes."""
    texts, at = [], 0
    while at < len(data):
        newline = data.find(b"\n", at + unit - 1)
        end = newline + 1 if newline >= 0 else len(data)
        texts.append(data[at:end].decode())
        at = end
    return texts


def encode(args):
    tokenizers = peer.need("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(args.tokenizer))
    texts = texts_of(args.text.read_bytes(), args.unit)
    batches = [texts[i:i + BATCH] for i in range(0, len(texts), BATCH)]

    def once():
        return sum(len(encoding.ids) for batch in batches
                   for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False))

    runs = [timed(once) for _ in range(args.repeat)]
    seconds = [s for s, _ in runs]
    size = args.text.stat().st_size
    return {"bytes": size, "tokens": runs[0][1], "seconds": seconds,
            "mb_per_s": size / 1e6 / statistics.median(seconds)}


def train(args):
    import peer_tokenizers

    def once():
        tokenizer = peer_tokenizers.untrained(args.kind)
        tokenizer.train([str(args.text)], peer_tokenizers.trainer(args.kind, args.vocab))
        return tokenizer.get_vocab_size()

    runs = [timed(once) for _ in range(args.repeat)]
    seconds = [s for s, _ in runs]
    return {"bytes": args.text.stat().st_size, "vocab": runs[0][1], "seconds": seconds,
            "median_s": statistics.median(seconds)}


def main():
    args = options()
    # Read by the peer's thread pool when it starts.
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if args.threads > 1 else "false"
    peer.need("tokenizers")
    result = {"peer": "tokenizers", "what": args.what, "threads": args.threads}
    result |= encode(args) if args.what == "encode" else train(args)
    result |= {"peak_rss_bytes": peer.peak_rss_bytes(), "versions": peer.versions("tokenizers")}
    if args.json:
        print(json.dumps(result))
    elif args.what == "encode":
        print(f"tokenizers {result['versions']['tokenizers']}: {result['mb_per_s']:.2f} MB/s")
    else:
        print(f"tokenizers {result['versions']['tokenizers']}: {result['vocab']} tokens "
              f"in {result['median_s']:.2f} s")


if __name__ == "__main__":
    main()
