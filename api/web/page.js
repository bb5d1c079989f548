// A page over the REST API: takes a job, shows how it goes, hands out its result. Text goes in as text only.

import { Problem, ask, get, post, stream, told } from "/web/api.js";

const FIELDS = ["dataset", "method", "ipc", "params", "evaluation"];
const OVER = ["succeeded", "failed", "cancelled"];
const SUBJECTS = {
  accuracy: "Trained on the synthetic set",
  random: "On as many random real images",
  full: "On the whole training set",
};
const AGAIN_MS = 2000;
const LIST_MS = 4000;

const $ = (id) => document.getElementById(id);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const number = (value) => value.toLocaleString("en");

/** Do something that a button asks for, once at a time; what goes wrong is told in `place`. */
async function during(button, place, action) {
  if (button.ariaDisabled) return;
  button.ariaDisabled = "true"; // one that is really disabled loses the focus
  place.textContent = "";
  try {
    await action();
  } catch (error) {
    place.textContent = told(error);
  } finally {
    button.ariaDisabled = null;
  }
}

// The form

let methods = {};
let estimating = new AbortController();
let attempt = {};

async function fillForm() {
  const [known, datasets] = await Promise.all([get("/v1/methods"), get("/v1/datasets")]);
  methods = Object.fromEntries(known.data.map((method) => [method.name, method]));
  $("method").replaceChildren(...known.data.map(({ name, title }) => new Option(title, name)));
  $("method").value = "dream";
  const choices = [
    ...datasets.uploads.map((own) => {
      const fault = own.report?.problems[0];
      return { name: own.dataset, title: own.name, ready: own.status === "ready", state: own.status, why: fault?.message };
    }),
    ...datasets.data.map((one) => ({ ...one, ready: one.available, state: "not here", why: one.advice })),
  ];
  $("dataset").replaceChildren(...choices.map(({ name, title, ready, state }) => {
    const option = new Option(ready ? title : `${title} (${state})`, name);
    option.disabled = !ready;
    return option;
  }));
  $("dataset").value = choices.find(({ ready }) => ready)?.name;
  const absent = choices.filter(({ ready }) => !ready);
  $("absent").hidden = !absent.length;
  $("reasons").replaceChildren(...absent.flatMap(({ title, state, why }) => [made("dt", title), made("dd", why ?? state)]));
  await estimate();
}

function body() {
  const errors = [];
  const parsed = (field) => {
    try {
      return JSON.parse($(field).value.trim() || "{}");
    } catch (error) {
      errors.push({ pointer: `#/spec/${field}`, message: `This is no JSON: ${error.message}` });
    }
  };
  const [dataset, method] = [$("dataset").value, $("method").value];
  const spec = { dataset, method, ipc: $("ipc").valueAsNumber, params: parsed("params"), evaluation: parsed("evaluation") };
  if (errors.length) throw new Problem({ errors, detail: "" });
  return JSON.stringify({ spec });
}

/** Every fault next to the field that it points at, the others below the form. */
function showFaults({ errors = [], message = "" } = {}) {
  for (const field of FIELDS) {
    const mine = errors.filter(({ pointer }) => pointer.split("/")[2] === field);
    const texts = mine.map(({ pointer, message }) => [...pointer.split("/").slice(3), message].join(": "));
    $(`${field}-error`).textContent = texts.join("; ");
    $(field).setAttribute("aria-invalid", mine.length > 0);
  }
  const placed = document.querySelector("#form [aria-invalid=true]");
  if (placed?.closest("details")) $("settings").open = true;
  $("form-error").textContent = placed ? "" : message;
}

async function estimate() {
  estimating.abort();
  const { signal } = (estimating = new AbortController());
  $("summary").textContent = methods[$("method").value]?.summary.replaceAll("`", "") ?? "";
  try {
    const found = await post("/v1/estimates", body(), { signal });
    showFaults();
    $("estimate").textContent = estimateText(found);
  } catch (error) {
    if (signal.aborted) return;
    $("estimate").textContent = "";
    showFaults(error instanceof Problem ? error : { message: told(error) });
  }
}

function estimateText({ steps, seconds, memory_bytes: memory, queue, fits, note }) {
  const { low, likely, high } = seconds ?? {};
  const time = seconds && `about ${duration(likely)} (${duration(low)} to ${duration(high)})`;
  const room = memory && `${number(Math.round(memory / 1e6))} MB of memory`;
  const before = queue.position ? `${number(queue.position)} jobs before it` : "no job before it";
  return [`${number(steps)} steps`, time, room, fits === false && "more than any worker here has", before, note]
    .filter(Boolean).join(" · ");
}

$("form").onsubmit = async (event) => {
  event.preventDefault();
  await during($("submit"), $("form-error"), async () => {
    try {
      const wanted = body();
      if (wanted !== attempt.wanted) attempt = { wanted, key: crypto.getRandomValues(new Uint32Array(4)).join("-") };
      const job = await post("/v1/jobs", wanted, { headers: { "Idempotency-Key": attempt.key } });
      attempt = {}; // the next one is a job of its own, also where it wants the same
      location.hash = job.id;
      await listJobs();
    } catch (error) {
      if (!error.errors) throw error;
      showFaults(error);
    }
  });
  document.querySelector("#form [aria-invalid=true]")?.focus();
};

let typing;
$("form").oninput = () => {
  clearTimeout(typing);
  typing = setTimeout(estimate, 400);
};

$("short").onclick = () => {
  const known = methods[$("method").value].params_schema.properties;
  $("params").value = "outer_iterations" in known ? '{"outer_iterations": 5}' : "";
  $("evaluation").value = '{"epochs": 300}';
  estimate();
};

// The list

const rows = new Map();

async function listJobs() {
  const { data } = await get("/v1/jobs?limit=10");
  const shown = data.map((job) => rowOf(job));
  const table = $("jobs").tBodies[0];
  if (shown.some((row, place) => row !== table.rows[place])) table.replaceChildren(...shown); // else the focus stays
  $("jobs").hidden = !data.length;
  $("none").hidden = data.length > 0;
}

function rowOf(job) {
  if (!rows.has(job.id)) {
    const link = Object.assign(made("a", titleOf(job)), { href: `#${job.id}` });
    const time = made("time", new Date(job.timestamps.created_at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }));
    time.className = "hint";
    const row = made("tr");
    row.append(...Array.from({ length: 4 }, () => made("td")));
    row.cells[0].append(link, time);
    row.cells[1].append(made("span"));
    rows.set(job.id, row);
  }
  const row = rows.get(job.id);
  showStatus(row.cells[1].firstChild, job.status);
  const ratio = OVER.includes(job.status) ? null : job.progress?.ratio;
  row.cells[2].textContent = ratio == null ? "" : `${Math.floor(100 * ratio)} %`;
  row.cells[3].textContent = scoreText(job.result_summary?.accuracy);
  markCurrent(row);
  return row;
}

function markCurrent(row) {
  const link = row.querySelector("a");
  link.ariaCurrent = link.hash === location.hash ? "true" : null;
}

async function keepUpToDate() {
  for (;;) {
    if (!document.hidden) tell($("offline"), await bringUpToDate().then(() => "", told));
    await pause(LIST_MS);
  }
}

async function bringUpToDate() {
  if (!$("method").options.length) await fillForm();
  await listJobs();
}

// One job

let opened = new AbortController();

function openJob() {
  opened.abort();
  opened = new AbortController();
  const id = location.hash.slice(1);
  for (const row of rows.values()) markCurrent(row);
  $("job").hidden = !id;
  if (!id) return;
  for (const place of ["title", "id", "phase", "status", "reason", "counted", "job-error"]) $(place).textContent = "";
  $("scores").replaceChildren();
  for (const part of ["figure", "going", "download", "cancel"]) $(part).hidden = true;
  $("title").textContent = id;
  follow(`/v1/jobs/${encodeURIComponent(id)}`, opened.signal);
}

/** Show a job until it is over: as it happens, and where no stream is to be had, by looking every two seconds. */
async function follow(path, signal) {
  const types = "types=state,phase,metric,preview,evaluation";
  let last = null;
  while (!signal.aborted) {
    try {
      last ??= await newestEvent(path, signal);
      if (OVER.includes(await look(path, signal))) return;
      for await (const { id, type, data } of stream(`${path}/events?${types}`, last, signal)) {
        last = id ?? last;
        if (type === "metric") showProgress(data);
        else if (type === "preview") await showPicture(path, signal);
        else if (type !== "end") await look(path, signal);
        if (type === "state") listJobs().catch(told);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status < 500 && error.status !== 429) return tell($("job-error"), told(error));
    }
    await pause(AGAIN_MS);
  }
}

/** Its number: what has happened before is seen from the job itself, and need not be streamed again. */
async function newestEvent(path, signal) {
  const page = await ask(`${path}/events?limit=1`, { signal });
  return page.headers.get("ETag").match(/\d+/)[0];
}

async function look(path, signal) {
  const job = await get(path, { signal });
  showJob(job);
  await showPicture(path, signal);
  return job.status;
}

function showJob(job) {
  const over = OVER.includes(job.status);
  $("title").textContent = titleOf(job);
  $("id").textContent = job.id;
  showStatus($("status"), job.status);
  const doing = { running: job.phase, queued: "waits for a worker" }[job.status];
  tell($("phase"), doing ? `· ${doing}` : "");
  $("reason").textContent = job.error?.message ?? (job.partial ? "What it had made when it was stopped has been kept." : "");
  $("going").hidden = over || !job.progress;
  if (!$("going").hidden) showProgress({ ...job.progress, eta_s: job.status === "running" ? job.progress.eta_s : null });
  const { accuracy, baselines } = job.result_summary ?? {};
  const scores = Object.entries({ accuracy, ...baselines }).filter(([, score]) => score?.mean != null);
  $("scores").replaceChildren(...scores.flatMap(([name, score]) => [
    made("dt", SUBJECTS[name] ?? name), made("dd", scoreText(score)),
  ]));
  $("download").hidden = job.status !== "succeeded" && !job.partial;
  $("cancel").hidden = over || job.status === "cancelling";
}

function showProgress({ step, total, subject, eta_s: eta }) {
  $("going").hidden = !total;
  $("progress").max = total || 1;
  $("progress").value = step;
  const unit = subject || $("phase").textContent.endsWith("evaluating") ? "Epoch" : "Step";
  $("counted").textContent = [`${unit} ${number(step)} of ${number(total)}`, eta != null && `${duration(eta)} to go`]
    .filter(Boolean).join(" · ");
}

async function showPicture(path, signal) {
  const newest = (await get(`${path}/previews`, { signal })).data.at(-1);
  if (!newest || (!$("figure").hidden && $("picture").dataset.url === newest.url)) return;
  const content = await ask(newest.url, { signal }).then((response) => response.blob(), (error) => {
    if (error.status !== 404) throw error; // else it has been thinned out meanwhile
  });
  if (!content || signal.aborted) return;
  URL.revokeObjectURL($("picture").src);
  $("picture").src = URL.createObjectURL(content);
  $("picture").dataset.url = newest.url;
  $("caption").textContent = `After step ${number(newest.step)}, a class in each row`;
  $("figure").hidden = false;
}

$("cancel").onclick = () => during($("cancel"), $("job-error"), async () => {
  const job = await get(`/v1/jobs/${$("id").textContent}/cancel`, { method: "POST" });
  if (job.id === $("id").textContent) showJob(job); // else another has been opened meanwhile
});

$("download").onclick = () => during($("download"), $("job-error"), async () => {
  const id = $("id").textContent;
  const href = URL.createObjectURL(await (await ask(`/v1/jobs/${id}/archive`)).blob());
  Object.assign(made("a"), { href, download: `${id}.zip` }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
});

// Words

function made(name, text = "") {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}

function showStatus(element, status) {
  element.className = "status";
  element.dataset.is = status;
  tell(element, status);
}

/** Text that is read aloud where it changes, and only then. */
function tell(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function titleOf({ name, spec }) {
  return name ?? `${spec.method} on ${spec.dataset}, ${spec.ipc} ${spec.ipc === 1 ? "image" : "images"} per class`;
}

function scoreText(score) {
  if (score?.mean == null) return "";
  return `${score.mean.toFixed(1)}${score.n > 1 && score.std != null ? ` ± ${score.std.toFixed(1)}` : ""} %`;
}

function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.round(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`;
  return `${(whole / 86400).toFixed(1)} days`;
}

// Begin

addEventListener("hashchange", () => {
  openJob();
  $("title").focus();
});
openJob();
keepUpToDate();
