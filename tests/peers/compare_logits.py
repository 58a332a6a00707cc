#!/usr/bin/env python3
"""Loads an exported folder with transformers and compares its logits with Headway's.

    headway eval MODEL ... --logits-out logits.safetensors
    compare_logits.py EXPORTED_FOLDER logits.safetensors

The file has `input_ids` (B, T) and `logits` (B, T, V), as `headway eval --logits-out` writes them.
The peer runs in fp32, and in double to tell whose rounding is whose. Ends with 1 when Headway is
further from double than --tolerance times the largest logit.
"""
import argparse
import sys
from pathlib import Path

import peer


def options():
    o = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    o.add_argument("folder", type=Path, help="config.json and model.safetensors")
    o.add_argument("logits", type=Path, help="written by headway eval --logits-out")
    o.add_argument("--tolerance", type=float, default=1e-4,
                   help="share of the largest logit (1e-4: fp32 through tens of layers)")
    return o.parse_args()


def main():
    args = options()
    torch = peer.need("torch")
    transformers = peer.need("transformers")
    load_file = peer.need("safetensors.torch").load_file
    ours = load_file(args.logits)
    ids, got = ours["input_ids"].long(), ours["logits"].double()
    expected = {}
    for dtype in (torch.float32, torch.float64):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            args.folder, dtype=dtype, experts_implementation="eager")
        with torch.no_grad():
            expected[dtype] = model.eval()(input_ids=ids).logits.double()
    if got.shape != expected[torch.float64].shape:
        sys.exit(f"{args.logits} has logits {list(got.shape)}, transformers gives "
                 f"{list(expected[torch.float64].shape)}")
    truth = expected[torch.float64]
    scale = truth.abs().max().item()
    worst = {}
    for name, logits in (("headway", got), ("transformers in fp32", expected[torch.float32])):
        worst[name] = (logits - truth).abs().max().item()
        print(f"{name}: greatest error {worst[name]:.3e}, of the largest logit "
              f"{worst[name] / scale:.3e}")
    same = (got.argmax(-1) == truth.argmax(-1)).double().mean().item()
    print(f"the same best token at {100 * same:.2f} % of {ids.numel()} positions")
    sys.exit(0 if worst["headway"] <= args.tolerance * scale else 1)


if __name__ == "__main__":
    main()
