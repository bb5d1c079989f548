// Asks the API, and its user for a key where the API wants one.

const $ = (id) => document.getElementById(id);

let key = sessionStorage.getItem("key");
let keyAsked = null;

export class Problem extends Error {
  constructor(document) {
    super(document.detail);
    Object.assign(this, document);
  }
}

export async function ask(path, { headers, ...options } = {}) {
  for (;;) {
    const used = key;
    const bearer = used && { Authorization: `Bearer ${used}` };
    const response = await fetch(path, { ...options, headers: { ...headers, ...bearer } });
    if (response.ok) return response;
    const { status } = response;
    const problem = await response.json().catch(() => ({ status, detail: `The service has answered ${status}.` }));
    if (status !== 401) throw new Problem(problem);
    if (used === key) await askForKey(used && problem.detail);
  }
}

export const get = async (path, options) => (await ask(path, options)).json();

export const post = async (path, body, { headers, ...options } = {}) =>
  get(path, { method: "POST", body, headers: { "Content-Type": "application/json", ...headers }, ...options });

function askForKey(refusal) {
  useKey(null);
  if (refusal) $("key-error").textContent = refusal;
  keyAsked ??= new Promise((given) => {
    $("key-form").onsubmit = (event) => {
      event.preventDefault();
      $("key-error").textContent = "";
      useKey($("key").value.trim());
      keyAsked = null;
      given();
    };
  });
  $("key").focus();
  return keyAsked;
}

function useKey(given) {
  key = given;
  if (key) sessionStorage.setItem("key", key);
  else sessionStorage.removeItem("key");
  $("key").value = "";
  $("key-form").hidden = Boolean(key);
  $("main").hidden = $("forget").hidden = !key;
}

export const told = (error) => (error instanceof Problem ? error.message : "The service does not answer.");

/** What happens behind the event `last`, as it happens. EventSource would be shorter, but cannot send a key. */
export async function* stream(path, last, signal) {
  const response = await ask(path, { signal, headers: { Accept: "text/event-stream", "Last-Event-ID": last } });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const blocks = (text + part.value).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const fields = [...block.matchAll(/^(\w+): ?(.*)$/gm)].map((found) => found.slice(1));
        const { id, event, data } = Object.fromEntries(fields);
        if (event) yield { id, type: event, data: JSON.parse(data).data };
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // a key may hold few streams open
  }
}

$("forget").hidden = !key;
$("forget").onclick = () => {
  sessionStorage.removeItem("key");
  location.reload();
};
