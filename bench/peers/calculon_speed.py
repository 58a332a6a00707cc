#!/usr/bin/env python3
"""Counts the layouts that Calculon (Isaev et al., SC'23) prices in a second, in one process.

    calculon_speed.py --dir PATH [--seconds 10] [--json]

PATH is a clone of calculon-ai/calculon. GPT-3 175B on 512 A100, every split into tensor, pipeline and
data ranks that its grid has, each micro-batch, with and without recompute: refused ones are not
counted, though they take time too. Beside it: bench_plan_search.
"""
import argparse
import itertools
import json
import logging
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../tests/peers"))
import peer  # noqa: E402


def layouts(procs, batch):
    powers = [1 << i for i in range(10)]
    for tp, pp, mbs, again in itertools.product([1, 2, 4, 8], powers, [1, 2, 4, 8], ["none", "attn_only", "full"]):
        dp = procs // (tp * pp)
        if tp * pp * dp == procs and batch % (dp * mbs) == 0:
            yield dict(num_procs=procs, tensor_par=tp, pipeline_par=pp, data_par=dp, tensor_par_net=0,
                       pipeline_par_net=1, data_par_net=1, batch_size=batch, microbatch_size=mbs,
                       datatype="float16", fused_activation=True, attention_type="multihead",
                       activation_recompute=again, pipeline_interleaving=1, optimizer_sharding=True,
                       tensor_par_comm_type="rs_ag" if tp > 1 else "ar", tensor_par_overlap="none",
                       seq_par_ag_redo=False, data_par_overlap=False, weight_offload=False,
                       activations_offload=False, optimizer_offload=False, training=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", default=os.environ.get("CALCULON", ""), help="clone of calculon-ai/calculon")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    sys.path.insert(0, args.dir)
    try:
        import calculon
        from calculon.llm import Llm
        from calculon.system import System
    except ImportError as missing:
        peer.skip(f"Calculon ({missing})", "git clone https://github.com/calculon-ai/calculon, pip install numpy pandas "
                  "psutil, then --dir PATH")
    read = lambda *path: calculon.io.read_json_file(os.path.join(args.dir, *path))
    app, machine = Llm.Application(read("models", "gpt3-175B.json")), System(read("systems", "a100_80g.json"))
    log = logging.getLogger("calculon")
    log.setLevel(logging.CRITICAL)
    priced, refused, begin = 0, 0, time.perf_counter()
    while time.perf_counter() - begin < args.seconds:
        for layout in layouts(512, 512):
            try:
                model = Llm(app, log)
                model.compile(machine, Llm.Execution.from_json(layout))
                model.run(machine)
                priced += 1
            except Llm.Error:
                refused += 1
            if time.perf_counter() - begin > args.seconds:
                break
    taken = time.perf_counter() - begin
    if args.json:
        print(json.dumps(dict(tool="calculon", priced=priced, refused=refused, seconds=taken, per_second=priced / taken)))
    else:
        print(f"calculon: {priced} layouts priced, {refused} refused in {taken:.1f} s: {priced / taken:.0f} layouts/s")


if __name__ == "__main__":
    main()
