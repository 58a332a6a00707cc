/* Kernels beside the machine's ceilings: how many FLOPs a kernel had to do per byte, and how many it
 * did per second. The area of a point is the kernel's share of the time; its number stands in the
 * table. */

function rooflineSection(runs) {
  for (const run of runs) {
    const record = run.record;
    if (!record || !record.kernels.length) continue;
    const many = runs.filter((r) => r.record).length > 1;
    const node = section("roofline" + (many ? runs.indexOf(run) : ""), many ? "Roofline, " + run.title : "Roofline",
      "Each kernel of these steps: work per byte that it must move, and work per second that it did, beside what this machine was measured to reach. A point below the slope is limited by memory at best, one below the flat part by arithmetic; the distance is what is lost.");
    node.append(rooflineCard(record));
  }
}

function kernelName(k) {
  return k.op + (k.phase ? ", " + k.phase : "") + (k.again ? ", again" : "");
}

/* A kernel's least time, at the ceilings, over the time it took; 1 where data come from a cache. */
function attained(k, roof) {
  const arithmetic = roof.flops ? k.flops / roof.flops : 0, memory = roof.bytes ? k.bytes / roof.bytes : 0;
  return Math.min(1, Math.max(arithmetic, memory) / k.seconds);
}

/* A peak that a kernel which matters goes beyond was probed while others had the processor. What
 * attention has to do depends on documents. */
function peakOf(kernels, all, probed) {
  return probed ? Math.max(probed, ...kernels.filter((k) => k.seconds > 0.02 * all && !k.op.startsWith("attention")).map((k) => k.flops / k.seconds)) : 0;
}

function rooflineCard(record) {
  const all = record.kernels.reduce((sum, k) => sum + k.seconds, 0), c = record.ceilings[0] || {};
  const roof = { flops: peakOf(record.kernels, all, (c.precision === "bf16" && c.flops_bf16) || c.flops_f32), bytes: c.memory_bytes_per_s || 0 };
  const points = record.kernels.filter((k) => k.flops > 0 && k.bytes > 0 && k.seconds > 0).map((k, i) => ({ k, x: k.flops / k.bytes, y: k.flops / k.seconds, share: k.seconds / all }));
  const plot = svg("svg", { class: "plot", height: 380, role: "img", "aria-label": "Roofline; its points are in the table" });
  const node = el("figure", { class: "card" }, el("div", { class: "head" }, el("h3", { text: c.processor ? `${c.threads} thread${c.threads === 1 ? "" : "s"} of ${c.processor}` : "Kernels" }),
    el("span", { class: "unit", text: "FLOP/s over FLOPs per byte, both logarithmic" })), plot,
    el("figcaption", { text: roofWords(roof, points, all) }), tableBehind("Kernels", () => kernelTable(record, roof, all)));
  let width = 0;
  onResize(node, () => {
    const now = Math.floor(node.clientWidth - 34);
    if (now > 0 && Math.abs(now - width) > 1) drawRoof(plot, width = now, points, roof);
  });
  return node;
}

function roofWords(roof, points, all) {
  const top = points.slice(0, 3).map((p) => `${kernelName(p.k)}: ${percent(p.share)} of the time` + (roof.flops ? `, at ${percent(attained(p.k, roof))} of its ceiling` : ""));
  return (roof.flops ? `Arithmetic: ${scaled(roof.flops, "FLOP/s")}.` : "The peak of arithmetic was not measured.") + " " +
    (roof.bytes ? `Memory: ${scaled(roof.bytes, "B/s")}.` : "The speed of memory is not known here: headway machine measures it once, for later runs.") + " " + top.join("; ") + ".";
}

function drawRoof(plot, width, points, roof) {
  const height = 380, a = { left: 66, right: width - 12, top: 14, bottom: height - 34 };
  const xs = points.map((p) => p.x), ys = points.map((p) => p.y).concat(roof.flops || []);
  if (roof.flops && roof.bytes) xs.push(roof.flops / roof.bytes * 4);
  const [x0, x1] = [Math.min(...xs) / 2, Math.max(...xs) * 2], [y0, y1] = [Math.min(...ys) / 2, Math.max(...ys) * 1.6];
  const toX = (x) => a.left + Math.log(x / x0) / Math.log(x1 / x0) * (a.right - a.left), toY = (y) => a.bottom - Math.log(y / y0) / Math.log(y1 / y0) * (a.bottom - a.top);
  plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
  plot.replaceChildren(roofAxes(a, [x0, x1], [y0, y1], toX, toY), roofLines(a, [x0, x1], y0, roof, toX, toY), ...roofPoints(a, points, roof, toX, toY));
}

function roofAxes(a, [x0, x1], [y0, y1], toX, toY) {
  const g = svg("g", {});
  for (const y of logTicks(y0, y1, 6)) g.append(svg("line", { class: "gridline", x1: a.left, x2: a.right, y1: toY(y), y2: toY(y) }), svg("text", { x: a.left - 6, y: toY(y) + 4, "text-anchor": "end", text: scaled(y, "").trim() }));
  for (const x of logTicks(x0, x1, Math.max(3, (a.right - a.left) / 90))) g.append(svg("line", { class: "gridline", x1: toX(x), x2: toX(x), y1: a.top, y2: a.bottom }), svg("text", { x: toX(x), y: a.bottom + 16, "text-anchor": "middle", text: number(x, 2) }));
  g.append(svg("line", { class: "axis", x1: a.left, x2: a.right, y1: a.bottom, y2: a.bottom }), svg("text", { x: a.right, y: a.bottom + 31, "text-anchor": "end", text: "FLOPs per byte" }),
    svg("text", { x: a.left - 60, y: a.top - 2, text: "FLOP/s" }));
  return g;
}

function roofLines(a, [x0, x1], y0, roof, toX, toY) {
  const g = svg("g", {}), ridge = roof.bytes ? roof.flops / roof.bytes : x0;
  if (!roof.flops) return g;
  const slope = roof.bytes && ridge > x0, begin = slope ? Math.max(x0, y0 / roof.bytes) : x0;
  g.append(svg("path", { d: (slope ? `M${toX(begin)} ${toY(begin * roof.bytes)}L${toX(Math.min(ridge, x1))} ${toY(Math.min(ridge, x1) * roof.bytes)}L` : `M${toX(x0)} ${toY(roof.flops)}L`) + `${toX(x1)} ${toY(roof.flops)}`,
    fill: "none", stroke: "var(--ink)", "stroke-width": 2 }), svg("text", { class: "strong", x: a.right, y: toY(roof.flops) - 6, "text-anchor": "end", text: scaled(roof.flops, "FLOP/s") + " measured" }));
  if (slope && ridge < x1) g.append(svg("text", { class: "strong", x: toX(Math.sqrt(begin * ridge)) - 8, y: toY(Math.sqrt(begin * ridge) * roof.bytes) - 8, "text-anchor": "end", text: scaled(roof.bytes, "B/s") }));
  return g;
}

function roofPoints(a, points, roof, toX, toY) {
  const inks = { forward: 0, "input gradient": 5, "weight gradient": 2, update: 3 };
  return points.map((p, i) => {
    const x = toX(p.x), y = toY(p.y), r = clamp(Math.sqrt(p.share) * 34, 3.5, 30), ink = `var(--c${inks[p.k.phase] || 0})`;
    const words = [`${(100 * p.share).toFixed(1)} % of the time, ${scaled(p.k.seconds / p.k.calls, "s")} a call`, `${scaled(p.y, "FLOP/s")}, ${number(p.x, 3)} FLOPs per byte`, roof.flops ? percent(attained(p.k, roof)) + " of its ceiling" : ""];
    const g = svg("g", {}, svg("circle", { cx: x, cy: y, r, fill: ink, "fill-opacity": 0.32, stroke: ink, "stroke-width": 1.6 }),
      i < 12 && r > 8 ? svg("text", { class: "strong", x, y: y + 4, "text-anchor": "middle", text: String(i + 1) }) : null);
    g.addEventListener("pointermove", (e) => showTip(e.clientX, e.clientY, el("b", { text: kernelName(p.k) }), ...words.filter(Boolean).map((text) => el("div", { text }))));
    g.addEventListener("pointerleave", hideTip);
    return g;
  });
}

function kernelTable(record, roof, all) {
  return { columns: [{ name: "kernel" }, { name: "no.", number: true }, { name: "share of time", number: true }, { name: "calls", number: true }, { name: "a call", number: true }, { name: "FLOP/s", number: true }, { name: "B/s", number: true },
    { name: "FLOPs per byte", number: true }, { name: "of its ceiling", number: true }, { name: "dtype" }],
    rows: record.kernels.map((k) => ({ k, no: record.kernels.filter((o) => o.flops > 0 && o.bytes > 0 && o.seconds > 0).indexOf(k) + 1 })).map(({ k, no }) => [kernelName(k), no || "", percent(k.seconds / all), number(k.calls), scaled(k.seconds / k.calls, "s"),
      k.flops ? scaled(k.flops / k.seconds, "") : "–", k.bytes ? scaled(k.bytes / k.seconds, "") : "–", k.flops && k.bytes ? number(k.flops / k.bytes, 3) : "–",
      roof.flops || roof.bytes ? percent(attained(k, roof)) : "–", k.dtype || ""]) };
}
