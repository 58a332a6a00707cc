/* A page of `headway serve`: asks where it came from for what is new, and changes what is shown
 * without moving what somebody looks at. */

const live = { on: false, runs: null, seen: "", seenRecord: "", data: null, record: null, failed: 0, askRecord: 0 };
const LIVE_MS = 2000, LIVE_RECORD_MS = 10000;

async function ask(what, seen) {
  const answer = await fetch(what + (seen ? "?seen=" + seen : ""), { cache: "no-store", signal: AbortSignal.timeout(20000) });
  if (answer.status === 204) return null;
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

function startLive() {
  live.on = true;
  tellLive("asking …");
  turnLive();
}

/* One after another, and seldom where nobody looks. */
async function turnLive() {
  try {
    const news = await ask("data", live.seen);
    if (news) takeData(news);
    if (performance.now() >= live.askRecord) {
      live.askRecord = performance.now() + LIVE_RECORD_MS;
      const record = await ask("record", live.seenRecord);
      if (record) takeRecord(record);
    }
    live.failed = 0;
    tellLive(age());
  } catch (error) {
    if (live.failed++ === 1) say("headway serve does not answer");
    tellLive("no answer from headway serve");
    if (!live.runs) document.getElementById("main").replaceChildren(el("p", { class: "note", text: "headway serve does not answer: " + error.message }));
  }
  setTimeout(turnLive, document.hidden ? 10 * LIVE_MS : LIVE_MS * Math.min(10, 1 + live.failed));
}

function tellLive(text) {
  document.getElementById("live").textContent = text;
}

function age() {
  const last = Math.max(...live.runs.map((run) => run.metrics.packed.last_t || 0)), since = Date.now() / 1000 - last;
  return since < 15 ? "live" : "quiet for " + seconds(Math.max(0, since));
}

/* Curves of the same names grow where they are; new ones need a new page. */
function takeData(news) {
  live.seen = news.seen;
  live.data = news.data;
  const known = live.runs && live.runs.map((run) => [...run.metrics.byName.keys()].join()).join(";");
  const now = news.data.runs.map((run) => run.metrics.series.map((s) => s.name).join()).join(";");
  if (known !== now) return showLive();
  live.runs.forEach((run, i) => {
    const fresh = news.data.runs[i];
    Object.assign(run, { manifest: fresh.manifest, energy: fresh.energy, log: fresh.log, missing: fresh.missing, metrics: new Metrics(fresh.metrics) });
  });
  live.runs.curves.renew();
  if (live.runs.health) live.runs.health.renew();
  for (const [id, make] of [["summary", summarySection], ["energy", energySection], ["log", logSection]]) refresh(id, make);
  tellMade(news.data);
}

/* Not while somebody reads it: the keyboard is in it, or it was scrolled up. */
function refresh(id, make) {
  const node = document.getElementById(id);
  if (!node || node.contains(document.activeElement)) return;
  const logs = [...node.querySelectorAll("pre.log")].map((pre) => pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 4);
  if (logs.some((atEnd) => !atEnd)) return;
  make(live.runs);
  for (const pre of node.querySelectorAll("pre.log")) pre.scrollTop = pre.scrollHeight;
}

function takeRecord(news) {
  live.seenRecord = news.seen;
  live.record = news.data;
  const before = live.runs.some((run) => run.record);
  live.runs.forEach((run, i) => Object.assign(run, { newer: news.data.runs[i].record, diagnosis: news.data.runs[i].diagnosis }));
  if (!before && live.runs.some((run) => run.newer)) return showLive();
  if (live.runs.some((run) => run.timeline && run.timeline.touched)) return offerNewer();
  showNewer();
}

function showNewer() {
  for (const run of live.runs) run.record = run.newer || run.record;
  refresh("findings", findingsSection);
  recordSections(live.runs);
}

/* Somebody has moved the timeline: newer steps wait until they are asked for. */
function offerNewer() {
  const bar = document.querySelector("#timeline .bar, #timeline0 .bar");
  if (bar && !bar.querySelector(".newer")) bar.prepend(el("button", { type: "button", class: "newer plain", "aria-pressed": "true", text: "Newer steps", on: { click: showNewer } }));
}

function showLive() {
  const at = scrollY;
  live.data.runs.forEach((run, i) => Object.assign(run, live.record ? { record: live.record.runs[i].record, diagnosis: live.record.runs[i].diagnosis } : {}));
  live.runs = show(live.data);
  scrollTo({ top: at, behavior: "instant" });
  for (const pre of document.querySelectorAll("pre.log")) pre.scrollTop = pre.scrollHeight;
}
