// Gradients of the input (view 5) and their norms through time (view 7).

const back = page.gradients;
const floor = back.floor; // logarithms below it stand for zeros
const outputName = () => `${back.names[chosen.output]}${back.steps.length > 1 ? `, ${stepName(back.steps[chosen.outputStep])}` : ""}`;
const linear = (log) => (log < floor ? 0 : 10 ** log);
const sensitivity = (output, step) => array(back.x).row(output * back.steps.length + step);

{
  const text = byId("links-text"), bars = byId("links-bars"), whole = byId("links-map"), table = byId("links-table");
  const slider = byId("output-step");
  options(byId("output"), back.names.map((name, n) => [n, name]));
  byId("output").addEventListener("change", (event) => choose({ output: Number(event.target.value) }));
  slider.max = back.steps.length - 1;
  slider.disabled = back.steps.length === 1;
  slider.addEventListener("input", (event) => choose({ outputStep: Number(event.target.value) }));
  steerSteps(bars);
  if (page.labels) {
    labelsInto(text, (step) => ({ title: `step ${step}` }), (step) => {
      const far = back.steps.map((n) => Math.abs(n - step));
      choose({ outputStep: far.indexOf(extent(far)[0]) });
    });
  }
  const moveOutput = (by) => choose({ outputStep: limited(chosen.outputStep + by, 0, back.steps.length - 1) });
  steer(whole, moveStep, moveOutput);
  whole.addEventListener("click", (event) => {
    const at = place(whole, event);
    choose({ step: at.column, outputStep: rowAt(whole, at.y, back.steps.length) });
  });
  const fill = whenOpen(table, () => {
    const row = sensitivity(chosen.output, chosen.outputStep);
    const steps = Array.from(row.keys()).sort((a, b) => row[b] - row[a] || a - b).slice(0, 10);
    fillTable(table, ["step", ...(page.labels ? ["label"] : []), "norm"],
      steps.map((step) => [step, ...(page.labels ? [visible(label(step))] : []), aligned(linear(row[step]))]));
  });

  views.push(() => {
    byId("output").value = chosen.output;
    slider.value = chosen.outputStep;
    const at = back.steps[chosen.outputStep];
    slider.setAttribute("aria-valuetext", stepName(at));
    byId("output-where").textContent = stepName(at);
    const row = sensitivity(chosen.output, chosen.outputStep);
    const values = Float32Array.from(row, linear);
    const largest = extent(values)[1] || 1;
    text.hidden = !page.labels;
    const strongest = values.indexOf(extent(values)[1]);
    const summary = `${outputName()}: it depends most on the input of ${stepName(strongest)}, norm ${number(values[strongest])}`;
    if (page.labels) {
      colourLabels(text, (step) => (values[step] > 0 ? values[step] / largest : null), at);
      text.setAttribute("aria-label", summary);
    }
    let box = prepare(bars, 170);
    valueAxis(box, 0, largest);
    const { ctx } = box;
    ctx.fillStyle = series(0);
    values.forEach((v, step) => {
      const y = box.y(v);
      ctx.fillRect(box.left + step * box.cell + (box.cell > 4 ? 0.5 : 0), y, Math.max(1, box.cell - (box.cell > 4 ? 1 : 0)), box.bottom - y);
    });
    stepAxis(box);
    cursor(box);
    bars.setAttribute("aria-label", summary);

    const count = back.steps.length;
    box = prepare(whole, count === 1 ? 60 : limited(count * 3, 120, 380) + TOP + BOTTOM);
    map(box, `links ${chosen.output}`, count, (r, t) => {
      const value = sensitivity(chosen.output, r)[t];
      return value < floor ? 0 : limited(1 + (value - rowTop(r)) / 3, 0, 1);
    });
    stepAxis(box);
    sideText(box, "output");
    frame(box, chosen.outputStep);
    cursor(box);
    fill();
  });

  const tops = new Map();
  function rowTop(r) {
    const name = `${chosen.output} ${r}`;
    if (!tops.has(name)) tops.set(name, sensitivity(chosen.output, r).reduce((a, b) => Math.max(a, b), -Infinity));
    return tops.get(name);
  }
}

{
  const canvas = byId("norm-plot"), table = byId("norm-table");
  const cells = page.states.some((one) => "c" in one.signals);
  choices(byId("norm-kind"), cells ? [["dh", "by h"], ["dc", "by c"]] : [["dh", "by h"]], chosen.norm, (norm) => choose({ norm }));
  steerSteps(canvas);
  const rowOf = (kind, n) => array(back[kind]).row((chosen.output * back.steps.length + chosen.outputStep) * page.states.length + n);
  const kinds = cells ? ["dh", "dc"] : ["dh"];
  const fill = whenOpen(table, () => {
    const heads = page.states.flatMap((one) => kinds.map((kind) => `${kind}, ${one.name}`));
    fillTable(table, ["step", ...(page.labels ? ["label"] : []), ...heads], Array.from({ length: T }, (_, step) => [
      step, ...(page.labels ? [visible(label(step))] : []),
      ...page.states.flatMap((_, n) => kinds.map((kind) => aligned(linear(rowOf(kind, n)[step])))),
    ]));
  });

  views.push(() => {
    press(byId("norm-kind"), chosen.norm);
    const rows = page.states.map((_, n) => rowOf(chosen.norm, n));
    let low = Infinity, high = -Infinity;
    for (const row of rows) for (const v of row) if (v >= floor) { low = Math.min(low, v); high = Math.max(high, v); }
    const box = prepare(canvas, 240);
    if (high >= low) {
      valueAxis(box, Math.floor(low - 0.05), Math.ceil(high + 0.05), true);
      rows.forEach((row, n) => line(box, row, series(n), { skip: (v) => v < floor, dash: n >= 6 ? [5, 3] : [] }));
    }
    stepAxis(box);
    cursor(box);
    key(byId("norm-key"), page.states.map((one, n) => [one.name, series(n)]));
    const at = rows.map((row, n) => `${page.states[n].name} ${number(linear(row[chosen.step]))}`).join(", ");
    canvas.setAttribute("aria-label", `Norms of ${chosen.norm} from the ${outputName()}; at ${stepName(chosen.step)}: ${at}`);
    fill();
  });
}

choose({ order: Array.from({ length: unitCount() }, (_, n) => n) });
