/* What a run was made of: settings, data, energy, machine, log. */

/* { "train": { "steps": 3 } } as [["train.steps", "3"]]. */
function flatten(value, path, out) {
  if (value && typeof value === "object" && !Array.isArray(value))
    for (const key of Object.keys(value)) flatten(value[key], path ? path + "." + key : key, out);
  else out.push([path, value === null || value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value)]);
  return out;
}

function compared(runs, of) {
  const maps = runs.map((run) => new Map(of(run)));
  const keys = [...new Set(maps.flatMap((map) => [...map.keys()]))];
  return keys.map((key) => {
    const cells = maps.map((map) => (map.has(key) ? map.get(key) : ""));
    return { key, cells, differs: cells.some((cell) => cell !== cells[0]) };
  });
}

function comparison(caption, runs, rows) {
  return table(caption, [{ name: "key" }, ...runs.map((run) => ({ name: runs.length > 1 ? run.title : "value" }))],
    rows.map((row) => [row.key, ...row.cells]), rows.map((row) => (row.differs ? "differs" : null)));
}

function settingsSection(runs) {
  const node = section("settings", "Settings", "Every key of the recipe as it was resolved.");
  const rows = compared(runs, (run) => flatten((run.manifest || {}).config, "", []));
  const facts = compared(runs, (run) => {
    const m = run.manifest || {};
    return flatten({ headway: m.headway, layout: m.layout, ranks: m.ranks, model: m.model, machine: m.machine,
      started: moment(m.started), from_step: m.from_step,
      went_on: startsOf(run).slice(1).map((s) => `${moment(s.started)} at step ${number(s.from_step)}`), tokenizer_sha256: m.tokenizer_sha256, compiler: m.compiler, binary_sha256: m.binary_sha256 }, "", []);
  });
  const different = [...facts, ...rows].filter((row) => row.differs);
  if (runs.length > 1)
    node.append(el("div", { class: "card" }, el("h3", { text: "What differs" }),
      different.length ? comparison("Settings that differ", runs, different) : el("p", { text: "Nothing: the same settings on the same machine." })));
  node.append(el("div", { class: "card spaced" }, el("h3", { text: "Recipe" }), rows.length ? comparison("All settings", runs, rows) : el("p", { text: "No manifest." })),
    el("div", { class: "card spaced" }, el("h3", { text: "Program, model and machine" }), comparison("Program, model and machine", runs, facts)));
}

function dataSection(runs) {
  const rows = runs.flatMap((run) => ((run.manifest || {}).data || []).map((d) => [...(runs.length > 1 ? [run.title] : []), d.name, percent(d.weight),
    scaled(d.tokens, ""), scaled(d.documents, ""), scaled(d.text_bytes, "B"), isNumber(d.text_bytes / d.tokens) ? number(d.text_bytes / d.tokens, 3) : "–",
    epochs(run, d), d.path]));
  if (!rows.length) return;
  const node = section("ledger", "Data", "What was read, and how often: share of the mixture, size, and passes over each source so far.");
  node.append(el("div", { class: "card" }, table("Sources of data", [...(runs.length > 1 ? [{ name: "run" }] : []), { name: "source" }, { name: "share", number: true }, { name: "tokens", number: true },
    { name: "documents", number: true }, { name: "text", number: true }, { name: "bytes per token", number: true }, { name: "passes", number: true }, { name: "folder" }], rows)));
}

function epochs(run, d) {
  const passes = run.metrics.last("step/tokens") * d.weight / d.tokens;
  return isNumber(passes) ? number(passes, 3) : "–";
}

function interval(mid, low, high, text) {
  return isNumber(mid) ? text(mid) + (isNumber(low) ? `  (90 %: ${text(low)} to ${text(high)})` : "") : "–";
}

function energySection(runs) {
  const joules = (x) => scaled(x, "J", 2), grams = (x) => scaled(x, "g", 2);
  const rows = compared(runs.filter((run) => run.energy), (run) => {
    const e = run.energy, c = e.carbon || {};
    return [["energy", interval(e.J, e.J_lo, e.J_hi, joules)], ["per token", interval(e.J_per_token, e.J_per_token * e.J_lo / e.J, e.J_per_token * e.J_hi / e.J, joules)],
      ["how it is known", [e.method, "of the " + e.scope].join(", ")], ["not counted", e.uncounted || "–"],
      ["greenhouse gas (CO₂e)", interval(e.gCO2e, e.gCO2e_lo, e.gCO2e_hi, grams)],
      ["grid", `${number(c.g_per_kWh)} g/kWh, ${c.location || "unknown place"}${c.assumed ? " (nobody said where: energy.location)" : ""}, ${c.source || "no source"}`],
      ["PUE", number(e.pue)], ["time", seconds(e.seconds)], ["processor time", scaled(e.core_seconds, "core s")], ["executed", scaled(e.flops, "FLOP")],
      ["moved by kernels", scaled(e.bytes, "B")], ["counted by GPUs", e.gpu_J ? joules(e.gpu_J) : "–"], ["tokens", number(e.tokens)],
      ["processor", `${number(e.cpus)} hardware threads of ${e.processor}, on ${number(e.nodes)} node${e.nodes === 1 ? "" : "s"}`]];
  });
  if (!rows.length) return;
  const node = section("energy", "Energy", "With its interval and its method; estimates can be made again from what was counted.");
  node.append(el("div", { class: "card" }, comparison("Energy", runs.filter((run) => run.energy), rows)));
}

/* A line of metrics.jsonl in words: its event, and what it says of it. */
function eventText(text) {
  let o;
  try { o = JSON.parse(text); } catch { return text; } /* a long one is cut */
  if (!o || typeof o !== "object" || Array.isArray(o)) return text;
  const words = (v) => isNumber(v) ? number(v) : v === null ? "–" : Array.isArray(v) ? v.map(words).join(" and ")
    : typeof v === "object" ? "(" + Object.entries(v).map(([k, x]) => k + " " + words(x)).join(", ") + ")" : String(v);
  const said = Object.entries(o).filter(([k]) => !["event", "t", "step"].includes(k)).map(([k, v]) => k + " " + words(v));
  return o.event + (said.length ? ": " + said.join(", ") : "");
}

function logSection(runs) {
  const node = section("log", "Log");
  for (const run of runs) {
    const notes = run.metrics.packed.notes || [];
    node.append(el("div", { class: "card spaced" }, el("h3", { text: runs.length > 1 ? run.title : "What was said" }),
      notes.length > 0 && el("p", { class: "intro", text: `Events in metrics.jsonl: ${number(run.metrics.packed.all_notes)}` + (run.metrics.packed.all_notes > notes.length ? `, the newest ${notes.length} here.` : ".") }),
      notes.length > 0 && table("Events", [{ name: "step", number: true }, { name: "event" }], notes.map((n) => [number(n.step), eventText(n.text)])),
      run.log ? el("pre", { class: "log", tabindex: 0, role: "region", "aria-label": "End of log.txt", text: run.log }) : el("p", { text: "No log." })));
  }
}
