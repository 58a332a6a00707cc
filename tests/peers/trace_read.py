#!/usr/bin/env python3
"""Has other people's programs read what `headway trace export` wrote of a run.

    trace_read.py hta FOLDER RANKS STEPS CHROME   Meta's Holistic Trace Analysis; CHROME: the same
                                                  steps as `--to chrome` wrote them, added up here
    trace_read.py perfetto FILE RANKS STEPS       Perfetto's protocol buffers, decoded
    trace_read.py processor FILE RANKS STEPS      Perfetto's trace processor, asked in SQL

STEPS is how many there are. Ends with 1 when they find something else.
"""
import collections
import json
import sys

import peer


def union(spans):
    """Disjoint spans that cover the same time."""
    out = []
    for begin, end in sorted(spans):
        if out and begin <= out[-1][1]:
            out[-1][1] = max(out[-1][1], end)
        else:
            out.append([begin, end])
    return out


def length(spans):
    return sum(end - begin for begin, end in union(spans))


def divided(chrome, rank):
    """us of a rank in which it computes, exchanges, does either; from first to last of these. Without
    the last step, which HTA leaves out (include_last_profiler_step)."""
    with open(chrome, encoding="utf-8") as f:
        events = [e for e in json.load(f)["traceEvents"] if e["ph"] == "X"]
    last = max(e["args"]["step"] for e in events if e["cat"] == "kernel")
    spans = {"kernel": [], "communication": []}
    for e in events:
        if e["pid"] == rank and e.get("cat") in spans and e["args"]["step"] < last:
            spans[e["cat"]].append((e["ts"], e["ts"] + e["dur"]))
    both = spans["kernel"] + spans["communication"]
    whole = max(end for _, end in both) - min(begin for begin, _ in both)
    return length(spans["kernel"]), length(spans["communication"]), length(both), whole


def compare_division(breakdown, overlap, ranks, chrome):
    """HTA's numbers are of whole microseconds, and of few steps some time is short: 1 % of each, or
    a thousandth of the whole."""
    for rank in range(ranks):
        computes, exchanges, either, whole = divided(chrome, rank)
        row = breakdown[breakdown["rank"] == rank].iloc[0]
        share = float(overlap[overlap["rank"] == rank]["comp_comm_overlap_pctg"].iloc[0])
        for name, theirs, ours in (
                ("computing", row["compute_time(us)"], computes),
                ("idle", row["idle_time(us)"], whole - either),
                ("in an exchange alone", row["non_compute_time(us)"], either - computes),
                ("exchanges that computing hides", share / 100 * exchanges,
                 computes + exchanges - either)):
            print(f"rank {rank}, {name}: HTA {float(theirs):.0f} us, we {ours:.0f}")
            if abs(float(theirs) - ours) > max(0.01 * ours, 0.001 * whole):
                sys.exit("they differ by more than 1 %")


def hta(folder, ranks, steps, chrome):
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
    compare_division(breakdown, overlap, ranks, chrome)


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


def processor(path, ranks, steps):
    api = peer.need("perfetto.trace_processor", "perfetto")
    try:
        t = api.TraceProcessor(trace=path)
    except Exception as error:  # pylint: disable=broad-except
        # The package brings the client only, and fetches the program when it is first used.
        peer.skip(f"Perfetto's trace_processor_shell ({str(error)[:80]})",
                  "pip install perfetto, on a machine with a network")

    def ask(sql):
        return [list(vars(row).values()) for row in t.query(sql)]

    names = {row[0] for row in ask("select name from process where name is not null")}
    if names != {f"rank {r}" for r in range(ranks)}:
        sys.exit(f"processes: {sorted(names)}")
    errors = ask("select name, value from stats where severity = 'error' and value > 0")
    if errors:
        sys.exit(f"it finds errors: {errors}")
    found = ask("select count() from slice where name glob 'ProfilerStep#*'")[0][0]
    open_ended = ask("select count() from slice where dur < 0")[0][0]
    if found != steps * ranks or open_ended:
        sys.exit(f"{found} steps, {open_ended} slices that do not end")
    print(f"{ask('select count() from slice')[0][0]} slices, "
          f"{ask('select count() from flow')[0][0]} flows, no error")
    t.close()


def main():
    by_name = {"hta": hta, "perfetto": perfetto, "processor": processor}
    words = sys.argv[1:]
    if not words or words[0] not in by_name or len(words) != 4 + (words[0] == "hta"):
        sys.exit(__doc__)
    by_name[words[0]](words[1], int(words[2]), int(words[3]), *words[4:])


if __name__ == "__main__":
    main()
