#!/usr/bin/env python3
"""Reads a run folder's event file with TensorBoard, and prints its tags with counts and last values.

    tfevents_read.py RUN_FOLDER

Ends with 1 when TensorBoard finds no scalar, steps that do not grow, or another loss, held-out loss
or largest logit than metrics.jsonl has.
"""
import argparse
import json
import struct
import sys
from pathlib import Path

import peer


def narrow(x):
    """As the file holds it, which is a float."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


def lines_of(folder, event):
    with open(folder / "metrics.jsonl", encoding="utf-8") as f:
        return [line for line in map(json.loads, f) if line.get("event") == event]


def compare(events, tag, wanted):
    """wanted: [(step, value)]."""
    found = [(point.step, point.value) for point in events.Scalars(tag)]
    wanted = [(step, narrow(value)) for step, value in wanted]
    if found != wanted:
        sys.exit(f"{tag}: TensorBoard reads {found[-3:]}, metrics.jsonl has {wanted[-3:]}")
    print(f"{tag}: all {len(found)} values are those of metrics.jsonl")


def compare_all(events, tags, folder):
    steps = lines_of(folder, "step")
    compare(events, "train/loss", [(line["step"], line["loss"]) for line in steps])
    if "val/loss" in tags:
        compare(events, "val/loss", [(x["step"], x["loss"]) for x in lines_of(folder, "eval")])
    for tag in tags:
        if tag.startswith("health/attention_logit_max/"):
            layer = int(tag.rsplit(".", 1)[1])
            compare(events, tag, [(line["step"], line["attention_logit_max"][layer])
                                  for line in lines_of(folder, "health")])


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
    compare_all(events, tags, args.folder)


if __name__ == "__main__":
    main()
