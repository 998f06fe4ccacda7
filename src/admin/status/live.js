"use strict";
// Takes what has changed every two seconds. The server has escaped nothing here: texts are set as texts.
const EVERY = 2000;
const shape = document.body.dataset.shape;
const note = document.getElementById("note");

async function update() {
  try {
    const answer = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(answer.status);
    const now = await answer.json();
    if (now.shape !== shape) {
      location.reload();
      return;
    }
    for (const [id, text] of Object.entries(now.texts)) {
      const element = document.getElementById(id);
      if (element && element.textContent !== text) element.textContent = text;
    }
    for (const [id, state] of Object.entries(now.states)) {
      const element = document.getElementById(id);
      if (element) element.className = state;
    }
    for (const [id, path] of Object.entries(now.paths)) {
      const element = document.getElementById(id);
      if (element) element.setAttribute("d", path);
    }
    document.body.classList.remove("stale");
    note.textContent = "live";
  } catch {
    document.body.classList.add("stale");
    note.textContent = "no answer since " + (update.last ?? "the page was loaded");
    return;
  }
  update.last = new Date().toLocaleTimeString();
}

async function run() {
  if (!document.hidden) await update();
  setTimeout(run, EVERY);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) update(); });
run();
