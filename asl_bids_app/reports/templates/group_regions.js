// Regions of a group: a line with box and points for each, sorted as wanted.
"use strict";
(() => {
  const atlases = JSON.parse(document.getElementById("region-data").textContent).filter((a) => Object.keys(a.quantities).length);
  const series = JSON.parse(document.getElementById("group-data").textContent).rows;
  const place = document.getElementById("region-chart");
  const controls = document.getElementById("region-controls");
  const choice = (name) => controls.querySelector(`[name=${name}]`).value;
  const COLOURS = { L: "#0072b2", R: "#009e73", "": "#55616d" };
  const LINE = 22;
  // What is there differs between atlases.
  function addQuantities() {
    const select = controls.querySelector("[name=quantity]");
    const before = select.value;
    const known = Object.entries(atlases[Number(choice("atlas"))].quantities).sort(([, a], [, b]) => a.place - b.place);
    select.replaceChildren(...known.map(([key, { title }]) => new Option(title, key, false, key === before)));
  }
  let shown = series.map((_, i) => i);

  function quantile(sorted, share) {
    const at = share * (sorted.length - 1);
    const below = Math.floor(at);
    return sorted[below] + (at - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
  }

  function lines() {
    const atlas = atlases[Number(choice("atlas"))];
    const quantity = atlas.quantities[choice("quantity")];
    const out = new Set(quantity.outliers.map(([region, i]) => `${region} ${i}`));
    const found = atlas.regions.map((region, k) => {
      const points = shown.filter((i) => quantity.values[k][i] !== null)
        .map((i) => ({ i, value: quantity.values[k][i], out: out.has(`${k} ${i}`) }));
      const sorted = points.map((p) => p.value).sort((a, b) => a - b);
      const [q1, q2, q3] = sorted.length ? [0.25, 0.5, 0.75].map((share) => quantile(sorted, share)) : [null, null, null];
      const within = sorted.filter((v) => v >= q1 - 1.5 * (q3 - q1) && v <= q3 + 1.5 * (q3 - q1));
      return { k, ...region, points, q1, q2, q3, low: within[0], high: within[within.length - 1] };
    });
    const last = (value) => (value === null || !Number.isFinite(value) ? -Infinity : value);
    const by = {
      atlas: (a, b) => a.k - b.k,
      name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
      median: (a, b) => last(b.q2) - last(a.q2) || a.k - b.k,
      spread: (a, b) => last((b.q3 - b.q1) / b.q2) - last((a.q3 - a.q1) / a.q2) || a.k - b.k,
      missing: (a, b) => a.points.length - b.points.length || a.k - b.k,
    };
    return { found: found.sort(by[choice("order")]), quantity };
  }

  async function draw() {
    if (!atlases.length) return;
    await Packed.plotly();
    const { found, quantity } = lines();
    const boxed = found.map((line, at) => ({ ...line, at })).filter((line) => line.points.length);
    const dots = boxed.flatMap((line) => line.points.map((point) => ({ ...point, line })));
    const narrow = place.clientWidth < 600;
    const names = found.map((line) => (narrow && line.name.length > 16 ? `${line.name.slice(0, 15)}…` : line.name)
      + (line.points.length ? "" : " (n/a)"));
    const traces = [
      { type: "box", orientation: "h", y: boxed.map((l) => l.at), q1: boxed.map((l) => l.q1), median: boxed.map((l) => l.q2),
        q3: boxed.map((l) => l.q3), lowerfence: boxed.map((l) => l.low), upperfence: boxed.map((l) => l.high),
        width: 0.7, hoverinfo: "skip", line: { color: "#55616d", width: 1.2 }, fillcolor: "rgba(0,0,0,0)" },
      { type: "scatter", mode: "markers", x: dots.map((d) => d.value),
        y: dots.map((d) => d.line.at + 0.5 * (((d.i * 0.618034) % 1) - 0.5)),
        text: dots.map((d) => `${d.line.name}, ${series[d.i].title}`), customdata: dots.map((d) => series[d.i].link),
        hovertemplate: `%{text}: %{x:.3~g} ${quantity.unit}<extra></extra>`,
        marker: { size: dots.map((d) => (d.out ? 8 : 5)), symbol: dots.map((d) => (d.out ? "diamond" : "circle")),
          color: dots.map((d) => (d.out ? "#d55e00" : COLOURS[d.line.side])), opacity: dots.map((d) => (d.out ? 1 : 0.55)) } },
    ];
    const layout = {
      height: 56 + LINE * found.length, margin: { l: narrow ? 110 : 220, r: 14, t: 34, b: 8 }, showlegend: false, hovermode: "closest",
      font: { family: "system-ui, sans-serif", size: 12, color: "#1d2733" },
      xaxis: { side: "top", title: { text: `${quantity.title} (${quantity.unit})`, standoff: 4 }, zeroline: false, gridcolor: "#e7eaee" },
      yaxis: { range: [found.length - 0.4, -0.6], tickvals: found.map((_, at) => at), ticktext: names, fixedrange: true, gridcolor: "#f0f2f4", zeroline: false },
      paper_bgcolor: "white", plot_bgcolor: "white",
    };
    if (!place.dataset.ready) place.replaceChildren();
    await Plotly.react(place, traces, layout, { displayModeBar: false, responsive: true });
    if (!place.dataset.ready) {
      place.on("plotly_click", (event) => {
        const link = event.points[0] && event.points[0].customdata;
        if (link) window.location.href = link;
      });
    }
    place.dataset.order = found.map((line) => line.name).join("|");
    place.dataset.ready = "yes";
  }

  const failed = (error) => { place.textContent = `The regions could not be drawn: ${error.message}`; console.error(error); };
  const again = () => { draw().catch(failed); };
  if (atlases.length) addQuantities();
  controls.addEventListener("input", (event) => {
    if (event.target.name === "atlas") addQuantities();
    again();
  });
  document.addEventListener("rows", (event) => { shown = event.detail; again(); });
  if (!Packed.supported) place.textContent = "The distributions need a browser of 2023 or later; the numbers are in the tables.";
})();
