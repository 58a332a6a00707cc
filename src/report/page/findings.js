/* What costs the run most, where, and what mending it would give back (headway diagnose). */

const TIMES = [["compute_s", "computing", "--t0"], ["wait_s", "waiting for other ranks", "--t4", "lines"], ["transfer_s", "bytes on their way", "--t6"],
  ["data_s", "waiting for data", "--t5", "lines"], ["gap_s", "gaps", "--t7"], ["log_s", "logging", "--t7", "dots"], ["eval_s", "evaluation", "--t8"], ["checkpoint_s", "saving", "--t9"]];

function findingsSection(runs) {
  const judged = runs.filter((run) => run.diagnosis);
  if (!judged.length) return;
  const node = section("findings", "Findings", "What costs time, sorted by what mending it would give back, and behind that what others do to the machine; each with its numbers, and with the look-alikes that these numbers rule out.");
  for (const run of judged) {
    const d = run.diagnosis;
    if (judged.length > 1) node.append(el("h3", { class: "run", text: run.title }));
    const unexplained = unexplainedTexts(d);
    node.append(...unexplained.map((text) => el("p", { class: "card", text })));
    if (d.findings.length || !unexplained.length) node.append(d.findings.length ? el("ol", { class: "findings" }, ...d.findings.map((f) => finding(f, d))) : el("p", { class: "card", text: nothingFound(d) }));
    if (d.steps > 0) node.append(shareCard(d));
    if (run.record && run.record.ladder) node.append(ladderCard(run.record.ladder));
    if (d.missing.length) node.append(el("details", {}, el("summary", { text: `What could not be judged (${d.missing.length})` }), el("ul", {}, ...d.missing.map((text) => el("li", { text })))));
  }
}

/* Time that no finding accounts for, as headway diagnose says it. */
function unexplainedTexts(d) {
  const name = new Map([...TIMES, ["wait_or_transfer_s", "waiting for ranks or bytes"]]), u = d.uneven_stages;
  return Object.entries(d.unexplained || {}).filter(([key]) => key !== "eval_s").map(([key, s]) => {
    const what = `${seconds(s)} a step (${percent(s / d.step_s)}) of ${name.get(key) || key}`;
    return key === "wait_s" && u
      ? `${what} is for stages of unequal length: the busiest computes for ${seconds(u.most_s)} a step, the mean one for ${seconds(u.mean_s)}, and no other division of whole layers is more even. Another number of stages may be (--layout pp=N).`
      : `No kind that is known${d.findings.length ? " further" : ""} matches, yet ${what} is unexplained.`;
  });
}

function nothingFound(d) {
  if (!(d.steps > 0)) return "Nothing can be judged yet: no steady step is recorded (the first steps of a process are left out).";
  return `Nothing above the noise: a finding would have to lose at least ${seconds(d.theta_s)} of a step of ${seconds(d.step_s)}, over ${number(d.steps)} steps.`;
}

function placeText(p) {
  const words = [p.rank !== null && (p.last_rank !== null ? `ranks ${p.rank} to ${p.last_rank}` : "rank " + p.rank), p.ranks && p.ranks.length > 0 && "ranks " + p.ranks.join(", "), p.peer !== null && "with rank " + p.peer, p.stage !== null && "stage " + p.stage, p.layer !== null && "layer " + p.layer, p.op, p.lane && "lane " + p.lane,
    p.first_step !== null && (p.last_step !== null && p.last_step !== p.first_step ? `steps ${p.first_step} to ${p.last_step}` : `step ${p.first_step}`)].filter(Boolean);
  return words.length ? words.join(", ") : "everywhere";
}

function finding(f, d) {
  const [low, mid, high] = f.gain_s || [NaN, NaN, NaN], share = (x) => clamp(100 * x / d.step_s, 0, 100);
  const words = f.saves_j ? `saves ${number(f.saves_j[1])} J a step, by a model (between ${number(f.saves_j[0])} and ${number(f.saves_j[2])}), and no time` : isNumber(mid) ? `${seconds(mid)} a step back (${percent(mid / d.step_s)}; between ${seconds(low)} and ${seconds(high)}${f.gain_by ? ", by " + f.gain_by : ""})` : "the run stands still";
  return el("li", { class: "card" },
    el("div", { class: "head" }, el("h3", {}, f.title, el("span", { class: "id", text: f.id })), el("span", { class: "unit", text: placeText(f.place) })),
    el("p", { class: "gain", text: words }),
    isNumber(mid) && !f.saves_j && svg("svg", { class: "gainbar", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { x: 0, y: 4, width: 100, height: 2, fill: "var(--grid)" }), svg("rect", { x: share(low), y: 2, width: Math.max(0.5, share(high) - share(low)), height: 6, fill: "var(--c0)", opacity: 0.3 }),
      svg("rect", { x: clamp(share(mid) - 0.3, 0, 99.4), y: 0, width: 0.6, height: 10, fill: "var(--c0)" })),
    el("ul", {}, ...f.evidence.map((text) => el("li", { text }))),
    f.fix && el("p", {}, el("b", { text: "Mend: " }), el("code", { text: f.fix })),
    f.confirm && el("p", {}, el("b", { text: "Confirm: " }), el("code", { text: f.confirm })),
    f.rejected.length > 0 && el("details", {}, el("summary", { text: "Why not something else" }), el("ul", {}, ...f.rejected.map((r) => el("li", { text: `${r.id}: ${r.why}` })))));
}

/* Where a step's time goes: one bar, mean over ranks. */
function shareCard(d) {
  const parts = TIMES.map(([key, name, ink, hatch]) => ({ name, ink, hatch, s: d.times[key] })).filter((p) => p.s > 0);
  const all = parts.reduce((sum, p) => sum + p.s, 0);
  return el("figure", { class: "card spaced" }, el("div", { class: "head" }, el("h3", { text: "Where a step's time goes" }), el("span", { class: "unit", text: `${seconds(d.step_s)} a step, mean over ranks and ${number(d.steps)} steps` })),
    el("div", { class: "share", "aria-hidden": "true" }, ...parts.filter((p) => p.s / all > 0.002).map((p) => el("i", { class: p.hatch || "", style: { "--ink-of": `var(${p.ink})`, "flex-grow": String(p.s / all) } }))),
    el("div", { class: "keys" }, ...parts.map((p) => el("span", {}, el("i", { class: p.hatch || "", style: { "--ink-of": `var(${p.ink})` } }), `${p.name} ${percent(p.s / all)}`))),
    tableBehind("Where a step's time goes", () => ({ columns: [{ name: "part" }, { name: "seconds per step", number: true }, { name: "share", number: true }], rows: parts.map((p) => [p.name, seconds(p.s), percent(p.s / all)]) })));
}

const RUNGS = {
  goodput: "start, evaluation, checkpoints, steps taken twice", data: "waiting for data", host: "gaps between tasks, logging", transfer: "bytes on their way",
  balance: "slower than usual: ranks, steps, now and then", stage: "stages and micro-batches that differ", bubble: "waiting that is left: dependencies", useful: "recompute, work that the model does not need",
  dtype: "slower number formats", memory: "tasks bound by memory", attain: "kernels below the roofline", cpu: "threads not on a processor", clock: "a clock below that at the start",
};

/* From the peak down to what is used of it: each rung takes its share of what the rungs before left. */
function ladderCard(l) {
  let left = 1;
  const rungs = l.factors.map((f) => {
    const before = left;
    left *= isNumber(f.value) ? f.value : 1;
    return { name: f.name, value: f.value, before, after: left };
  });
  const share = (x) => clamp(100 * x, 0, 100) + "%";
  return el("figure", { class: "card spaced" }, el("div", { class: "head" }, el("h3", { text: "Where the peak goes" }),
    el("span", { class: "unit", text: isNumber(l.mfu) ? `${percent(l.mfu)} of ${scaled(l.peak, "FLOP/s")} a rank is used (MFU, start and evaluations counted); ${number(l.steps)} steps` : "the machine's peak is not known: headway machine measures it" })),
    el("div", { class: "ladder", "aria-hidden": "true" }, ...rungs.flatMap((r) => [el("span", { text: r.name, title: RUNGS[r.name] || "" }),
      el("span", { class: "rung", title: RUNGS[r.name] || "" }, el("i", { style: { width: share(Math.min(r.before, r.after)) } }),
        r.after < r.before && el("i", { class: "lost", style: { left: share(r.after), width: share(r.before - r.after) } })),
      el("span", { class: "n", text: isNumber(r.value) ? percent(r.value) : "not measured" })])),
    el("figcaption", { text: `Solid: what is left of the peak below each rung; hatched: what the rung costs. The factors multiply to the MFU. ` +
      `A replay of these steps is off by ${(100 * l.off).toFixed(2) + " %"} at most.` }),
    el("details", { open: true }, el("summary", { text: "The critical path, per step" }), table("Critical path", [{ name: "what" }, { name: "where" }, { name: "time", number: true }, { name: "share", number: true }],
      l.path.map((p) => [[p.op || p.kind, p.phase, p.layer >= 0 && "layer " + p.layer].filter(Boolean).join(", "), p.rank >= 0 ? "rank " + p.rank : "all members", seconds(p.seconds), percent(p.share)]))),
    tableBehind("Where the peak goes", () => ({ columns: [{ name: "rung" }, { name: "what it loses to" }, { name: "factor", number: true }, { name: "product so far", number: true }],
      rows: rungs.map((r) => [r.name, (RUNGS[r.name] || "") + (isNumber(r.value) ? "" : "; not measured"), isNumber(r.value) ? r.value.toFixed(4) : "–", r.after.toFixed(4)]) })));
}
