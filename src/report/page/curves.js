/* Curves of learning and speed, from metrics.jsonl. */

/* Series of a run by name: { x, y, low, high }. Unpacked when first asked for. */
class Metrics {
  constructor(packed) {
    this.packed = packed || { x: [], series: [], notes: [] };
    this.steps = [];
    this.byName = new Map(this.packed.series.map((s) => [s.name, s]));
    this.done = new Map();
  }
  get(name) {
    const s = this.byName.get(name);
    if (!s) return null;
    if (!this.done.has(name)) {
      if (!this.steps[s.x]) this.steps[s.x] = unpackDeltas(this.packed.x[s.x]);
      this.done.set(name, { x: this.steps[s.x], y: unpackFloats(s.mean), low: s.least && unpackFloats(s.least),
        high: s.most && unpackFloats(s.most) });
    }
    return this.done.get(name);
  }
  last(name) {
    const s = this.get(name);
    return s && s.y.length ? s.y[s.y.length - 1] : NaN;
  }
  names(prefix) {
    return [...this.byName.keys()].filter((name) => name.startsWith(prefix));
  }
  median(name) {
    const s = this.get(name);
    if (!s || !s.y.length) return NaN;
    const sorted = Float32Array.from(s.y).sort();
    return sorted[sorted.length >> 1];
  }
}

function interpolate(xs, ys, x) {
  const i = lastUpTo(xs, x);
  if (i < 0) return ys[0];
  if (i + 1 >= xs.length) return ys[xs.length - 1];
  return ys[i] + (ys[i + 1] - ys[i]) * (x - xs[i]) / (xs[i + 1] - xs[i]);
}

const AXES = [
  { name: "step", whole: true, of: (run, x) => x, text: (x) => scaled(x, "").trim() },
  { name: "tokens", of: (run, x) => through(run, "step/tokens", x), text: (x) => scaled(x, "").trim() },
  { name: "time", of: (run, x) => through(run, "step/since", x), text: (x) => seconds(x) },
];

function through(run, name, x) {
  const s = run.metrics.get(name);
  return s && s.x.length ? interpolate(s.x, s.y, x) : x;
}

function curve(run, name, label, o) {
  const s = run.metrics.get(name);
  return s && s.y.length ? Object.assign({ label, run, name, x: s.x, y: s.y, low: s.low, high: s.high, colour: 0, dash: "" }, o) : null;
}

/* One line per run of each [name, label, options]; with several runs colours tell runs apart, with
 * one they tell lines apart. */
function lines(runs, wanted) {
  const out = [];
  wanted.forEach(([name, label, o], kind) => runs.forEach((run, r) => {
    const many = runs.length > 1;
    const line = curve(run, name, many ? run.title + (wanted.length > 1 ? ", " + label : "") : label,
      Object.assign({ colour: (many ? r : kind) % 8, dash: DASHES[(many ? kind + r : kind) % DASHES.length] }, o));
    if (line) out.push(line);
  }));
  return out;
}

function curvesSection(runs) {
  const group = runs.curves = new Group();
  const node = section("curves", "Curves", "Drag over a part to look closer; all curves follow. Double-click, or 0, shows everything again.");
  node.append(curveTools(group, runs));
  const sources = [...new Set(runs.flatMap((run) => run.metrics.names("step/sources/")))].sort();
  const events = runs.flatMap((run) => (run.metrics.packed.notes || []).filter((n) => isNumber(n.step)).map((n) => ({ run, x: n.step, text: n.text })));
  const charts = [
    { title: "Loss", unit: "nats per token", wide: true, height: 330, log: true, events, wanted: [
      ["step/loss", "training"], ["eval/loss", "held out", { marks: true }], ["eval_ema/loss", "held out, averaged weights", { marks: true }],
      ...sources.map((name) => [name, "source " + name.slice(13), { off: runs.length > 1 || sources.length > 4 }])] },
    { title: "Learning rate", wanted: [["step/lr", "learning rate"]], zero: true },
    { title: "Norm of the gradient", log: true, wanted: [["step/grad_norm", "norm"]], events },
    { title: "Speed", unit: "tokens/s", wanted: [["step/tokens_per_s", "tokens/s"]], zero: true, format: (y) => scaled(y, "").trim() },
    { title: "Share of peak", unit: "model FLOPs over the peak measured in the run's precision", wanted: [["step/mfu", "share of peak"]], zero: true, format: percent },
    { title: "Time of a step", unit: "seconds", wanted: [["step/step_s", "step"], ["step/load_wait_s", "waiting for data"]], zero: true, format: (y) => seconds(y) },
    { title: "Energy", unit: "joules since the start, estimated or counted", wanted: [["step/energy/J", "energy"], ["step/energy/lo", "least, 90 %", { off: true }],
      ["step/energy/hi", "most, 90 %", { off: true }]], zero: true, format: (y) => scaled(y, "J") },
    { title: "Bits per byte, held out", wanted: [["eval/bits_per_byte", "bits per byte", { marks: true }]] },
    { title: "Imbalance of experts", unit: "fullest over mean", wanted: [["step/expert_imbalance", "mean of layers"], ["step/expert_imbalance_worst", "worst layer"]] },
    { title: "Router losses", wanted: [["step/aux_loss", "balance"], ["step/router_z", "z"]] },
    { title: "Islands", unit: "how far apart", wanted: [["outer/divergence", "divergence", { marks: true }], ["outer/outer_norm", "outer step", { marks: true }]] },
  ];
  const grid = el("div", { class: "grid" });
  for (const chart of charts) {
    const drawn = lines(runs, chart.wanted);
    if (drawn.length) grid.append(new Chart(group, Object.assign({ lines: drawn }, chart)).node);
  }
  node.append(grid.childElementCount ? grid : el("p", { class: "note", text: "No step has been logged yet." }));
  return group;
}

function curveTools(group, runs) {
  const axes = AXES.filter((axis) => axis.name === "step" || runs.every((run) => run.metrics.get(axis.name === "tokens" ? "step/tokens" : "step/since")));
  const select = el("select", { "aria-label": "Horizontal axis" }, ...axes.map((axis, i) => el("option", { value: i, text: axis.name })));
  select.addEventListener("change", () => group.setAxis(axes[select.value]));
  const log = el("button", { type: "button", class: "plain", "aria-pressed": "false", text: "Logarithmic" });
  log.addEventListener("click", () => {
    group.log = !group.log;
    log.setAttribute("aria-pressed", String(group.log));
    group.draw();
  });
  const smooth = el("input", { type: "range", min: 0, max: 99, value: 0, "aria-label": "Smoothing" });
  smooth.addEventListener("input", () => {
    group.smooth = smooth.value / 100;
    group.draw();
  });
  const tool = (text, name, does) => el("button", { type: "button", text, "aria-label": name, title: name, on: { click: does } });
  group.axis = AXES[0];
  return el("div", { class: "bar", role: "group", "aria-label": "How curves are shown" },
    el("label", {}, "Over", select), log, el("label", {}, "Smoothing", smooth),
    el("span", { class: "push" }), tool("+", "Zoom in", () => group.zoom(0.5)), tool("−", "Zoom out", () => group.zoom(2)),
    tool("◂", "Earlier", () => group.pan(-0.3)), tool("▸", "Later", () => group.pan(0.3)), tool("All", "Show everything", () => group.show(null, null)));
}
