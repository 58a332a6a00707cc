#!/usr/bin/env python3
"""Times whole training steps of PyTorch: one process, one mode, one JSON line.

    torch_step.py --model gpt2-124m --batch 4 --seq 1024 --precision fp32 --mode compile --json

A step is forward, backward, AdamW (fused where this PyTorch has it) and zeroing the gradients.
Warm-up steps, which also compile, are not counted. With --gate the program prints "ready" once warm
and then takes one step for each line it reads, so that a driver can interleave several programs.
"""
import argparse
import contextlib
import json
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../tests/peers"))
import peer  # noqa: E402

# Settings under which PyTorch is at its fastest on a CPU, all read when a process starts: large
# blocks are kept for reuse instead of returned to the kernel, which would clear their pages
# again in every step (15 to 30 % of a short step), and they lie on huge pages.
ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "THP_MEM_ALLOC_ENABLE": "1",
}


def options():
    o = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    o.add_argument("--model", default="gpt2-124m", help="models/NAME.yaml of family gpt2 or llama")
    o.add_argument("--batch", type=int, default=4)
    o.add_argument("--seq", type=int, default=1024)
    o.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "bf16-autocast"))
    o.add_argument("--mode", default="eager", choices=("eager", "compile"))
    o.add_argument("--steps", type=int, default=5, help="steps that are timed")
    o.add_argument("--warmup", type=int, default=1, help="steps before them")
    o.add_argument("--threads", type=int, default=2)
    o.add_argument("--gate", action="store_true", help="one timed step per line on stdin")
    o.add_argument("--json", action="store_true", help="print JSON instead of a sentence")
    return o.parse_args()


def adamw(torch, model):
    """AdamW with decay on matrices only; fused, which is PyTorch's fastest."""
    groups = [{"params": [p for p in model.parameters() if (p.dim() >= 2) == decays],
               "weight_decay": 0.1 if decays else 0.0} for decays in (True, False)]
    return torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)


def stepper(torch, args):
    """Builds model, batch and optimizer; returns a function that takes one step."""
    import torch_models

    torch.manual_seed(1)
    model, shape = torch_models.build(args.model)
    if args.precision == "bf16":
        model = model.to(torch.bfloat16)
    optimizer = adamw(torch, model)
    ids = torch.randint(shape.vocab, (args.batch, args.seq + 1))
    forward = torch.compile(model) if args.mode == "compile" else model
    cast = args.precision == "bf16-autocast"

    def step():
        with torch.autocast("cpu", torch.bfloat16) if cast else contextlib.nullcontext():
            loss = forward(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def main():
    if not ENVIRONMENT.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], ENVIRONMENT | os.environ)
    args = options()
    torch = peer.need("torch")
    torch.set_num_threads(args.threads)
    step = stepper(torch, args)
    for _ in range(args.warmup):
        step()
    if args.gate:
        print("ready", flush=True)
    seconds = []
    for _ in range(args.steps):
        if args.gate and not sys.stdin.readline():
            break
        start = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - start)
        if args.gate:
            print(f"step {seconds[-1]:.6f}", flush=True)
    result = {
        "peer": "torch", "model": args.model, "batch": args.batch, "seq": args.seq,
        "precision": args.precision, "mode": args.mode, "threads": args.threads,
        "tokens_per_s": args.batch * args.seq / statistics.median(seconds),
        "step_s": seconds, "loss": loss, "peak_rss_bytes": peer.peak_rss_bytes(),
        "versions": peer.versions("torch"),
    }
    if args.json:
        print(json.dumps(result))
    else:
        print(f"PyTorch {result['versions']['torch']} {args.model} {args.precision} {args.mode}: "
              f"{result['tokens_per_s']:.1f} tokens/s, {result['peak_rss_bytes'] / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
