#!/usr/bin/env python3
"""Has other people's programs read what `headway trace export` wrote of a run.

    trace_read.py hta FOLDER RANKS STEPS          Meta's Holistic Trace Analysis
    trace_read.py perfetto FILE RANKS STEPS       Perfetto's protocol buffers, decoded

STEPS is how many there are. Ends with 1 when they find something else.
"""
import collections
import sys

import peer


def hta(folder, ranks, steps):
    trace_analysis = peer.need("hta.trace_analysis")
    t = trace_analysis.TraceAnalysis(trace_dir=folder)
    found = sorted(t.t.get_all_traces())
    if found != list(range(ranks)):
        sys.exit(f"HTA finds the ranks {found}")
    for rank in range(ranks):
        table = t.t.get_trace(rank)
        kernels = table[table["stream"] >= 0]
        unplaced = (kernels["iteration"] < 0).sum() if "iteration" in kernels else len(kernels)
        placed = len(set(kernels["iteration"]) - {-1})
        if len(kernels) == 0 or unplaced > 0.02 * len(kernels) or placed < steps - 1:
            sys.exit(f"rank {rank}: {len(kernels)} kernels, {unplaced} of them in no step; "
                     f"{placed} steps")
    breakdown = t.get_temporal_breakdown(visualize=False)
    print(breakdown.to_string())
    overlap = t.get_comm_comp_overlap(visualize=False)
    print(overlap.to_string())
    if ranks > 1 and not (overlap["comp_comm_overlap_pctg"] >= 0).all():
        sys.exit("HTA finds no communication")


def perfetto(path, ranks, steps):
    protos = peer.need("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    trace = protos.Trace()
    with open(path, "rb") as f:
        trace.ParseFromString(f.read())
    processes, depth, flows = set(), collections.Counter(), collections.Counter()
    seen, last = collections.Counter(), {}
    for packet in trace.packet:
        if packet.HasField("track_descriptor"):
            if packet.track_descriptor.HasField("process"):
                processes.add(packet.track_descriptor.process.process_name)
            continue
        event = packet.track_event
        track = event.track_uuid
        if event.type == protos.TrackEvent.TYPE_SLICE_BEGIN:
            depth[track] += 1
            seen[event.name] += 1
            flows.update(event.flow_ids)
        else:
            depth[track] -= 1
        if depth[track] < 0:
            sys.exit(f"track {track} ends a slice that has not begun")
        last[track] = packet.timestamp
    if processes != {f"rank {r}" for r in range(ranks)}:
        sys.exit(f"processes: {sorted(processes)}")
    if any(depth.values()):
        sys.exit("slices that do not end")
    profiled = {name for name in seen if name.startswith("ProfilerStep#")}
    if len(profiled) != steps or any(seen[name] != ranks for name in profiled):
        sys.exit(f"steps: {sorted(profiled)}")
    joined = sum(1 for n in flows.values() if n == ranks)
    if ranks > 1 and joined < 0.99 * len(flows):
        sys.exit(f"of {len(flows)} calls {joined} are joined over {ranks} ranks")
    print(f"{len(trace.packet)} packets, {len(seen)} names, {len(flows)} calls, {joined} joined")


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    {"hta": hta, "perfetto": perfetto}[sys.argv[1]](sys.argv[2], int(sys.argv[3]),
                                                    int(sys.argv[4]))


if __name__ == "__main__":
    main()
