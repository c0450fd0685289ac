// Reads the server's stream of figures and shows them; the buttons hold the simulated clock and change its speed.

import { drawBars, drawLines, short } from "/dashboard/charts.js";

const POINTS_PER_S = 4;
const POINTS = 120 * POINTS_PER_S;
const FEWEST_POINTS = 30 * POINTS_PER_S;
const STEPS = 120;
const EVENTS = 100;
const THEME = "simserve-theme";

const points = [];
const steps = [];
let state = {};

const MODEL = new URLSearchParams(location.search).get("model");
const ofModel = (path) => MODEL === null ? path : `${path}?model=${encodeURIComponent(MODEL)}`;

const at = (id) => document.getElementById(id);
const say = (id, text) => { if (at(id).textContent !== text) at(id).textContent = text; };
const number = (value, digits = 0) => (value ?? null) === null ? "–"
  : value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });

function connect() {
  const source = new EventSource(ofModel("/dashboard/events"));
  source.onmessage = (message) => { notice(""); take(JSON.parse(message.data)); };
  source.onerror = () => {
    badge("off", "not connected");
    notice("The connection to the server is lost; trying again …");
  };
}

function take(figures) {
  if (figures.about) {
    about(figures.about);
    points.length = 0;
  }
  state = figures;
  points.push(...figures.points);
  points.splice(0, points.length - POINTS);
  steps.push(...figures.steps);
  steps.splice(0, steps.length - STEPS);
  figures.events.forEach(logEvent);
  if (figures.replicas) showReplicas(figures.replicas);
  if (figures.failure) notice(figures.failure);
  showState();
  showTiles();
  requestAnimationFrame(drawAll);
}

function about(engine) {
  if (engine.groups) {
    say("about", `${engine.model} on ${number(engine.replicas)} replicas, router ${engine.router}`);
    say("trust", [...new Set(engine.groups.map((group) => `Profile ${group.hardware_profile}, `
      + `${group.calibrated ? "calibrated" : "not calibrated"}: ${group.uncertainty}`))].join("; "));
    document.title = `SimServe: ${engine.model}`;
    return;
  }
  const devices = engine.tensor_parallel_size > 1 ? `${engine.tensor_parallel_size} × ` : "";
  say("about", `${engine.model} on ${devices}${engine.hardware_profile ?? engine.hardware ?? engine.engine}`
    + `, ${engine.formats ?? engine.dtype}, policy ${engine.policy}`
    + `, at most ${number(engine.max_num_seqs)} requests and ${number(engine.max_num_batched_tokens)} tokens a step`);
  say("trust", engine.hardware_profile
    ? `Profile ${engine.hardware_profile}, ${engine.calibrated ? "calibrated" : "not calibrated"}: ${engine.uncertainty}`
    : "");
  document.title = `SimServe: ${engine.model}`;
}

function showState() {
  const clocked = state.paused !== undefined;
  at("hold").disabled = at("speed").disabled = !clocked;
  if (state.failure) badge("off", "failed");
  else if (state.asleep) badge("held", "asleep");
  else if (state.paused) badge("held", "paused");
  else badge("on", "running");
  say("clock", `${number(state.clock_s, 1)} s`);
  say("hold", state.paused ? "Start" : "Pause");
  at("hold").setAttribute("aria-pressed", String(Boolean(state.paused)));
  if (clocked && document.activeElement !== at("speed")) showSpeed(String(state.time_scale));
  const late = state.lateness_ms;
  say("late", late && late.tokens ? `This server hands tokens over ${number(late.p50, 2)} ms late in the median, `
    + `${number(late.p99, 2)} ms at p99 (last minute)` : "");
}

function showSpeed(speed) {
  const select = at("speed");
  if (![...select.options].some((option) => option.value === speed)) {
    select.add(new Option(`${speed}×`, speed));
  }
  select.value = speed;
}

function showTiles() {
  const now = points[points.length - 1];
  if (!now) return;
  say("output", number(now.output_per_s));
  say("prefill", `prompt ${number(now.prefill_per_s)} tokens/s`);
  say("running", number(now.running));
  say("finished", `${number(state.completed)} finished, ${number(now.requests_per_s, 1)}/s`);
  say("waiting", number(now.waiting));
  say("aborted", `${number(state.aborted)} aborted`);
  say("kv", number(now.kv_used * 100, 1));
  say("blocks", `${number(state.kv_blocks[0])} of ${number(state.kv_blocks[1])} blocks\n`
    + `${number(state.cache_hits * 100)} % of prompts cached`);
  for (const name of ["ttft", "itl"]) {
    const [p50, p90, p99] = now[`${name}_ms`];
    say(name, number(p50, p50 < 100 ? 1 : 0));
    say(`${name}-tail`, `p90 ${number(p90, 1)}, p99 ${number(p99, 1)}`);
  }
}

function drawAll() {
  const column = (pick) => points.map(pick);
  const slots = Math.max(FEWEST_POINTS, points.length);
  const scale = { slots, since: `${Math.round(slots / POINTS_PER_S)} s ago` };
  const lines = (id, picks, colours, more) => drawLines(at(id), picks.map(column), colours, { ...scale, ...more });
  lines("chart-throughput", [(p) => p.output_per_s, (p) => p.prefill_per_s], ["--a", "--b"]);
  lines("chart-requests", [(p) => p.running, (p) => p.waiting], ["--a", "--c"]);
  lines("chart-kv", [(p) => p.kv_used * 100], ["--a"], { top: 100, grid: 4, fill: true });
  const percentiles = (name) => [0, 1, 2].map((index) => (p) => p[`${name}_ms`][index]);
  lines("chart-ttft", percentiles("ttft"), ["--a", "--b", "--c"]);
  lines("chart-itl", percentiles("itl"), ["--a", "--b", "--c"]);
  const rows = [2, 3].map((part) => steps.map((step) => step[part]));
  drawBars(at("chart-steps"), rows, ["--a", "--b"], { slots: STEPS, since: `${STEPS} steps ago` });
  const last = steps[steps.length - 1];
  if (last) {
    at("chart-steps").setAttribute("aria-label",
      `what the last steps computed; the last took ${last[1].toFixed(1)} ms for ${last[2]} decodes and `
      + `${short(last[3])} tokens of prompts`);
  }
}

function showReplicas(replicas) {
  at("replicas-of-all").hidden = false;
  const rows = replicas.map(([name, state, running, waiting, used]) => {
    const row = document.createElement("tr");
    for (const text of [name, state, number(running), number(waiting), number(used * 100)]) {
      row.insertCell().textContent = text;
    }
    return row;
  });
  at("replicas").replaceChildren(...rows);
}

function logEvent([time, kind, request, detail]) {
  const row = document.createElement("tr");
  for (const [text, name] of [[time.toFixed(3), ""], [kind, kind], [request, ""], [detail, ""]]) {
    const cell = row.insertCell();
    cell.textContent = text;
    if (name) cell.className = name;
  }
  at("events").prepend(row);
  while (at("events").rows.length > EVENTS) at("events").deleteRow(-1);
}

function badge(kind, text) {
  at("state").className = `state ${kind}`;
  say("state", text);
}

function notice(text) {
  say("notice", text);
  at("notice").hidden = !text;
}

async function post(path, body) {
  const response = await fetch(ofModel(path), { method: "POST", body: body && JSON.stringify(body) });
  const answer = await response.json();
  if (response.ok) {
    state = { ...state, ...answer };
    showState();
  } else notice(answer.error.message);
}

at("hold").addEventListener("click", () => post(state.paused ? "/clock/start" : "/clock/pause"));
at("speed").addEventListener("change", () => {
  const speed = at("speed").value;
  at("speed").blur();
  post("/clock/speed", { time_scale: speed === "inf" ? speed : Number(speed) });
});

function theme() {
  const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
  return localStorage.getItem(THEME) ?? (dark ? "dark" : "light");
}

at("theme").addEventListener("click", () => {
  localStorage.setItem(THEME, theme() === "dark" ? "light" : "dark");
  document.documentElement.dataset.theme = theme();
  drawAll();
});
if (localStorage.getItem(THEME)) document.documentElement.dataset.theme = theme();
window.addEventListener("resize", drawAll);
connect();
