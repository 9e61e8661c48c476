"use strict";
// Only what is in view is in the document: tiles of one size, placed by their number.
const { title, kinds, pictures } = JSON.parse(document.getElementById("data").textContent);
document.getElementById("data").remove();
const $ = (id) => document.getElementById(id);
const TILE = { width: 190, height: 262, gap: 12 };
const MOST_TILES = 72; // elements of all of them stay below a thousand
const KEY = "curation:" + title;
const byName = new Map(pictures.map((picture, index) => [picture.name, index]));
const texts = pictures.map((p) => [p.name, p.caption, ...p.tags, ...Object.values(p.flags)].join("\n").toLowerCase());
const weights = pictures.map((p) => Object.keys(p.flags).reduce((sum, kind) => sum + kinds.length - kinds.indexOf(kind), 0));
const lost = (p) => 1 - p.crop[2] * p.crop[3];
const ORDERS = {
  matters: (a, b) => weights[b] - weights[a] || a - b,
  name: (a, b) => a - b,
  small: (a, b) => pictures[a].size[0] * pictures[a].size[1] - pictures[b].size[0] * pictures[b].size[1] || a - b,
  cut: (a, b) => lost(pictures[b]) - lost(pictures[a]) || a - b,
  tokens: (a, b) => pictures[b].tokens - pictures[a].tokens || a - b,
};
const chosen = new Set();
let decisions = new Map(), past = [], shown = [], current = 0, drawn = "";

function element(tag, attributes = {}, ...content) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...content.filter((piece) => piece !== null));
  return made;
}

// Decisions: name -> {digest, drop, caption, repeat}; without the last three there is none.
function decide(index, change) {
  const picture = pictures[index], old = decisions.get(picture.name);
  const made = { ...old, digest: picture.digest, ...change };
  for (const key of ["drop", "caption", "repeat"]) if (made[key] === null || made[key] === false) delete made[key];
  if (made.caption === picture.caption) delete made.caption;
  if (made.repeat === picture.repeats) delete made.repeat;
  past.push([picture.name, old]);
  set(picture.name, "drop" in made || "caption" in made || "repeat" in made ? made : undefined);
}
function set(name, decision) {
  if (decision) decisions.set(name, decision); else decisions.delete(name);
  remember();
  counts();
  draw(true);
}
function remember() {
  try { localStorage.setItem(KEY, toToml()); } catch { /* private windows have no storage */ }
}
function undo() {
  const last = past.pop();
  if (last) { set(...last); say("undone: " + last[0]); }
}

// TOML's basic strings are JSON's, but for the one control character that JSON leaves as it is.
const quoted = (text) => JSON.stringify(text).replaceAll("\u007f", "\\u007F");
function toToml() {
  const parts = ["# Decisions of tools/curate.py; tools/apply_decisions.py carries them out.\nversion = 1\n"];
  for (const name of [...decisions.keys()].sort()) {
    const { digest, drop, caption, repeat } = decisions.get(name);
    const lines = ["[[pictures]]", "file = " + quoted(name), "digest = " + quoted(digest)];
    if (drop) lines.push("drop = true");
    if (caption !== undefined) lines.push("caption = " + quoted(caption));
    if (repeat !== undefined) lines.push("repeat = " + repeat);
    parts.push(lines.join("\n") + "\n");
  }
  return parts.join("\n");
}
function fromToml(text) { // what toToml writes; not all of TOML
  const found = new Map();
  let entry = null;
  for (const line of text.split(/\r?\n/)) {
    if (line.trim() === "[[pictures]]") { entry = {}; continue; }
    const pair = /^(\w+) = (.*)$/.exec(line.trim());
    if (!pair || !entry) continue;
    entry[pair[1]] = JSON.parse(pair[2]);
    if (pair[1] === "file") found.set(pair[2] && entry.file, entry);
  }
  for (const made of found.values()) delete made.file;
  return found;
}
function restore(text) {
  const found = fromToml(text), missing = [...found.keys()].filter((name) => !byName.has(name));
  const changed = [...found].filter(([name, made]) => byName.has(name) && pictures[byName.get(name)].digest !== made.digest);
  for (const name of [...missing, ...changed.map(([name]) => name)]) found.delete(name);
  decisions = found;
  return [found.size, missing.length, changed.length];
}

function say(text) {
  $("said").textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { $("said").textContent = ""; }, 3500);
}

// Filters: pictures that have all chosen flags and all words of the search.
const passes = (index) => {
  for (const kind of chosen) {
    if (kind === "decided" ? !decisions.has(pictures[index].name)
      : kind === "no flags" ? Object.keys(pictures[index].flags).length : !(kind in pictures[index].flags)) return false;
  }
  return true;
};
function filter() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean), kept = pictures[shown[current]];
  shown = pictures.map((_, index) => index).filter((index) => passes(index) && words.every((word) => texts[index].includes(word)));
  shown.sort(ORDERS[$("order").value]);
  current = Math.max(0, kept ? shown.indexOf(byName.get(kept.name)) : 0);
  counts();
  draw(true);
}
function counts() {
  const dropped = [...decisions.values()].filter((made) => made.drop).length;
  const rest = decisions.size - dropped;
  $("count").textContent = `${shown.length} of ${pictures.length} pictures shown` +
    (decisions.size ? `; decided: ${dropped} dropped, ${rest} changed` : "");
  const button = $("filters").querySelector("[data-kind=decided] b");
  if (button) button.textContent = decisions.size;
  $("save").disabled = $("copy").disabled = !decisions.size;
}
function buildFilters() {
  const number = new Map();
  for (const p of pictures) for (const kind of Object.keys(p.flags)) number.set(kind, (number.get(kind) ?? 0) + 1);
  number.set("no flags", pictures.filter((p) => !Object.keys(p.flags).length).length);
  number.set("decided", decisions.size);
  for (const kind of [...kinds, "no flags", "decided"]) {
    if (!number.get(kind) && kind !== "decided") continue;
    const button = element("button", { "data-kind": kind, "aria-pressed": "false", onclick: () => {
      if (!chosen.delete(kind)) chosen.add(kind);
      button.setAttribute("aria-pressed", chosen.has(kind));
      filter();
    } }, kind, element("b", {}, String(number.get(kind))));
    $("filters").append(button);
  }
}

function picture(p, tall, wide) {
  const scale = Math.min(tall / p.size[1], wide / p.size[0]);
  const [left, top, width, height] = p.crop.map((share) => (100 * share).toFixed(2) + "%");
  const cut = lost(p) > 0.005;
  return element("div", { class: "shown" },
    element("img", { src: p.src, alt: p.name, width: Math.max(1, Math.round(p.size[0] * scale)), height: Math.max(1, Math.round(p.size[1] * scale)) }),
    cut ? element("div", { class: "kept", style: `left:${left};top:${top};width:${width};height:${height}` }) : null);
}
function mark(made) {
  if (!made) return null;
  const words = made.drop ? ["drop"] : [made.caption !== undefined ? "caption" : "", made.repeat !== undefined ? `× ${made.repeat}` : ""];
  return element("span", { class: "mark" }, words.filter(Boolean).join(", "));
}
function tile(place, columns) {
  const index = shown[place], p = pictures[index], made = decisions.get(p.name);
  const x = (place % columns) * (TILE.width + TILE.gap), y = Math.floor(place / columns) * (TILE.height + TILE.gap);
  const state = (place === current ? " current" : "") + (made ? made.drop ? " drop" : " decided" : "");
  return element("div", {
    class: "tile" + state, role: "option", id: "tile" + index, "aria-selected": String(place === current),
    style: `transform:translate(${x}px,${y}px);width:${TILE.width}px;height:${TILE.height}px`,
    onclick: () => { move(place); open(); },
  }, element("div", { class: "frame" }, picture(p, 150, TILE.width - 20)),
  element("span", { class: "name", title: p.name }, p.name.split("/").pop()),
  element("p", { class: "flags" }, Object.keys(p.flags).join(", ")),
  element("p", { class: "text" }, made?.caption ?? p.caption), mark(made));
}
function columnsNow() {
  return Math.max(1, Math.floor(($("list").clientWidth + TILE.gap) / (TILE.width + TILE.gap)));
}
function draw(always = false) {
  // Two columns or more on a phone: tiles take the width that there is.
  TILE.width = 190;
  const wide = $("list").clientWidth, fit = Math.max(wide < 420 ? 2 : 1, columnsNow());
  TILE.width = Math.floor((wide - (fit - 1) * TILE.gap) / fit);
  const high = TILE.height + TILE.gap, above = -$("list").getBoundingClientRect().top;
  const first = Math.max(0, Math.floor(above / high) - 1) * fit;
  const last = Math.min(shown.length, first + MOST_TILES, (Math.ceil((above + innerHeight) / high) + 1) * fit);
  const state = `${first} ${last} ${fit} ${wide}`;
  if (!always && state === drawn) return;
  drawn = state;
  $("list").style.height = Math.ceil(shown.length / fit) * high + "px";
  const tiles = [];
  for (let place = first; place < last; place++) tiles.push(tile(place, fit));
  $("list").replaceChildren(...(shown.length ? tiles : [element("p", { class: "empty" }, "No picture is like that.")]));
  if (shown.length) $("list").setAttribute("aria-activedescendant", "tile" + shown[current]);
}
function move(place) {
  if (!shown.length) return;
  current = Math.min(shown.length - 1, Math.max(0, place));
  const high = TILE.height + TILE.gap, y = Math.floor(current / columnsNow()) * high;
  const box = $("list").getBoundingClientRect(), bar = $("bar").offsetHeight + 8;
  if (box.top + y < bar) scrollBy(0, box.top + y - bar);
  else if (box.top + y + high > innerHeight) scrollBy(0, box.top + y + high - innerHeight);
  draw(true);
}

function open(edits = false) {
  const index = shown[current], p = pictures[index];
  if (!p) return;
  const made = decisions.get(p.name) ?? {}, details = $("details");
  const caption = element("textarea", { id: "caption" });
  caption.value = made.caption ?? p.caption;
  caption.addEventListener("change", () => decide(index, { caption: caption.value }));
  const repeat = element("input", { type: "number", min: 1, max: 1000, value: made.repeat ?? p.repeats });
  repeat.addEventListener("change", () => {
    const value = Number(repeat.value);
    if (Number.isInteger(value) && value > 0) decide(index, { repeat: value });
  });
  const drop = element("button", { class: "danger", "aria-pressed": String(Boolean(made.drop)), onclick: () => {
    decide(index, { drop: !decisions.get(p.name)?.drop });
    drop.setAttribute("aria-pressed", String(Boolean(decisions.get(p.name)?.drop)));
  } }, "Drop");
  const flags = Object.entries(p.flags).map(([kind, text]) => text ? `${kind}: ${text}` : kind).join("; ");
  details.replaceChildren(element("h2", {}, p.name), element("div", { class: "pair" }, picture(p, 260, 260), element("div", {},
    element("div", {}, `${p.size.join(" × ")}, bucket ${p.bucket.join(" × ")}, ${Math.round(100 * lost(p))} % cut off, ${p.tokens} tokens`),
    flags ? element("div", { class: "flags" }, flags) : null, element("label", {}, "Caption", caption))),
  element("div", { class: "row" }, drop, element("label", {}, "Repeats ", repeat), ...nextButtons()),
  ...twins(p));
  if (!details.open) details.showModal();
  (edits ? caption : details).focus(); // keys decide unless a field is chosen
}
function close() {
  document.activeElement.blur(); // keys go to the list at once, not into a field that is gone
  $("details").close();
}
const nextButtons = () => [["Previous", -1], ["Next", 1]].map(([name, by]) => element("button", { onclick: () => { move(current + by); open(); } }, name))
  .concat(element("button", { onclick: close }, "Close"));
function twins(p) {
  if (!p.alike) return [];
  const few = p.alike.slice(0, 12).map((other) => element("button", { title: pictures[other].name, onclick: () => {
    if (!shown.includes(other)) { clearFilters(); }
    move(shown.indexOf(other));
    open();
  } }, element("img", { src: pictures[other].src, alt: pictures[other].name })));
  const more = p.alike.length > few.length ? ` (${few.length} of ${p.alike.length})` : "";
  return [element("p", {}, "Looks like" + more), element("div", { class: "twins" }, ...few)];
}
function clearFilters() {
  chosen.clear();
  $("search").value = "";
  for (const button of $("filters").children) button.setAttribute("aria-pressed", "false");
  filter();
}

const typing = (target) => /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing(event.target)) {
    if (event.key === "Escape" && event.target === $("search")) event.target.blur();
    return;
  }
  const p = pictures[shown[current]], inside = $("details").open;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columnsNow(), ArrowUp: -columnsNow(), j: 1, k: -1 }[event.key];
  if (step) { move(current + step); if (inside) open(); }
  else if (event.key === "Enter" && event.target.tagName !== "BUTTON") open();
  else if (event.key === "/") $("search").focus();
  else if (event.key === "u") { undo(); if (inside) open(); }
  else if (p && event.key === "d") { decide(shown[current], { drop: !decisions.get(p.name)?.drop }); if (inside) open(); }
  else if (p && event.key === "e") open(true);
  else if (p && /^[1-9]$/.test(event.key)) { decide(shown[current], { repeat: Number(event.key) }); if (inside) open(); }
  else return;
  event.preventDefault();
});
$("details").addEventListener("click", (event) => { if (event.target === $("details")) close(); });
$("details").addEventListener("close", () => $("list").focus({ preventScroll: true }));
$("search").addEventListener("input", filter);
$("order").addEventListener("change", filter);
$("copy").addEventListener("click", async () => {
  try { await navigator.clipboard.writeText(toToml()); say("copied"); } catch { say("this browser does not let pages copy: save the file"); }
});
$("save").addEventListener("click", () => {
  // A data: address, since the page may open no other.
  element("a", { href: "data:application/toml;charset=utf-8," + encodeURIComponent(toToml()), download: "decisions.toml" }).click();
});
$("load").addEventListener("change", async () => {
  const file = $("load").files[0];
  if (!file) return;
  try {
    const [taken, missing, changed] = restore(await file.text());
    say(`${taken} decisions taken` + (missing ? `, ${missing} of pictures that are not here` : "") + (changed ? `, ${changed} of pictures that changed` : ""));
  } catch { say(`${file.name} is no file of decisions`); }
  $("load").value = "";
  past = [];
  remember();
  filter();
});
addEventListener("scroll", () => draw(), { passive: true });
addEventListener("resize", () => draw());
try { restore(localStorage.getItem(KEY) ?? ""); } catch { decisions = new Map(); }
buildFilters();
filter();
