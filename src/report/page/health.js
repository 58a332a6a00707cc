/* Health of learning (log.health): every parameter's norms over the steps, as a map whose cells are
 * read by pointing or with the arrow keys, and what was measured of each layer. */

const HEALTH_KINDS = [
  ["update_ratio", "update over weight", "How far a step moves a weight, as a share of its norm; about 1e-3 is usual with Adam."],
  ["grad", "norm of the gradient", "Before clipping."],
  ["weight", "norm of the weight", "After the update."],
  ["update", "norm of the update", "After minus before, as stored."],
];

function healthSection(runs) {
  const runsWith = runs.filter((run) => run.metrics.names("health/").length);
  if (!runsWith.length) return;
  const node = section("health", "Health of learning", "Measured on the steps that log.health asked for.");
  const group = runs.health = new Group(), grid = el("div", { class: "grid" });
  group.axis = AXES[0];
  for (const run of runsWith) if (run.metrics.names("health/parameters/").length) node.append(healthMap(run, runs.length > 1));
  const layers = [...new Set(runsWith.flatMap((run) => run.metrics.names("health/attention_logit_max/")))];
  const charts = [
    { title: "Largest attention logit of a layer", unit: "q k scale, before softmax", wanted: layers.map((name, i) =>
      [name, "layer " + name.split("/").pop(), { off: i >= 8 }]) },
    { title: "Gradient noise scale", unit: "tokens", logOnly: true, wanted: [["health/noise/scale_tokens", "noise scale", { marks: true }],
      ["health/noise/big_tokens", "tokens of a step"]], format: (y) => scaled(y, "").trim() },
    { title: "Norms of the whole model", logOnly: true, wanted: [["health/grad_norm", "gradient"], ["health/weight_norm", "weights"], ["health/update_norm", "update"]] },
  ];
  for (const chart of charts) {
    const drawn = lines(runsWith, chart.wanted);
    if (drawn.length) grid.append(new Chart(group, Object.assign({ lines: drawn }, chart)).node);
  }
  if (!runsWith.some((run) => run.metrics.get("health/noise/scale_tokens")))
    grid.append(el("p", { class: "intro", text: "The gradient noise scale is not known: it takes two micro-batches a step or two ranks of dp (--train.accumulate 2), none of cp, and a gradient that its noise does not hide." }));
  grid.classList.add("spaced");
  node.append(grid);
}

/* Dark blue to yellow, even in lightness (a polynomial of our own choosing through five stops). */
const STOPS = [[43, 24, 94], [52, 82, 158], [38, 143, 152], [110, 194, 98], [247, 224, 72]];
function heat(share) {
  const at = clamp(share, 0, 1) * (STOPS.length - 1), i = Math.min(STOPS.length - 2, Math.floor(at)), f = at - i;
  return `rgb(${STOPS[i].map((c, k) => Math.round(c + (STOPS[i + 1][k] - c) * f)).join(",")})`;
}

class HeatMap {
  constructor(run, names) {
    Object.assign(this, { run, names, kind: 0, row: 0, column: 0, pointed: false });
    this.canvas = el("canvas", { tabindex: 0, role: "img", "aria-label": "Map of parameters and steps; arrow keys read its cells" });
    this.scale = el("p", { class: "intro" });
    this.canvas.addEventListener("pointermove", (e) => this.point(e));
    this.canvas.addEventListener("pointerleave", () => { hideTip(); this.pointed = false; this.draw(); });
    this.canvas.addEventListener("keydown", (e) => this.key(e));
    onResize(this.canvas.parentElement || this.canvas, () => this.draw());
    onTheme(this.canvas, () => this.draw());
    this.load();
  }
  load() {
    const kind = HEALTH_KINDS[this.kind][0];
    this.rows = this.names.map((name) => this.run.metrics.get("health/parameters/" + name + "/" + kind));
    this.low = Infinity;
    this.high = 0;
    for (const s of this.rows)
      if (s) for (const y of s.y) if (y > 0) { this.low = Math.min(this.low, y); this.high = Math.max(this.high, y); }
    this.columns = Math.max(1, ...this.rows.map((s) => (s ? s.y.length : 0)));
    this.scale.textContent = HEALTH_KINDS[this.kind][2] + (this.high > 0 ? ` Dark is ${number(this.low, 2)}, bright ${number(this.high, 2)}, in equal factors between.` : "");
    this.draw();
  }
  draw() {
    const width = this.canvas.clientWidth, ratio = devicePixelRatio || 1;
    if (!width) return;
    const each = this.names.length > 60 ? 8 : 16, height = each * this.names.length + 22;
    this.label = width < 500 ? 0 : Math.min(210, width * 0.35);
    this.each = each;
    this.canvas.style.height = height + "px";
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    const c = this.canvas.getContext("2d");
    c.scale(ratio, ratio);
    c.font = Math.min(12, each - 2) + "px system-ui, sans-serif";
    const wide = (width - this.label) / this.columns, span = Math.log(this.high / this.low) || 1;
    this.rows.forEach((s, r) => {
      c.fillStyle = colour("--soft");
      if (this.label && each > 9) c.fillText(this.names[r], 0, r * each + each - 4, this.label - 8);
      if (!s) return;
      for (let i = 0; i < s.y.length; i++) {
        c.fillStyle = s.y[i] > 0 ? heat(Math.log(s.y[i] / this.low) / span) : colour("--grid");
        c.fillRect(this.label + i * wide, r * each, Math.ceil(wide), each - 1);
      }
    });
    this.axis(c, width, wide, height);
    if (this.pointed || document.activeElement === this.canvas) {
      c.strokeStyle = colour("--ink");
      c.lineWidth = 2;
      c.strokeRect(this.label + this.column * wide, this.row * each, Math.max(3, wide), each - 1);
    }
  }
  axis(c, width, wide, height) {
    const s = this.rows.find((row) => row && row.x.length === this.columns);
    if (!s) return;
    c.fillStyle = colour("--soft");
    c.font = "12px system-ui, sans-serif";
    for (let k = 0; k < 5; k++) {
      const i = Math.round(k * (this.columns - 1) / 4);
      c.textAlign = k === 0 ? "left" : k === 4 ? "right" : "center";
      c.fillText((k ? "" : "step ") + number(s.x[i]), k === 4 ? width : this.label + (k ? i + 0.5 : 0) * wide, height - 5);
      if (this.columns < 3) break;
    }
    c.textAlign = "left";
  }
  text() {
    const s = this.rows[this.row];
    return s && s.y.length > this.column ? `${this.names[this.row]}, step ${number(s.x[this.column])}: ${HEALTH_KINDS[this.kind][1]} ${number(s.y[this.column], 3)}` : this.names[this.row] + ": not measured";
  }
  point(e) {
    const box = this.canvas.getBoundingClientRect(), wide = (box.width - this.label) / this.columns;
    this.column = clamp(Math.floor((e.clientX - box.left - this.label) / wide), 0, this.columns - 1);
    this.row = clamp(Math.floor((e.clientY - box.top) / this.each), 0, this.names.length - 1);
    this.pointed = true;
    this.draw();
    showTip(e.clientX, e.clientY, el("span", { text: this.text() }));
  }
  key(e) {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[e.key];
    if (!move) return;
    this.row = clamp(this.row + move[0], 0, this.names.length - 1);
    this.column = clamp(this.column + move[1], 0, this.columns - 1);
    this.draw();
    say(this.text());
    e.preventDefault();
  }
}

function healthMap(run, named) {
  const names = [...new Set(run.metrics.names("health/parameters/").map((name) => name.slice(18, name.lastIndexOf("/"))))];
  const map = new HeatMap(run, names);
  const select = el("select", { "aria-label": "What the map shows" }, ...HEALTH_KINDS.map(([, text], i) => el("option", { value: i, text })));
  select.addEventListener("change", () => {
    map.kind = Number(select.value);
    map.load();
  });
  const last = (name, kind) => number(run.metrics.last("health/parameters/" + name + "/" + kind), 3);
  return el("figure", { class: "card spaced" }, el("div", { class: "head" }, el("h3", { text: "Parameters" + (named ? ", " + run.title : "") }), select), map.scale, map.canvas,
    tableBehind("Parameters, at the last step measured", () => ({
      columns: [{ name: "parameter" }, ...HEALTH_KINDS.map(([, name]) => ({ name, number: true }))],
      rows: names.map((name) => [name, ...HEALTH_KINDS.map(([kind]) => last(name, kind))]) })));
}
