// One unit (view 3), and saturation of gates with the length of memory (view 4).

{
  const holder = byId("unit-labels");
  const stateCanvas = byId("unit-state"), gateCanvas = byId("unit-gates");
  const sources = byId("sources"), table = byId("values-table");
  steerSteps(stateCanvas);
  steerSteps(gateCanvas);
  if (page.labels) labelsInto(holder, (step) => ({ title: `step ${step}` }), (step) => choose({ step }));
  byId("unit-less").addEventListener("click", () => moveUnit(-1));
  byId("unit-more").addEventListener("click", () => moveUnit(1));
  const fill = whenOpen(table, () => {
    const names = Object.keys(state().signals);
    const rows = Array.from({ length: T }, (_, step) => [step, ...(page.labels ? [visible(label(step))] : []),
      ...names.map((name) => aligned(signal(name).row(chosen.unit)[step]))]);
    fillTable(table, ["step", ...(page.labels ? ["label"] : []), ...names], rows);
  });

  // Values over time of a source of this unit: a column of the layer's input or another unit's h; null if the page lacks it.
  function trace(source) {
    const input = page.inputs[state().input];
    if (source >= input.width) return signal("h").row(source - input.width);
    const at = input.columns.indexOf(source);
    return at < 0 ? null : array(input.data).row(at);
  }

  function sourceName(source) {
    const input = page.inputs[state().input];
    return source < input.width ? `${input.name}, column ${source}` : `h of unit ${source - input.width}`;
  }

  let listed = "";
  function list() {
    const name = `${chosen.state} ${chosen.unit}`;
    if (name === listed) {
      for (const button of sources.querySelectorAll("button")) {
        button.setAttribute("aria-pressed", String(Number(button.dataset.source) === chosen.source));
      }
      return;
    }
    listed = name;
    const strengths = state().strengths[chosen.unit];
    sources.replaceChildren(...state().sources[chosen.unit].map((source, n) => {
      const button = element("button", { type: "button", "aria-pressed": "false" }, sourceName(source));
      button.dataset.source = source;
      button.title = "Show or hide it in the plot above";
      button.disabled = trace(source) === null;
      button.addEventListener("click", () => choose({ source: chosen.source === source ? -1 : source }));
      const bar = element("span", { class: "bar-of" });
      bar.style.width = `${(100 * strengths[n]) / (strengths[0] || 1)}%`;
      return element("li", {}, button, bar, element("span", { class: "number" }, aligned(strengths[n])));
    }));
  }

  views.push(() => {
    byId("unit-name").textContent = `${chosen.unit} (${state().name})`;
    const h = signal("h").row(chosen.unit);
    const largest = h.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-9);
    holder.hidden = !page.labels;
    if (page.labels) {
      colourLabels(holder, (step) => h[step] / largest, chosen.step);
      holder.setAttribute("aria-label", `Labels coloured by h of unit ${chosen.unit}; its values are in the table below`);
    }
    const shown = ["h", "c"].filter(has);
    const rows = shown.map((name) => signal(name).row(chosen.unit));
    let low = 0, high = 0;
    for (const row of rows) for (const v of row) { low = Math.min(low, v); high = Math.max(high, v); }
    let box = prepare(stateCanvas, 190);
    valueAxis(box, low, high);
    rows.forEach((row, n) => line(box, row, series(n)));
    const entries = shown.map((name, n) => [NAMES[name], series(n)]);
    if (chosen.source >= 0) {
      const other = trace(chosen.source);
      const [from, to] = extent(other);
      const scaled = Array.from(other, (v) => (to > from ? low + ((v - from) / (to - from)) * (high - low) : (low + high) / 2));
      line(box, scaled, series(2), { dash: [5, 3] });
      entries.push([`${sourceName(chosen.source)}, scaled from ${number(from)} to ${number(to)}`, series(2)]);
    }
    stepAxis(box);
    cursor(box);
    key(byId("unit-state-key"), entries);
    const text = (names) => names.map((name) => `${name} = ${number(signal(name).row(chosen.unit)[chosen.step])}`).join(", ");
    stateCanvas.setAttribute("aria-label", `Unit ${chosen.unit} over time; at ${stepName(chosen.step)}: ${text(shown)}`);

    gateCanvas.hidden = byId("unit-gates-key").hidden = !has("f");
    if (has("f")) {
      const gates = GATES.map((name) => signal(name).row(chosen.unit));
      let least = 0, most = 1;
      for (const row of gates) for (const v of row) { least = Math.min(least, v); most = Math.max(most, v); }
      box = prepare(gateCanvas, 170);
      valueAxis(box, Math.floor(10 * least) / 10, Math.ceil(10 * most) / 10);
      gates.forEach((row, n) => line(box, row, series(n + 2), { dash: GATES[n] === "g" ? [2, 2] : [] }));
      stepAxis(box);
      cursor(box);
      key(byId("unit-gates-key"), GATES.map((name, n) => [NAMES[name], series(n + 2)]));
      gateCanvas.setAttribute("aria-label", `Gates of unit ${chosen.unit}; at ${stepName(chosen.step)}: ${text(GATES)}`);
    }
    list();
    fill();
  });
}

// ---------------------------------------------------------------------------------------------- saturation and memory

{
  const plots = byId("gates-plots"), memory = byId("memory"), table = byId("gates-table");
  const counted = new Map();

  // Shares of steps on either side, for every unit of the chosen layer.
  function shares(name) {
    const known = `${chosen.state} ${name}`;
    if (!counted.has(known)) {
      const values = signal(name);
      const [below, above] = name === "h" ? [-0.9, 0.9] : [0.1, 0.9];
      counted.set(known, Array.from({ length: values.rows }, (_, unit) => {
        let low = 0, high = 0;
        for (const v of values.row(unit)) { low += v < below; high += v > above; }
        return { low: low / T, high: high / T };
      }));
    }
    return counted.get(known);
  }

  // Steps until 1/e of c is left, if f stays at its mean.
  function lengths() {
    return state().means.f.map((f) => (f >= 1 ? Infinity : f <= 0 ? 0 : -1 / Math.log(f)));
  }

  function scatter(canvas, name) {
    const points = shares(name);
    const box = prepare(canvas, 220, 1);
    valueAxis(box, -0.04, 1.04);
    box.px = (share) => box.left + 8 + share * (box.right - box.left - 16);
    const { ctx } = box;
    ctx.fillStyle = css("--soft");
    ctx.textAlign = "center";
    ctx.textBaseline = "top";
    for (const share of [0, 0.5, 1]) ctx.fillText(share, box.px(share), box.bottom + 5);
    ctx.fillStyle = series(0);
    ctx.globalAlpha = 0.5;
    for (const p of points) {
      ctx.beginPath();
      ctx.arc(box.px(p.high), box.y(p.low), 4, 0, 7);
      ctx.fill();
    }
    ctx.globalAlpha = 1;
    const now = points[chosen.unit];
    ctx.strokeStyle = css("--chosen");
    ctx.lineWidth = 2.5;
    ctx.beginPath();
    ctx.arc(box.px(now.high), box.y(now.low), 7, 0, 7);
    ctx.stroke();
    canvas.setAttribute("aria-label", `Unit ${chosen.unit}: ${name} saturated high in ${Math.round(100 * now.high)} %, low in `
      + `${Math.round(100 * now.low)} % of the steps. All units are in the table below.`);
  }

  function nearest(canvas, event, points) {
    const at = place(canvas, event);
    let best = 0, least = Infinity;
    points.forEach((p, unit) => {
      const far = (canvas.box.px(p.high) - at.x) ** 2 + (canvas.box.y(p.low) - at.y) ** 2;
      if (far < least) { least = far; best = unit; }
    });
    return best;
  }

  const fill = whenOpen(table, () => {
    if (!has("f")) {
      fillTable(table, ["unit", "h > 0.9", "h < −0.9"], shares("h").map((p, unit) => [unit, aligned(p.high), aligned(p.low)]));
      return;
    }
    const length = lengths();
    fillTable(table, ["unit", "mean f", "memory, steps", ...["i", "f", "o"].flatMap((name) => [`${name} > 0.9`, `${name} < 0.1`])],
      length.map((steps, unit) => [unit, aligned(state().means.f[unit]), aligned(steps),
        ...["i", "f", "o"].flatMap((name) => [aligned(shares(name)[unit].high), aligned(shares(name)[unit].low)])]));
  });

  let ranked = [];
  steer(memory, (by) => {
    const at = ranked.indexOf(chosen.unit);
    choose({ unit: ranked[limited(at + by, 0, ranked.length - 1)], source: -1 });
  });
  memory.addEventListener("click", (event) => choose({ unit: ranked[place(memory, event).column], source: -1 }));

  let built = "";
  views.push(() => {
    const names = has("f") ? ["i", "f", "o"] : ["h"];
    if (built !== names.join()) {
      built = names.join();
      plots.replaceChildren(...names.map((name) => {
        const canvas = element("canvas", { role: "img", tabindex: "0" });
        canvas.dataset.name = name;
        canvas.addEventListener("click", (event) => choose({ unit: nearest(canvas, event, shares(name)), source: -1 }));
        steer(canvas, moveUnit, moveUnit);
        return element("figure", {}, element("figcaption", {}, NAMES[name]), canvas);
      }));
      byId("gates-help").textContent = has("f")
        ? "One point for each unit. To the right: the share of steps at which the gate is above 0.9. Upwards: the share below 0.1. Click a point to select its unit."
        : "One point for each unit. To the right: the share of steps at which h is above 0.9. Upwards: the share below −0.9. A plain network has no gates.";
    }
    for (const canvas of plots.querySelectorAll("canvas")) scatter(canvas, canvas.dataset.name);
    memory.hidden = byId("memory-title").hidden = byId("memory-help").hidden = !has("f");
    if (has("f")) {
      const length = lengths();
      ranked = Array.from(length.keys()).sort((a, b) => length[b] - length[a] || a - b);
      const logs = ranked.map((unit) => Math.log10(limited(length[unit], 0.1, 1e4)));
      const box = prepare(memory, 190, ranked.length);
      const [low, high] = extent(logs);
      valueAxis(box, Math.min(-1, Math.floor(low)), Math.max(1, Math.ceil(high)), true);
      line(box, logs, series(0));
      stepAxis(box);
      const at = ranked.indexOf(chosen.unit);
      box.ctx.fillStyle = css("--chosen");
      box.ctx.beginPath();
      box.ctx.arc(box.x(at), box.y(logs[at]), 6, 0, 7);
      box.ctx.fill();
      const text = `Unit ${chosen.unit}: mean f = ${number(state().means.f[chosen.unit])}, a memory of ${number(length[chosen.unit])} steps.`;
      byId("memory-help").textContent = `−1 / log(mean f) steps, after which a share of 1/e of c is left; units in the order of it. ${text}`;
      memory.setAttribute("aria-label", text);
    }
    fill();
  });
}
