/* A plan instead of runs: where a step's time goes, the replayed step as a timeline, what fills
 * memory, and which plans no other one beats. */

const PHASES = { F: ["forward", "--t0"], I: ["gradients of inputs", "--t4"], W: ["gradients of weights", "--t2"], B: ["backward", "--t4"] };
const PLAN_WIDE = 1120;

const band = (b, text) => (b ? `${text(b.p50)} (${text(b.p10)} – ${text(b.p90)})` : "–");
const round = (x) => (isNumber(x) ? number(Number(x.toPrecision(4))) : "–");
const spaced = (layout) => layout.replaceAll(",", ", ");

function planTiles(plan) {
  const best = plan.best[0], tile = (name, text, beside) => el("div", { class: "tile" }, el("dt", { text: name }), el("dd", {}, text, beside && el("small", { text: beside })));
  const spread = (b, of) => b && `P10 ${of(b.p10)}, P90 ${of(b.p90)}`;
  return el("dl", { class: "tiles" },
    tile("Step", seconds(best.step_seconds.p50), spread(best.step_seconds, seconds)),
    tile("MFU", percent(best.mfu.p50), spread(best.mfu, percent)),
    tile("Speed", round(best.tokens_per_second_per_device.p50), "tokens/s of a device"),
    tile("Memory", scaled(best.memory_bytes, "B"), "most: " + best.memory_binding),
    best.goodput && tile("Goodput", percent(best.goodput.p50), spread(best.goodput, percent)),
    best.days && tile("Days", round(best.days.p50), spread(best.days, round)),
    best.mwh && tile("Energy", round(best.mwh.p50) + " MWh", spread(best.mwh, round)),
    best.tco2e && tile("Gas", round(best.tco2e.p50) + " tCO2e", spread(best.tco2e, round)),
    best.money && tile("Money", round(best.money.p50) + " " + best.currency, spread(best.money, round)));
}

/* Bars that begin where the one before ended. parts: [name, value]. */
function cascade(parts, unit, label) {
  const shown = parts.filter(([, value]) => value > 0), all = shown.reduce((sum, [, value]) => sum + value, 0), row = 24, left = 230;
  const picture = svg("svg", { viewBox: `0 0 ${PLAN_WIDE} ${row * shown.length + 4}`, role: "img", "aria-label": label });
  let before = 0;
  shown.forEach(([name, value], i) => {
    const scale = (PLAN_WIDE - left - 150) / all, x = left + before * scale, width = Math.max(1, value * scale), y = i * row;
    picture.append(svg("text", { x: left - 8, y: y + 16, "text-anchor": "end", "font-size": 13, style: { fill: "var(--ink)" }, text: name }),
      svg("rect", { x, y: y + 4, width, height: row - 8, rx: 2, style: { fill: `var(--c${i % 8})` } }),
      svg("text", { x: x + width + 6, y: y + 16, "font-size": 12, style: { fill: "var(--soft)" }, text: `${unit(value)}, ${percent(value / all)}` }));
    before += value;
  });
  return picture;
}

function cascadeSection(id, title, intro, values, unit) {
  const parts = Object.entries(values).filter(([, value]) => value > 0);
  section(id, title, intro).append(el("div", { class: "card" }, cascade(parts, unit, title),
    tableBehind(title, () => ({ columns: [{ name: "" }, { name: "is", number: true }], rows: parts.map(([name, value]) => [name, unit(value)]) }))));
}

/* One row for each pipeline rank of the first replica; time to the right. */
function planTimeline(replay) {
  const row = Math.max(10, Math.min(26, Math.floor(420 / replay.ranks))), left = 46, scale = (PLAN_WIDE - left - 4) / replay.length;
  const picture = svg("svg", { viewBox: `0 0 ${PLAN_WIDE} ${row * replay.ranks + 24}`, role: "img", "aria-label": `Timeline of ${replay.ranks} pipeline ranks over ${seconds(replay.length)}` });
  for (let r = 0; r < replay.ranks; r++)
    picture.append(svg("text", { x: left - 6, y: r * row + row / 2 + 4, "text-anchor": "end", "font-size": 11, style: { fill: "var(--soft)" }, text: "pp " + r }));
  for (const [rank, op, stage, batch, begin, end] of replay.spans) {
    const bar = svg("rect", { x: left + begin * scale, y: rank * row + 1, width: Math.max(0.3, (end - begin) * scale - 0.2), height: row - 2,
      style: { fill: `var(${PHASES[op][1]})`, opacity: batch % 2 ? 0.72 : 1 } });
    bar.addEventListener("pointermove", (e) => showTip(e.clientX, e.clientY, el("div", { text: `${PHASES[op][0]} of micro-batch ${batch}, stage ${stage}` }), el("div", { text: `${seconds(begin)} to ${seconds(end)}` })));
    bar.addEventListener("pointerleave", hideTip);
    picture.append(bar);
  }
  for (const t of ticks(0, replay.length, 8))
    picture.append(svg("text", { x: left + t * scale, y: row * replay.ranks + 18, "font-size": 11, "text-anchor": "middle", style: { fill: "var(--soft)" }, text: seconds(t) }));
  return picture;
}

function planTimelineSection(plan) {
  const replay = plan.replay, legend = ["F", "B", "I", "W"].filter((op) => replay.spans.some((s) => s[1] === op));
  const waits = replay.waits.map((w, r) => ["pp " + r, ...["busy", "moves", "gather", "reduce", "others", "update"].map((k) => seconds(w[k]))]);
  section("timeline", "A replayed step", `${replay.events} events of ${replay.cells} cells of ranks, seed ${replay.seed}; shown is the first replica. Even and odd micro-batches differ in shade; white is waiting.`).append(
    el("div", { class: "card" }, el("p", { class: "legend" }, ...legend.map((op) => el("span", {}, svg("svg", { width: 14, height: 12 }, svg("rect", { width: 12, height: 12, style: { fill: `var(${PHASES[op][1]})` } })), " " + PHASES[op][0] + " "))),
      planTimeline(replay), tableBehind("Seconds of a mean rank of each stage", () => ({ columns: ["", "computing", "waiting for stages", "for weights", "for gradients", "for others", "update"].map((name, i) => ({ name, number: i > 0 })), rows: waits }))));
}

/* Round numbers of a logarithmic axis: 1, 2, 5, 10 where it is long, else steps of equal size. */
function roundTicks(from, to) {
  const long = to / from > 8 ? logTicks(from, to, 5) : [];
  return long.length > 2 ? long : ticks(from, to, 5);
}

/* Points over two logarithmic axes; the front is joined. */
function scatter(points, xName, yName) {
  const high = 340, left = 70, low = 44, xs = points.map((p) => p.x), ys = points.map((p) => p.y);
  const around = (all) => { const low = Math.min(...all), high = Math.max(...all), room = 1 + Math.max(0.005, 0.08 * Math.log(high / low)); return [low / room, high * room]; };
  const [x0, x1] = around(xs), [y0, y1] = around(ys);
  const X = (x) => left + (PLAN_WIDE - left - 30) * Math.log(x / x0) / Math.log(x1 / x0), Y = (y) => high - low - (high - low - 16) * Math.log(y / y0) / Math.log(y1 / y0);
  const picture = svg("svg", { viewBox: `0 0 ${PLAN_WIDE} ${high}`, role: "img", "aria-label": `${yName} against ${xName}` });
  const words = (x, y, text, anchor) => svg("text", { x, y, "font-size": 12, "text-anchor": anchor || "middle", style: { fill: "var(--soft)" }, text });
  for (const x of roundTicks(x0, x1))
    picture.append(svg("line", { x1: X(x), x2: X(x), y1: 10, y2: high - low, style: { stroke: "var(--grid)" } }), words(X(x), high - low + 18, number(x, 4)));
  for (const y of roundTicks(y0, y1))
    picture.append(svg("line", { x1: left, x2: PLAN_WIDE - 30, y1: Y(y), y2: Y(y), style: { stroke: "var(--grid)" } }), words(left - 8, Y(y) + 4, number(y, 4), "end"));
  picture.append(words((left + PLAN_WIDE) / 2, high - 6, xName), words(left, 10, yName, "start"));
  const front = points.filter((p) => !p.beaten).sort((a, b) => a.x - b.x);
  picture.append(svg("polyline", { points: front.map((p) => `${X(p.x)},${Y(p.y)}`).join(" "), style: { fill: "none", stroke: "var(--c0)", "stroke-width": 1.5 } }));
  const labels = new Set();
  for (const p of points) {
    const dot = svg("circle", { cx: X(p.x), cy: Y(p.y), r: p.beaten ? 4 : 6, tabindex: 0, "aria-label": p.text, style: { fill: p.beaten ? "var(--c7)" : "var(--c0)" } });
    dot.addEventListener("pointermove", (e) => showTip(e.clientX, e.clientY, el("div", { text: p.text })));
    dot.addEventListener("pointerleave", hideTip);
    picture.append(dot);
    if (p.label && !p.beaten && !labels.has(p.label)) picture.append(words(X(p.x) + 9, Y(p.y) - 8, p.label, "start"));
    labels.add(p.label);
  }
  return picture;
}

function frontSection(plan) {
  if (plan.front && plan.front.length > 1) {
    const of = (p) => p.plan, gas = plan.front.every((p) => of(p).mwh);
    if (!gas) return;
    const points = plan.front.map((p) => ({ x: of(p).days.p50, y: of(p).mwh.p50, beaten: p.beaten, label: number(p.devices), text: `${number(p.devices)} devices: ${round(of(p).days.p50)} days, ${round(of(p).mwh.p50)} MWh; ${of(p).layout}` }));
    section("front", "Days against energy", "Of all the devices, of half of them and so on. Joined: what no other plan beats in days, money, energy and gas at once. Each point is the middle of a band.").append(
      el("div", { class: "card" }, scatter(points, "days", "MWh"), tableBehind("Plans", () => ({ columns: ["devices", "days", "MWh", "tCO2e", "money", "layout"].map((name) => ({ name })),
        rows: plan.front.map((p) => [number(p.devices), band(of(p).days, round), band(of(p).mwh, round), band(of(p).tco2e, round), band(of(p).money, round), spaced(of(p).layout)]) }))));
  }
  const points = plan.best.map((f) => ({ x: f.step_seconds.p50, y: f.memory_bytes / 1e9, beaten: plan.best.some((g) => g.step_seconds.p50 <= f.step_seconds.p50 && g.memory_bytes < f.memory_bytes), text: `${seconds(f.step_seconds.p50)}, ${scaled(f.memory_bytes, "B")}: ${f.layout}` }));
  section("layouts", "The best layouts", "The quickest ones: seconds of a step against memory of the fullest device.").append(el("div", { class: "card" },
    points.length > 1 && scatter(points, "seconds of a step", "GB"), table("Layouts", ["", "step", "MFU", "memory", "layout"].map((name) => ({ name })),
      plan.best.map((f, i) => [String(i + 1), band(f.step_seconds, seconds), band(f.mfu, percent), scaled(f.memory_bytes, "B") + ", most: " + f.memory_binding, spaced(f.layout)]))));
}

function showPlan(plan) {
  const job = plan.job;
  document.getElementById("title").textContent = `${job.model} on ${number(job.devices)} × ${job.device}`;
  document.getElementById("main").replaceChildren();
  document.getElementById("nav").replaceChildren();
  const words = `${spaced(plan.best[0].layout)}; rows of ${number(job.sequence)} tokens, ${number(job.global_batch)} a step, software as ${job.stack}, machine ${job.machine}` + (job.extrapolated ? "; extrapolated beyond what was measured, so intervals are " + number(job.interval_widened, 3) + " times as wide" : "");
  section("summary", "Plan", words).append(planTiles(plan));
  cascadeSection("waterfall", "Where a step's time goes", "Means over all ranks, by terms that sum to the step.", plan.terms, seconds);
  if (plan.replay) planTimelineSection(plan);
  cascadeSection("memory", "What fills the memory", "Of the fullest device.", plan.memory, (x) => scaled(x, "B"));
  frontSection(plan);
  document.getElementById("main").append(el("p", { class: "intro", text: `${number(plan.layouts)} layouts exist, all of them compared. Made by Headway; this page asks nothing of any network.` }));
}
