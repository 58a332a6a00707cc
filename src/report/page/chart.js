/* Curves over a common horizontal axis. Charts of one group zoom, pan and point together. Lines
 * differ by colour and by dashes, values are read by pointing, by arrow keys, or from the table. */

const DASHES = ["", "7 4", "2 3", "9 3 2 3", "1 4", "12 4", "5 2 1 2", "3 6"];

class Group {
  constructor() {
    this.charts = [];
    this.from = null; /* what is shown of the axis; null: all */
    this.to = null;
    this.at = null;   /* what is pointed at */
    this.smooth = 0;
    this.log = false;
    this.axis = { name: "step", whole: true, of: (run, x) => x, text: (x) => number(x) };
  }
  show(from, to) {
    [this.from, this.to] = [from, to];
    this.draw();
  }
  extent() {
    let low = Infinity, high = -Infinity;
    for (const chart of this.charts)
      for (const line of chart.lines) {
        if (line.off || !line.n) continue;
        low = Math.min(low, line.xs[0]);
        high = Math.max(high, line.xs[line.n - 1]);
      }
    return low < high ? [low, high] : isFinite(low) ? [low - 1, low + 1] : [0, 1];
  }
  shown() {
    const [low, high] = this.extent();
    return this.from === null ? [low, high] : [this.from, this.to];
  }
  zoom(factor, about) {
    const [low, high] = this.shown(), [least, most] = this.extent();
    const at = about === undefined || about === null ? (low + high) / 2 : about;
    const from = Math.max(least, at - (at - low) * factor), to = Math.min(most, at + (high - at) * factor);
    if (from <= least && to >= most) this.show(null, null);
    else if (to - from > (most - least) * 1e-6) this.show(from, to);
  }
  pan(share) {
    const [low, high] = this.shown(), [least, most] = this.extent();
    const by = clamp(share * (high - low), least - low, most - high);
    if (this.from !== null) this.show(low + by, high + by);
  }
  point(at) {
    this.at = at;
    for (const chart of this.charts) chart.drawCursor();
  }
  setAxis(axis) {
    this.axis = axis;
    this.from = this.to = this.at = null;
    for (const chart of this.charts) chart.place();
    this.draw();
  }
  draw() {
    for (const chart of this.charts) chart.draw();
  }
  /* The runs have read on: the same curves, longer. */
  renew() {
    for (const chart of this.charts) {
      for (const line of chart.lines) {
        const s = line.run.metrics.get(line.name);
        if (s) Object.assign(line, { x: s.x, y: s.y, low: s.low, high: s.high, weight: null });
      }
      chart.place();
    }
    this.draw();
  }
}

/* Exponential smoothing without the pull of its start (as Adam corrects its moments). */
function smoothed(ys, weight) {
  const out = new Float64Array(ys.length);
  let mean = 0, mass = 0;
  for (let i = 0; i < ys.length; i++) {
    mean = weight * mean + (1 - weight) * ys[i];
    mass = weight * mass + (1 - weight);
    out[i] = mean / mass;
  }
  return out;
}

class Chart {
  /* o: title, unit, lines [{ label, run, x, y, low, high, colour, dash, marks, off }], format, height, axisName and
   * axisText where it is not over steps, log: whether a logarithmic axis makes sense, zero: the axis begins there, events [{ x, text }] */
  constructor(group, o) {
    Object.assign(this, { group, lines: o.lines, o, width: 0 });
    this.format = o.format || ((y) => number(y));
    this.id = "chart" + Chart.count++;
    this.plot = svg("svg", { class: "plot", tabindex: 0, role: "img", "aria-labelledby": this.id + " " + this.id + "c",
      height: o.height || 220 });
    this.caption = el("figcaption", { id: this.id + "c" });
    this.legend = el("div", { class: "legend", role: "group", "aria-label": "Lines of " + o.title });
    this.node = el("figure", { class: "card" + (o.wide ? " wide" : "") },
      el("div", { class: "head" }, el("h3", { id: this.id, text: o.title }), el("span", { class: "unit", text: o.unit || "" })),
      this.legend, this.plot, this.caption, tableBehind(o.title, () => this.rows()));
    group.charts.push(this);
    this.place();
    this.makeLegend();
    this.listen();
    onResize(this.node, () => {
      const width = Math.floor(this.node.clientWidth - 34);
      if (width > 0 && Math.abs(width - this.width) > 1) {
        this.width = width;
        this.draw();
      }
    });
  }

  /* Where the points lie on the group's axis. */
  place() {
    for (const line of this.lines) {
      line.xs = Float64Array.from(line.x, (x) => this.group.axis.of(line.run, x));
      line.n = line.xs.length;
    }
  }

  makeLegend() {
    this.legend.hidden = this.lines.length < 2;
    this.legend.replaceChildren(...this.lines.map((line) => {
      const button = el("button", { type: "button", "aria-pressed": String(!line.off) },
        svg("svg", { width: 26, height: 10, "aria-hidden": "true" },
          svg("line", { x1: 1, x2: 25, y1: 5, y2: 5, stroke: `var(--c${line.colour})`, "stroke-width": 2.5, "stroke-dasharray": line.dash }),
          line.marks && svg("circle", { cx: 13, cy: 5, r: 3.5, fill: `var(--c${line.colour})` })), line.label);
      button.addEventListener("click", () => {
        line.off = !line.off;
        button.setAttribute("aria-pressed", String(!line.off));
        this.group.draw();
      });
      return button;
    }));
  }

  /* --- what is seen ------------------------------------------------------------------ */

  visible(line) {
    const [from, to] = this.group.shown();
    return [Math.max(0, lastUpTo(line.xs, from)), Math.min(line.n - 1, lastUpTo(line.xs, to) + 1)];
  }

  range() {
    let low = Infinity, high = -Infinity, positive = true;
    for (const line of this.lines) {
      if (line.off || !line.n) continue;
      const [first, last] = this.visible(line), ys = this.values(line), raw = this.group.smooth > 0.01 && line.n > 8 ? ys : null;
      for (let i = first; i <= last; i++) {
        low = Math.min(low, (raw || line.low || line.y)[i]);
        high = Math.max(high, (raw || line.high || line.y)[i]);
      }
    }
    if (!isFinite(low)) return [0, 1, false];
    positive = low > 0;
    const log = (this.o.logOnly || (this.o.log && this.group.log)) && positive;
    if (log) return low < high ? [low / Math.pow(high / low, 0.04), high * Math.pow(high / low, 0.04), true] : [low / 2, high * 2, true];
    if (this.o.zero) low = Math.min(0, low);
    const room = (high - low) * 0.06 || Math.abs(high) * 0.05 || 1;
    return [this.o.zero && low === 0 ? 0 : low - room, high + room, false];
  }

  values(line) {
    if (this.group.smooth < 0.01 || line.marks) return line.y;
    if (line.weight !== this.group.smooth) {
      line.weight = this.group.smooth;
      line.smooth = smoothed(line.y, line.weight);
    }
    return line.smooth;
  }

  draw() {
    if (!this.width) return;
    const height = this.o.height || 220, [from, to] = this.group.shown(), [low, high, log] = this.range();
    const labels = log ? logTicks(low, high, 5) : ticks(low, high, Math.max(2, Math.floor(height / 45)));
    const left = 10 + 7 * Math.max(3, ...labels.map((v) => this.format(v).length));
    this.area = { left, right: this.width - 8, top: 8, bottom: height - 24, from, to };
    const a = this.area;
    this.toX = (x) => a.left + (x - from) / (to - from) * (a.right - a.left);
    this.toY = log ? (y) => a.bottom - Math.log(y / low) / Math.log(high / low) * (a.bottom - a.top)
      : (y) => a.bottom - (y - low) / (high - low) * (a.bottom - a.top);
    this.plot.setAttribute("viewBox", `0 0 ${this.width} ${height}`);
    this.cursor = svg("g", {});
    const clip = this.id + "p";
    this.plot.replaceChildren(
      svg("defs", {}, svg("clipPath", { id: clip }, svg("rect", { x: a.left - 1, y: a.top - 4, width: a.right - a.left + 6, height: a.bottom - a.top + 8 }))),
      this.axes(labels), svg("g", { "clip-path": `url(#${clip})` }, ...this.drawEvents(), ...this.lines.flatMap((line) => this.drawLine(line))),
      this.cursor);
    this.caption.textContent = this.summary();
    this.drawCursor();
  }

  axes(labels) {
    const a = this.area, g = svg("g", {});
    for (const v of labels) {
      const y = this.toY(v);
      g.append(svg("line", { class: "gridline", x1: a.left, x2: a.right, y1: y, y2: y }),
        svg("text", { x: a.left - 6, y: y + 4, "text-anchor": "end", text: this.format(v) }));
    }
    for (const x of ticks(a.from, a.to, Math.max(2, Math.floor((a.right - a.left) / 90)))) {
      const at = this.toX(x);
      if (this.group.axis.whole && !Number.isInteger(x)) continue;
      g.append(svg("line", { class: "axis", x1: at, x2: at, y1: a.bottom, y2: a.bottom + 4 }),
        svg("text", { x: clamp(at, a.left + 8, a.right - 14), y: a.bottom + 17, "text-anchor": "middle", text: this.group.axis.text(x) }));
    }
    g.append(svg("line", { class: "axis", x1: a.left, x2: a.right, y1: a.bottom, y2: a.bottom }));
    return g;
  }

  drawEvents() {
    return (this.o.events || []).map((e) => {
      const x = this.toX(this.group.axis.of(e.run, e.x));
      return svg("line", { class: "event", x1: x, x2: x, y1: this.area.top, y2: this.area.bottom }, svg("title", { text: e.text }));
    });
  }

  path(line, ys, first, last) {
    let d = "";
    for (let i = first; i <= last; i++) d += (d ? "L" : "M") + this.toX(line.xs[i]).toFixed(1) + " " + this.toY(ys[i]).toFixed(1);
    return d;
  }

  drawLine(line) {
    if (line.off || !line.n) return [];
    const [first, last] = this.visible(line), ink = `var(--c${line.colour})`, ys = this.values(line), out = [];
    if (line.low && ys === line.y) {
      let band = this.path(line, line.high, first, last);
      for (let i = last; i >= first; i--) band += "L" + this.toX(line.xs[i]).toFixed(1) + " " + this.toY(line.low[i]).toFixed(1);
      out.push(svg("path", { d: band + "Z", fill: ink, opacity: 0.18 }));
    }
    if (ys !== line.y) out.push(svg("path", { d: this.path(line, line.y, first, last), fill: "none", stroke: ink, "stroke-width": 1, opacity: 0.28 }));
    out.push(svg("path", { d: this.path(line, ys, first, last), fill: "none", stroke: ink, "stroke-width": 1.8,
      "stroke-dasharray": line.dash, "stroke-linejoin": "round" }));
    if (line.marks || line.n === 1)
      for (let i = first; i <= last && last - first < 400; i++)
        out.push(svg("circle", { cx: this.toX(line.xs[i]).toFixed(1), cy: this.toY(ys[i]).toFixed(1), r: 3, fill: ink }));
    return out;
  }

  /* One sentence per line, for those who do not see it and for those who do. */
  summary() {
    const shown = this.lines.filter((line) => !line.off && line.n);
    return shown.slice(0, 3).map((line) => {
      const [first, last] = this.visible(line), y = line.y;
      let least = first, most = first;
      for (let i = first; i <= last; i++) {
        if ((line.low || y)[i] < (line.low || y)[least]) least = i;
        if ((line.high || y)[i] > (line.high || y)[most]) most = i;
      }
      const name = shown.length > 1 ? line.label + ": " : "";
      return name + `${this.format(y[first])} at first, ${this.format(y[last])} at the end; between ` +
        `${this.format((line.low || y)[least])} and ${this.format((line.high || y)[most])}.`;
    }).join(" ") + (shown.length > 3 ? ` ${shown.length === 4 ? "One more line is" : `${shown.length - 3} more lines are`} in the table.` : "");
  }

  rows() {
    const shown = this.lines.filter((line) => !line.off && line.n);
    const longest = shown.reduce((a, b) => (b.n > a.n ? b : a), shown[0] || { n: 0, x: [] });
    const every = Math.max(1, Math.ceil(longest.n / 60)), picks = new Set();
    for (const line of shown)
      for (let i = 0; i < line.n; i += line.n > 60 ? every : 1) picks.add(line.x[i]);
    const steps = [...picks].sort((p, q) => p - q).slice(0, 400);
    const rows = steps.map((step) => [(this.o.axisText || number)(step), ...shown.map((line) => {
      const i = lastUpTo(line.x, step);
      return i >= 0 && line.x[i] === step ? this.format(line.y[i]) : "";
    })]);
    return { columns: [{ name: this.o.axisName || "step", number: true }, ...shown.map((line) => ({ name: line.label, number: true }))], rows };
  }

  /* --- pointing ---------------------------------------------------------------------- */

  nearest(line, at) {
    const i = lastUpTo(line.xs, at);
    if (i < 0) return 0;
    return i + 1 < line.n && line.xs[i + 1] - at < at - line.xs[i] ? i + 1 : i;
  }

  drawCursor() {
    if (!this.cursor) return;
    const at = this.group.at, a = this.area;
    if (at === null || at < a.from || at > a.to) {
      this.cursor.replaceChildren();
      return;
    }
    const x = this.toX(at);
    this.cursor.replaceChildren(svg("line", { class: "cursor", x1: x, x2: x, y1: a.top, y2: a.bottom }),
      ...this.lines.filter((line) => !line.off && line.n).map((line) => {
        const i = this.nearest(line, at);
        return svg("circle", { cx: this.toX(line.xs[i]), cy: clamp(this.toY(this.values(line)[i]), a.top, a.bottom), r: 4, fill: `var(--c${line.colour})`, stroke: "var(--card)", "stroke-width": 1.5 });
      }));
  }

  reading(at) {
    return this.lines.filter((line) => !line.off && line.n).map((line) => {
      const i = this.nearest(line, at);
      const spread = line.low && line.low[i] < line.high[i] ? ` (${this.format(line.low[i])} to ${this.format(line.high[i])})` : "";
      return [line, this.format(line.y[i]) + spread, line.x[i]];
    });
  }

  /* Where on the axis, in words: "step 12". */
  where(x) {
    return (this.o.axisName || "step") + " " + (this.o.axisText || number)(x);
  }

  tip(at, event) {
    const reading = this.reading(at);
    if (!reading.length) return;
    showTip(event.clientX, event.clientY, el("b", { text: this.where(reading[0][2]) }),
      el("table", {}, ...reading.slice(0, 14).map(([line, text]) => el("tr", {},
        el("td", {}, svg("svg", { width: 18, height: 8 }, svg("line", { x1: 0, x2: 18, y1: 4, y2: 4, stroke: `var(--c${line.colour})`, "stroke-width": 2.5, "stroke-dasharray": line.dash }))),
        el("td", { text: line.label }), el("td", { class: "n", text })))));
  }

  place_of(event) {
    const box = this.plot.getBoundingClientRect(), a = this.area;
    const x = (event.clientX - box.left) * this.width / box.width;
    return a.from + clamp((x - a.left) / (a.right - a.left), 0, 1) * (a.to - a.from);
  }

  listen() {
    let drag = null, pick = null;
    this.plot.addEventListener("pointerdown", (e) => {
      if (!this.area || e.button !== 0) return;
      drag = { x: e.clientX, at: this.place_of(e) };
      if (e.pointerType === "mouse") this.plot.setPointerCapture(e.pointerId);
    });
    this.plot.addEventListener("pointermove", (e) => {
      if (!this.area) return;
      const at = this.place_of(e);
      if (drag && e.pointerType === "mouse" && Math.abs(e.clientX - drag.x) > 5) {
        const [low, high] = [Math.min(at, drag.at), Math.max(at, drag.at)];
        if (pick) pick.remove();
        pick = svg("rect", { class: "pick", x: this.toX(low), width: this.toX(high) - this.toX(low), y: this.area.top, height: this.area.bottom - this.area.top });
        this.plot.append(pick);
        pick.range = [low, high];
      }
      this.group.point(at);
      this.tip(at, e);
    });
    this.plot.addEventListener("pointerup", () => {
      const range = pick && pick.range;
      drag = pick = null;
      if (range) this.group.show(range[0], range[1]);
    });
    for (const name of ["pointerleave", "pointercancel"])
      this.plot.addEventListener(name, () => {
        hideTip();
        if (!drag) this.group.point(null);
      });
    this.plot.addEventListener("dblclick", () => this.group.show(null, null));
    this.plot.addEventListener("keydown", (e) => this.key(e));
  }

  key(e) {
    const group = this.group, line = this.lines.find((l) => !l.off && l.n);
    const move = e.key === "ArrowRight" ? 1 : e.key === "ArrowLeft" ? -1 : 0;
    if (!line || !this.area || e.ctrlKey || e.altKey || e.metaKey) return;
    if (move && e.shiftKey) group.pan(move * 0.2);
    else if (move) {
      const i = group.at === null ? this.visible(line)[0] : clamp(this.nearest(line, group.at) + move, 0, line.n - 1);
      group.point(line.xs[i]);
      if (line.xs[i] < this.area.from || line.xs[i] > this.area.to) group.pan(move * 0.5);
      say(this.where(line.x[i]) + ": " + this.reading(line.xs[i]).map(([l, text]) => l.label + " " + text).join(", "));
    } else if (e.key === "+" || e.key === "=") group.zoom(0.5, group.at);
    else if (e.key === "-") group.zoom(2, group.at);
    else if (e.key === "0" || e.key === "Escape") group.show(null, null);
    else return;
    e.preventDefault();
  }
}
Chart.count = 0;
