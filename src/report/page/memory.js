/* Memory over a step: what the tasks have in use, beside what was planned and what the process has. */

function memorySection(runs) {
  const drawn = runs.filter((run) => run.record && run.record.memory);
  if (!drawn.length) return;
  const node = section("memory", "Memory", "What the tasks of the last recorded step have in use, from the first writer of each tensor to its last reader, on top of what is there all the time (weights, optimizer). The plan is what was said before the start: everything, workspaces and copies included.");
  const grid = el("div", { class: "grid" });
  for (const run of drawn) grid.append(memoryChart(run, drawn.length > 1));
  node.append(grid);
}

/* A step function: the use stays until it changes. */
function stairs(t, live, kept, length) {
  const x = [], y = [];
  for (let i = 0; i < t.length; i++) {
    if (i) { x.push(t[i]); y.push(kept + live[i - 1]); }
    x.push(t[i]);
    y.push(kept + live[i]);
  }
  if (t.length) { x.push(Math.max(length, t[t.length - 1])); y.push(kept + live[live.length - 1]); }
  return [Float64Array.from(x, (v) => v * 1e-9), Float64Array.from(y)];
}

function memoryChart(run, named) {
  const m = run.record.memory, plan = ((run.manifest || {}).model || {}).predicted_peak_bytes, group = new Group();
  group.axis = { name: "time", of: (_, v) => v, text: (v) => seconds(v) };
  const [x, y] = stairs(unpackDeltas(m.t), unpackDeltas(m.live), m.kept, m.length_ns);
  const ends = Float64Array.of(0, Math.max(m.length_ns * 1e-9, x[x.length - 1] || 0)), level = (v) => Float64Array.of(v, v);
  const made = [{ label: "in use by tasks", run, x, y, colour: 0, dash: "" }, { label: "there all the time", run, x: ends, y: level(m.kept), colour: 2, dash: DASHES[2] },
    m.resident && { label: "the whole process, measured", run, x: ends, y: level(m.resident), colour: 1, dash: DASHES[1] },
    plan && { label: "at most, by plan", run, x: ends, y: level(plan), colour: 4, dash: DASHES[3] }].filter(Boolean);
  const chart = new Chart(group, { title: "Memory over a step" + (named ? ", " + run.title : ""), unit: "rank " + m.rank, wide: true, zero: true, height: 260, lines: made,
    format: (v) => scaled(v, "B"), axisName: "into the step", axisText: (v) => seconds(v) });
  chart.node.append(table("Largest tensors at the peak", [{ name: `largest at the peak, ${seconds(m.peak_ns * 1e-9)} into the step` }, { name: "bytes", number: true }], m.largest.map((t) => [t.name + (t.layer >= 0 && !/\d/.test(t.name) ? ", layer " + t.layer : ""), scaled(t.bytes, "B")])));
  return chart.node;
}
