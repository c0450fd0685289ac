"use strict";
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const usual = {
  margin: { l: 62, r: 14, t: 10, b: 46 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
  font: { color: dark ? "#e6e9ee" : "#1c2430", size: 12 }, hovermode: "closest", legend: { font: { size: 11 } },
};
const axis = { gridcolor: dark ? "#2c333d" : "#e2e6ec", zeroline: false, automargin: true };
FIGURES.forEach(({ data, layout }, place) => {
  const whole = { ...usual, ...layout, xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis } };
  Plotly.newPlot(`chart-${place}`, data, whole, { responsive: true, displaylogo: false });
});

const body = document.querySelector("#rows tbody");
const heads = [...document.querySelectorAll("#rows th")];
const value = (row, place) => {
  const cell = row.cells[place];
  return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
};
const compare = (a, b) => {
  if (a === b) return 0;
  if (a === "" || b === "") return a === "" ? 1 : -1; // what is not there comes last
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
};
heads.forEach((head, place) => head.firstChild.addEventListener("click", () => {
  const up = head.getAttribute("aria-sort") !== "ascending";
  heads.forEach((one) => one.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const rows = [...body.rows].sort((a, b) => {
    const order = compare(value(a, place), value(b, place));
    return value(a, place) === "" || value(b, place) === "" ? order : (up ? order : -order);
  });
  body.append(...rows);
}));
body.addEventListener("click", (event) => {
  const cell = event.target.closest("td.command");
  if (!cell || !navigator.clipboard) return;
  navigator.clipboard.writeText(cell.textContent).then(() => {
    cell.classList.add("copied");
    setTimeout(() => cell.classList.remove("copied"), 900);
  });
});
