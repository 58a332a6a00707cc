#!/usr/bin/env python3
"""Jane Austen's six novels, out of the package r-cran-janeaustenr, chapter by chapter.

    austen.py Rdata.rdb OUT

writes OUT/train/*.txt and OUT/test/*.txt: two chapters of seven are held out. The package
keeps each novel as a vector of lines in R's serialisation: records of a 4-byte big-endian
length and zlib data; within, strings are CHARSXP items (type 9): 4 bytes of flags, a
4-byte length, the bytes (R Internals, section 1.8).
"""
import os
import re
import struct
import sys
import zlib

CHARSXP, SHORTEST_NOVEL = 9, 100_000


def records(data):
    """Every zlib stream in the file."""
    at = 0
    while at + 6 < len(data):
        if data[at + 4] == 0x78:  # first byte of zlib's header
            try:
                stream = zlib.decompressobj()
                text = stream.decompress(data[at + 4:])
                at = len(data) - len(stream.unused_data)
                yield text
                continue
            except zlib.error:
                pass
        at += 1


def lines(record):
    """The strings of a serialised character vector, in order."""
    at = 0
    while at + 8 <= len(record):
        flags, length = struct.unpack_from(">Ii", record, at)
        if flags & 0xFF == CHARSXP and flags >> 24 == 0 and 0 <= length <= len(record) - at - 8:
            yield record[at + 8:at + 8 + length].decode("latin-1")
            at += 8 + length
        else:
            at += 1


def chapters(novel):
    """The novel cut before each line that says CHAPTER."""
    parts = re.split(r"(?m)^(?=(?:CHAPTER|Chapter) [IVXLC0-9]+\b)", novel)
    return [p.strip() + "\n" for p in parts if len(p) > 500]


def main():
    source, out = sys.argv[1:]
    with open(source, "rb") as f:
        novels = ["\n".join(lines(r)) for r in records(f.read())]
    novels = [n for n in novels if len(n) > SHORTEST_NOVEL]
    if len(novels) != 6:
        sys.exit(f"{source}: expected six novels, found {len(novels)}")
    for split in ("train", "test"):
        os.makedirs(os.path.join(out, split), exist_ok=True)
    number = 0
    for novel in novels:
        for text in chapters(novel):
            split = "test" if number % 7 in (2, 5) else "train"
            with open(os.path.join(out, split, f"{number:03d}.txt"), "w") as f:
                f.write(text)
            number += 1


if __name__ == "__main__":
    main()
