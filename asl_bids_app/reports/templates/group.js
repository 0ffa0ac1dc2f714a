// Group page: filters, distributions that are drawn when they come into view, sortable table.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("group-data").textContent);
  const form = document.getElementById("filters");
  const charts = document.getElementById("charts");
  const table = document.getElementById("table");
  const INK = "#1d2733";
  const TITLES = { estimator: "Estimator", schemes: "Schemes", ses: "Session", acq: "Acquisition", run: "Run" };
  const column = new Map(data.metrics.map((m, i) => [m.key, i]));
  let rows = data.rows;
  let order = { key: "title", up: true };

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function format(value) {
    if (value === null || value === undefined) return "–";
    if (value === 0) return "0";
    // Zeros at the end tell how precise a number is: 1.00, not 1.
    return Math.abs(value) >= 1000 ? value.toFixed(0) : value.toPrecision(3);
  }

  // A select for each thing in which the series differ.
  function addChoices() {
    const kinds = [["estimator", (r) => r.estimator], ["schemes", (r) => r.schemes],
      ...data.entities.map((key) => [key, (r) => r.entities[key] || ""])];
    for (const [name, of] of kinds) {
      const values = [...new Set(data.rows.map(of))].filter(Boolean).sort();
      if (values.length < 2 || values.length > 60) continue;
      const select = element("select", { name: `kind-${name}` }, element("option", { value: "" }, "all"));
      for (const value of values) select.append(element("option", { value }, value));
      form.insertBefore(element("label", {}, element("span", {}, TITLES[name] || name), select), form.elements.outliers.parentNode);
    }
    for (const metric of data.metrics.filter((m) => !m.lsq)) {
      form.elements.metric.append(element("option", { value: metric.key }, `${metric.name}${metric.unit ? ` (${metric.unit})` : ""}`));
    }
    return kinds;
  }
  const kinds = addChoices();

  function keeps(row) {
    const f = form.elements;
    const text = f.text.value.trim().toLowerCase();
    if (text && !row.title.toLowerCase().includes(text)) return false;
    for (const [name, of] of kinds) {
      const chosen = f[`kind-${name}`];
      if (chosen && chosen.value && of(row) !== chosen.value) return false;
    }
    if (f.outliers.value === "only" && !row.outliers.length) return false;
    if (f.outliers.value === "without" && row.outliers.length) return false;
    if (f.metric.value) {
      const value = row.values[column.get(f.metric.value)];
      const [low, high] = [f.low.value, f.high.value];
      if ((low !== "" || high !== "") && value === null) return false;
      if (low !== "" && value < Number(low)) return false;
      if (high !== "" && value > Number(high)) return false;
    }
    return true;
  }

  // Without least squares there is no such choice: main estimates then.
  const wanted = () => Boolean(form.elements.estimates && form.elements.estimates.value === "lsq");

  function metricsShown() {
    const lsq = wanted();
    return data.metrics.filter((m) => m.lsq === lsq
      || (lsq && !m.lsq && !column.has(data.prefix + m.key)))
      .filter((m) => rows.some((r) => r.values[column.get(m.key)] !== null));
  }

  // The value below which a share of sorted values lies, between two of them if need be.
  function quantile(sorted, share) {
    const place = share * (sorted.length - 1);
    const below = Math.floor(place);
    return sorted[below] + (place - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
  }

  // Box of the quartiles; whiskers to the last value within 1.5 times its length.
  function quartiles(values) {
    const sorted = [...values].sort((a, b) => a - b);
    const [q1, q2, q3] = [0.25, 0.5, 0.75].map((share) => quantile(sorted, share));
    const within = sorted.filter((v) => v >= q1 - 1.5 * (q3 - q1) && v <= q3 + 1.5 * (q3 - q1));
    return { q1: [q1], median: [q2], q3: [q3], lowerfence: [within[0]], upperfence: [within[within.length - 1]] };
  }

  // The same point keeps the same height, whatever is filtered.
  const jitter = (i) => ((i * 0.618034) % 1) - 0.5;

  function draw(card, metric) {
    const at = column.get(metric.key);
    const shown = rows.map((r) => [r, r.values[at]]).filter(([, v]) => v !== null);
    const values = shown.map(([, v]) => v);
    const place = card.querySelector(".plot");
    card.dataset.drawn = "yes";
    if (values.length > 1 && new Set(values).size === 1) {
      place.replaceChildren(element("p", { class: "note" }, `${format(values[0])} ${metric.unit} in all ${values.length} series`));
      place.classList.add("constant");
      return;
    }
    const out = shown.map(([r]) => r.outliers.includes(metric.key));
    const span = Math.max(...values) - Math.min(...values) || Math.abs(values[0]) * 0.1 || 1;
    // A range without an end goes on beyond whatever is shown, also after zooming out.
    const beyond = 100 * (span + Math.abs(values[0]));
    const band = (limits, colour) => limits && {
      type: "rect", xref: "x", yref: "paper", layer: "below", line: { width: 0 }, fillcolor: colour,
      x0: limits[0] === null ? Math.min(...values, limits[1]) - beyond : limits[0],
      x1: limits[1] === null ? Math.max(...values, limits[0]) + beyond : limits[1], y0: 0, y1: 1,
    };
    const traces = [
      { type: "box", ...quartiles(values), y: [0], orientation: "h", width: 0.9, hoverinfo: "skip",
        line: { color: "#55616d", width: 1.3 }, fillcolor: "rgba(0,0,0,0)" },
      { type: "scatter", mode: "markers", x: values, y: shown.map(([r]) => jitter(data.rows.indexOf(r)) * 0.7),
        customdata: shown.map(([r]) => r.link),
        text: shown.map(([r]) => r.title),
        hovertemplate: `%{text}: %{x:.3~g} ${metric.unit}<extra></extra>`,
        marker: { size: out.map((o) => (o ? 9 : 6)), symbol: out.map((o) => (o ? "diamond" : "circle")),
          color: out.map((o) => (o ? "#d55e00" : "#0072b2")), opacity: out.map((o) => (o ? 1 : 0.55)) } },
    ];
    const layout = {
      height: 132, margin: { l: 12, r: 12, t: 4, b: 26 }, showlegend: false, hovermode: "closest",
      font: { family: "system-ui, sans-serif", size: 11, color: INK },
      xaxis: { range: [Math.min(...values) - 0.06 * span, Math.max(...values) + 0.06 * span], zeroline: false, gridcolor: "#e7eaee" },
      yaxis: { visible: false, range: [-0.65, 0.65], fixedrange: true },
      shapes: [band(metric.fair, "rgba(217,154,28,0.13)"), band(metric.good, "rgba(27,127,92,0.16)")].filter(Boolean),
      paper_bgcolor: "white", plot_bgcolor: "white",
    };
    Plotly.react(place, traces, layout, { displayModeBar: false, responsive: true });
    if (!place.dataset.ready) {
      place.dataset.ready = "yes";
      place.on("plotly_click", (event) => {
        const link = event.points[0] && event.points[0].customdata;
        if (link) window.location.href = link;
      });
    }
  }

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && !entry.target.dataset.drawn) {
        draw(entry.target, data.metrics[column.get(entry.target.dataset.key)]);
      }
    }
  }, { rootMargin: "200px" });

  function build() {
    charts.replaceChildren();
    seen.disconnect();
    const metrics = metricsShown();
    for (const group of data.groups) {
      const members = metrics.filter((m) => m.group === group);
      if (!members.length) continue;
      const grid = element("div", { class: "charts" });
      for (const metric of members) {
        const values = rows.map((r) => r.values[column.get(metric.key)]).filter((v) => v !== null).sort((a, b) => a - b);
        const middle = quantile(values, 0.5);
        const caption = element("figcaption", { title: metric.description },
          element("b", {}, metric.name), metric.unit ? ` (${metric.unit})` : "", ` · median ${format(middle)}`);
        const card = element("figure", { class: "metric", "data-key": metric.key }, caption,
          element("div", { class: "plot", role: "img", "aria-label": `Distribution of ${metric.name}, median ${format(middle)} ${metric.unit}` }));
        grid.append(card);
        seen.observe(card);
      }
      charts.append(element("h3", {}, group), grid);
    }
    document.getElementById("count").textContent =
      rows.length === data.rows.length ? `All ${rows.length} series are shown.` : `${rows.length} of ${data.rows.length} series are shown.`;
    charts.dataset.shown = rows.length;
  }

  function cell(row, key) {
    if (key === "title") return row.title;
    if (key === "outliers") return row.outliers.length;
    return row.values[column.get(key)];
  }

  function list() {
    const heads = [["title", "Series"],
      ...data.shown.map((key) => { const m = data.metrics[column.get(key)]; return [key, m.name + (m.unit ? ` (${m.unit})` : "")]; }),
      ["outliers", "Outlier in"]];
    const names = new Map(heads);
    const head = element("tr");
    for (const [key, name] of heads) {
      const button = element("button", { type: "button", class: "sort" }, name, order.key === key ? (order.up ? " ▲" : " ▼") : "");
      button.addEventListener("click", () => {
        order = { key, up: order.key === key ? !order.up : true };
        list();
      });
      head.append(element("th", { scope: "col", class: key === "title" || key === "outliers" ? "" : "number" }, button));
    }
    const sorted = [...rows].sort((a, b) => {
      const [x, y] = [cell(a, order.key), cell(b, order.key)];
      if (x === null || y === null) return (x === null) - (y === null);
      const by = typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
      return order.up ? by : -by;
    });
    const body = element("tbody");
    for (const row of sorted) {
      const title = row.link ? element("a", { href: row.link }, row.title) : row.title;
      const line = element("tr", {}, element("th", { scope: "row" }, title, row.implausible ? element("span", { class: "light poor" }, " implausible") : ""));
      for (const key of data.shown) {
        const out = row.outliers.includes(key);
        line.append(element("td", { class: out ? "number out" : "number", "data-name": names.get(key) }, format(cell(row, key))));
      }
      const outliers = row.outliers.map((key) => data.metrics[column.get(key)]).filter(Boolean)
        .map((m) => m.name + (m.lsq ? " (least squares)" : ""));
      const told = outliers.length > 3 ? `${outliers.slice(0, 3).join(", ")} and ${outliers.length - 3} more` : outliers.join(", ");
      line.append(element("td", outliers.length ? { class: "soft", "data-name": "Outlier in" } : {}, told));
      body.append(line);
    }
    table.replaceChildren(element("thead", {}, head), body);
  }

  function update() {
    rows = data.rows.filter(keeps);
    build();
    list();
    // The regions follow the same filters.
    document.dispatchEvent(new CustomEvent("rows", { detail: rows.map((row) => data.rows.indexOf(row)) }));
  }

  async function start() {
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(update));
    list();
    if (!Packed.supported) {
      charts.textContent = "The distributions need a browser of 2023 or later; the table below has the main numbers.";
      return;
    }
    await Packed.plotly();
    update();
    // Paper shows all, also what was never scrolled to.
    window.addEventListener("beforeprint", () => {
      for (const card of charts.querySelectorAll(".metric:not([data-drawn])")) {
        draw(card, data.metrics[column.get(card.dataset.key)]);
      }
    });
    charts.dataset.ready = "yes";
  }
  start().catch((error) => {
    charts.textContent = `The distributions could not be drawn: ${error.message}`;
    console.error(error);
  });
})();
