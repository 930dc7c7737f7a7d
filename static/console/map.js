"use strict";

// Draws the map. The table beside it holds the same texts and works without this.

(() => {
  const frame = document.getElementById("map");
  if (frame === null) return;
  const tip = frame.querySelector(".map-tip");
  const tools = document.querySelector(".map-tools");
  const { here, method, number, key } = frame.dataset;
  const scaled = frame.dataset.scale === "yes";
  const NO_VALUE = 11;
  const REACH_PX = 10;
  const MOST_CORNERS = 150;
  const OTHER = 10;
  // By place: where each text is, its colour, and which it is in the order of drawing.
  let xs, ys, colours, ranks;
  let plot, source, marker, homes;
  let shownPlace = -1;
  const texts = new Map();

  // --- Reading -----------------------------------------------------------------------------------
  const address = (page, extra = {}) => `${here}/${page}?${new URLSearchParams({ method, number, ...extra })}`;

  async function binary(page, extra) {
    const answer = await fetch(address(page, extra));
    if (!answer.ok) throw new Error(`${page}: ${answer.status}`);
    return answer.arrayBuffer();
  }

  async function textOf(place) {
    if (!texts.has(place)) {
      const answer = await fetch(address("text", { place }));
      if (!answer.ok) throw new Error(`text: ${answer.status}`);
      texts.set(place, await answer.json());
    }
    return texts.get(place);
  }

  // --- Colours -----------------------------------------------------------------------------------
  const palette = document.querySelector(".map-palette");
  const rgb = (name) => getComputedStyle(palette.querySelector(`.${name}`)).backgroundColor.match(/[\d.]+/g).map(Number);
  const hex = (parts) => `#${parts.slice(0, 3).map((each) => Math.round(each).toString(16).padStart(2, "0")).join("")}`;
  const ink = (name) => {
    palette.style.color = `var(--${name})`;
    return hex(getComputedStyle(palette).color.match(/[\d.]+/g).map(Number));
  };

  function scale() {
    const stops = [0, 1, 2, 3, 4].map((each) => rgb(`s${each}`));
    return Array.from({ length: 128 }, (_, place) => {
      const at = (place / 127) * 4;
      const left = Math.min(3, Math.floor(at));
      return hex(stops[left].map((each, part) => each + (stops[left + 1][part] - each) * (at - left)));
    });
  }

  function fill() {
    if (colours === undefined) return hex(rgb("c0"));
    // What has no colour of its own lets the others be seen.
    const plain = (code) => `${hex(rgb(`c${code}`))}${code < OTHER ? "" : "80"}`;
    const none = plain(NO_VALUE);
    const { least, most } = frame.dataset;
    const mapper = scaled
      ? new Bokeh.LinearColorMapper({ palette: scale(), low: Number(least), high: Number(most), nan_color: none })
      : new Bokeh.LinearColorMapper({ palette: Array.from({ length: NO_VALUE + 1 }, (_, code) => plain(code)), low: -0.5, high: 11.5 });
    return { field: "colour", transform: mapper };
  }

  // --- Drawing -----------------------------------------------------------------------------------
  function limits(values) {
    let least = Infinity;
    let most = -Infinity;
    for (const value of values) {
      if (value < least) least = value;
      if (value > most) most = value;
    }
    const edge = (most - least || 1) * 0.04;
    return [least - edge, most + edge];
  }

  // What is drawn last lies on top.
  function ordered() {
    const below = (place) => (scaled ? Number.isNaN(colours[place]) : colours[place] >= OTHER);
    const places = Array.from(xs.keys());
    const order = colours === undefined ? places : [...places.filter(below), ...places.filter((place) => !below(place))];
    ranks = new Uint32Array(order.length);
    order.forEach((place, rank) => { ranks[place] = rank; });
    const column = (values) => values.constructor.from(order, (place) => values[place]);
    return { x: column(xs), y: column(ys), ...(colours && { colour: column(colours) }) };
  }

  // Both directions have the same scale, as distances should.
  function ranges() {
    const [[left, right], [bottom, top]] = [limits(xs), limits(ys)];
    const unit = Math.max((right - left) / frame.clientWidth, (top - bottom) / frame.clientHeight);
    const [halfX, halfY] = [(unit * frame.clientWidth) / 2, (unit * frame.clientHeight) / 2];
    const [x, y] = [(left + right) / 2, (bottom + top) / 2];
    return [x - halfX, x + halfX, y - halfY, y + halfY];
  }

  function zoomTo([left, right, bottom, top]) {
    plot.x_range.setv({ start: left, end: right });
    plot.y_range.setv({ start: bottom, end: top });
  }

  async function draw() {
    homes = ranges();
    const [left, right, bottom, top] = homes;
    const { Plotting, Range1d, ColumnDataSource, PanTool, WheelZoomTool, LassoSelectTool, BoxSelectTool, Scatter } = Bokeh;
    plot = new Plotting.Figure({
      x_range: new Range1d({ start: left, end: right }), y_range: new Range1d({ start: bottom, end: top }),
      sizing_mode: "stretch_both", toolbar_location: null, tools: [], output_backend: "canvas",
      background_fill_color: null, border_fill_color: null, outline_line_color: null, min_border: 0,
      lod_threshold: 5000, lod_interval: 100, lod_timeout: 200,
    });
    for (const axis of [...plot.xaxis, ...plot.yaxis]) axis.visible = false;
    for (const grid of [...plot.xgrid, ...plot.ygrid]) grid.grid_line_color = ink("line");
    source = new ColumnDataSource({ data: ordered() });
    const size = xs.length < 500 ? 9 : xs.length < 5000 ? 6 : 4;
    const look = { x: { field: "x" }, y: { field: "y" }, size, line_color: null, fill_color: fill() };
    plot.add_glyph(new Scatter({ ...look, fill_alpha: 0.8 }), source, {
      selection_glyph: new Scatter({ ...look, fill_alpha: 1 }),
      nonselection_glyph: new Scatter({ ...look, fill_alpha: 0.08 }),
    });
    marker = new ColumnDataSource({ data: { x: [], y: [] } });
    plot.add_glyph(new Scatter({ x: { field: "x" }, y: { field: "y" }, size: size + 8, fill_color: null, line_color: ink("ink"), line_width: 2 }), marker);
    const looks = { fill_color: ink("accent"), fill_alpha: 0.1, line_color: ink("accent"), line_width: 1.5 };
    // They select nothing themselves: what is chosen is what the server lists.
    const chooser = (Tool) => {
      const tool = new Tool({ renderers: [], continuous: false, persistent: false });
      tool.overlay.setv(looks);
      return tool;
    };
    const found = { lasso: chooser(LassoSelectTool), box: chooser(BoxSelectTool), pan: new PanTool() };
    const wheel = new WheelZoomTool();
    plot.add_tools(...Object.values(found), wheel);
    plot.toolbar.active_scroll = wheel;
    const use = (name) => {
      plot.toolbar.active_drag = found[name];
      for (const each of Object.keys(found)) found[each].active = each === name;
    };
    plot.on_event("selectiongeometry", (event) => { if (event.final) choose(event.geometry); });
    plot.on_event("mousemove", (event) => look_at(event));
    plot.on_event("mouseleave", () => { if (!tip.classList.contains("pinned")) hide(); });
    plot.on_event("tap", (event) => pin(event));
    await Plotting.show(plot, frame);
    use(tools.querySelector("[aria-pressed=true]").dataset.tool);
    return use;
  }

  // --- Choosing ----------------------------------------------------------------------------------
  // Leaves corners out that are nearer to the line between their neighbours than so many pixels.
  function simplified(corners, reach) {
    if (corners.length < 3) return corners;
    const [first, last] = [corners[0], corners.at(-1)];
    const [dx, dy] = [last.sx - first.sx, last.sy - first.sy];
    const length = Math.hypot(dx, dy);
    let [farthest, place] = [-1, 0];
    for (let each = 1; each < corners.length - 1; each += 1) {
      const [px, py] = [corners[each].sx - first.sx, corners[each].sy - first.sy];
      const distance = length ? Math.abs(dx * py - dy * px) / length : Math.hypot(px, py);
      if (distance > farthest) [farthest, place] = [distance, each];
    }
    if (farthest <= reach) return [first, last];
    return [...simplified(corners.slice(0, place + 1), reach).slice(0, -1), ...simplified(corners.slice(place), reach)];
  }

  function choose(geometry) {
    let corners;
    if (geometry.type === "rect") {
      const { x0, x1, y0, y1 } = geometry;
      corners = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]].map(([x, y]) => ({ x, y }));
    } else {
      corners = Array.from(geometry.x, (x, each) => ({ x, y: geometry.y[each], sx: geometry.sx[each], sy: geometry.sy[each] }));
      for (let reach = 1; reach === 1 || corners.length > MOST_CORNERS; reach *= 2) corners = simplified(corners, reach);
    }
    if (corners.length < 3) return;
    const digits = (value) => String(Number(value.toPrecision(6)));
    const area = corners.map(({ x, y }) => `${digits(x)},${digits(y)}`).join(";");
    const query = new URLSearchParams({ method, ...(key && { key }), area });
    const target = `${here}?${query}`;
    htmx.ajax("GET", target, { target: "#chosen", swap: "innerHTML" }).then(() => history.pushState({}, "", target));
  }

  // The same arithmetic as on the server, so that those are marked that are listed.
  function inside(area) {
    const corners = area.split(";").map((each) => each.split(",").map(Number));
    const found = [];
    for (let place = 0; place < xs.length; place += 1) {
      const [x, y] = [xs[place], ys[place]];
      let odd = false;
      let [beforeX, beforeY] = corners.at(-1);
      for (const [cornerX, cornerY] of corners) {
        if (cornerY > y !== beforeY > y && x < ((beforeX - cornerX) * (y - cornerY)) / (beforeY - cornerY) + cornerX) odd = !odd;
        [beforeX, beforeY] = [cornerX, cornerY];
      }
      if (odd) found.push(place);
    }
    return found;
  }

  function mark() {
    const { marks, value } = document.querySelector(".map-chosen").dataset;
    const all = (keep) => Array.from(xs.keys()).filter(keep);
    let chosen = [];
    if (marks === "area") chosen = inside(value);
    else if (marks === "places") chosen = value.split(" ").map(Number);
    else if (marks === "code" && scaled) chosen = all((place) => Number.isNaN(colours[place]));
    else if (marks === "code") chosen = all((place) => colours[place] === Number(value));
    source.selected.indices = chosen.map((place) => ranks[place]);
    frame.dataset.marked = String(chosen.length);
    point(-1);
  }

  // --- Pointing ----------------------------------------------------------------------------------
  function nearest(x, y) {
    const unit = (plot.x_range.end - plot.x_range.start) / frame.clientWidth;
    let [best, place] = [(REACH_PX * unit) ** 2, -1];
    for (let each = 0; each < xs.length; each += 1) {
      const distance = (xs[each] - x) ** 2 + (ys[each] - y) ** 2;
      if (distance < best) [best, place] = [distance, each];
    }
    return place;
  }

  function point(place) {
    marker.data = place < 0 ? { x: [], y: [] } : { x: [xs[place]], y: [ys[place]] };
    for (const row of document.querySelectorAll(".map-chosen tr")) row.classList.toggle("marked", row.dataset.place === String(place));
  }

  function hide() {
    shownPlace = -1;
    tip.hidden = true;
    tip.classList.remove("pinned");
    point(-1);
  }

  async function show(place, sx, sy) {
    if (place === shownPlace) return;
    shownPlace = place;
    point(place);
    // Whoever only passes by asks for nothing.
    await new Promise((done) => { setTimeout(done, texts.has(place) ? 0 : 60); });
    if (place !== shownPlace) return;
    let found;
    try {
      found = await textOf(place);
    } catch {
      return;
    }
    if (place !== shownPlace) return;
    const [title, text, link] = tip.children;
    title.textContent = found.title;
    text.textContent = found.text;
    link.href = found.address;
    tip.hidden = false;
    const left = Math.min(sx + 12, frame.clientWidth - tip.offsetWidth - 4);
    const below = sy + 12 + tip.offsetHeight < frame.clientHeight;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, below ? sy + 12 : sy - 12 - tip.offsetHeight)}px`;
  }

  function look_at({ x, y, sx, sy }) {
    if (tip.classList.contains("pinned")) return;
    const place = nearest(x, y);
    if (place < 0) hide();
    else show(place, sx, sy);
  }

  async function pin({ x, y, sx, sy }) {
    hide();
    const place = nearest(x, y);
    if (place < 0) return;
    await show(place, sx, sy);
    if (place === shownPlace) tip.classList.add("pinned");
  }

  function pointAtRow(event) {
    const row = event.target.closest(".map-chosen tbody tr");
    if (row !== null && plot !== undefined) point(Number(row.dataset.place));
  }

  // --- Keys and buttons --------------------------------------------------------------------------
  function zoom(factor, moveX = 0, moveY = 0) {
    const { x_range: across, y_range: up } = plot;
    const [wide, high] = [across.end - across.start, up.end - up.start];
    const [x, y] = [(across.start + across.end) / 2 + moveX * wide, (up.start + up.end) / 2 + moveY * high];
    zoomTo([x - (wide * factor) / 2, x + (wide * factor) / 2, y - (high * factor) / 2, y + (high * factor) / 2]);
  }

  const KEYS = {
    "+": [1 / 1.4], "=": [1 / 1.4], "-": [1.4],
    ArrowLeft: [1, -0.15], ArrowRight: [1, 0.15], ArrowUp: [1, 0, 0.15], ArrowDown: [1, 0, -0.15],
  };

  function listen(use) {
    frame.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape") hide();
      if (event.key === "0") zoomTo(homes);
      if (!(event.key in KEYS)) return;
      event.preventDefault();
      zoom(...KEYS[event.key]);
    });
    tools.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button === null) return;
      if ("tool" in button.dataset) {
        use(button.dataset.tool);
        for (const each of tools.querySelectorAll("[data-tool]")) each.setAttribute("aria-pressed", String(each === button));
      } else if (button.dataset.zoom === "all") zoomTo(homes);
      else zoom(button.dataset.zoom === "in" ? 1 / 1.4 : 1.4);
    });
    for (const name of ["pointerover", "focusin"]) document.getElementById("chosen").addEventListener(name, pointAtRow);
    document.addEventListener("htmx:afterSwap", (event) => { if (event.detail.target.id === "chosen") mark(); });
    addEventListener("popstate", () => location.reload());
    // Colours of the other scheme are read anew.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => location.reload());
  }

  async function start() {
    frame.hidden = false;
    document.querySelector(".map-without").hidden = true;
    const [points, column] = await Promise.all([binary("points"), key ? binary("colours", { key }) : undefined]);
    const numbers = new Float32Array(points);
    [xs, ys] = [numbers.subarray(0, numbers.length / 2), numbers.subarray(numbers.length / 2)];
    if (column !== undefined) colours = scaled ? new Float32Array(column) : new Uint8Array(column);
    const use = await draw();
    tools.hidden = false;
    listen(use);
    mark();
    requestAnimationFrame(() => setTimeout(() => { frame.dataset.painted = String(Math.round(performance.now())); }));
  }

  start().catch((error) => {
    console.error(error);
    frame.textContent = frame.dataset.failed;
  });
})();
