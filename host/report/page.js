"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");

  const preference = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  button.hidden = false;
  function theme(dark) {
    root.dataset.theme = dark ? "dark" : "light";
    button.setAttribute("aria-pressed", String(dark));
    button.textContent = dark ? "Light" : "Dark";
  }
  theme(preference.matches);
  preference.addEventListener("change", (event) => theme(event.matches));
  button.addEventListener("click", () => theme(root.dataset.theme !== "dark"));

  // A chart with several panels shows the chosen one; paper shows them all.
  const choose = (chart, chosen) => [...chart.children].forEach((panel, number) => panel.classList.toggle("chosen", number === chosen));
  document.querySelectorAll(".chart").forEach((chart) => choose(chart, 0));
  document.querySelectorAll("select[data-chart]").forEach((select) => {
    select.addEventListener("change", () => choose(document.getElementById(select.dataset.chart), Number(select.value)));
  });

  // The table: headings sort, the field filters, and what is shown can be taken along.
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const valueOf = (row, column) => row.cells[column].dataset.value;

  function compare(a, b) {
    if (a === "" || b === "") return (a === "") - (b === ""); // empty cells last
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  }

  function sort(column) {
    const heading = headings[column];
    const down = heading.getAttribute("aria-sort") === "ascending";
    headings.forEach((other) => other.setAttribute("aria-sort", "none"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [valueOf(a, column), valueOf(b, column)];
      return x === "" || y === "" ? compare(x, y) : (down ? -1 : 1) * compare(x, y);
    });
    body.append(...rows);
  }
  headings.forEach((heading, column) => heading.firstElementChild.addEventListener("click", () => sort(column)));

  const shown = () => [...body.rows].filter((row) => !row.hidden);
  const tell = () => { document.getElementById("shown").textContent = `${shown().length} of ${body.rows.length} rows`; };
  document.getElementById("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    tell();
  });
  tell();

  document.getElementById("download").addEventListener("click", () => {
    const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const lines = [headings.map((heading) => heading.textContent.trim()), ...shown().map((row) => [...row.cells].map((cell) => cell.textContent))];
    const text = lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = "points.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
})();
