/* Sorts and filters tables, tells the cell of a matrix, and keeps what a person decides. It fetches nothing. */
"use strict";
(() => {
  const number = (text) => {
    const found = text.replace("−", "-").replace(/^[+]/, "").match(/^-?\d+(\.\d+)?/);
    return found ? parseFloat(found[0]) : NaN;
  };
  const text = (cell) => (cell ? cell.textContent.trim() : "");

  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    if (body.rows.length < 4) continue;
    table.classList.add("sorts");
    const filter = document.createElement("input");
    filter.className = "filter";
    filter.placeholder = "filter";
    filter.setAttribute("aria-label", "Show rows with these words");
    filter.addEventListener("input", () => {
      const words = filter.value.toLowerCase().split(/\s+/);
      for (const row of body.rows) {
        const said = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => said.includes(word));
      }
    });
    if (body.rows.length > 10) table.parentElement.before(filter);
    [...table.tHead.rows[0].cells].forEach((head, place) => head.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const compare = (one, other) => {
        const [a, b] = [text(one.cells[place]), text(other.cells[place])];
        const [x, y] = [number(a), number(b)];
        if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1; // what is not defined stays last
        const order = isNaN(x) ? a.localeCompare(b) : x - y;
        return falling ? -order : order;
      };
      body.append(...[...body.rows].sort(compare));
    }));
  }

  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  for (const chart of document.querySelectorAll(".chart[data-cells]")) {
    const area = chart.querySelector("#cells");
    const { rows, columns, values } = JSON.parse(chart.dataset.cells);
    chart.addEventListener("mousemove", (event) => {
      const box = area.getBoundingClientRect();
      const row = Math.floor(((event.clientY - box.top) / box.height) * rows.length);
      const column = Math.floor(((event.clientX - box.left) / box.width) * columns.length);
      tip.hidden = !(rows[row] && columns[column]);
      if (tip.hidden) return;
      const value = values[row][column];
      tip.textContent = `model of ${rows[row]} on ${columns[column]}: ${value === null ? "not defined" : value.toFixed(3)}`;
      tip.style.left = `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)}px`;
      tip.style.top = `${event.clientY + 14}px`;
    });
    chart.addEventListener("mouseleave", () => { tip.hidden = true; });
  }

  const form = document.querySelector("[data-review]");
  if (!form) return;
  const given = JSON.parse(form.dataset.review);
  const place = `idal-reviewed ${form.dataset.study}`;
  let decided = given;
  try { decided = { ...given, ...JSON.parse(localStorage.getItem(place) || "{}") }; } catch { /* not kept, then */ }
  const fields = (kind, name) => document.querySelectorAll(`[data-${kind}="${CSS.escape(name)}"]`);
  const show = (name) => {
    for (const field of fields("decision", name)) field.value = decided[name]?.decision || "";
    for (const field of fields("note", name)) field.value = decided[name]?.note || "";
  };
  const changed = (event) => {
    const name = event.target.dataset.decision || event.target.dataset.note;
    if (!name) return;
    const kind = event.target.dataset.decision ? "decision" : "note";
    decided[name] = { decision: "", note: "", ...decided[name], [kind]: event.target.value };
    show(name);
    try { localStorage.setItem(place, JSON.stringify(decided)); } catch { /* the page keeps it while it is open */ }
    count();
  };
  const saved = () => Object.entries(decided).filter(([, said]) => said.decision);
  const count = () => {
    document.querySelector("[data-count]").textContent = `${saved().length} decided`;
  };
  document.addEventListener("change", changed);
  Object.keys(decided).forEach(show);
  count();
  document.querySelector("[data-save]").addEventListener("click", () => {
    const quoted = (value) => `"${String(value).replaceAll('"', '""')}"`;
    const rows = saved().map(([name, said]) => [name, said.decision, said.note || ""].map(quoted).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([["case_id,decision,note", ...rows, ""].join("\n")], { type: "text/csv" }));
    link.download = "reviewed.csv";
    link.click();
  });
})();
