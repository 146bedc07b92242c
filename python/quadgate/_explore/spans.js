// A span, its units, and the other spans where the same units are active (view 6).

{
  const canvas = byId("span-plot"), table = byId("span-table");
  const from = byId("span-from"), to = byId("span-to"), threshold = byId("threshold"), share = byId("share");
  steerSteps(canvas);

  // h is what other layers see; the threshold is a share of its largest size in this layer.
  function limit() {
    const h = signal("h");
    return Number(threshold.value) * Math.max(Math.abs(h.low), Math.abs(h.high));
  }

  // Units beyond the limit, with one sign, at all steps of the span: [unit, sign].
  function active() {
    const h = signal("h"), least = limit(), found = [];
    for (let unit = 0; unit < h.rows; unit++) {
      const row = h.row(unit), sign = Math.sign(row[chosen.from]);
      let all = sign !== 0;
      for (let step = chosen.from; all && step <= chosen.to; step++) all = sign * row[step] > least;
      if (all) found.push([unit, sign]);
    }
    return found;
  }

  // Number of the units that are active at every step: whole, so that sums are exact.
  function agreement(units) {
    const h = signal("h"), least = limit(), result = new Float32Array(T);
    for (const [unit, sign] of units) {
      const row = h.row(unit);
      for (let step = 0; step < T; step++) result[step] += sign * row[step] > least ? 1 : 0;
    }
    return result;
  }

  // Spans as long as the selected one, none of which overlaps a better one: the share of its units, over all its steps.
  function matches(counts, units) {
    const length = chosen.to - chosen.from + 1, needed = Number(share.value) / 100 - 1e-6;
    const sums = [0];
    for (const v of counts) sums.push(sums[sums.length - 1] + v);
    const all = [];
    for (let from = 0; from + length <= T; from++) {
      const quality = (sums[from + length] - sums[from]) / (length * units);
      if (quality >= needed) all.push({ from, to: from + length - 1, quality });
    }
    all.sort((a, b) => b.quality - a.quality || a.from - b.from);
    const found = [], taken = [{ from: chosen.from, to: chosen.to }];
    for (const m of all) {
      if (found.length === 20) break;
      if (taken.some((other) => m.from <= other.to && m.to >= other.from)) continue;
      taken.push(m);
      found.push(m);
    }
    return found;
  }

  function spanText(m) {
    const all = Array.from({ length: m.to - m.from + 1 }, (_, n) => visible(label(m.from + n)));
    const long = all.some((text) => text.length > 1);
    const text = all.slice(0, 24).join(long ? " " : "");
    return all.length > 24 ? `${text} …` : text;
  }

  function find() {
    const units = active();
    choose({ found: units.length ? matches(agreement(units), units.length) : [], searched: true });
  }

  from.addEventListener("input", () => {
    const value = parseInt(from.value, 10);
    if (value >= 0 && value < T) choose({ from: value, to: Math.max(value, chosen.to), found: [], searched: false });
  });
  to.addEventListener("input", () => {
    const value = parseInt(to.value, 10);
    if (value >= 0 && value < T) choose({ to: value, from: Math.min(value, chosen.from), found: [], searched: false });
  });
  for (const slider of [threshold, share]) slider.addEventListener("input", find);
  byId("find").addEventListener("click", find);

  views.push(() => {
    for (const [field, value] of [[from, chosen.from], [to, chosen.to]]) {
      field.max = T - 1;
      if (document.activeElement !== field) field.value = value;
    }
    byId("threshold-out").textContent = `|h| > ${number(limit())}`;
    byId("share-out").textContent = `${share.value} % of them`;
    const units = active();
    const names = units.slice(0, 30).map(([unit, sign]) => `${unit}${sign < 0 ? "−" : "+"}`).join(", ");
    const span = `Steps ${chosen.from} to ${chosen.to}${page.labels ? ` “${spanText(chosen)}”` : ""}`;
    byId("span-units").textContent = units.length
      ? `${span}: ${units.length === 1 ? "one unit is" : `${units.length} units are`} active: ${names}${units.length > 30 ? ", …" : ""}`
      : `${span}: no unit is active through all of it. Lower the threshold, or choose a shorter span.`;
    const shares = agreement(units).map((count) => count / Math.max(1, units.length));
    const box = prepare(canvas, 120);
    valueAxis(box, 0, 1);
    band(box, chosen.from, chosen.to);
    for (const m of chosen.found) band(box, m.from, m.to);
    line(box, shares, series(0));
    stepAxis(box);
    cursor(box);
    canvas.setAttribute("aria-label", `Share of these units that are active, over time; ${chosen.found.length} other spans were found`);
    byId("span-none").hidden = !chosen.searched || !units.length || chosen.found.length > 0;
    if (!chosen.found.length) {
      table.replaceChildren();
      return;
    }
    fillTable(table, ["steps", "agreement", ...(page.labels ? ["label"] : []), ""],
      chosen.found.map((m) => [`${m.from} to ${m.to}`, `${Math.round(100 * m.quality)} %`, ...(page.labels ? [spanText(m)] : []), ""]));
    [...table.tBodies[0].rows].forEach((row, n) => {
      const m = chosen.found[n];
      const button = element("button", { type: "button", "aria-label": `Show steps ${m.from} to ${m.to}` }, "show");
      button.addEventListener("click", () => choose({ step: m.from }));
      row.lastElementChild.append(button);
    });
  });
}
