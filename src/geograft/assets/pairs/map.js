// The map: chips on a canvas in Web Mercator, with a graticule, and land where the view is wide enough for its outlines.
geograft.unpack = async (id) => {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
};
geograft.map = (chips, land) => {
  const WORLD = 2 ** 30, EQUATOR = 40075016.7, LAND_FROM = 12;
  const box = document.getElementById("map"), canvas = box.querySelector("canvas"), pen = canvas.getContext("2d");
  const card = box.querySelector(".chipcard"), where = box.querySelector(".where"), bar = box.querySelector(".bar");
  const count = chips.ids.length, xs = new Float64Array(count), ys = new Float64Array(count);
  for (let i = 0, x = 0, y = 0; i < count; i += 1) { xs[i] = (x += chips.x[i]) / WORLD; ys[i] = (y += chips.y[i]) / WORLD; }
  const lonOf = (x) => x * 360 - 180, latOf = (y) => Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180 / Math.PI;
  const xOf = (lon) => (lon + 180) / 360, yOf = (lat) => 0.5 - Math.asinh(Math.tan(lat * Math.PI / 180)) / (2 * Math.PI);
  const side = (i) => (Array.isArray(chips.side) ? chips.side[i] : chips.side) / (EQUATOR * Math.cos(latOf(ys[i]) * Math.PI / 180));
  // Chips on both sides of the antimeridian are shown beside each other where that is the narrower view.
  const span = (values) => values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
  const plain = span(xs), turned = span(xs.map((x) => (x < 0.5 ? x + 1 : x)));
  if (turned[1] - turned[0] < plain[1] - plain[0] - 1e-9) for (let i = 0; i < count; i += 1) if (xs[i] < 0.5) xs[i] += 1;
  // Few chips: split by split. Many: mixed, so that no split hides the others where dots lie on each other.
  const turn = (i) => Math.imul(i + 1, 2654435761) >>> 0, mixed = count > 20000;
  const order = Uint32Array.from({ length: count }, (_, i) => i).sort((a, b) => (mixed ? turn(a) - turn(b) : chips.split[a] - chips.split[b]));
  const view = { x: 0.5, y: 0.5, scale: 300 };
  let chosen = -1, opened = -1, frame = 0;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const size = () => [canvas.clientWidth, canvas.clientHeight];
  const toX = (x) => (x - view.x) * view.scale + size()[0] / 2, toY = (y) => (y - view.y) * view.scale + size()[1] / 2;

  const fit = () => {
    const [west, east] = span(xs), [north, south] = span(ys), [w, h] = size(), least = count ? 6 * side(0) : 1e-6;
    view.x = (west + east) / 2; view.y = (north + south) / 2;
    view.scale = Math.min(0.86 * w / Math.max(east - west, least), 0.84 * h / Math.max(south - north, least));
    view.scale = Math.max(view.scale, Math.min(w, h) * 0.9); draw();
  };
  const zoom = (factor, px, py) => {
    const [w, h] = size(); px = px ?? w / 2; py = py ?? h / 2;
    const x = view.x + (px - w / 2) / view.scale, y = view.y + (py - h / 2) / view.scale;
    view.scale = Math.min(Math.max(view.scale * factor, 200), 4e9);
    view.x = x - (px - w / 2) / view.scale; view.y = y - (py - h / 2) / view.scale; draw();
  };
  const draw = () => { if (!frame) frame = requestAnimationFrame(() => { frame = 0; paint(); }); };

  const paint = () => {
    const [w, h] = size(), ratio = devicePixelRatio || 1;
    if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) { canvas.width = Math.round(w * ratio); canvas.height = Math.round(h * ratio); }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = css("--sea"); pen.fillRect(0, 0, w, h);
    const degrees = w / view.scale * 360;
    if (degrees > LAND_FROM) paintLand();
    paintGrid(degrees, w, h); paintChips(w, h); paintBar();
  };
  const paintLand = () => {
    pen.fillStyle = css("--land"); pen.beginPath();
    for (const turn of [-1, 0, 1]) for (const ring of land.rings) {
      for (let k = 0; k < ring.length; k += 2) {
        const x = toX(xOf(ring[k] / 10) + turn), y = toY(yOf(Math.max(-850, Math.min(850, ring[k + 1])) / 10));
        if (k) pen.lineTo(x, y); else pen.moveTo(x, y);
      }
      pen.closePath();
    }
    pen.fill("evenodd");
  };
  const paintGrid = (degrees, w, h) => {
    const step = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30].find((each) => degrees / each < w / 140) || 60;
    const digits = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9)), left = view.x - w / 2 / view.scale, top = view.y - h / 2 / view.scale;
    pen.strokeStyle = css("--grid"); pen.fillStyle = css("--soft"); pen.lineWidth = 1; pen.font = "11px system-ui, sans-serif"; pen.beginPath();
    const label = (value, letters) => `${Math.abs(value).toFixed(digits)}°${Math.abs(value) < step / 2 ? "" : letters[value > 0 ? 0 : 1]}`;
    for (let k = Math.ceil(lonOf(left) / step); k * step <= lonOf(left + w / view.scale); k += 1) {
      const x = Math.round(toX(xOf(k * step))) + 0.5, lon = ((k * step + 540) % 360 + 360) % 360 - 180;
      pen.moveTo(x, 0); pen.lineTo(x, h); if (x > 50) pen.fillText(label(lon, "EW"), x + 3, 12);
    }
    for (let k = Math.ceil(Math.max(-85, latOf(top + h / view.scale)) / step); k * step <= Math.min(85, latOf(top)); k += 1) {
      const y = Math.round(toY(yOf(k * step))) + 0.5;
      pen.moveTo(0, y); pen.lineTo(w, y); pen.fillText(label(k * step, "NS"), 50, y - 3);
    }
    pen.stroke();
  };
  const paintChips = (w, h) => {
    const many = count > 20000;
    chips.splits.forEach((split, code) => { split.colour = css(`--c${Math.min(code, 4)}`); });
    for (const i of order) {
      const split = chips.splits[chips.split[i]];
      if (geograft.hidden.has(split.name)) continue;
      const x = toX(xs[i]), y = toY(ys[i]), edge = side(i) * view.scale;
      if (x < -edge || y < -edge || x > w + edge || y > h + edge) continue;
      pen.fillStyle = split.colour;
      if (edge < 5) { const dot = many ? 2.2 : 4; pen.globalAlpha = many ? 0.55 : 0.8; pen.fillRect(x - dot / 2, y - dot / 2, dot, dot); continue; }
      pen.globalAlpha = 0.28; pen.fillRect(x - edge / 2, y - edge / 2, edge, edge);
      pen.globalAlpha = 1; pen.strokeStyle = split.colour; pen.lineWidth = 1.5; pen.strokeRect(x - edge / 2, y - edge / 2, edge, edge);
    }
    pen.globalAlpha = 1;
    for (const i of new Set([chosen, opened])) {
      if (i < 0) continue;
      const edge = Math.max(side(i) * view.scale, 9);
      pen.strokeStyle = css("--ink"); pen.lineWidth = i === chosen ? 3 : 2; pen.strokeRect(toX(xs[i]) - edge / 2 - 2, toY(ys[i]) - edge / 2 - 2, edge + 4, edge + 4);
    }
  };
  const paintBar = () => {
    const metre = view.scale / (EQUATOR * Math.cos(latOf(Math.min(Math.max(view.y, 0.02), 0.98)) * Math.PI / 180)), most = 140 / metre;
    const power = 10 ** Math.floor(Math.log10(most)), length = [5, 2, 1].find((each) => each * power <= most) * power;
    bar.style.width = `${length * metre}px`; bar.textContent = length >= 1000 ? `${length / 1000} km` : `${length} m`;
  };

  const nearest = (px, py) => {
    let best = -1, reach = Infinity;
    for (let i = 0; i < count; i += 1) {
      if (geograft.hidden.has(chips.splits[chips.split[i]].name)) continue;
      const far = Math.max(Math.abs(toX(xs[i]) - px), Math.abs(toY(ys[i]) - py));
      if (far < reach && far <= Math.max(side(i) * view.scale / 2, 8)) { best = i; reach = far; }
    }
    return best;
  };
  const choose = (i) => {
    chosen = i; card.hidden = i < 0; card.replaceChildren(); draw();
    if (i < 0) return;
    const add = (tag, text, parent) => { const part = document.createElement(tag); part.textContent = text; (parent || card).append(part); return part; };
    const place = chips.shown[chips.ids[i]], picture = document.querySelector(`article.pair[data-place="${Number(place ?? -1)}"] .chip img`);
    if (picture) { const copy = document.createElement("img"); copy.src = picture.src; copy.alt = ""; card.append(copy); }
    add("strong", chips.ids[i]);
    const list = add("dl", ""), row = (name, value) => { add("dt", name, list); add("dd", value, list); };
    row("split", chips.splits[chips.split[i]].name); row("photos", chips.photos[i]);
    row("centre", `${latOf(ys[i]).toFixed(5)}, ${lonOf(xs[i] % 1).toFixed(5)}`);
    if (chips.scene.length && chips.scene[i] >= 0) row("scene", chips.scenes[chips.scene[i]]);
    if (place !== undefined) add("button", "See its photos").addEventListener("click", () => { geograft.show(place, true); document.getElementById("pairs-title").scrollIntoView({ behavior: "smooth" }); });
    const close = add("button", "×"); close.className = "close"; close.setAttribute("aria-label", "Close the card"); close.addEventListener("click", () => choose(-1));
  };

  const held = new Map(); let moved = 0, gap = 0;
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); held.set(event.pointerId, [event.offsetX, event.offsetY]); moved = 0; gap = 0; canvas.classList.add("dragging"); });
  canvas.addEventListener("pointermove", (event) => {
    const [w, h] = size(), before = held.get(event.pointerId), x = view.x + (event.offsetX - w / 2) / view.scale, y = view.y + (event.offsetY - h / 2) / view.scale;
    where.textContent = `${latOf(y).toFixed(4)}, ${lonOf(((x % 1) + 1) % 1).toFixed(4)}`;
    if (!before) return;
    held.set(event.pointerId, [event.offsetX, event.offsetY]);
    if (held.size === 2) {
      const [a, b] = [...held.values()], wide = Math.hypot(a[0] - b[0], a[1] - b[1]);
      if (gap) zoom(wide / gap, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
      gap = wide; moved = 99; return;
    }
    const dx = event.offsetX - before[0], dy = event.offsetY - before[1];
    moved += Math.abs(dx) + Math.abs(dy); view.x -= dx / view.scale; view.y -= dy / view.scale; draw();
  });
  const release = (event) => { held.delete(event.pointerId); canvas.classList.remove("dragging"); };
  canvas.addEventListener("pointerup", (event) => { if (held.size === 1 && moved < 5) choose(nearest(event.offsetX, event.offsetY)); release(event); });
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018)), event.offsetX, event.offsetY); }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoom(2, event.offsetX, event.offsetY));
  canvas.addEventListener("keydown", (event) => {
    const pan = { ArrowLeft: [-60, 0], ArrowRight: [60, 0], ArrowUp: [0, -60], ArrowDown: [0, 60] }[event.key];
    if (pan) { view.x += pan[0] / view.scale; view.y += pan[1] / view.scale; event.preventDefault(); draw(); }
    if (event.key === "+" || event.key === "=") zoom(1.6);
    if (event.key === "-") zoom(1 / 1.6);
    if (event.key === "Escape") choose(-1);
  });
  box.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => { const factor = Number(button.dataset.zoom); if (factor) zoom(factor); else fit(); }));
  geograft.listeners.push(draw);
  new ResizeObserver(draw).observe(canvas);
  if (chips.total > count) document.getElementById("map-note").textContent += ` Drawn: a fair sample of ${count.toLocaleString("en")} of ${chips.total.toLocaleString("en")} chips.`;
  geograft.opened = (id) => { opened = chips.ids.indexOf(id); draw(); };
  fit(); geograft.show(geograft.current, false);
  return { view, choose, count };
};
geograft.unpack("chips").then((chips) => { geograft.drawn = geograft.map(chips, JSON.parse(document.getElementById("land").textContent)); }).catch((error) => {
  document.getElementById("map-note").textContent = `The map cannot be drawn by this browser (${error.message}).`;
});
