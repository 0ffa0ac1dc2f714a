// Voxel viewer: slices of the maps, and for a clicked voxel its measurements and fitted curves.
"use strict";
(() => {
  const COLOURS = { PCASL: "#0072b2", CASL: "#56b4e9", PASL: "#009e73", VSASL: "#d55e00" };
  const INK = "#1d2733";
  // Two axes of the picture (to the right, upwards) and the one that the slider moves along.
  const PLANES = { axial: [0, 1, 2], coronal: [0, 2, 1], sagittal: [1, 2, 0] };
  const QUANTITIES = [
    ["cbf", "CBF"],
    ["att", "ATT"],
    ["cbf_sd", "CBF, standard deviation"],
    ["att_sd", "ATT, standard deviation"],
    ["flags", "Flags"],
  ];
  const ZOOMS = [1, 1.5, 2, 3, 4, 6];
  const DASHES = ["solid", "dash", "dot", "dashdot"];

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
      this.zoom = 1;
      this.centre = null;
      this.maps = this.listMaps();
      this.map = this.maps[0];
      this.build();
      this.draw();
    }

    // Each map has the panels that show it: the estimates that have it, or one of its own.
    listMaps() {
      const { estimates, scales, baseline } = this.data;
      const maps = [];
      for (const [key, title] of QUANTITIES) {
        const panels = estimates.filter((e) => this.channel.has(e.keys[key]))
          .map((e) => ({
            name: key.endsWith("_sd") && e.bars ? `${e.name} (${e.bars})` : e.name,
            value: (row) => this.get(e.keys[key], row),
          }));
        if (panels.length) maps.push({ key, title, panels });
      }
      for (const [key, title] of [["cbf", "CBF"], ["att", "ATT"]]) {
        if (!baseline || !scales[`${key}_difference`]) continue;
        const name = `${title}, ${estimates[0].name} minus least squares`;
        maps.push({ key: `${key}_difference`, title: name, panels: [{ name,
          value: (row) => this.get(key, row) - this.get(`lsq_${key}`, row) }] });
      }
      if (this.channel.has("residual0") && this.data.measurements.length > 2) {
        const name = "Residual over noise";
        maps.push({ key: "fit", title: name, panels: [{ name, value: (row) => this.residualOverNoise(row) }] });
      }
      return maps;
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
      const smaller = this.element("button", { type: "button", "aria-label": "Zoom out" }, "−");
      const larger = this.element("button", { type: "button", "aria-label": "Zoom in" }, "+");
      smaller.addEventListener("click", () => this.zoomBy(-1));
      larger.addEventListener("click", () => this.zoomBy(1));
      this.zoomName = this.element("span", {}, "Zoom");
      controls.append(this.element("div", { class: "zoom" }, this.zoomName, this.element("div", {}, smaller, larger)));

      const most = Math.max(...this.maps.map((m) => m.panels.length));
      this.panels = Array.from({ length: most }, () => {
        const canvas = this.element("canvas", {
          tabindex: 0,
          role: "application",
          "aria-label": "Slice; click or use the arrow keys to choose a voxel, page up and down for slices, plus and minus to zoom",
        });
        const caption = this.element("figcaption");
        const figure = this.element("figure", {}, caption, canvas);
        canvas.addEventListener("pointerdown", (event) => this.pick(event, canvas));
        canvas.addEventListener("pointermove", (event) => {
          if (event.buttons === 1) this.pick(event, canvas);
        });
        canvas.addEventListener("keydown", (event) => this.key(event));
        return { canvas, caption, figure };
      });
      const views = this.element("div", { class: "views" }, ...this.panels.map((p) => p.figure));
      this.bar = this.element("div", { class: "bar" });
      this.chart = this.element("div", { class: "chart", role: "img", "aria-label": "Measured and fitted ΔM of the voxel" });
      this.readout = this.element("div", { class: "readout", "aria-live": "polite" });
      this.root.replaceChildren(
        controls,
        this.element("div", { class: "split" },
          this.element("div", {}, views, this.bar),
          this.element("div", {}, this.chart, this.legend())),
        this.readout,
      );
      if (this.data.step > 1) {
        this.root.append(this.element("p", { class: "note" },
          `To keep this page small, the viewer holds every ${this.data.step}th voxel of each row and column.`));
      }
    }

    zoomBy(step) {
      const at = ZOOMS.indexOf(this.zoom) + step;
      this.zoom = ZOOMS[Math.min(Math.max(at, 0), ZOOMS.length - 1)];
      this.centre = null;
      this.draw();
    }

    // The part of the slice that is shown, in voxels; it moves when the voxel would leave it.
    view() {
      const [right, up] = PLANES[this.plane];
      const [width, height] = [this.shape[right], this.shape[up]];
      const [w, h] = [width / this.zoom, height / this.zoom];
      const place = [this.voxel[right] + 0.5, height - this.voxel[up] - 0.5];
      const shown = this.centre && this.centre.plane === this.plane
        && Math.abs(place[0] - this.centre.x) <= w / 2 && Math.abs(place[1] - this.centre.y) <= h / 2;
      if (!shown) {
        this.centre = { plane: this.plane,
          x: Math.min(Math.max(place[0], w / 2), width - w / 2),
          y: Math.min(Math.max(place[1], h / 2), height - h / 2) };
      }
      return { x: this.centre.x - w / 2, y: this.centre.y - h / 2, w, h, width, height };
    }

    pick(event, canvas) {
      const [right, up] = PLANES[this.plane];
      const box = canvas.getBoundingClientRect();
      const view = this.view();
      const i = Math.floor(view.x + ((event.clientX - box.left) / box.width) * view.w);
      const j = this.shape[up] - 1 - Math.floor(view.y + ((event.clientY - box.top) / box.height) * view.h);
      this.voxel[right] = Math.min(Math.max(i, 0), this.shape[right] - 1);
      this.voxel[up] = Math.min(Math.max(j, 0), this.shape[up] - 1);
      this.draw();
    }

    // Where a voxel is in the files, counted from 0 as most programs count.
    onDisk(x, y, z) {
      return [0, 1, 2].map((r) => Math.round(this.data.stored[r][0] * x + this.data.stored[r][1] * y
        + this.data.stored[r][2] * z + this.data.stored[r][3]));
    }

    key(event) {
      const [right, up, through] = PLANES[this.plane];
      const moves = {
        ArrowLeft: [right, -1], ArrowRight: [right, 1], ArrowUp: [up, 1], ArrowDown: [up, -1],
        PageUp: [through, 1], PageDown: [through, -1],
      };
      if (event.key === "+" || event.key === "-") {
        event.preventDefault();
        this.zoomBy(event.key === "+" ? 1 : -1);
        return;
      }
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
      const axis = [0, 1, 2].find((r) => Math.abs(this.data.stored[r][through]) > 0.5);
      this.sliceName.textContent = `Slice ${this.onDisk(...this.voxel)[axis]} (${"ijk"[axis]} in the file, from 0)`;
      this.zoomName.textContent = `Zoom ${this.zoom}×`;
      this.panels.forEach((panel, i) => {
        const shown = this.map.panels[i];
        panel.figure.hidden = !shown;
        if (!shown) return;
        panel.caption.textContent = shown.name;
        this.paint(panel.canvas, shown.value);
      });
      this.bar.innerHTML = "";
      if (this.map.key === "flags") {
        for (const [, name, colour] of [[0, "no flag", this.data.plain], ...this.data.flags]) {
          this.bar.append(this.element("span", { class: "nowrap" },
            this.element("span", { class: "swatch", style: `background:${colour}` }), name));
        }
      } else {
        const scale = this.scale(this.map);
        this.bar.append(
          this.element("span", {}, this.format(scale.low)),
          this.element("span", { class: "ramp", style: `background:linear-gradient(to right,${this.ramp(scale.colours)})` }),
          this.element("span", {}, `${this.format(scale.high)} ${scale.unit}${scale.kind === "log" ? " (logarithmic)" : ""}`),
        );
      }
      this.tell();
      this.plot();
    }

    ramp(name) {
      const table = this.data.colours[name];
      return Array.from({ length: 17 }, (_, i) => "#" + table.substr(Math.round((i * 255) / 16) * 6, 6)).join(",");
    }

    // Colour of a value as [r, g, b].
    colourOf(scale, table, value) {
      if (this.map.key === "flags") {
        const set = this.data.flags.filter(([bit]) => Math.round(value) & bit);
        const code = set.length ? set[set.length - 1][2] : this.data.plain;
        return [1, 3, 5].map((k) => parseInt(code.substr(k, 2), 16));
      }
      const [low, high, v] = scale.kind === "log"
        ? [scale.low, scale.high, Math.max(value, scale.low)].map(Math.log)
        : [scale.low, scale.high, value];
      const c = 6 * Math.round(255 * Math.min(Math.max((v - low) / (high - low), 0), 1));
      return [0, 2, 4].map((k) => parseInt(table.substr(c + k, 2), 16));
    }

    paint(canvas, valueAt) {
      const [right, up] = PLANES[this.plane];
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
          const value = row < 0 ? NaN : valueAt(row);
          const p = 4 * (j * width + i);
          picture.data[p + 3] = 255;
          if (row < 0) { picture.data.set([34, 39, 45], p); continue; }
          if (!Number.isFinite(value)) { picture.data.set([90, 96, 102], p); continue; }
          picture.data.set(this.colourOf(scale, table, value), p);
        }
      }
      const zoom = Math.max(2, Math.round(900 / (width * size[right])));
      const small = this.element("canvas");
      [small.width, small.height] = [width, height];
      small.getContext("2d").putImageData(picture, 0, 0);
      canvas.width = Math.round(width * size[right] * zoom);
      canvas.height = Math.round(height * size[up] * zoom);
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      const view = this.view();
      context.drawImage(small, view.x, view.y, view.w, view.h, 0, 0, canvas.width, canvas.height);
      const [stepX, stepY] = [canvas.width / view.w, canvas.height / view.h];
      const x = (this.voxel[right] + 0.5 - view.x) * stepX;
      const y = (height - this.voxel[up] - 0.5 - view.y) * stepY;
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
      const place = `Voxel ${this.onDisk(x, y, z).join(", ")} of the files (from 0), at ${mm.map((v) => v.toFixed(0)).join(", ")} mm (right, front, up)`;
      this.readout.innerHTML = "";
      if (row < 0) {
        this.readout.append(this.element("p", {}, `${place}: outside the brain mask.`));
        return;
      }
      const tissues = [["gm", "grey matter"], ["wm", "white matter"], ["csf", "fluid"]]
        .filter(([key]) => this.channel.has(key))
        .map(([key, name]) => `${name} ${Math.round(100 * this.get(key, row))} %`);
      this.readout.append(this.element("p", {}, [place, ...tissues].join(" · ")));
      const table = this.element("table", { class: "stack" });
      const head = ["", "CBF ± 1 SD (mL/100 g/min)", "ATT ± 1 SD (s)", "error bars", "remarks"];
      table.append(this.element("thead", {}, this.element("tr", {}, ...head.map((t) => this.element("th", { scope: "col" }, t)))));
      const body = this.element("tbody");
      this.data.estimates.forEach(({ name, bars, keys }, i) => {
        const flags = Math.round(this.get(keys.flags, row)) || 0;
        const remarks = this.data.flags.filter(([bit]) => flags & bit).map(([, words]) => words);
        if (!i && this.channel.has("abv") && this.get("abv", row) > 0.01) {
          const share = this.arterialShare(row);
          const shown = Number.isFinite(share) ? `, ${Math.round(100 * share)} % of the fitted signal` : "";
          remarks.push(`arteries ${this.format(this.get("abv", row), 2)} ± ${this.format(this.get("abv_sd", row), 2)} mL/100 mL${shown}`);
        }
        if (!i && this.channel.has("residual0") && this.n > 2) {
          remarks.push(`residual ${this.format(this.residualOverNoise(row), 2)} × noise`);
        }
        const pair = (key, digits) => {
          const value = this.get(keys[key], row);
          return Number.isFinite(value)
            ? `${value.toFixed(digits)} ± ${this.format(this.get(keys[`${key}_sd`], row), 2)}` : "–";
        };
        body.append(this.element("tr", {},
          this.element("th", { scope: "row" }, name),
          this.element("td", { "data-name": "CBF" }, pair("cbf", 1)),
          this.element("td", { "data-name": "ATT" }, pair("att", 2)),
          this.element("td", { "data-name": "error bars" }, bars),
          this.element("td", {}, remarks.join("; "))));
      });
      table.append(body);
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
        ...this.fitted().map(({ name }, i) => entry(line(["0", "6 3", "2 2", "6 2 2 2"][i % 4]), name)));
      if (this.channel.has("residual0")) {
        legend.append(entry(`<circle cx="13" cy="6" r="4" fill="none" stroke="${INK}" stroke-width="1.5"/>`, "measured minus residual"));
      }
      if (this.showsArteries()) {
        legend.append(entry(`<path d="M13 1L19 11H7Z" fill="none" stroke="${INK}" stroke-width="1.5"/>`, "of it in arteries"));
      }
      return legend;
    }

    // What is measured, less residual and tissue, is label in arteries.
    showsArteries() { return this.channel.has("abv") && this.channel.has("residual0") && this.fitted().length > 0; }

    arterial(i, row) {
      const m = this.data.measurements[i];
      const { keys } = this.fitted()[0];
      const w = m.delay + this.get(`time${m.time}`, row);
      const tissue = this.get(keys.cbf, row)
        * Kinetics.response(m.arrival, w, m.duration, m.efficiency, this.data.constants, this.get(keys.att, row));
      return this.get(`delta_m${i}`, row) - this.get(`residual${i}`, row) - tissue;
    }

    arterialShare(row) {
      if (!this.showsArteries()) return NaN;
      let arteries = 0, all = 0;
      for (let i = 0; i < this.n; i++) {
        arteries += this.arterial(i, row);
        all += this.get(`delta_m${i}`, row) - this.get(`residual${i}`, row);
      }
      return all > 0 ? Math.min(Math.max(arteries / all, 0), 1) : NaN;
    }

    // Estimates of both CBF and ATT, which make a curve.
    fitted() { return this.data.estimates.filter((e) => e.keys.cbf && e.keys.att); }

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
      const { measurements, constants } = this.data;
      const delay = measurements.map((m) => m.delay + this.get(`time${m.time}`, row));
      const estimates = this.fitted().map((e, i) => [e.keys, e.name, DASHES[i % DASHES.length]]);
      const predict = (m, w, keys) => 100 * this.get(keys.cbf, row)
        * Kinetics.response(m.arrival, w, m.duration, m.efficiency, constants, this.get(keys.att, row));
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
        for (const [keys, name, dash] of known ? estimates : []) {
          const end = Math.max(...delay) + 0.3;
          // Where every measurement has its own duration, curves would be a thicket: points instead.
          const at = several ? of((i) => delay[i]) : Array.from({ length: 121 }, (_, k) => (k * end) / 120);
          traces.push({
            x: at, y: at.map((w) => predict(group, w, keys)),
            mode: several ? "markers" : "lines",
            line: { color: colour, width: 2, dash },
            marker: { color: colour, size: 9, symbol: dash === "solid" ? "diamond-open" : "x-thin-open" },
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
        if (known && this.showsArteries() && this.get("abv", row) > 0.01) {
          traces.push({
            x: of((i) => delay[i]), y: of((i) => 100 * this.arterial(i, row)),
            mode: "markers", marker: { color: colour, size: 8, symbol: "triangle-up-open", line: { width: 1.3 } },
            hovertemplate: "%{x:.3f} s: %{y:.3f} %<extra>of it in arteries</extra>",
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
