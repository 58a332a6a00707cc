/* The timeline of some steps: all ranks below each other, a row per lane, on a canvas. Kinds differ
 * by colour, by hatching (what stands still is hatched), by their row, and by their names. */

const KINDS = [
  { name: "forward", ink: "--t0" }, { name: "gradient of inputs", ink: "--t1" }, { name: "gradient of weights", ink: "--t2" },
  { name: "update", ink: "--t3" }, { name: "computed again", ink: "--t0", hatch: "dots" }, { name: "waiting for other ranks", ink: "--t4", hatch: "lines" },
  { name: "waiting for data", ink: "--t5", hatch: "lines" }, { name: "exchange", ink: "--t6" }, { name: "reading data", ink: "--t7" },
  { name: "evaluation", ink: "--t8" }, { name: "saving", ink: "--t9" }, { name: "logging", ink: "--t7", hatch: "dots" }, { name: "meeting", ink: "--t4", hatch: "dots" },
];

/* report/run_record.c, put_lane */
function unpackLane(lane) {
  if (lane.begin) return lane;
  const bytes = bytesOf(lane.spans), n = lane.n;
  Object.assign(lane, { begin: new Float64Array(n), end: new Float64Array(n), reach: new Float64Array(n), label: new Uint32Array(n), kind: new Uint8Array(n),
    count: new Uint32Array(n), busy: new Float64Array(n), level: new Uint8Array(n), levels: 1 });
  let at = 0;
  const next = () => {
    let value = 0, scale = 1, byte;
    do {
      byte = bytes[at++];
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127);
    return value;
  };
  const free = [0, 0, 0, 0];
  for (let i = 0, before = 0; i < n; i++) {
    const raw = next();
    lane.begin[i] = before + (raw % 2 ? -(raw + 1) / 2 : raw / 2);
    lane.end[i] = before = lane.begin[i] + next();
    lane.label[i] = next();
    const kind = next();
    lane.kind[i] = kind % KINDS.length;
    lane.count[i] = kind >= KINDS.length ? next() : 1;
    lane.busy[i] = kind >= KINDS.length ? next() : lane.end[i] - lane.begin[i];
    lane.reach[i] = Math.max(i ? lane.reach[i - 1] : 0, lane.end[i]);
    let level = lane.lane === "compute" ? 0 : free.findIndex((end) => end <= lane.begin[i]);
    if (level < 0) level = 3;
    free[level] = lane.end[i];
    lane.level[i] = level;
    lane.levels = Math.max(lane.levels, level + 1);
  }
  lane.spans = null;
  return lane;
}

class Timeline {
  constructor(record) {
    Object.assign(this, { record, allLanes: record.ranks.length <= 16, at: null, pointed: null });
    this.length = Math.max(...record.steps.map((s) => s.end));
    this.least = Math.min(0, ...record.ranks.flatMap((r) => r.lanes.map((lane) => (lane.n ? unpackFirst(lane) : 0))));
    const first = record.steps[Math.max(0, record.steps.length - 2)];
    this.from = first.begin - (this.length - first.begin) * 0.01;
    this.to = this.length * 1.002;
    this.canvas = el("canvas", { tabindex: 0, role: "img", class: "timeline",
      "aria-label": `Timeline of steps ${record.steps[0].step + 1} to ${record.steps[record.steps.length - 1].step + 1}, ${record.ranks.length} ranks. Arrow keys read spans, up and down change the row, plus and minus zoom, 0 shows everything.` });
    this.spacer = el("div", {}, this.canvas);
    this.scroller = el("div", { class: "timescroll" }, this.spacer);
    this.layOut();
    this.listen();
    onTheme(this.canvas, () => { this.inks = null; this.draw(); });
    onResize(this.scroller, () => this.draw());
  }

  layOut() {
    this.rows = [];
    let y = 34;
    const many = this.record.ranks.length > 32;
    for (const rank of this.record.ranks) {
      const lanes = this.allLanes ? rank.lanes : rank.lanes.filter((lane) => lane.lane === "compute");
      for (const [i, lane] of lanes.entries()) {
        const height = lane.lane === "compute" ? (this.allLanes ? 24 : many ? 9 : 18) : 13;
        this.rows.push({ rank, lane, y, height, first: i === 0 });
        y += height + (many && !this.allLanes ? 1 : 3);
      }
      if (!lanes.length) {
        this.rows.push({ rank, lane: null, y, height: 12, first: true });
        y += 15;
      }
      y += many && !this.allLanes ? 0 : 5;
    }
    this.whole = y + 6;
    this.spacer.style.height = this.whole + "px";
    this.scroller.style.height = Math.min(this.whole, Math.max(260, innerHeight * 0.62)) + "px";
  }

  paints() {
    if (this.inks) return this.inks;
    const made = (kind) => {
      const ink = colour(kind.ink);
      if (!kind.hatch) return ink;
      const tile = document.createElement("canvas"), c = tile.getContext("2d");
      tile.width = tile.height = 6;
      c.fillStyle = ink;
      c.globalAlpha = 0.35;
      c.fillRect(0, 0, 6, 6);
      c.globalAlpha = 1;
      c.strokeStyle = ink;
      c.lineWidth = 1.6;
      c.beginPath();
      if (kind.hatch === "lines") for (const d of [-6, 0, 6]) { c.moveTo(d - 1, 7); c.lineTo(d + 7, -1); }
      else c.rect(2, 2, 1.5, 1.5);
      c.stroke();
      return this.canvas.getContext("2d").createPattern(tile, "repeat");
    };
    this.inks = { kinds: KINDS.map(made), ink: colour("--ink"), soft: colour("--soft"), line: colour("--line"), grid: colour("--grid"),
      card: colour("--card"), accent: colour("--accent"), on: colour("--on") };
    return this.inks;
  }

  draw() {
    const width = this.scroller.clientWidth, height = this.scroller.clientHeight, ratio = devicePixelRatio || 1;
    if (!width || !height) return;
    this.gutter = width < 560 ? 62 : 128;
    Object.assign(this.canvas.style, { width: width + "px", height: height + "px" });
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const c = this.canvas.getContext("2d"), top = this.scroller.scrollTop;
    this.width = width;
    this.scale = (width - this.gutter) / (this.to - this.from);
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, width, height);
    c.font = "12px system-ui, sans-serif";
    this.drawGrid(c, height);
    this.labelled = -99;
    for (const row of this.rows) {
      const y = row.y - top;
      if (y + row.height < 26 || y > height) continue;
      this.drawRow(c, row, y);
    }
    this.drawHead(c);
  }

  xOf(t) { return this.gutter + (t - this.from) * this.scale; }
  tOf(x) { return this.from + (x - this.gutter) / this.scale; }

  drawGrid(c, height) {
    const inks = this.paints();
    for (const step of this.record.steps)
      for (const [t, ink] of [[step.begin, inks.soft], [step.end, inks.line]]) {
        const x = this.xOf(t);
        if (x < this.gutter || x > this.width) continue;
        c.strokeStyle = ink;
        c.beginPath();
        c.moveTo(x, 18);
        c.lineTo(x, height);
        c.stroke();
      }
  }

  /* Steps and times stay at the top. */
  drawHead(c) {
    const inks = this.paints();
    c.fillStyle = inks.card;
    c.fillRect(0, 0, this.width, 28);
    c.fillStyle = inks.soft;
    const step = this.stepAt((this.from + this.to) / 2), origin = step ? step.begin : 0;
    for (const t of ticks((this.from - origin) * 1e-9, (this.to - origin) * 1e-9, Math.max(2, (this.width - this.gutter) / 110))) {
      const x = this.xOf(t * 1e9 + origin);
      if (x < this.gutter) continue;
      c.fillText(seconds(t), clamp(x - 8, this.gutter, this.width - 44), 25);
    }
    c.fillStyle = inks.ink;
    let free = 0;
    for (const s of this.record.steps) {
      const from = Math.max(this.gutter, this.xOf(s.begin)), to = Math.min(this.width, this.xOf(s.end));
      const text = "step " + (s.step + 1) + (to - from > 120 ? ", " + seconds((s.end - s.begin) * 1e-9) : "");
      const wide = c.measureText(text).width;
      if (to - from < Math.min(wide, 14) || from < free) continue;
      c.fillText(text, from + 3, 12);
      free = from + wide + 10;
    }
    c.strokeStyle = inks.line;
    c.beginPath();
    c.moveTo(0, 28.5);
    c.lineTo(this.width, 28.5);
    c.stroke();
  }

  drawRow(c, row, y) {
    const inks = this.paints();
    if (row.first) {
      c.fillStyle = inks.ink;
      if (y - this.labelled >= 13) c.fillText(this.gutter < 100 ? "r" + row.rank.rank : "rank " + row.rank.rank, 2, y + Math.min(row.height, 14) - 2, this.gutter - 60 < 40 ? 30 : 60);
      if (y - this.labelled >= 13) this.labelled = y;
    }
    c.fillStyle = inks.soft;
    if (this.allLanes && row.lane) c.fillText(row.lane.lane, this.gutter < 100 ? 30 : 62, y + Math.min(row.height, 14) - 2, this.gutter < 100 ? 30 : 62);
    if (!row.lane) {
      c.fillText("no record of this rank", this.gutter + 4, y + 10);
      return;
    }
    this.drawSpans(c, unpackLane(row.lane), y, row.height, inks);
    if (this.at && this.at.row === row) {
      const i = this.at.i, each = row.height / row.lane.levels;
      c.strokeStyle = inks.ink;
      c.lineWidth = 2;
      c.strokeRect(this.xOf(row.lane.begin[i]), y + row.lane.level[i] * each, Math.max(3, (row.lane.end[i] - row.lane.begin[i]) * this.scale), each);
      c.lineWidth = 1;
    }
  }

  drawSpans(c, lane, y, height, inks) {
    const each = height / lane.levels, last = new Float64Array(lane.levels).fill(-1);
    c.save();
    c.beginPath();
    c.rect(this.gutter, y - 1, this.width - this.gutter, height + 2);
    c.clip();
    for (let i = lastUpTo(lane.reach, this.from) + 1; i < lane.begin.length && lane.begin[i] < this.to; i++) {
      const x = this.xOf(lane.begin[i]), to = this.xOf(lane.end[i]), level = lane.level[i];
      if (to < last[level] + 0.4) continue; /* nothing of it would be seen */
      const wide = Math.max(0.7, to - x - (to - x > 3 ? 0.6 : 0));
      c.fillStyle = inks.kinds[lane.kind[i]];
      const still = KINDS[lane.kind[i]].hatch === "lines";
      c.fillRect(x, y + level * each + (still ? each * 0.25 : 0), wide, still ? each * 0.5 : each - (lane.levels > 1 ? 1 : 0));
      last[level] = x + wide;
      if (wide > 34 && each >= 12 && !KINDS[lane.kind[i]].hatch) {
        c.fillStyle = inks.on;
        c.font = "11px system-ui, sans-serif";
        const text = this.name(lane, i);
        if (c.measureText(text).width < wide - 6) c.fillText(text, Math.max(x, this.gutter) + 3, y + level * each + each / 2 + 4);
      }
    }
    c.restore();
    c.font = "12px system-ui, sans-serif";
  }

  name(lane, i) {
    const label = lane.label[i], layer = this.record.layers[label];
    return lane.count[i] > 1 ? lane.count[i] + " × " + this.record.labels[label] + " …" : this.record.labels[label] + (layer >= 0 ? " " + layer : "");
  }

  stepAt(t) {
    return this.record.steps.filter((s) => s.begin <= t).pop() || this.record.steps[0];
  }

  /* Of one span, in words. */
  words(row, i) {
    const lane = row.lane, label = lane.label[i], layer = this.record.layers[label], step = this.stepAt(lane.begin[i]);
    const what = this.record.labels[label] + (layer >= 0 ? ", layer " + layer : "");
    const long = seconds((lane.end[i] - lane.begin[i]) * 1e-9);
    return [lane.count[i] > 1 ? `${lane.count[i]} spans, the longest: ${what}` : what,
      KINDS[lane.kind[i]].name + (lane.count[i] > 1 ? " and others" : ""),
      lane.count[i] > 1 ? `${long}, of that ${seconds(lane.busy[i] * 1e-9)} busy` : long,
      `rank ${row.rank.rank}${row.rank.place ? " (" + row.rank.place + ")" : ""}, ${lane.lane}; ${seconds((lane.begin[i] - step.begin) * 1e-9)} into step ${step.step + 1}`];
  }

  /* The span of a row that is shown at x, or the nearest within a few pixels. */
  find(row, x, y) {
    const lane = unpackLane(row.lane), t = this.tOf(x), level = clamp(Math.floor((y - row.y) / (row.height / lane.levels)), 0, lane.levels - 1);
    let best = -1, far = 5 / this.scale;
    for (let i = lastUpTo(lane.reach, t - far) + 1; i < lane.begin.length && lane.begin[i] <= t + far; i++) {
      if (lane.level[i] !== level) continue;
      const d = Math.max(0, lane.begin[i] - t, t - lane.end[i]);
      if (d < far || best < 0) [best, far] = [i, d];
    }
    return best;
  }

  listen() {
    let drag = null;
    const place = (e) => {
      const box = this.canvas.getBoundingClientRect();
      return [e.clientX - box.left, e.clientY - box.top + this.scroller.scrollTop];
    };
    this.scroller.addEventListener("scroll", () => this.draw());
    this.canvas.addEventListener("pointerdown", (e) => {
      if (e.button !== 0) return;
      drag = { x: place(e)[0], from: this.from, to: this.to, top: this.scroller.scrollTop, y: e.clientY };
      if (e.pointerType === "mouse") this.canvas.setPointerCapture(e.pointerId);
    });
    this.canvas.addEventListener("pointermove", (e) => {
      const [x, y] = place(e);
      if (drag && (Math.abs(x - drag.x) > 3 || drag.moved)) {
        drag.moved = true;
        hideTip();
        const by = (drag.x - x) / this.scale;
        this.show(drag.from + by, drag.to + by);
        if (e.pointerType === "mouse") this.scroller.scrollTop = drag.top + drag.y - e.clientY;
        return;
      }
      const row = x > this.gutter && this.rows.find((r) => y >= r.y && y <= r.y + r.height), i = row && row.lane ? this.find(row, x, y) : -1;
      if (i < 0) return hideTip();
      const words = this.words(row, i);
      showTip(e.clientX, e.clientY, el("b", { text: words[0] }), ...words.slice(1).map((text) => el("div", { text })));
    });
    this.canvas.addEventListener("pointerup", () => { drag = null; });
    for (const name of ["pointerleave", "pointercancel"]) this.canvas.addEventListener(name, () => { hideTip(); drag = null; });
    this.canvas.addEventListener("dblclick", (e) => this.zoom(0.4, this.tOf(place(e)[0])));
    this.canvas.addEventListener("wheel", (e) => {
      if (e.ctrlKey || e.metaKey) this.zoom(Math.exp(e.deltaY * 0.004), this.tOf(place(e)[0]));
      else if (Math.abs(e.deltaX) > Math.abs(e.deltaY)) this.pan(e.deltaX / this.width);
      else return;
      e.preventDefault();
    }, { passive: false });
    this.canvas.addEventListener("keydown", (e) => this.key(e));
  }

  show(from, to) {
    this.touched = true;
    const most = this.length * 1.02, least = this.least - this.length * 0.01, wide = Math.min(to - from, most - least);
    this.from = clamp(from, least, most - wide);
    this.to = this.from + wide;
    this.draw();
  }
  zoom(factor, about) {
    const at = about === undefined ? (this.from + this.to) / 2 : about;
    if ((this.to - this.from) * factor > 200) this.show(at - (at - this.from) * factor, at + (this.to - at) * factor);
  }
  pan(share) { this.show(this.from + share * (this.to - this.from), this.to + share * (this.to - this.from)); }
  all() { this.show(this.least, this.length * 1.002); }

  key(e) {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[e.key] || 0, turn = { ArrowUp: -1, ArrowDown: 1 }[e.key] || 0;
    if (e.ctrlKey || e.altKey || e.metaKey) return;
    if (move && e.shiftKey) this.pan(move * 0.2);
    else if (move || turn) this.select(move, turn);
    else if (e.key === "+" || e.key === "=") this.zoom(0.5, this.at ? this.at.row.lane.begin[this.at.i] : undefined);
    else if (e.key === "-") this.zoom(2);
    else if (e.key === "0" || e.key === "Escape") this.all();
    else return;
    e.preventDefault();
  }

  select(move, turn) {
    const rows = this.rows.filter((row) => row.lane && row.lane.n);
    if (!rows.length) return;
    let row = this.at ? this.at.row : rows[0], i = this.at ? this.at.i : lastUpTo(unpackLane(rows[0].lane).reach, this.from) + 1 - move;
    if (turn) {
      const t = unpackLane(row.lane).begin[Math.max(0, i)] || this.from;
      row = rows[clamp(rows.indexOf(row) + turn, 0, rows.length - 1)];
      i = lastUpTo(unpackLane(row.lane).begin, t);
    }
    i = clamp(i + move, 0, row.lane.n - 1);
    this.at = { row, i };
    if (row.lane.end[i] < this.from || row.lane.begin[i] > this.to) this.show(row.lane.begin[i] - (this.to - this.from) / 3, row.lane.begin[i] + (this.to - this.from) * 2 / 3);
    if (row.y < this.scroller.scrollTop + 30) this.scroller.scrollTop = row.y - 34;
    if (row.y + row.height > this.scroller.scrollTop + this.scroller.clientHeight) this.scroller.scrollTop = row.y + row.height - this.scroller.clientHeight + 6;
    this.draw();
    say(this.words(row, i).join("; "));
  }
}

/* When a lane's first span begins, without unpacking the rest. */
function unpackFirst(lane) {
  if (lane.begin) return lane.begin[0];
  const head = lane.spans.slice(0, 16);
  return unpackDeltas(head.length % 4 ? head.slice(0, head.length - head.length % 4) : head)[0];
}

function timelineLegend(record) {
  const used = KINDS.filter((_, k) => record.ranks.some((rank) => rank.seconds[k] > 0));
  return el("div", { class: "keys", "aria-hidden": "true" }, ...used.map((kind) => el("span", {},
    el("i", { class: kind.hatch === "lines" ? "lines" : kind.hatch === "dots" ? "dots" : "", style: { "--ink-of": `var(${kind.ink})` } }), kind.name)));
}

function timelineSection(runs) {
  for (const run of runs) {
    const record = run.record;
    if (!record || !record.steps.length) continue;
    const many = runs.filter((r) => r.record).length > 1, steps = record.steps;
    const node = section("timeline" + (many ? runs.indexOf(run) : ""), many ? "Timeline, " + run.title : "Timeline",
      `Steps ${steps[0].step + 1} to ${steps[steps.length - 1].step + 1} of ${record.ranks.length} rank${record.ranks.length > 1 ? "s" : ""}, on one clock. Drag to move; pinch, Ctrl and wheel, or a double click look closer.` +
      (record.resolution > 0 ? ` Neighbours that lie within ${seconds(record.resolution * 1e-9)} are drawn as one.` : ""));
    for (const sentence of record.damage) node.append(el("p", { class: "note" }, el("b", { text: "Missing:" }), sentence));
    node.append(timelineCard(run));
    if (record.events.length) node.append(eventsCard(record));
    if (record.ranks.length > 1) node.append(ranksChart(run));
  }
}

function timelineCard(run) {
  const record = run.record, line = run.timeline = new Timeline(record), steps = record.steps;
  const tool = (text, name, does) => el("button", { type: "button", text, "aria-label": name, title: name, on: { click: does } });
  const pick = el("select", { "aria-label": "Show a step" }, el("option", { value: "", text: "step …" }), ...steps.map((s, i) => el("option", { value: i, text: "step " + (s.step + 1) })));
  pick.addEventListener("change", () => {
    const s = steps[pick.value];
    if (s) line.show(s.begin - (s.end - s.begin) * 0.02, s.end + (s.end - s.begin) * 0.02);
    pick.value = "";
  });
  const lanes = el("button", { type: "button", class: "plain", "aria-pressed": String(line.allLanes), text: "All lanes" });
  lanes.addEventListener("click", () => {
    line.allLanes = !line.allLanes;
    line.at = null;
    lanes.setAttribute("aria-pressed", String(line.allLanes));
    line.layOut();
    line.draw();
  });
  return el("figure", { class: "card" }, el("div", { class: "bar", role: "group", "aria-label": "How the timeline is shown" }, pick, lanes, el("span", { class: "push" }),
    tool("+", "Zoom in", () => line.zoom(0.5)), tool("−", "Zoom out", () => line.zoom(2)), tool("◂", "Earlier", () => line.pan(-0.3)),
    tool("▸", "Later", () => line.pan(0.3)), tool("All", "Show everything", () => line.all())),
    timelineLegend(record), line.scroller,
    tableBehind("Seconds per step of each rank, by what it did", () => rankTable(record)));
}

function rankTable(record) {
  const used = KINDS.map((kind, k) => ({ kind, k })).filter(({ k }) => record.ranks.some((rank) => rank.seconds[k] > 0));
  return { columns: [{ name: "rank", number: true }, { name: "place" }, ...used.map(({ kind }) => ({ name: kind.name, number: true }))],
    rows: record.ranks.map((rank) => [rank.rank, [rank.place, rank.host].filter(Boolean).join(", ") + (rank.steps_missing ? `, ${rank.steps_missing} steps missing` : ""),
      ...used.map(({ k }) => scaled(rank.seconds[k] / record.steps.length, "s"))]) };
}

/* Who computes and who waits: seconds per step over ranks. */
function ranksChart(run) {
  const record = run.record, group = new Group(), x = Float64Array.from(record.ranks, (r) => r.rank);
  group.axis = { name: "rank", whole: true, of: (_, v) => v, text: (v) => number(v) };
  const sum = (kinds) => Float64Array.from(record.ranks, (r) => kinds.reduce((s, k) => s + r.seconds[k], 0) / record.steps.length);
  const made = [["computing", [0, 1, 2, 3, 4]], ["waiting for ranks", [5, 12]], ["waiting for data", [6]], ["an exchange under way, hidden or not", [7]]]
    .map(([label, kinds], i) => ({ label, run, x, y: sum(kinds), colour: i, dash: DASHES[i], marks: x.length <= 64 })).filter((line) => line.y.some((v) => v > 0));
  const node = new Chart(group, { title: "What ranks did", unit: "seconds per step, over ranks", wide: true, zero: true, lines: made, format: (y) => seconds(y), axisName: "rank" }).node;
  node.classList.add("spaced");
  return node;
}

/* What a trigger kept steps for: a slow step, a spike of the loss. */
function eventsCard(record) {
  const rows = record.events.map((e) => [number(e.step + 1), e.rank >= 0 ? "rank " + e.rank : "all", e.kind, e.text]);
  return el("div", { class: "card spaced" }, el("h3", { text: "What stood out" }), el("p", { class: "intro", text: "The steps around these are kept; headway report --step N shows them." }),
    table("What stood out", [{ name: "step", number: true }, { name: "where" }, { name: "what" }, { name: "in words" }], rows));
}
