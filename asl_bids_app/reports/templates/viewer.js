// Voxel viewer: slices of the maps, and for a clicked voxel its measurements and fitted curves.
"use strict";
(() => {
  const COLOURS = { PCASL: "#0072b2", CASL: "#56b4e9", PASL: "#009e73", VSASL: "#d55e00" };
  const INK = "#1d2733";
  const FLAGS = [
    [1, "CBF at a bound"],
    [2, "ATT at a bound"],
    [4, "no fit"],
    [8, "ATT not identifiable"],
  ];
  // Two axes of the picture (to the right, upwards) and the one that the slider moves along.
  const PLANES = { axial: [0, 1, 2], coronal: [0, 2, 1], sagittal: [1, 2, 0] };
  const MAPS = [
    { key: "cbf", title: "CBF", pair: true },
    { key: "att", title: "ATT", pair: true },
    { key: "cbf_sd", title: "CBF, standard deviation", pair: true },
    { key: "att_sd", title: "ATT, standard deviation", pair: true },
    { key: "cbf_difference", title: "CBF, main minus least squares", of: "cbf" },
    { key: "att_difference", title: "ATT, main minus least squares", of: "att" },
    { key: "fit", title: "Residual over noise", pair: false },
  ];

  class Viewer {
    constructor(root, data, values, mask) {
      this.root = root;
      this.data = data;
      this.shape = data.shape;
      this.values = values;
      this.row = new Int32Array(mask.length).fill(-1);
      for (let i = 0, next = 0; i < mask.length; i++) if (mask[i]) this.row[i] = next++;
      this.channel = new Map(data.channels.map((c) => [c.name, { ...c, start: c.row * data.voxels }]));
      this.voxel = [...data.start];
      this.plane = "axial";
      this.maps = MAPS.filter((m) => {
        if (m.of) return data.baseline && data.scales[m.key];
        return m.key === "fit" ? this.channel.has("residual0") && data.measurements.length > 2 : true;
      });
      this.map = this.maps[0];
      this.build();
      this.draw();
    }

    get n() { return this.data.measurements.length; }

    rowAt(x, y, z) {
      const [nx, ny, nz] = this.shape;
      if (x < 0 || y < 0 || z < 0 || x >= nx || y >= ny || z >= nz) return -1;
      return this.row[(x * ny + y) * nz + z];
    }

    get(name, row) {
      const channel = this.channel.get(name);
      if (!channel || row < 0) return NaN;
      const integer = this.values[channel.start + row];
      return integer === this.data.missing ? NaN : integer * channel.scale;
    }

    residualOverNoise(row) {
      let sum = 0;
      for (let i = 0; i < this.n; i++) sum += (this.get(`residual${i}`, row) / this.get(`noise${i}`, row)) ** 2;
      return Math.sqrt(sum / (this.n - 2));
    }

    value(map, prefix, row) {
      if (map.key === "fit") return this.residualOverNoise(row);
      if (map.of) return this.get(map.of, row) - this.get(`lsq_${map.of}`, row);
      return this.get(prefix + map.key, row);
    }

    scale(map) {
      return this.data.scales[map.key] || { low: 0, high: 3, unit: "1 = noise alone", colours: "cividis" };
    }

    element(name, attributes = {}, ...children) {
      const made = document.createElement(name);
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      made.append(...children);
      return made;
    }

    choice(label, options, change) {
      const select = this.element("select");
      for (const [value, title] of options) select.append(this.element("option", { value }, title));
      select.addEventListener("change", () => change(select.value));
      return this.element("label", {}, this.element("span", {}, label), select);
    }

    build() {
      const controls = this.element("div", { class: "controls" });
      controls.append(
        this.choice("Map", this.maps.map((m) => [m.key, m.title]), (key) => {
          this.map = this.maps.find((m) => m.key === key);
          this.draw();
        }),
        this.choice("Plane", Object.keys(PLANES).map((p) => [p, p]), (plane) => {
          this.plane = plane;
          this.draw();
        }),
      );
      this.slider = this.element("input", { type: "range", min: 0, step: 1 });
      this.slider.addEventListener("input", () => {
        this.voxel[PLANES[this.plane][2]] = Number(this.slider.value);
        this.draw();
      });
      this.sliceName = this.element("span", {}, "Slice");
      controls.append(this.element("label", { class: "wide" }, this.sliceName, this.slider));

      this.panels = ["", "lsq_"].map((prefix) => {
        const canvas = this.element("canvas", {
          tabindex: 0,
          role: "application",
          "aria-label": "Slice; click or use the arrow keys to choose a voxel, page up and down for slices",
        });
        const caption = this.element("figcaption");
        const figure = this.element("figure", {}, caption, canvas);
        canvas.addEventListener("pointerdown", (event) => this.pick(event, canvas));
        canvas.addEventListener("pointermove", (event) => {
          if (event.buttons === 1) this.pick(event, canvas);
        });
        canvas.addEventListener("keydown", (event) => this.key(event));
        return { prefix, canvas, caption, figure };
      });
      const views = this.element("div", { class: "views" }, ...this.panels.map((p) => p.figure));
      this.bar = this.element("div", { class: "bar" });
      this.chart = this.element("div", { class: "chart", role: "img", "aria-label": "Measured and fitted ΔM of the voxel" });
      this.readout = this.element("div", { class: "readout", "aria-live": "polite" });
      this.root.replaceChildren(
        controls,
        this.element("div", { class: "split" },
          this.element("div", {}, views, this.bar, this.readout),
          this.element("div", {}, this.chart, this.legend())),
      );
      if (this.data.step > 1) {
        this.root.append(this.element("p", { class: "note" },
          `To keep this page small, the viewer holds every ${this.data.step}th voxel of each row and column.`));
      }
    }

    pick(event, canvas) {
      const [right, up] = PLANES[this.plane];
      const box = canvas.getBoundingClientRect();
      const i = Math.floor(((event.clientX - box.left) / box.width) * this.shape[right]);
      const j = this.shape[up] - 1 - Math.floor(((event.clientY - box.top) / box.height) * this.shape[up]);
      this.voxel[right] = Math.min(Math.max(i, 0), this.shape[right] - 1);
      this.voxel[up] = Math.min(Math.max(j, 0), this.shape[up] - 1);
      this.draw();
    }

    key(event) {
      const [right, up, through] = PLANES[this.plane];
      const moves = {
        ArrowLeft: [right, -1], ArrowRight: [right, 1], ArrowUp: [up, 1], ArrowDown: [up, -1],
        PageUp: [through, 1], PageDown: [through, -1],
      };
      const move = moves[event.key];
      if (!move) return;
      event.preventDefault();
      const [axis, by] = move;
      this.voxel[axis] = Math.min(Math.max(this.voxel[axis] + by, 0), this.shape[axis] - 1);
      this.draw();
    }

    draw() {
      const through = PLANES[this.plane][2];
      this.slider.max = this.shape[through] - 1;
      this.slider.value = this.voxel[through];
      this.sliceName.textContent = `Slice ${this.voxel[through] + 1} of ${this.shape[through]}`;
      const both = this.map.pair && this.data.baseline;
      this.panels[1].figure.hidden = !both;
      this.panels[0].caption.textContent = both || this.map.pair ? this.data.estimator : this.map.title;
      this.panels[1].caption.textContent = "least squares";
      for (const panel of both ? this.panels : this.panels.slice(0, 1)) this.paint(panel);
      const scale = this.scale(this.map);
      this.bar.innerHTML = "";
      this.bar.append(
        this.element("span", {}, this.format(scale.low)),
        this.element("span", { class: "ramp", style: `background:linear-gradient(to right,${this.ramp(scale.colours)})` }),
        this.element("span", {}, `${this.format(scale.high)} ${scale.unit}`),
      );
      this.tell();
      this.plot();
    }

    ramp(name) {
      const table = this.data.colours[name];
      return Array.from({ length: 17 }, (_, i) => "#" + table.substr(Math.round((i * 255) / 16) * 6, 6)).join(",");
    }

    paint({ prefix, canvas }) {
      const [right, up, through] = PLANES[this.plane];
      const [width, height] = [this.shape[right], this.shape[up]];
      const size = [0, 1, 2].map((c) => Math.hypot(...[0, 1, 2].map((r) => this.data.affine[r][c])));
      const scale = this.scale(this.map);
      const table = this.data.colours[scale.colours];
      const picture = new ImageData(width, height);
      const at = [...this.voxel];
      for (let j = 0; j < height; j++) {
        for (let i = 0; i < width; i++) {
          at[right] = i;
          at[up] = height - 1 - j;
          const row = this.rowAt(...at);
          const value = row < 0 ? NaN : this.value(this.map, prefix, row);
          const p = 4 * (j * width + i);
          picture.data[p + 3] = 255;
          if (row < 0) { picture.data.set([34, 39, 45], p); continue; }
          if (!Number.isFinite(value)) { picture.data.set([90, 96, 102], p); continue; }
          const share = (value - scale.low) / (scale.high - scale.low);
          const c = 6 * Math.round(255 * Math.min(Math.max(share, 0), 1));
          picture.data.set([0, 2, 4].map((k) => parseInt(table.substr(c + k, 2), 16)), p);
        }
      }
      const zoom = Math.max(2, Math.round(900 / (width * size[right])) );
      const small = this.element("canvas");
      [small.width, small.height] = [width, height];
      small.getContext("2d").putImageData(picture, 0, 0);
      canvas.width = Math.round(width * size[right] * zoom);
      canvas.height = Math.round(height * size[up] * zoom);
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(small, 0, 0, canvas.width, canvas.height);
      const [stepX, stepY] = [canvas.width / width, canvas.height / height];
      const x = (this.voxel[right] + 0.5) * stepX;
      const y = (height - this.voxel[up] - 0.5) * stepY;
      context.strokeStyle = "rgba(255,255,255,0.75)";
      context.lineWidth = Math.max(1, canvas.width / 500);
      context.beginPath();
      context.moveTo(x, 0); context.lineTo(x, y - stepY); context.moveTo(x, y + stepY); context.lineTo(x, canvas.height);
      context.moveTo(0, y); context.lineTo(x - stepX, y); context.moveTo(x + stepX, y); context.lineTo(canvas.width, y);
      context.stroke();
      context.strokeRect(x - stepX / 2, y - stepY / 2, stepX, stepY);
      context.fillStyle = "white";
      context.font = `bold ${Math.round(canvas.width / 22)}px system-ui, sans-serif`;
      context.textBaseline = "top";
      const [first, last] = right === 0 ? ["L", "R"] : ["P", "A"];
      context.fillText(first, canvas.width * 0.015, canvas.height * 0.015);
      context.textAlign = "right";
      context.fillText(last, canvas.width * 0.985, canvas.height * 0.015);
    }

    format(value, digits = 3) {
      if (!Number.isFinite(value)) return "–";
      if (value === 0) return "0";
      return String(Number(value.toPrecision(digits)));
    }

    tell() {
      const [x, y, z] = this.voxel;
      const row = this.rowAt(x, y, z);
      const mm = [0, 1, 2].map((r) =>
        this.data.affine[r][0] * x + this.data.affine[r][1] * y + this.data.affine[r][2] * z + this.data.affine[r][3]);
      const place = `Voxel at ${mm.map((v) => v.toFixed(0)).join(", ")} mm (right, front, up)`;
      this.readout.innerHTML = "";
      if (row < 0) {
        this.readout.append(this.element("p", {}, `${place}: outside the brain mask.`));
        return;
      }
      const tissues = [["gm", "grey matter"], ["wm", "white matter"], ["csf", "fluid"]]
        .filter(([key]) => this.channel.has(key))
        .map(([key, name]) => `${name} ${Math.round(100 * this.get(key, row))} %`);
      this.readout.append(this.element("p", {}, [place, ...tissues].join(" · ")));
      const table = this.element("table");
      const head = ["", "CBF (mL/100 g/min)", "ATT (s)", "remarks"];
      table.append(this.element("tr", {}, ...head.map((t) => this.element("th", { scope: "col" }, t))));
      for (const [prefix, name] of [["", this.data.estimator], ["lsq_", "least squares"]]) {
        if (prefix && !this.data.baseline) continue;
        const flags = Math.round(this.get(`${prefix}flags`, row)) || 0;
        const remarks = FLAGS.filter(([bit]) => flags & bit).map(([, words]) => words);
        if (!prefix && this.channel.has("residual0") && this.n > 2) {
          remarks.push(`residual ${this.format(this.residualOverNoise(row), 2)} × noise`);
        }
        const pair = (key, digits) =>
          `${this.get(prefix + key, row).toFixed(digits)} ± ${this.format(this.get(`${prefix}${key}_sd`, row), 2)}`;
        table.append(this.element("tr", {},
          this.element("th", { scope: "row" }, name),
          this.element("td", {}, pair("cbf", 1)),
          this.element("td", {}, pair("att", 2)),
          this.element("td", {}, remarks.join("; "))));
      }
      this.readout.append(table);
    }

    legend() {
      const draw = (inner) => {
        const holder = this.element("span");
        holder.innerHTML = `<svg viewBox="0 0 26 12" aria-hidden="true">${inner}</svg>`;
        return holder.firstChild;
      };
      const entry = (inner, words) => this.element("span", { class: "nowrap" }, draw(inner), words);
      const legend = this.element("div", { class: "legend" });
      for (const scheme of new Set(this.data.measurements.map((m) => m.scheme))) {
        legend.append(entry(`<rect x="7" y="0" width="12" height="12" fill="${COLOURS[scheme] || "#aa4499"}"/>`, scheme));
      }
      const line = (dash) => `<path d="M0 6H26" stroke="${INK}" stroke-width="2" stroke-dasharray="${dash}"/>`;
      legend.append(
        entry(`<path d="M13 0V12" stroke="${INK}"/><circle cx="13" cy="6" r="4" fill="${INK}"/>`, "measured ± 1 SD"),
        entry(line("0"), this.data.estimator));
      if (this.data.baseline) legend.append(entry(line("6 3"), "least squares"));
      if (this.channel.has("residual0")) {
        legend.append(entry(`<circle cx="13" cy="6" r="4" fill="none" stroke="${INK}" stroke-width="1.5"/>`, "measured minus residual"));
      }
      return legend;
    }

    // Measurements that share a scheme and a duration lie on one curve.
    curves() {
      const groups = new Map();
      this.data.measurements.forEach((m, i) => {
        const key = `${m.scheme}|${m.duration}|${m.time}`;
        if (!groups.has(key)) groups.set(key, { ...m, members: [] });
        groups.get(key).members.push(i);
      });
      return [...groups.values()];
    }

    plot() {
      const row = this.rowAt(...this.voxel);
      const layout = {
        margin: { l: 58, r: 10, t: 8, b: 44 },
        height: 330,
        font: { family: "system-ui, sans-serif", size: 12, color: INK },
        xaxis: { title: { text: "post-labelling delay at this slice (s)" }, rangemode: "tozero", zeroline: false, gridcolor: "#e7eaee" },
        yaxis: { title: { text: "ΔM/M0 (%)" }, rangemode: "tozero", zerolinecolor: "#8a949e", gridcolor: "#e7eaee" },
        showlegend: false,
        paper_bgcolor: "white", plot_bgcolor: "white", hovermode: "closest",
      };
      const traces = row < 0 ? [] : this.traces(row);
      Plotly.react(this.chart, traces, layout, { displayModeBar: false, responsive: true });
    }

    traces(row) {
      const { measurements, constants, estimator, baseline } = this.data;
      const delay = measurements.map((m) => m.delay + this.get(`time${m.time}`, row));
      const estimates = [["", estimator, "solid"], ...(baseline ? [["lsq_", "least squares", "dash"]] : [])];
      const predict = (m, w, prefix) => 100 * this.get(`${prefix}cbf`, row)
        * Kinetics.response(m.arrival, w, m.duration, m.efficiency, constants, this.get(`${prefix}att`, row));
      const known = Object.values(constants).every((v) => v !== null) && measurements.every((m) => m.efficiency !== null);
      const traces = [];
      for (const group of this.curves()) {
        const colour = COLOURS[group.scheme] || "#aa4499";
        const several = this.curves().filter((g) => g.scheme === group.scheme).length > 2;
        const of = (value) => group.members.map(value);
        traces.push({
          x: of((i) => delay[i]), y: of((i) => 100 * this.get(`delta_m${i}`, row)),
          error_y: { type: "data", array: of((i) => 100 * this.get(`noise${i}`, row)), color: colour, thickness: 1.2, width: 4 },
          mode: "markers", marker: { color: colour, size: 8 },
          hovertemplate: "%{x:.3f} s: %{y:.3f} %<extra>measured</extra>",
        });
        for (const [prefix, name, dash] of known ? estimates : []) {
          const end = Math.max(...delay) + 0.3;
          // Where every measurement has its own duration, curves would be a thicket: points instead.
          const at = several ? of((i) => delay[i]) : Array.from({ length: 121 }, (_, k) => (k * end) / 120);
          traces.push({
            x: at, y: at.map((w) => predict(group, w, prefix)),
            mode: several ? "markers" : "lines",
            line: { color: colour, width: 2, dash },
            marker: { color: colour, size: 9, symbol: prefix ? "x-thin-open" : "diamond-open" },
            hovertemplate: `%{x:.2f} s: %{y:.3f} %<extra>${name}</extra>`,
          });
        }
        if (this.channel.has("residual0")) {
          traces.push({
            x: of((i) => delay[i]),
            y: of((i) => 100 * (this.get(`delta_m${i}`, row) - this.get(`residual${i}`, row))),
            mode: "markers", marker: { color: colour, size: 7, symbol: "circle-open", line: { width: 1.3 } },
            hovertemplate: "%{x:.3f} s: %{y:.3f} %<extra>measured minus residual</extra>",
          });
        }
      }
      return traces;
    }
  }

  async function start(root) {
    const data = JSON.parse(document.getElementById(root.dataset.source).textContent);
    await Packed.plotly();
    const [values, mask] = await Promise.all([Packed.bytes(data.values), Packed.bytes(data.mask)]);
    root.viewer = new Viewer(root, data, new Int16Array(values), new Uint8Array(mask));
    root.dataset.ready = "yes";
  }

  for (const root of document.querySelectorAll(".viewer")) {
    if (!Packed.supported) {
      root.textContent = "The viewer needs a browser of 2023 or later; the pictures above show the same maps.";
      continue;
    }
    start(root).catch((error) => {
      root.textContent = `The viewer could not start: ${error.message}`;
      console.error(error);
    });
  }
})();
