#!/usr/bin/env python3
"""Reads a run folder's event file with TensorBoard, and prints its tags with counts and last values.

    tfevents_read.py RUN_FOLDER

Ends with 1 when TensorBoard finds no scalar, or steps that do not grow.
"""
import argparse
import sys
from pathlib import Path

import peer


def main():
    o = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    o.add_argument("folder", type=Path, help="where an events.out.tfevents.* lies")
    args = o.parse_args()
    accumulators = peer.need("tensorboard.backend.event_processing.event_accumulator")
    everything = {accumulators.SCALARS: 0}  # 0: keep all, the default samples
    events = accumulators.EventAccumulator(str(args.folder), size_guidance=everything)
    events.Reload()
    tags = events.Tags()["scalars"]
    if not tags:
        sys.exit(f"TensorBoard finds no scalar in {args.folder}")
    for tag in tags:
        points = events.Scalars(tag)
        steps = [point.step for point in points]
        if any(b <= a for a, b in zip(steps, steps[1:])):
            sys.exit(f"{tag}: steps do not grow: {steps}")
        print(f"{tag}: {len(points)} values, step {steps[0]} to {steps[-1]}, "
              f"last {points[-1].value:.6g}")


if __name__ == "__main__":
    main()
