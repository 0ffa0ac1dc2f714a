// Registrations: a slider blends one image into the other, a button lets them flicker.
// Tables of regions: a heading sorts, once more the other way round.
"use strict";
for (const figure of document.querySelectorAll("figure.blend")) {
  const controls = figure.querySelector(".controls");
  controls.hidden = false;
  const range = controls.querySelector("input");
  range.addEventListener("input", () => figure.style.setProperty("--blend", range.value / 100));
  for (const button of controls.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", on);
      const name = button.dataset.does;
      figure.classList.toggle(name === "lines" ? "no-lines" : name, name === "lines" ? !on : on);
    });
  }
}

for (const table of document.querySelectorAll("table.regions")) {
  const body = table.tBodies[0];
  const buttons = [...table.querySelectorAll("button.sort")];
  const names = buttons.map((button) => button.textContent);
  let last = { by: null, up: true };
  const value = (row, by) => (by === "name" ? row.cells[0].textContent : row.dataset[by]);
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const by = button.dataset.by;
      // Names from A, numbers from the largest.
      const up = last.by === by ? !last.up : by === "name";
      last = { by, up };
      const compare = (a, b) => {
        const [x, y] = [value(a, by), value(b, by)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = by === "name" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
        return (up ? order : -order) || a.dataset.order - b.dataset.order;
      };
      body.append(...[...body.rows].sort(compare));
      buttons.forEach((other, i) => {
        other.textContent = names[i] + (other === button ? (up ? " ▲" : " ▼") : "");
        other.closest("th").setAttribute("aria-sort", other === button ? (up ? "ascending" : "descending") : "none");
      });
    });
  }
}
