"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const chosen = Object.fromEntries(Object.keys(figures).map((name) => [name, 0]));
  const root = document.documentElement;
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // Charts take their colours from the page, so that both themes are readable.
  function draw(name) {
    const figure = figures[name][chosen[name]];
    const axis = { gridcolor: colour("--grid"), linecolor: colour("--line"), tickcolor: colour("--line"), showline: true, ticks: "outside" };
    const entries = figure.data.filter((trace) => trace.showlegend !== false).length;
    const target = document.getElementById(`chart-${name}`);
    const longest = Math.max(...figure.data.map((trace) => (trace.name || "").length));
    const columns = Math.max(1, Math.floor(target.clientWidth / (60 + 7 * longest)));
    const height = 440 + 20 * Math.ceil(entries / columns);
    target.style.height = `${height}px`;
    const layout = {
      ...figure.layout,
      xaxis: { ...axis, ...figure.layout.xaxis },
      yaxis: { ...axis, ...figure.layout.yaxis },
      height,
      showlegend: true,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, DejaVu Sans, sans-serif", size: 13, color: colour("--ink") },
      hoverlabel: { bgcolor: colour("--raised"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
    };
    layout.legend = { ...layout.legend, y: -80 / (height - 68 - 20 * Math.ceil(entries / columns)) };
    const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["sendDataToCloud"] };
    return Plotly.react(target, figure.data, layout, options).then(() => {
      target.querySelector(".modebar")?.setAttribute("aria-label", "Tools of this chart");
    });
  }

  function theme(dark) {
    root.dataset.theme = dark ? "dark" : "light";
    const button = document.getElementById("theme");
    button.setAttribute("aria-pressed", String(dark));
    button.textContent = dark ? "Light" : "Dark";
    return Promise.all(Object.keys(figures).map(draw));
  }

  const preference = matchMedia("(prefers-color-scheme: dark)");
  preference.addEventListener("change", (event) => theme(event.matches));
  document.getElementById("theme").addEventListener("click", () => theme(root.dataset.theme !== "dark"));
  document.querySelectorAll("select[data-chart]").forEach((select) => {
    select.addEventListener("change", () => {
      chosen[select.dataset.chart] = Number(select.value);
      draw(select.dataset.chart);
    });
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

  theme(preference.matches).then(() => { root.dataset.drawn = "yes"; });
})();
