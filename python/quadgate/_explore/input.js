// The selection's bar, the input (view 1) and the heat map of all units (view 2).

byId("facts").textContent = `${T} steps, ${page.states.length === 1 ? "one layer" : `${page.states.length} layers and directions`}. `
  + `Numbers are rounded to ${page.bits} bits.`;
byId("notes").append(...page.notes.map((text) => element("li", {}, text)));
byId("made").textContent = `Made by quadgate ${page.version}.`;

byId("state").parentElement.hidden = page.states.length === 1;
options(byId("state"), page.states.map((one, n) => [n, one.name]));
byId("state").addEventListener("change", (event) => {
  const next = Number(event.target.value);
  const units = page.states[next].signals.h.shape[0];
  const name = chosen.signal in page.states[next].signals ? chosen.signal : "h";
  choose({ state: next, unit: Math.min(chosen.unit, units - 1), signal: name, source: -1, found: [], searched: false });
});
byId("unit-number").addEventListener("input", (event) => {
  const unit = parseInt(event.target.value, 10);
  if (unit >= 0 && unit < unitCount()) choose({ unit, source: -1 });
});
byId("step").max = T - 1;
byId("step").addEventListener("input", (event) => choose({ step: Number(event.target.value) }));
byId("bar").addEventListener("submit", (event) => event.preventDefault());

views.push(() => {
  byId("state").value = chosen.state;
  const unit = byId("unit-number");
  unit.max = unitCount() - 1;
  if (document.activeElement !== unit) unit.value = chosen.unit;
  byId("step").value = chosen.step;
  byId("step").setAttribute("aria-valuetext", stepName(chosen.step));
  const values = Object.keys(state().signals).map((name) => `${name} = ${number(signal(name).row(chosen.unit)[chosen.step])}`);
  byId("where").textContent = `${stepName(chosen.step)}, unit ${chosen.unit}: ${values.join(", ")}`;
});

// -------------------------------------------------------------------------------------------------------------- input

{
  const letters = byId("letters");
  const input = page.inputs[0];
  if (page.labels) {
    labelsInto(letters, (step) => {
      const name = page.labels[step].trim() === "" ? JSON.stringify(page.labels[step]) : page.labels[step];
      return { role: "option", id: `letter-${step}`, title: `step ${step}`, "aria-label": `step ${step}: ${name}`, "aria-selected": "false" };
    }, (step) => choose({ step }));
    steer(letters, moveStep, (by) => moveStep(by * 10));
  } else {
    letters.hidden = true;
  }
  const canvas = byId("input-map");
  steerSteps(canvas);
  let before = null;

  views.push(() => {
    if (page.labels && before !== chosen.step) {
      if (before !== null) letters.children[before].setAttribute("aria-selected", "false");
      before = chosen.step;
      const now = letters.children[before];
      now.setAttribute("aria-selected", "true");
      letters.setAttribute("aria-activedescendant", now.id);
      const high = now.offsetTop - letters.offsetTop;
      if (high < letters.scrollTop || high > letters.scrollTop + letters.clientHeight - 24) letters.scrollTop = high - 48;
    }
    const values = array(input.data);
    const largest = Math.max(Math.abs(values.low), Math.abs(values.high)) || 1;
    if (values.rows === 1) {
      const box = prepare(canvas, 140);
      valueAxis(box, Math.min(0, values.low), Math.max(0, values.high));
      line(box, values.row(0), series(0));
      stepAxis(box);
      cursor(box);
      byId("input-key").textContent = `${input.name}, its only column`;
    } else {
      const box = prepare(canvas, limited(values.rows * 5, 60, 260) + TOP + BOTTOM);
      map(box, "input", values.rows, (r, t) => values.row(r)[t] / largest);
      stepAxis(box);
      sideText(box, "column");
      cursor(box);
      const part = values.rows < input.width ? `${values.rows} of ${input.width} columns: the strongest` : `${input.width} columns`;
      ramp(byId("input-key"), -largest, largest, `${input.name}: ${part}`, false);
    }
    canvas.setAttribute("aria-label", `Input at ${stepName(chosen.step)}, ${input.width} columns over ${T} steps`);
  });
}

// ----------------------------------------------------------------------------------------------------------- heat map

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

function correlation(a, b) {
  const ma = mean(a), mb = mean(b);
  let ab = 0, aa = 0, bb = 0;
  for (let n = 0; n < a.length; n++) {
    const da = a[n] - ma, db = b[n] - mb;
    ab += da * db;
    aa += da * da;
    bb += db * db;
  }
  return aa > 1e-12 && bb > 1e-12 ? ab / Math.sqrt(aa * bb) : 0;
}

// The figure that units are sorted by, for the table and the order.
function figures() {
  const kind = byId("sort").value;
  const values = signal();
  const each = (f) => Array.from({ length: values.rows }, (_, unit) => f(unit));
  if (kind === "variance") {
    return each((unit) => {
      const row = values.row(unit), m = mean(row);
      return mean(row.map((v) => (v - m) ** 2));
    });
  }
  if (kind === "period") return each((unit) => state().periods[chosen.signal][unit]);
  if (kind === "input") {
    const input = page.inputs[state().input];
    const column = array(input.data).row(Number(byId("sort-input").value));
    return each((unit) => correlation(values.row(unit), column));
  }
  if (kind === "label") {
    const named = byId("sort-label").selectedIndex;
    const wanted = distinct[named];
    const marks = Float32Array.from(page.labels, (text) => (text === wanted ? 1 : 0));
    return each((unit) => correlation(values.row(unit), marks));
  }
  return each((unit) => -unit);
}

const distinct = page.labels ? [...new Set(page.labels)].sort().slice(0, 500) : [];

// A scale of -1 to 1 for gates between 0 and 1 and for numbers of both signs; `low` and `high` for the key.
function scaleOf(name, values) {
  if ("ifo".includes(name) && values.low >= -1e-6) {
    const high = Math.max(1, values.high);
    return { low: 0, high, onesided: true, of: (v) => v / high };
  }
  const high = Math.max(Math.abs(values.low), Math.abs(values.high)) || 1;
  return { low: -high, high, onesided: false, of: (v) => v / high };
}

{
  const canvas = byId("heat");
  let made = "", sorted = [];
  const table = byId("first-table");
  const fill = whenOpen(table, () => {
    const kind = byId("sort").value;
    const shown = chosen.order.slice(0, 20);
    const values = signal();
    fillTable(table, ["unit", ...(kind === "number" ? [] : [byId("sort").selectedOptions[0].text]), `${chosen.signal} at step ${chosen.step}`],
      shown.map((unit) => [unit, ...(kind === "number" ? [] : [aligned(sorted[unit])]), aligned(values.row(unit)[chosen.step])]));
  });
  for (const id of ["sort", "sort-input", "sort-label", "own-scale"]) byId(id).addEventListener("change", () => choose({}));
  options(byId("sort-label"), distinct.map((text, n) => [n, visible(text)]));
  if (!page.labels) byId("sort").querySelector("[value=label]").remove();

  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    drag = { ...place(canvas, event), moved: false };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag || event.pointerType === "touch") return;
    const now = place(canvas, event);
    if (Math.abs(now.x - drag.x) > 5) drag.moved = true;
    if (drag.moved) choose({ from: Math.min(drag.column, now.column), to: Math.max(drag.column, now.column), found: [], searched: false });
  });
  canvas.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved) {
      const now = place(canvas, event);
      choose({ step: now.column, unit: chosen.order[rowAt(canvas, now.y, chosen.order.length)], source: -1 });
    }
    drag = null;
  });
  canvas.addEventListener("pointercancel", () => { drag = null; });
  steer(canvas, moveStep, moveUnit);

  let shownState = -1;
  views.push(() => {
    if (shownState !== chosen.state) {
      shownState = chosen.state;
      const names = Object.keys(state().signals).map((name) => [name, NAMES[name]]);
      choices(byId("signal"), names, chosen.signal, (name) => choose({ signal: name }));
      options(byId("sort-input"), page.inputs[state().input].columns.map((column, n) => [n, String(column)]));
    }
    press(byId("signal"), chosen.signal);
    const kind = byId("sort").value;
    byId("sort-input-label").hidden = kind !== "input";
    byId("sort-label-label").hidden = kind !== "label";
    const name = [chosen.state, chosen.signal, kind, kind === "input" && byId("sort-input").value, kind === "label" && byId("sort-label").value].join(" ");
    if (name !== made) {
      made = name;
      sorted = figures();
      chosen.order = Array.from(sorted.keys()).sort((a, b) => sorted[b] - sorted[a] || a - b);
    }
    const values = signal();
    const own = byId("own-scale").checked;
    const scale = own ? { low: -1, high: 1, onesided: false } : scaleOf(chosen.signal, values);
    const tops = own && Array.from({ length: values.rows }, (_, unit) => {
      return values.row(unit).reduce((a, b) => Math.max(a, Math.abs(b)), 1e-9);
    });
    const value = own ? (unit, t) => values.row(unit)[t] / tops[unit] : (unit, t) => scale.of(values.row(unit)[t]);
    const box = prepare(canvas, limited(values.rows * 4, 90, 460) + TOP + BOTTOM);
    map(box, `heat ${name} ${own}`, values.rows, (r, t) => value(chosen.order[r], t));
    stepAxis(box);
    sideText(box, "unit");
    band(box, chosen.from, chosen.to);
    frame(box, chosen.order.indexOf(chosen.unit));
    cursor(box);
    const text = `${NAMES[chosen.signal]}${own ? " over the unit's largest" : ""}, ${state().name}; the band is the span of view 6`;
    ramp(byId("heat-key"), scale.low, scale.high, text, scale.onesided);
    canvas.setAttribute("aria-label", `${NAMES[chosen.signal]} of ${values.rows} units over ${T} steps; selected: unit ${chosen.unit} at `
      + `${stepName(chosen.step)}, ${number(values.row(chosen.unit)[chosen.step])}. Tables are below.`);
    fill();
  });
}
