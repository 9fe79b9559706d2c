// A view of molecules and crystals: balls, sticks and arrows on a canvas, turned by drag and keys.
// Reads the structures from #structures (JSON) and takes charge of the section #viewer. Nothing is
// loaded and no theme is assumed: the canvas is clear, what is written stands beside it in HTML.
"use strict";
(() => {
  const held = JSON.parse(document.getElementById("structures").textContent);
  const find = (name) => document.querySelector(`#viewer [data-part="${name}"]`);
  const canvas = find("canvas"), pen = canvas.getContext("2d");
  const chosen = find("structure"), tint = find("colour"), arrows = find("arrows");
  const status = find("status"), note = find("note"), legend = find("legend");
  const STOPS = held.stops.map((text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));
  const STEP = Math.PI / 18, BALL = 0.5, GREY = "#8a8a8a";
  let turn, zoom, marked, drawn = [];

  const one = () => held.structures[chosen.value];
  const number = (value) => (value === null ? "–" : Number(value).toPrecision(3));

  function multiply(a, b) {
    return a.map((row) => b[0].map((_, j) => row.reduce((sum, v, k) => sum + v * b[k][j], 0)));
  }
  function rotation(across, up) {
    const [c, s, d, t] = [Math.cos(across), Math.sin(across), Math.cos(up), Math.sin(up)];
    return multiply([[1, 0, 0], [0, d, -t], [0, t, d]], [[c, 0, s], [0, 1, 0], [-s, 0, c]]);
  }
  const apply = (m, v) => m.map((row) => row[0] * v[0] + row[1] * v[1] + row[2] * v[2]);
  const minus = (a, b) => a.map((v, k) => v - b[k]);

  function frame() {
    // Centre and radius of what is shown: atoms, and the cell where there is one.
    const points = one().positions.concat(corners());
    const low = [0, 1, 2].map((k) => Math.min(...points.map((p) => p[k])));
    const high = [0, 1, 2].map((k) => Math.max(...points.map((p) => p[k])));
    const centre = low.map((v, k) => (v + high[k]) / 2);
    const reach = Math.max(...points.map((p) => Math.hypot(...minus(p, centre))));
    return { centre, reach: reach + 0.8 };
  }
  function corners() {
    const cell = one().cell;
    if (!cell) return [];
    const found = [];
    for (let n = 0; n < 8; n++) {
      found.push([0, 1, 2].map((k) => cell.reduce((sum, v, i) => sum + ((n >> i) & 1) * v[k], 0)));
    }
    return found;
  }

  function scale(values) {
    const seen = values.filter((v) => v !== null);
    return [Math.min(...seen), Math.max(...seen)];
  }
  function shade(share) {
    const at = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1), low = Math.floor(at);
    const high = Math.min(low + 1, STOPS.length - 1), part = at - low;
    return STOPS[low].map((v, k) => Math.round(v + part * (STOPS[high][k] - v)));
  }
  function colours() {
    const here = one(), values = here.values[tint.value];
    if (!values) return here.symbols.map((symbol) => held.elements[symbol].colour);
    const [low, high] = scale(values);
    return values.map((v) => (v === null ? [140, 140, 140] : shade((v - low) / (high - low || 1))));
  }

  function draw() {
    const here = one(), box = canvas.getBoundingClientRect(), dense = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, box.width * dense);
    canvas.height = Math.max(1, box.height * dense);
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    pen.clearRect(0, 0, box.width, box.height);
    const { centre, reach } = frame();
    const size = (0.5 * Math.min(box.width, box.height) / reach) * zoom;
    const place = (p) => {
      const [x, y, z] = apply(turn, minus(p, centre));
      return [box.width / 2 + size * x, box.height / 2 - size * y, z];
    };
    const spots = here.positions.map(place), paints = colours(), parts = [];
    drawn = spots.map((p, i) => ({ at: p, radius: size * BALL * held.elements[here.symbols[i]].radius }));
    outline(parts, corners().map(place));
    for (const [i, j] of here.bonds) stick(parts, spots[i], spots[j], paints[i], paints[j], 0.12 * size);
    drawn.forEach((ball, i) => parts.push([ball.at[2], () => sphere(ball, paints[i], i === marked)]));
    const vectors = here.vectors[arrows.value];
    if (vectors) {
      vectors.forEach((v, i) => {
        const length = Math.hypot(...v);
        if (length === 0) return;
        const tip = place(here.positions[i].map((p, k) => p + v[k] * here.arrow));
        parts.push([(spots[i][2] + tip[2]) / 2 + 0.6, () => arrow(spots[i], tip)]);
      });
    }
    parts.sort((a, b) => a[0] - b[0]).forEach(([, paint]) => paint());
  }

  function outline(parts, points) {
    for (let n = 0; n < points.length; n++) {
      for (let i = 0; i < 3; i++) {
        if (n & (1 << i)) continue;
        const [a, b] = [points[n], points[n | (1 << i)]];
        parts.push([Math.min(a[2], b[2]), () => line(a, b, GREY, 1)]);
      }
    }
  }
  function line(a, b, colour, width) {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.beginPath();
    pen.moveTo(a[0], a[1]);
    pen.lineTo(b[0], b[1]);
    pen.stroke();
  }
  const css = (rgb, factor = 1) => `rgb(${rgb.map((v) => Math.round(v * factor)).join(",")})`;
  function stick(parts, a, b, first, second, width) {
    const middle = a.map((v, k) => (v + b[k]) / 2);
    for (const [from, rgb] of [[a, first], [b, second]]) {
      parts.push([(from[2] + middle[2]) / 2 - 0.05, () => line(from, middle, css(rgb, 0.75), width)]);
    }
  }
  function sphere(ball, rgb, isMarked) {
    const [x, y] = ball.at, r = ball.radius;
    const light = pen.createRadialGradient(x - r / 3, y - r / 3, r / 10, x, y, r);
    light.addColorStop(0, css(rgb.map((v) => v + 0.6 * (255 - v))));
    light.addColorStop(0.5, css(rgb));
    light.addColorStop(1, css(rgb, 0.6));
    pen.fillStyle = light;
    pen.strokeStyle = isMarked ? "#d55e00" : GREY;
    pen.lineWidth = isMarked ? 4 : 0.8;
    pen.beginPath();
    pen.arc(x, y, r, 0, 2 * Math.PI);
    pen.fill();
    pen.stroke();
  }
  function arrow(from, tip) {
    const [x, y] = [tip[0] - from[0], tip[1] - from[1]], length = Math.hypot(x, y);
    line(from, tip, "#d55e00", 2.5);
    if (length < 2) return;
    const [u, v] = [x / length, y / length], head = Math.min(9, 0.6 * length);
    pen.fillStyle = "#d55e00";
    pen.beginPath();
    pen.moveTo(tip[0] + 3 * u, tip[1] + 3 * v);
    pen.lineTo(tip[0] - head * u - 0.5 * head * v, tip[1] - head * v + 0.5 * head * u);
    pen.lineTo(tip[0] - head * u + 0.5 * head * v, tip[1] - head * v - 0.5 * head * u);
    pen.fill();
  }

  function tell() {
    const here = one();
    note.textContent = here.note;
    canvas.setAttribute("aria-label", `${here.name}, ${here.formula}. ${here.note} Arrow keys turn it, `
      + "plus and minus zoom, n and p go through the atoms, r starts again.");
    const values = here.values[tint.value];
    legend.hidden = !values;
    if (values) {
      const [low, high] = scale(values);
      legend.querySelector('[data-end="low"]').textContent = number(low);
      legend.querySelector('[data-end="high"]').textContent = `${number(high)} ${held.units[tint.value]}`;
    }
    status.textContent = marked === null ? "" : describe(here, marked);
  }
  function describe(here, atom) {
    const parts = Object.entries(here.values).map(
      ([name, values]) => `${held.names[name]} ${number(values[atom])} ${held.units[name]}`);
    for (const [name, v] of Object.entries(here.vectors)) {
      parts.push(`${held.names[name]} ${number(Math.hypot(...v[atom]))} eV/Å`);
    }
    return `Atom ${atom}, ${here.symbols[atom]}: ${parts.join("; ")}`;
  }
  function refresh() {
    draw();
    tell();
  }
  function reset() {
    turn = rotation(0.5, 0.4);
    zoom = 1;
    marked = null;
    refresh();
  }
  function offer(select, present) {
    // What this structure does not have can not be chosen.
    for (const option of select.options) {
      option.disabled = option.value !== "" && !present[option.value];
    }
    if (select.selectedOptions[0].disabled) select.value = "";
  }
  function change() {
    offer(tint, one().values);
    offer(arrows, one().vectors);
    reset();
  }
  function mark(step) {
    const count = one().symbols.length;
    marked = marked === null ? (step > 0 ? 0 : count - 1) : (marked + step + count) % count;
    refresh();
  }

  const keys = {
    ArrowLeft: () => (turn = multiply(rotation(-STEP, 0), turn)),
    ArrowRight: () => (turn = multiply(rotation(STEP, 0), turn)),
    ArrowUp: () => (turn = multiply(rotation(0, -STEP), turn)),
    ArrowDown: () => (turn = multiply(rotation(0, STEP), turn)),
    "+": () => (zoom *= 1.2),
    "=": () => (zoom *= 1.2),
    "-": () => (zoom /= 1.2),
    n: () => mark(1),
    p: () => mark(-1),
    r: reset,
  };
  canvas.addEventListener("keydown", (event) => {
    const act = event.ctrlKey || event.metaKey || event.altKey ? null : keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
    draw();
  });
  let last = null, moved = false;
  canvas.addEventListener("pointerdown", (event) => {
    last = [event.clientX, event.clientY];
    moved = false;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const [x, y] = [event.clientX - last[0], event.clientY - last[1]];
    if (!moved && Math.hypot(x, y) < 3) return;
    moved = true;
    last = [event.clientX, event.clientY];
    turn = multiply(rotation(0.01 * x, 0.01 * y), turn);
    draw();
  });
  canvas.addEventListener("pointerup", (event) => {
    last = null;
    if (moved) return;
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const hit = drawn.map((ball, i) => ({ ...ball, i })).sort((a, b) => b.at[2] - a.at[2])
      .find((ball) => Math.hypot(ball.at[0] - x, ball.at[1] - y) < ball.radius + 2);
    marked = hit ? hit.i : null;
    refresh();
  });
  canvas.addEventListener("pointercancel", () => (last = null));
  for (const [name, key] of [["closer", "+"], ["farther", "-"], ["reset", "r"]]) {
    find(name).addEventListener("click", () => { keys[key](); draw(); });
  }
  chosen.addEventListener("change", change);
  tint.addEventListener("change", refresh);
  arrows.addEventListener("change", refresh);
  window.addEventListener("resize", draw);
  window.addEventListener("beforeprint", draw);
  change();
})();
