"use strict";

// Pages work without this. It adds keys, copying, and a way on where a part could not be loaded.

const typing = (element) => element.matches("input, textarea, select, [contenteditable]");

function searchField() {
  const all = [...document.querySelectorAll("[data-search], [data-find]")];
  const visible = all.filter((each) => each.offsetParent !== null);
  return visible.find((each) => "search" in each.dataset) ?? visible[0];
}

function moveBetweenResults(step) {
  const links = [...document.querySelectorAll(".hit h3 a, .projects h3 a")];
  const place = links.findIndex((each) => each.closest("li").contains(document.activeElement));
  const next = links[place < 0 ? (step > 0 ? 0 : -1) : place + step];
  next?.focus();
  return next !== undefined;
}

let before = "";

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const results = event.target.closest(".hit, .projects li");
  const arrows = { ArrowDown: 1, ArrowUp: -1 };
  if (event.key in arrows && (results || event.target.matches("[data-search]"))) {
    if (moveBetweenResults(arrows[event.key])) event.preventDefault();
    return;
  }
  if (typing(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const keys = before + event.key;
  before = event.key === "g" ? "g" : "";
  if (event.key === "/") {
    event.preventDefault();
    searchField()?.select();
    searchField()?.focus();
  } else if (event.key === "?") {
    document.getElementById("keys").showModal();
  } else if (/^g[a-z]$/.test(keys)) {
    document.querySelector(`[data-go=${keys[1]}]`)?.click();
  }
});

function prepare(part) {
  for (const button of part.querySelectorAll("[data-copy], [data-keys]")) button.hidden = false;
  for (const output of part.querySelectorAll("[data-echo]")) {
    const field = document.getElementById(output.dataset.echo);
    field.addEventListener("input", () => { output.value = field.value || "…"; });
  }
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  const label = button.innerHTML;
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = button.dataset.done;
    setTimeout(() => { button.innerHTML = label; }, 1500);
  } catch {
    // Without TLS there is no clipboard: select the text, so that one key copies it.
    getSelection().selectAllChildren(source);
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy], [data-keys]");
  if (button === null) return;
  if ("keys" in button.dataset) document.getElementById("keys").showModal();
  else copy(button);
});

// Addresses say what was asked for, and nothing of fields that were left empty.
document.addEventListener("htmx:configRequest", (event) => {
  const given = event.detail.formData;
  for (const [name, value] of [...given]) if (value === "" && name !== "text_id") given.delete(name);
});

// The whole page says what went wrong.
for (const name of ["htmx:responseError", "htmx:sendError"]) {
  document.addEventListener(name, (event) => {
    const path = event.detail.pathInfo?.finalRequestPath ?? event.detail.requestConfig?.path;
    if (path) location.assign(path);
  });
}

prepare(document);
// Where the tabs do not fit, the one that is open is in sight.
document.querySelector(".tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
document.addEventListener("htmx:load", (event) => prepare(event.detail.elt));
