"use strict";
const tip = document.getElementById("tip");

// Return the label of a mark; in a heat map, of the pair under the pointer.
function labelOf(mark, pointer) {
  const own = mark.getAttribute("aria-label");
  const matrix = mark.closest("[data-matrix]");
  if (!matrix || !pointer) return own;
  matrix.pairs ??= JSON.parse(matrix.querySelector("script").textContent);
  const { ids, values } = matrix.pairs;
  const box = mark.getBoundingClientRect();
  const column = Math.min(ids.length - 1, Math.max(0, Math.floor(((pointer.clientX - box.left) / box.width) * ids.length)));
  const row = [...matrix.querySelectorAll("a[aria-label]")].indexOf(mark);
  return `${ids[row]} and ${ids[column]}: distance ${values[row][column]}`;
}

function markOf(target) {
  const mark = target.closest?.("figure svg [aria-label]");
  return mark && !mark.closest(".role-axis, .role-legend") && !mark.matches("svg, .role-mark") ? mark : null;
}

function show(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const left = Math.min(x + 12, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const top = y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : y + 18;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, top)}px`;
}

addEventListener("pointermove", (event) => {
  const mark = markOf(event.target);
  if (mark) show(labelOf(mark, event), event.clientX, event.clientY);
  else tip.hidden = true;
});
addEventListener("focusin", (event) => {
  const mark = markOf(event.target);
  if (!mark) return;
  const box = mark.getBoundingClientRect();
  show(labelOf(mark), box.left + Math.min(box.width / 2, 40), box.top + Math.min(box.height, 20));
});
addEventListener("focusout", () => { tip.hidden = true; });

// One stop of the Tab key a picture; arrow keys move between its members.
for (const svg of document.querySelectorAll("figure svg")) {
  const links = [...svg.querySelectorAll("a")];
  links.forEach((link, place) => link.setAttribute("tabindex", place ? -1 : 0));
  svg.addEventListener("keydown", (event) => {
    const place = links.indexOf(document.activeElement);
    const next = { ArrowRight: place + 1, ArrowDown: place + 1, ArrowLeft: place - 1, ArrowUp: place - 1, Home: 0, End: links.length - 1 }[event.key];
    if (place < 0 || next === undefined) return;
    event.preventDefault();
    const link = links[Math.min(links.length - 1, Math.max(0, next))];
    links[place].setAttribute("tabindex", -1);
    link.setAttribute("tabindex", 0);
    link.focus();
  });
}
addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

// A link leads to the row, also for a screen reader.
addEventListener("hashchange", () => {
  const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (row?.tagName === "TR") row.focus({ preventScroll: true });
});

for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    const table = button.parentElement.querySelector("table");
    const text = [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent).join("\t")).join("\n");
    const status = button.nextElementSibling;
    try {
      await navigator.clipboard.writeText(text);
      status.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(table);
      status.textContent = "Selected: press Ctrl+C.";
    }
  });
}
