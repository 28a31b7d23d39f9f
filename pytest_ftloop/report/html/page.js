// The page's script: theme, plots, and the table of examples. Text of models, users and data files
// reaches the page as textContent only, or through `plotText`.
"use strict";

(() => {
  const root = document.documentElement;
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const PER_PAGE = window.matchMedia("(max-width: 760px)").matches ? 15 : 50;

  // --- theme: set before the first paint -------------------------------------------------------

  let chosen = remembered();
  let printing = false;

  function remembered() {
    try {
      return localStorage.getItem("ftloop-theme");
    } catch {
      return null; // a file:// page may have no storage
    }
  }

  function isDark() {
    return !printing && (chosen ? chosen === "dark" : prefersDark.matches);
  }

  function applyTheme() {
    root.dataset.theme = isDark() ? "dark" : "light";
    const button = document.getElementById("theme");
    if (button) {
      button.textContent = isDark() ? "Light" : "Dark";
      button.setAttribute("aria-label", isDark() ? "Use the light theme" : "Use the dark theme");
    }
    plots.forEach((plot) => plot.isDrawn && plot.draw());
  }

  function toggleTheme() {
    chosen = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("ftloop-theme", chosen);
    } catch {
      // The choice is not remembered then.
    }
    applyTheme();
  }

  // --- small helpers ---------------------------------------------------------------------------

  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  // Controls, bidirectional and zero-width marks, lone surrogates: shown as escapes.
  const INVISIBLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/u;
  const isKept = (character) => character === "\n" || character === "\t";

  function codeOf(character) {
    const code = character.codePointAt(0);
    if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
    return code < 0x10000 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
  }

  function visible(text) {
    if (!INVISIBLE.test(text)) return text;
    return Array.from(text, (c) => (INVISIBLE.test(c) && !isKept(c) ? codeOf(c) : c)).join("");
  }

  function appendVisible(parent, text) {
    if (!INVISIBLE.test(text)) {
      parent.append(text);
      return;
    }
    let plain = "";
    for (const character of text) {
      if (!INVISIBLE.test(character) || isKept(character)) {
        plain += character;
        continue;
      }
      if (plain) parent.append(plain);
      plain = "";
      parent.append(make("span", "ctl", codeOf(character)));
    }
    if (plain) parent.append(plain);
  }

  // plotly interprets some tags and entities in texts, and `%{}` in templates (we use none).
  function plotText(text) {
    const line = visible(text).replace(/\s+/g, " ");
    return line.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }

  const count = (number) => number.toLocaleString("en-US");
  const percent = (value) => `${(100 * value).toFixed(1)}%`;
  const figure = (value) => (Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-4) ? value.toExponential(2) : value.toFixed(4));

  // --- plots: drawn when they come into view ---------------------------------------------------

  const plots = new Map();
  let plotly = null;

  function loadPlotly() {
    plotly ??= unpack(document.getElementById("plotly").textContent).then((source) => {
      const script = document.createElement("script");
      script.textContent = source; // runs at once; the page's policy knows its hash
      document.head.append(script);
      script.textContent = "";
      if (!window.Plotly) throw new Error("plotly did not start");
      return window.Plotly;
    });
    return plotly;
  }

  async function unpack(packed) {
    const bytes = Uint8Array.from(atob(packed.trim()), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) {
          observer.unobserve(entry.target);
          drawWhenLoaded(plots.get(entry.target));
        }
      }
    },
    { rootMargin: "200px" },
  );

  function drawWhenLoaded(plot) {
    return loadPlotly().then(
      () => plot.draw(),
      () => {
        plot.element.classList.add("failed");
        plot.element.textContent = "This browser is too old to draw the plots.";
      },
    );
  }

  class Plot {
    // `describe` returns the traces and the layout; it is called again when theme or data change.
    constructor(element, describe) {
      this.element = element;
      this.describe = describe;
      this.isDrawn = false;
      plots.set(element, this);
      observer.observe(element);
    }

    draw() {
      if (!window.Plotly) return;
      const { traces, layout } = this.describe();
      const config = { displayModeBar: false, responsive: true, doubleClick: false, showTips: false };
      window.Plotly.react(this.element, traces, merged(baseLayout(), layout), config);
      this.isDrawn = true;
    }
  }

  function color(name) {
    return getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  }

  function faded(hex, alpha) {
    const [r, g, b] = [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
    return `rgba(${r},${g},${b},${alpha})`;
  }

  function baseLayout() {
    const axis = {
      gridcolor: color("line"), linecolor: color("strong-line"), zeroline: false, ticks: "",
      automargin: true, fixedrange: true, title: { font: { size: 12 }, standoff: 8 },
    };
    return {
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color("muted") },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 44, r: 12, t: 10, b: 36 }, showlegend: false, dragmode: false, hovermode: "closest",
      hoverlabel: { bgcolor: color("bg"), bordercolor: color("strong-line"), font: { color: color("text") }, align: "left" },
      xaxis: { ...axis, showgrid: false, showline: true }, yaxis: { ...axis },
    };
  }

  function merged(base, over) {
    const result = { ...base };
    for (const [key, value] of Object.entries(over)) {
      const isObject = value && typeof value === "object" && !Array.isArray(value);
      result[key] = isObject ? merged(base[key] ?? {}, value) : value;
    }
    return result;
  }

  // Earlier to later iterations along one ramp that colour-blind people can tell apart (viridis).
  const RAMPS = {
    light: ["#8fa3ad", "#3f9aa6", "#2f7f8e", "#31688e", "#3e4a89", "#440154"],
    dark: ["#5d7187", "#3f8fb0", "#2bb19a", "#5ec962", "#b5de2b", "#fde725"],
  };

  function rampColor(place, of) {
    const ramp = RAMPS[root.dataset.theme];
    const at = of < 2 ? ramp.length - 1 : (place / (of - 1)) * (ramp.length - 1);
    const [low, high] = [ramp[Math.floor(at)], ramp[Math.ceil(at)]];
    const share = at - Math.floor(at);
    const mix = [1, 3, 5].map((start) => {
      const [a, b] = [low, high].map((hex) => parseInt(hex.slice(start, start + 2), 16));
      return Math.round(a + (b - a) * share).toString(16).padStart(2, "0");
    });
    return `#${mix.join("")}`;
  }

  // --- metrics over the iterations -------------------------------------------------------------

  const SERIES = {
    loss: [["eval_loss", "eval loss", "accent"], ["train_loss", "train loss", "muted"]],
    pass_rate: [["pass_rate", "pass rate", "accent"]],
    overfit_gap: [["overfit_gap", "overfit gap", "accent"]],
    token_accuracy: [["token_accuracy", "token accuracy", "accent"]],
  };
  // A loop's own metrics have a panel each.
  const seriesOf = (panel) => SERIES[panel] || [[panel, panel, "accent"]];
  const isRate = (name) => /^(pass_rate|token_accuracy|score(\..+)?|pass[@^]\d+)$/.test(name);
  const say = (name, value) => (isRate(name) ? percent(value) : figure(value));

  function describeMetric(data, panel, element) {
    const labels = data.iterations.map((it) => plotText(it.label));
    const places = labels.map((_, place) => place);
    const series = seriesOf(panel);
    const rate = isRate(series[0][0]);
    const traces = [], shapes = [], seen = [], marks = [], annotations = [];
    for (const [name] of series) seen.push(...seenOf(data, data.metrics[name]));
    for (const [name, title, tone] of series) {
      const metric = data.metrics[name];
      const [shown, far] = rate ? withBase(data, metric, seen) : withoutFarBase(data, metric, seen);
      traces.push(...noiseTraces(metric, places, color(tone)));
      traces.push(...valueTraces(data, name, title, { ...metric, values: shown }, places, color(tone)));
      if (far) annotations.push({ ...far, text: plotText(`${say(name, far.value)} ${far.text}`), font: { color: color(tone), size: 11 } });
      const last = shown.findLast(isKnown);
      if (series.length > 1 && last !== undefined) marks.push({ y: last, text: title, tone });
      for (const [op, bound] of metric.gates) {
        if (!isNear(bound, seen)) continue;
        seen.push(bound);
        shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: bound, y1: bound, line: { color: color("warn"), width: 1, dash: "dash" } });
        marks.push({ y: bound, text: `gate ${op} ${rate ? `${Number((100 * bound).toFixed(2))}%` : bound}`, tone: "warn" });
      }
    }
    const range = paddedRange(seen, rate);
    const longest = Math.max(0, ...marks.map((mark) => mark.text.length));
    return {
      traces,
      layout: {
        shapes, annotations: [...annotations, ...besides(marks, range, element.clientHeight)],
        margin: { r: marks.length ? 14 + 6.5 * longest : 12, t: annotations.length ? 22 : 10 },
        xaxis: { tickmode: "array", tickvals: places, ticktext: labels, range: [-0.4, labels.length - 0.6], title: { text: "iteration" } },
        yaxis: { range, tickformat: rate ? ".0%" : "" },
      },
    };
  }

  const isKnown = (value) => value !== null && value !== undefined;

  // What the axis has to show: figures of trained iterations, their noise, single runs.
  function seenOf(data, metric) {
    const values = metric.values.filter((value, place) => isKnown(value) && !data.iterations[place].untrained);
    const noise = metric.noise.flatMap((of) => (of ? [of.mean - of.sd, of.mean + of.sd, ...(of.runs.length > 1 ? of.runs : [])] : []));
    return [...values, ...noise];
  }

  // A rate has a scale of its own, on which the base is shown wherever it is.
  function withBase(data, metric, seen) {
    seen.push(...metric.values.filter(isKnown));
    return [metric.values, null];
  }

  // A base far off the trained iterations would flatten them: its figure is written at the edge.
  function withoutFarBase(data, metric, seen) {
    const place = data.iterations.findIndex((it) => it.untrained);
    const value = metric.values[place];
    if (place < 0 || !isKnown(value)) return [metric.values, null];
    if (!seen.length || isNear(value, seen)) {
      seen.push(value);
      return [metric.values, null];
    }
    const isAbove = value > Math.max(...seen);
    const far = { x: place, value, yref: "paper", y: isAbove ? 1 : 0, xanchor: place ? "center" : "left", yanchor: isAbove ? "top" : "bottom", showarrow: false, text: isAbove ? "↑" : "↓" };
    return [metric.values.map((old, at) => (at === place ? null : old)), far];
  }

  // Names and gates right of the plot, beside their height, as far apart as a line of text.
  function besides(marks, range, height) {
    const LINE = 14, AXES = 60;
    const [low, high] = range;
    const room = Math.max(height - AXES, LINE);
    const at = (mark) => ((high - mark.y) / (high - low || 1)) * room;
    const sorted = [...marks].sort((one, other) => other.y - one.y);
    const places = [];
    sorted.forEach((mark, n) => places.push(n ? Math.max(at(mark), places[n - 1] + LINE) : Math.max(at(mark), 0)));
    for (let n = places.length - 1; n >= 0; n -= 1) {
      places[n] = Math.min(places[n], n === places.length - 1 ? room : places[n + 1] - LINE);
    }
    return sorted.map((mark, n) => ({
      xref: "paper", x: 1, xanchor: "left", xshift: 6, y: mark.y, yanchor: "middle", yshift: at(mark) - places[n],
      showarrow: false, text: plotText(mark.text), font: { color: color(mark.tone), size: 11 },
    }));
  }

  // A baseline of another commit is a point beside the line, not its start.
  function valueTraces(data, name, title, metric, places, tone) {
    const isOutside = (place) => data.iterations[place].outside;
    const only = (wanted) => metric.values.map((value, place) => (isOutside(place) === wanted && isKnown(value) ? value : null));
    const hover = metric.values.map((value, place) => {
      if (!isKnown(value)) return "";
      const noise = metric.noise[place];
      const spread = noise ? ` (seed noise ± ${isRate(name) ? `${(100 * noise.sd).toFixed(1)} points` : figure(noise.sd)})` : "";
      return plotText(`iteration ${data.iterations[place].label}, ${title} ${say(name, value)}${spread}`);
    });
    const shared = {
      x: places, hovertext: hover, hoverinfo: "text", line: { color: tone, width: 2 },
      marker: {
        color: tone, size: data.iterations.map((it) => (it.best ? 11 : 7)),
        opacity: 1,
        symbol: data.iterations.map((it) => (it.sameEvalSet ? "circle" : "circle-open")),
        line: { width: data.iterations.map((it) => (it.sameEvalSet ? 0 : 2)), color: tone },
      },
    };
    const traces = [{ ...shared, y: only(false), mode: "lines+markers" }];
    if (data.iterations.some((it) => it.outside)) traces.push({ ...shared, y: only(true), mode: "markers" });
    return traces;
  }

  function noiseTraces(metric, places, tone) {
    const known = metric.noise.some(Boolean);
    if (!known) return [];
    const edge = (sign) => metric.noise.map((noise) => (noise ? noise.mean + sign * noise.sd : null));
    const [low, high] = [edge(-1), edge(1)];
    const band = { x: places, mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
    const traces = [{ ...band, y: low }, { ...band, y: high, fill: "tonexty", fillcolor: faded(tone, 0.18) }];
    const runs = metric.noise.flatMap((noise, place) => (noise && noise.runs.length > 1 ? noise.runs.map((value) => [place, value]) : []));
    if (runs.length) {
      traces.push({
        x: runs.map(([place]) => place), y: runs.map(([, value]) => value), mode: "markers", hoverinfo: "skip",
        marker: { color: faded(tone, 0.55), size: 4 },
      });
    }
    return traces;
  }

  function isNear(bound, seen) {
    if (!seen.length) return false;
    const [low, high] = [Math.min(...seen), Math.max(...seen)];
    const reach = 1.5 * Math.max(high - low, 0.05 * Math.abs(high));
    return bound >= low - reach && bound <= high + reach;
  }

  function paddedRange(seen, rate) {
    if (!seen.length) return [0, 1];
    const [low, high] = [Math.min(...seen), Math.max(...seen)];
    const pad = 0.12 * (high - low || Math.abs(high) || 1);
    return rate ? [Math.max(low - pad, -0.02), Math.min(high + pad, 1.02)] : [low - pad, high + pad];
  }

  function noiseText(data) {
    const noise = data.metrics.eval_loss.noise;
    if (!noise.some(Boolean)) return "No run was repeated with another seed, so the seed noise is not measured: ftloop calibrate measures it.";
    const repeated = noise.flatMap((spread, place) => (spread && spread.runs.length > 1 ? [`${data.iterations[place].label} (${spread.runs.length} seeds)`] : []));
    const means = repeated.length ? `, around the mean of iteration ${repeated.join(", ")}` : "";
    return `Band: ± the measured seed noise, one standard deviation pooled over the log${means}. Small dots are single runs.`;
  }

  // --- curves ----------------------------------------------------------------------------------

  function describeCurves(data, kind, state) {
    const traces = [];
    data.iterations.forEach((it, place) => {
      if (!state.isShown[place]) return;
      const [steps, losses] = it[kind];
      const tone = it.baseline && !it.best ? color("text") : rampColor(place, data.iterations.length);
      traces.push({
        x: steps, y: losses, mode: kind === "eval" ? "lines+markers" : "lines", hoverinfo: "text",
        hovertext: losses.map((loss, at) => plotText(`iteration ${it.label}, step ${count(steps[at])}: ${loss === null ? "not finite" : figure(loss)}`)),
        line: { color: tone, width: it.best ? 2.6 : 1.4, dash: it.baseline && !it.best ? "dot" : "solid" }, marker: { color: tone, size: it.best ? 6 : 4 },
      });
      const hasRing = kind === "eval" && (it.best || data.iterations.length <= 4); // more of them hide the curves
      const best = hasRing ? steps.indexOf(it.bestStep) : -1;
      if (best >= 0) {
        traces.push({ x: [steps[best]], y: [losses[best]], mode: "markers", hoverinfo: "skip", marker: { symbol: "circle-open", size: 12, color: tone, line: { width: 1.6, color: tone } } });
      }
    });
    return { traces, layout: { xaxis: { title: { text: "step" }, rangemode: "tozero" }, yaxis: state.isLog ? { type: "log", ...logTicks(traces) } : { type: "linear" } } };
  }

  // plotly labels a log axis of less than a decade with one tick or none.
  function logTicks(traces) {
    const losses = traces.flatMap((trace) => trace.y).filter((loss) => loss > 0);
    if (!losses.length) return {};
    const [low, high] = [losses.reduce((a, b) => Math.min(a, b)), losses.reduce((a, b) => Math.max(a, b))];
    const tickvals = high / low > 3 ? roundNumbers(low, high) : evenNumbers(low, high);
    return { tickvals, ticktext: tickvals.map((value) => String(Number(value.toPrecision(6)))) };
  }

  function roundNumbers(low, high) {
    const digits = high / low > 1000 ? [1] : high / low > 30 ? [1, 3] : [1, 2, 3, 5, 7];
    const values = [];
    for (let decade = Math.floor(Math.log10(low)); decade <= Math.log10(high); decade += 1) {
      values.push(...digits.map((digit) => digit * 10 ** decade));
    }
    return values.filter((value) => value >= low / 1.1 && value <= high * 1.1);
  }

  function evenNumbers(low, high) {
    const rough = (high - low || high) / 5;
    const unit = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((digit) => digit * unit).find((size) => size >= rough);
    const first = Math.ceil(low / step - 0.5);
    return Array.from({ length: 7 }, (_, place) => (first + place) * step).filter((value) => value > 0 && value <= high * 1.1);
  }

  // A log axis where the losses span an order of magnitude: the start would flatten the rest.
  function spansMuch(data) {
    const losses = data.iterations.flatMap((it) => [...it.train[1], ...it.eval[1]]).filter((loss) => loss !== null);
    const positive = losses.filter((loss) => loss > 0);
    if (positive.length < losses.length || !positive.length) return false;
    return positive.reduce((a, b) => Math.max(a, b)) > 6 * positive.reduce((a, b) => Math.min(a, b));
  }

  function startCurves(article, data) {
    const legend = article.querySelector(".legend");
    if (!legend) return;
    const state = { isShown: data.iterations.map(() => true), isLog: spansMuch(data) };
    const drawn = ["train", "eval"].map((kind) => new Plot(article.querySelector(`[data-plot="${kind}"]`), () => describeCurves(data, kind, state)));
    const redraw = () => drawn.forEach((plot) => plot.isDrawn && plot.draw());
    const log = article.querySelector(".log");
    log.checked = state.isLog;
    log.addEventListener("change", () => {
      state.isLog = log.checked;
      redraw();
    });
    const swatches = data.iterations.flatMap((it, place) => {
      if (!it.train[0].length && !it.eval[0].length) return []; // the untrained base has no curve
      const button = make("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      const swatch = make("i");
      button.append(swatch, `${visible(it.label)}${it.best ? ", best" : ""}${it.baseline ? ", baseline" : ""}`);
      button.title = visible(it.change);
      button.addEventListener("click", () => {
        state.isShown[place] = !state.isShown[place];
        button.setAttribute("aria-pressed", String(state.isShown[place]));
        redraw();
      });
      legend.append(button);
      return () => swatch.style.setProperty("--color", it.baseline && !it.best ? color("text") : rampColor(place, data.iterations.length));
    });
    const paint = () => swatches.forEach((swatch) => swatch());
    paint();
    new MutationObserver(paint).observe(root, { attributes: true, attributeFilter: ["data-theme"] });
  }

  // --- examples --------------------------------------------------------------------------------

  const FAILED = "0", PASSED = "1", UNSCORED = "?", ABSENT = "-";
  const OUTCOMES = [
    ["all", "All", () => true],
    ["failed", "Failed", (row) => row.after === FAILED],
    ["passed", "Passed", (row) => row.after === PASSED],
    ["broken", "Broken", (row) => row.before === PASSED && row.after === FAILED],
    ["fixed", "Fixed", (row) => row.before === FAILED && row.after === PASSED],
    ["flaky", "Flaky", (row) => row.isFlaky],
  ];
  const RANK = { broken: 0, failed: 1, fixed: 2, passed: 3, "not scored": 4, absent: 5 };

  function outcomeOf(before, after) {
    if (after === FAILED) return before === PASSED ? "broken" : "failed";
    if (after === PASSED) return before === FAILED ? "fixed" : "passed";
    return after === UNSCORED ? "not scored" : "absent";
  }

  // [key, title, class, value to sort by, descending first]
  const COLUMNS = [
    ["outcome", "outcome", "c-outcome", (row) => RANK[row.outcome], false],
    ["id", "example", "c-id", (row) => row.id, false],
    ["prompt", "prompt", "c-prompt", (row) => row.prompt, false],
    ["expected", "expected", "c-expected", (row) => row.expected, false],
    ["before", "before", "c-before", (row) => row.outputBefore, false],
    ["after", "after", "c-after", (row) => row.outputAfter, false],
    ["loss", "loss", "c-loss n", (row) => row.loss, true],
    ["delta", "change", "c-delta n", (row) => row.delta, true],
  ];
  const MOST_PRINTED = 1000; // rows: about 100 pages
  const tables = [];
  const collator = new Intl.Collator("en", { numeric: true });

  class Examples {
    constructor(section, data) {
      this.section = section;
      this.iterations = data.iterations;
      this.examples = data.examples;
      this.before = data.before;
      this.after = data.after;
      this.query = "";
      this.tag = -1;
      this.outcome = "all";
      this.sortKey = "outcome";
      this.isDescending = false;
      this.page = 0;
      this.opened = new Set();
      this.lower = null;
      this.find = (selector) => section.querySelector(selector);
      this.makeControls();
      this.compare();
      tables.push(this);
    }

    makeControls() {
      const tags = this.find(".tag");
      tags.append(option("-1", "all tags"));
      this.examples.tagNames.forEach((name, place) => tags.append(option(String(place), visible(name))));
      tags.parentElement.hidden = this.examples.tagNames.length === 0;
      for (const [which, selector] of [["before", ".before"], ["after", ".after"]]) {
        const select = this.find(selector);
        this.iterations.forEach((it, place) => {
          if (!this.examples.results[place]) return;
          const marks = [it.best ? "best" : "", it.baseline ? "baseline" : ""].filter(Boolean).join(", ");
          const label = it.label.includes("baseline") ? it.label : `${it.label}${marks ? ` (${marks})` : ""}`;
          select.append(option(String(place), `iteration ${visible(label)}`));
        });
        select.value = String(this[which]);
        select.addEventListener("change", () => {
          this[which] = Number(select.value);
          this.compare();
        });
      }
      tags.addEventListener("change", () => {
        this.tag = Number(tags.value);
        this.filter();
      });
      const search = this.find(".search");
      search.addEventListener("input", () => {
        this.query = search.value.trim().toLowerCase();
        this.filter();
      });
      const outcomes = this.find(".outcomes");
      this.outcomeButtons = OUTCOMES.map(([key, title]) => {
        const button = make("button", "", title);
        button.type = "button";
        button.dataset.outcome = key;
        const number = make("b");
        button.append(number);
        button.addEventListener("click", () => {
          this.outcome = key;
          this.filter();
        });
        outcomes.append(button);
        return { key, button, number };
      });
      const sort = this.find(".sort");
      for (const [key, title] of COLUMNS) sort.append(option(key, title === "change" ? "change of loss" : title));
      sort.addEventListener("change", () => this.sortBy(sort.value));
      this.find(".previous").addEventListener("click", () => this.turn(-1));
      this.find(".next").addEventListener("click", () => this.turn(1));
    }

    // The rows for the two chosen iterations.
    compare() {
      const { ids, prompt, expected, tags, flaky, results, texts } = this.examples;
      const [old, now] = [results[this.before], results[this.after]];
      this.rows = ids.map((id, place) => {
        const [before, after] = [old ? old.passed[place] : ABSENT, now ? now.passed[place] : ABSENT];
        const [lossBefore, loss] = [old ? old.loss[place] : null, now ? now.loss[place] : null];
        return {
          place, id, before, after, loss, tags: tags[place], isFlaky: flaky[place] === "1",
          outcome: outcomeOf(before, after),
          prompt: texts[prompt[place]], expected: texts[expected[place]],
          outputBefore: old ? texts[old.output[place]] : "", outputAfter: now ? texts[now.output[place]] : "",
          delta: loss !== null && lossBefore !== null ? loss - lossBefore : null,
        };
      });
      this.filter();
    }

    filter() {
      const matching = this.rows.filter((row) => (this.tag < 0 || row.tags.includes(this.tag)) && this.matches(row));
      for (const { key, button, number } of this.outcomeButtons) {
        const test = OUTCOMES.find(([name]) => name === key)[2];
        number.textContent = count(matching.filter(test).length);
        button.setAttribute("aria-pressed", String(key === this.outcome));
      }
      const test = OUTCOMES.find(([name]) => name === this.outcome)[2];
      this.found = matching.filter(test);
      this.order();
    }

    matches(row) {
      if (!this.query) return true;
      this.lower ??= this.examples.texts.map((text) => text.toLowerCase());
      const { prompt, expected, results } = this.examples;
      const { place } = row;
      const places = [prompt[place], expected[place]];
      for (const result of [results[this.before], results[this.after]]) if (result) places.push(result.output[place]);
      return row.id.toLowerCase().includes(this.query) || places.some((text) => this.lower[text].includes(this.query));
    }

    sortBy(key) {
      const column = COLUMNS.find(([name]) => name === key);
      this.isDescending = this.sortKey === key ? !this.isDescending : column[4];
      this.sortKey = key;
      this.order();
    }

    order() {
      const value = COLUMNS.find(([name]) => name === this.sortKey)[3];
      const sign = this.isDescending ? -1 : 1;
      const keyed = this.found.map((row) => [value(row), row]);
      keyed.sort(([a, one], [b, other]) => {
        if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1; // no figure: last
        const order = typeof a === "string" ? collator.compare(a, b) : a - b;
        // Among equals the worst first, so that the default order shows what matters.
        return sign * order || (other.loss ?? -1) - (one.loss ?? -1) || one.place - other.place;
      });
      this.found = keyed.map(([, row]) => row);
      this.page = 0;
      this.find(".sort").value = this.sortKey;
      this.render();
    }

    turn(by) {
      this.page += by;
      this.render();
      this.find(".count").scrollIntoView({ block: "start" });
    }

    render() {
      const pages = Math.max(1, Math.ceil(this.found.length / PER_PAGE));
      const [start, most] = printing ? [0, MOST_PRINTED] : [this.page * PER_PAGE, PER_PAGE];
      const rows = this.found.slice(start, start + most);
      const shown = rows.length ? `${count(start + 1)}–${count(start + rows.length)} of ${count(this.found.length)}` : "None";
      const all = this.found.length < this.rows.length ? ` (${count(this.rows.length)} in all)` : "";
      this.find(".count").textContent = `${shown} examples${all}`;
      this.find(".page").textContent = `page ${this.page + 1} of ${pages}`;
      this.find(".previous").disabled = this.page === 0;
      this.find(".next").disabled = this.page >= pages - 1;
      this.find(".pager").hidden = pages < 2;
      const focused = document.activeElement?.dataset?.sort;
      const place = this.find(".rows");
      place.replaceChildren(rows.length ? this.table(rows) : make("p", "nothing", "No example matches."));
      if (focused) this.find(`[data-sort="${focused}"]`)?.focus();
    }

    table(rows) {
      const table = make("table", "list");
      const head = table.createTHead().insertRow();
      for (const [key, title, className] of COLUMNS) {
        const cell = make("th", className);
        cell.scope = "col";
        if (key === this.sortKey) cell.setAttribute("aria-sort", this.isDescending ? "descending" : "ascending");
        const which = key === "before" || key === "after" ? this.iterations[this[key]] : null;
        const button = make("button", "", which ? `${title}: ${visible(which.label)}` : title);
        button.type = "button";
        button.dataset.sort = key;
        button.addEventListener("click", () => this.sortBy(key));
        cell.append(button);
        head.append(cell);
      }
      const body = table.createTBody();
      for (const row of rows) body.append(this.row(row));
      return table;
    }

    row(row) {
      const element = make("tr", this.opened.has(row.place) ? "open" : "");
      element.dataset.id = row.id;
      const cell = (className, label, tag = "td") => {
        const made = make(tag, className);
        if (label) made.append(make("span", "label", label));
        element.append(made);
        return made;
      };
      const outcome = cell("c-outcome");
      outcome.append(make("span", `badge ${row.outcome.replace(" ", "-")}`, row.outcome));
      if (row.isFlaky) outcome.append(" ", make("span", "badge flaky", "flaky"));
      outcome.append(this.history(row.place));
      const id = cell("c-id", "", "th");
      id.scope = "row";
      const name = make("span", "id");
      appendVisible(name, row.id);
      id.append(name);
      if (row.tags.length) {
        const chips = make("div", "chips");
        for (const tag of row.tags) chips.append(make("span", "badge", visible(this.examples.tagNames[tag])));
        id.append(chips);
      }
      this.text(cell("c-prompt", "prompt"), row.prompt, null, row, element);
      this.text(cell("c-expected", "expected"), row.expected);
      const label = (place) => visible(this.iterations[place].label);
      this.text(cell("c-before", `before: ${label(this.before)}`), row.outputBefore, row.before === FAILED ? row.expected : null);
      this.text(cell("c-after", `after: ${label(this.after)}`), row.outputAfter, row.after === FAILED ? row.expected : null);
      cell("c-loss n", "loss").append(row.loss === null ? "-" : row.loss.toFixed(3));
      const delta = cell("c-delta n", "change");
      delta.append(row.delta === null ? "-" : `${row.delta > 0 ? "+" : ""}${row.delta.toFixed(3)}`);
      const clamped = [row.prompt, row.expected, row.outputBefore, row.outputAfter].some((text) => text.length > 90 || text.split("\n").length > 4);
      if (clamped) this.addMore(element, id, row.place);
      return element;
    }

    addMore(element, parent, place) {
      const more = make("button", "more");
      more.type = "button";
      const say = () => {
        const isOpen = this.opened.has(place);
        more.textContent = isOpen ? "less" : "more";
        more.setAttribute("aria-expanded", String(isOpen));
        element.classList.toggle("open", isOpen);
      };
      more.addEventListener("click", () => {
        if (!this.opened.delete(place)) this.opened.add(place);
        say();
      });
      say();
      parent.append(more);
    }

    // A text; its difference from the expected one is marked.
    text(parent, text, expected = null) {
      const box = make("div", text ? "text" : "text empty");
      parent.append(box);
      if (!text) {
        box.append(parent.matches(".c-prompt") ? "not available" : "empty");
        return;
      }
      const inner = make("span", "quoted"); // in quotes: an output may be " " or "passed"
      box.append(inner);
      if (expected === null || expected.trim() === text.trim()) {
        appendVisible(inner, text);
        return;
      }
      const [start, end] = differing(expected, text);
      appendVisible(inner, text.slice(0, start));
      if (end > start) {
        const marked = make("mark");
        appendVisible(marked, text.slice(start, end));
        inner.append(marked);
      }
      appendVisible(inner, text.slice(end));
    }

    history(place) {
      const strip = make("span", "history");
      const said = [];
      this.examples.results.forEach((result, number) => {
        if (!result) return;
        const passed = result.passed[place];
        const word = { [PASSED]: "passed", [FAILED]: "failed" }[passed] ?? "no result";
        const box = make("i", { [PASSED]: "p", [FAILED]: "f" }[passed] ?? "m");
        if (number === this.before || number === this.after) box.classList.add("at");
        strip.append(box);
        said.push(`${visible(this.iterations[number].label)} ${word}`);
      });
      strip.setAttribute("role", "img");
      strip.setAttribute("aria-label", `over the iterations: ${said.join(", ")}`);
      strip.title = said.join(", ");
      return strip;
    }
  }

  function option(value, text) {
    const made = make("option", "", text);
    made.value = value;
    return made;
  }

  // Where a text differs from another, without their common start and end, in whole words.
  function differing(expected, text) {
    const shortest = Math.min(expected.length, text.length);
    let start = 0;
    while (start < shortest && expected[start] === text[start]) start += 1;
    let end = 0;
    while (end < shortest - start && expected.at(-1 - end) === text.at(-1 - end)) end += 1;
    let stop = text.length - end;
    const isWord = (at) => /[\p{L}\p{N}\p{M}\p{Cs}]/u.test(text[at] ?? " ");
    while (start > 0 && isWord(start - 1) && isWord(start)) start -= 1;
    while (stop < text.length && isWord(stop) && isWord(stop - 1)) stop += 1;
    return [start, stop];
  }

  // --- start -----------------------------------------------------------------------------------

  function startLoop(article) {
    const data = JSON.parse(document.getElementById(`data-${article.dataset.index}`).textContent);
    for (const element of article.querySelectorAll(".metrics [data-plot]")) {
      const panel = element.dataset.plot;
      const hasValues = seriesOf(panel).some(([name]) => data.metrics[name].values.some(isKnown));
      if (hasValues) new Plot(element, () => describeMetric(data, panel, element));
      else element.closest("figure").remove();
    }
    article.querySelector(".noise").textContent = visible(noiseText(data));
    startCurves(article, data);
    const section = article.querySelector(".examples");
    if (data.examples.ids.length) new Examples(section, data);
    else section.replaceChildren(section.querySelector("h2"), make("p", "muted", "The log has no examples."));
  }

  function startWhenNear(articles) {
    const waiting = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) {
          if (!entry.isIntersecting) continue;
          waiting.unobserve(entry.target);
          startOnce(entry.target);
        }
      },
      { rootMargin: "600px" },
    );
    articles.forEach((article) => waiting.observe(article));
  }

  const started = new Set();

  function startOnce(article) {
    if (started.has(article)) return;
    started.add(article);
    startLoop(article);
    performance.mark("ftloop-open");
  }

  let reopened = [];

  function beforePrint() {
    printing = true;
    document.querySelectorAll("article").forEach(startOnce);
    reopened = [...document.querySelectorAll("details:not([open])")];
    reopened.forEach((details) => (details.open = true));
    tables.forEach((table) => table.render());
    applyTheme();
    plots.forEach((plot) => plot.draw());
  }

  function afterPrint() {
    printing = false;
    reopened.forEach((details) => (details.open = false));
    tables.forEach((table) => table.render());
    applyTheme();
  }

  applyTheme();
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", toggleTheme);
    prefersDark.addEventListener("change", applyTheme);
    window.addEventListener("beforeprint", beforePrint);
    window.addEventListener("afterprint", afterPrint);
    startWhenNear([...document.querySelectorAll("article.loop")]);
    applyTheme();
    // It takes up to a second to start: do it while the verdict is read, not on the first scroll.
    const whenIdle = window.requestIdleCallback ?? ((work) => work());
    setTimeout(() => whenIdle(() => loadPlotly().catch(() => {})), 1000);
  });
})();
