/* The page, from its data. */

function summarySection(runs) {
  const node = document.getElementById("summary") || el("section", { id: "summary", "aria-label": "Summary" });
  node.replaceChildren();
  if (!node.isConnected) document.getElementById("main").append(node);
  for (const run of runs)
    for (const sentence of [...(run.missing || []), ...faults(run)])
      node.append(el("p", { class: "note" }, el("b", { text: "Missing:" }), (runs.length > 1 ? run.title + ": " : "") + sentence));
  node.append(runs.length > 1 ? summaryTable(runs) : summaryTiles(runs[0]));
}

function faults(run) {
  const m = run.metrics.packed, out = [];
  if (m.bad_lines) out.push(`${m.bad_lines} of ${m.lines} lines of metrics.jsonl are no JSON objects with an event, and were left out`);
  if (m.left_out) out.push(`${m.left_out} numbers of metrics.jsonl have no curve here: it holds too many different ones, or too deep`);
  return out;
}

/* When the run began, and each time that it went on. */
function startsOf(run) {
  const list = (run.manifest || {}).segments;
  return Array.isArray(list) ? list.filter((s) => s && isNumber(s.from_step)) : [];
}

/* Why a run has no figure that another one has. */
function absence(run, name) {
  if (run.manifest && run.manifest.virtual) return "simulated: nothing is computed, held or drawn";
  return { "Held-out loss": "not evaluated", Energy: "not counted", Starts: "one", "Simulated in": "not simulated" }[name] || "not recorded";
}

/* [name, text, what stands beside it], of what is known. */
function figures(run) {
  const m = run.metrics, manifest = run.manifest || {}, model = manifest.model || {}, machine = manifest.machine || {}, energy = run.energy || {};
  const steps = ((manifest.config || {}).train || {}).steps, taken = m.get("step/loss") || m.get("step/tokens");
  const starts = startsOf(run);
  const done = taken ? taken.x[taken.x.length - 1] : NaN;
  return [
    ["Steps", number(done), steps ? "of " + number(steps) : null],
    ["Tokens", scaled(m.last("step/tokens"), "").trim(), model.parameters ? number(m.last("step/tokens") / model.parameters, 3) + " per parameter" : null],
    ["Training loss", number(m.last("step/loss"), 4), "nats per token, last step"],
    ["Held-out loss", number(m.last("eval/loss"), 4), isNumber(m.last("eval/bits_per_byte")) ? number(m.last("eval/bits_per_byte"), 4) + " bits per byte" : null],
    ["Speed", scaled(m.median("step/tokens_per_s"), "").trim(), "tokens/s, median"],
    ["Share of peak", percent(m.median("step/mfu")), machine.peak_flops ? "of " + scaled(machine.peak_flops, "FLOP/s") + ", measured in the run's precision; of its steps" : null],
    ["Energy", isNumber(energy.J) ? scaled(energy.J, "J", 2) : "–", isNumber(energy.J_per_token) ? scaled(energy.J_per_token, "J/token", 2) + ", " + energy.method : null],
    ["Memory", model.predicted_peak_bytes ? scaled(model.predicted_peak_bytes, "B") : "–", "at most, by plan"],
    ["Starts", starts.length > 1 ? number(starts.length) : "–", "at steps " + starts.map((s) => number(s.from_step)).join(", ")],
    [manifest.virtual ? "Simulated in" : "Time", isNumber(m.packed.last_t) ? seconds(m.packed.last_t - m.packed.first_t) : "–", isNumber(m.packed.last_t) ? "until " + moment(m.packed.last_t) : null],
  ].filter(([, text]) => text !== "–");
}

function summaryTiles(run) {
  const model = (run.manifest || {}).model || {}, machine = (run.manifest || {}).machine || {};
  const words = [model.name && `${model.name}, ${scaled(model.parameters, "").trim()} parameters`, run.manifest && run.manifest.layout && run.manifest.layout !== "single" && `layout ${run.manifest.layout}, ${run.manifest.ranks} ranks`,
    machine.processor && `${machine.threads} thread${machine.threads === 1 ? "" : "s"} of ${machine.processor}, kernels ${machine.backend}`].filter(Boolean);
  return el("div", {}, el("p", { class: "intro", text: words.join(" · ") }),
    el("dl", { class: "tiles" }, ...figures(run).map(([name, text, beside]) => el("div", { class: "tile" }, el("dt", { text: name }),
      el("dd", {}, text, beside && el("small", { text: beside }))))));
}

function summaryTable(runs) {
  const rows = new Map();
  runs.forEach((run, r) => figures(run).forEach(([name, text, beside]) => {
    if (!rows.has(name)) rows.set(name, runs.map((other) => `–  (${absence(other, name)})`));
    rows.get(name)[r] = text + (beside ? "  (" + beside + ")" : "");
  }));
  const against = [["Held-out loss", "eval/loss", (m, name) => m.last(name)], ["Training loss", "step/loss", (m, name) => m.last(name)], ["Speed", "step/tokens_per_s", (m, name) => m.median(name)]];
  const words = runs.slice(1).flatMap((run) => against.map(([title, name, of]) => [title, of(runs[0].metrics, name), of(run.metrics, name)])
    .filter(([, a, b]) => isNumber(a) && isNumber(b) && a !== 0).map(([title, a, b]) => `${run.title} beside ${runs[0].title}: ${title.toLowerCase()} ${b >= a ? "+" : "−"}${percent(Math.abs(b - a) / a)}`));
  const simulated = runs.filter((run) => run.manifest && run.manifest.virtual).map((run) => run.title);
  if (simulated.length > 0 && simulated.length < runs.length)
    words.push(`the clock of ${simulated.join(", ")} is computed (--clock virtual), that of the others measured`);
  return el("div", { class: "card" }, table("Summary", [{ name: "" }, ...runs.map((run) => ({ name: run.title }))], [...rows].map(([name, cells]) => [name, ...cells])),
    el("p", { class: "intro", text: words.join("; ") }));
}

function prepare(data) {
  const seen = new Map();
  return data.runs.map((run) => {
    const n = (seen.get(run.name) || 0) + 1;
    seen.set(run.name, n);
    return Object.assign(run, { title: n > 1 ? run.folder : run.name, metrics: new Metrics(run.metrics) });
  });
}

function show(data) {
  const runs = prepare(data);
  document.getElementById("title").textContent = runs.map((run) => run.title).join(" · ");
  document.getElementById("main").replaceChildren();
  document.getElementById("nav").replaceChildren();
  summarySection(runs);
  findingsSection(runs);
  curvesSection(runs);
  recordSections(runs);
  healthSection(runs);
  energySection(runs);
  dataSection(runs);
  settingsSection(runs);
  logSection(runs);
  document.getElementById("main").append(el("p", { class: "intro", id: "made" }));
  tellMade(data);
  return runs;
}

function recordSections(runs) {
  timelineSection(runs);
  rooflineSection(runs);
  memorySection(runs);
}

function tellMade(data) {
  document.getElementById("made").textContent = `Made ${moment(data.made)} by Headway ${data.headway}. ` +
    (live.on ? "This page asks headway serve on this machine, and nothing else." : "This page asks nothing of any network.");
}

function start() {
  startTheme();
  const text = document.getElementById("data").textContent;
  const data = text ? JSON.parse(text) : null;
  if (!data) startLive();
  else if (data.plan) showPlan(data.plan);
  else show(data);
  document.documentElement.dataset.ready = "yes";
}

addEventListener("DOMContentLoaded", start); /* all parts are there by then */
