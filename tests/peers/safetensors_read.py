#!/usr/bin/env python3
"""Reads a safetensors file with Hugging Face's library, and prints each tensor's type and shape.

    safetensors_read.py FILE

Ends with 1 when the library refuses the file, or a tensor holds NaN or infinity.
"""
import argparse
import sys
from pathlib import Path

import peer


def main():
    o = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    o.add_argument("file", type=Path)
    args = o.parse_args()
    peer.need("torch")  # NumPy has no bfloat16
    safetensors = peer.need("safetensors")
    bad = 0
    try:
        with safetensors.safe_open(args.file, framework="pt") as file:
            print(f"metadata {file.metadata()}")
            for name in file.keys():
                tensor = file.get_tensor(name)
                finite = not tensor.is_floating_point() or bool(tensor.isfinite().all())
                bad += not finite
                print(f"{name} {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
                      + ("" if finite else " has values that are not finite"))
    except (safetensors.SafetensorError, OSError) as error:
        sys.exit(f"{args.file}: {error}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
