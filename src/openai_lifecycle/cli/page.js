"use strict";
// Texts of the log reach the page only as textContent, and charts only through plain().
(async () => {
  const at = (id) => document.getElementById(id);
  const packed = Uint8Array.from(atob(at("data").textContent), (c) => c.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = JSON.parse(await new Response(unpacked).text());

  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  };
  const number = (value) => value === null || value === undefined ? "–" : value.toLocaleString("en-US");
  const amount = (value, one, many) => `${number(value)} ${value === 1 ? one : many}`;
  const seconds = (ms) => ms === null || ms === "" ? "–" : String(Number((Number(ms) / 1000).toPrecision(3)));
  const exact = (usd) => "$" + (usd >= 1 ? usd.toFixed(2) : usd === 0 ? "0.00" : usd.toFixed(Math.min(20, 1 - Math.floor(Math.log10(usd)))));
  const dollars = (m) => m.cost_usd === null ? "unknown" : exact(m.cost_usd) + (m.unpriced_calls ? " + unknown" : "");
  const counted = (pairs) => pairs.map(([name, count]) => `${name} ${count}`).join(", ") || "–";

  // ---------------------------------------------------------------- summary
  const total = data.total;
  at("summary").textContent =
    `${amount(total.calls, "call", "calls")}, ${amount(total.errors, "error", "errors")}, ` +
    `${amount(total.input_tokens, "token", "tokens")} in, ${number(total.output_tokens)} out, cost ${dollars(total)}`;

  // ---------------------------------------------------------------- charts
  // Plotly reads a little HTML in labels; as entities the text stays what it is.
  const plain = (text) => (text.length > 24 ? text.slice(0, 23) + "…" : text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const line = data.timeline;
  const x = line.points.map((p) => p.time);
  const COLOURS = ["#3b6fd4", "#2a9d8f", "#e9a13b", "#8a5cc2", "#d1495b", "#5fa8d3", "#7a8b3c", "#b0793f", "#98a2b3"];
  const chart = (id, title, traces, axis) => {
    const shown = traces.filter((trace) => trace.y.some((value) => value));
    at(id).hidden = !shown.length;
    at(id).setAttribute("aria-label", title);
    if (shown.length) Plotly.newPlot(at(id), shown, {
      title: { text: title, font: { size: 14 }, x: 0.01 }, barmode: "stack", bargap: 0.1,
      margin: { l: 55, r: 10, t: 34, b: 40 }, legend: { orientation: "h", y: -0.22, font: { size: 11 } },
      xaxis: { type: "date" }, yaxis: { rangemode: "tozero", ...axis }, showlegend: shown.length > 1,
      colorway: COLOURS,
    }, { responsive: true, displayModeBar: false });
  };
  const bars = (name, y, more) => ({ type: "bar", name: plain(name), x, y, ...more });
  const lines = (name, y) => ({ type: "scatter", mode: x.length > 60 ? "lines" : "lines+markers", name: plain(name), x, y });
  const byModel = (field) => [...line.models, "other models"]
    .map((model, i) => bars(model, line.points.map((p) => p[field][i]), { marker: { color: COLOURS[i % COLOURS.length] } }));
  const units = { 60: "minute", 600: "10 minutes", 3600: "hour", 21600: "6 hours", 86400: "day", 604800: "week" };
  const per = `per ${units[line.size] || "period"} (${line.zone})`;
  const of = (field, scale = 1) => line.points.map((p) => p[field] === null ? null : p[field] * scale);
  chart("calls", `Calls ${per}`, byModel("calls_by_model"));
  chart("errors-over-time", `Errors ${per}`, [bars("errors", of("errors"), { marker: { color: "#d1495b" } })]);
  chart("tokens", `Tokens ${per}`, [bars("input", of("input_tokens")), bars("output", of("output_tokens"))]);
  chart("costs", `Known cost in US dollars ${per}`, byModel("cost_by_model"), { tickprefix: "$" });
  for (const [id, field, title] of [["latency", "latency", "Latency"], ["first-token", "first_token", "Time to first token"]]) {
    chart(id, `${title} in seconds ${per}`, [50, 95, 99].map((p) => lines(`p${p}`, of(`${field}_p${p}_ms`, 0.001))));
  }

  // ---------------------------------------------------------------- tables
  // A column is [heading, value of a row, whether it is a number].
  const fill = (table, columns, rows, foot) => {
    const cells = (tag, of) => {
      const tr = make("tr");
      for (const [i, [, , isNumber]] of columns.entries()) tr.append(make(tag, of(i), isNumber ? "number" : ""));
      return tr;
    };
    const head = make("thead"), body = make("tbody");
    head.append(cells("th", (i) => columns[i][0]));
    for (const row of rows) body.append(cells("td", (i) => columns[i][1](row)));
    if (!rows.length) body.appendChild(make("tr")).append(make("td", "none"));
    table.replaceChildren(head, body);
    if (foot) table.append(make("tfoot")), table.lastChild.append(cells("td", (i) => columns[i][1](foot)));
  };
  const percentiles = (m, field) => [50, 95, 99].map((p) => seconds(m[`${field}_p${p}_ms`])).join(" / ");
  const numbers = (by) => fill(at("numbers"), [
    [by, (m) => m.name], ["calls", (m) => number(m.calls), 1], ["errors", (m) => number(m.errors), 1],
    ["tokens in", (m) => number(m.input_tokens), 1], ["out", (m) => number(m.output_tokens), 1],
    ["cached", (m) => number(m.cached_tokens), 1], ["reasoning", (m) => number(m.reasoning_tokens), 1],
    ["cost", dollars, 1], ["latency s p50 / p95 / p99", (m) => percentiles(m, "latency"), 1],
    ["first token s p50 / p95 / p99", (m) => percentiles(m, "first_token"), 1],
    ["errors by type", (m) => counted(m.error_types)], ["tools", (m) => counted(m.tools)],
  ], data.tables[by], { name: "total", ...total });
  for (const by of Object.keys(data.tables)) {
    const button = at("by").appendChild(make("button", by));
    button.setAttribute("role", "tab");
    button.addEventListener("click", () => {
      for (const other of at("by").children) other.setAttribute("aria-selected", other === button);
      numbers(by);
    });
  }
  at("by").firstChild.click();

  fill(at("errors"), [["type", (e) => e.type], ["model", (e) => e.model], ["count", (e) => number(e.count), 1],
    ["last", (e) => e.time], ["its text", (e) => e.text], ["trace", (e) => e.trace_id]], data.errors);
  const call = [["time", (e) => e.time], ["model", (e) => e.model], ["duration s", (e) => seconds(e.duration_ms), 1],
    ["in", (e) => e.input_tokens, 1], ["out", (e) => e.output_tokens, 1], ["user", (e) => e.user],
    ["trace", (e) => e.trace_id], ["text", (e) => e.text]];
  fill(at("slowest"), call, data.slowest);
  fill(at("most_expensive"), [["cost", (e) => exact(e.cost), 1], ...call], data.most_expensive);

  // ---------------------------------------------------------------- the list: only rows in sight are in the page
  const HEIGHT = 22, FIELDS = ["time", "event", "provider", "model", "duration_ms", "input_tokens", "output_tokens", "user", "trace_id", "text"];
  const SHOWN = [0, 1, 2, 3, 4, 5, 6, 8, 9];
  const entries = data.entries;
  const haystack = entries.map((entry) => entry.join("\n").toLowerCase());
  let found = entries.map((_, i) => i), chosen = -1;
  const list = at("list"), spacer = at("spacer"), rows = at("rows");
  const draw = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - 10);
    const last = Math.min(found.length, first + Math.ceil(list.clientHeight / HEIGHT) + 20);
    rows.style.top = `${first * HEIGHT}px`;
    rows.replaceChildren(...found.slice(first, last).map((index) => {
      const entry = entries[index];
      const row = make("div", undefined, "row" + (entry[1].endsWith("ERROR") ? " bad" : "") + (index === chosen ? " chosen" : ""));
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", index === chosen);
      for (const field of SHOWN) row.append(make("span", entry[field]));
      row.addEventListener("click", () => choose(index));
      return row;
    }));
  };
  const choose = (index) => {
    chosen = index;
    at("entry").hidden = false;
    at("entry").textContent = FIELDS.map((name, i) => `${name.padEnd(14)} ${entries[index][i]}`).join("\n");
    draw();
  };
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !found.length) return;
    event.preventDefault();
    const next = Math.min(found.length - 1, Math.max(0, found.indexOf(chosen) + step));
    list.scrollTop = Math.min(next * HEIGHT, Math.max(list.scrollTop, (next + 1) * HEIGHT - list.clientHeight));
    choose(found[next]);
  });
  const search = () => {
    const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean), event = at("event").value;
    found = [];
    for (let i = 0; i < entries.length; i++) {
      if ((!event || entries[i][1] === event) && words.every((word) => haystack[i].includes(word))) found.push(i);
    }
    const more = data.left_out ? `; only in the numbers, not in this page: ${number(data.left_out)} older` : "";
    at("found").textContent = `${number(found.length)} of ${amount(entries.length, "entry", "entries")}${more}`;
    spacer.style.height = `${found.length * HEIGHT}px`;
    list.scrollTop = 0;
    draw();
  };
  for (const tag of [...new Set(entries.map((entry) => entry[1]))].sort()) at("event").append(make("option", tag));
  let waiting;
  at("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(search, 120); });
  at("event").addEventListener("change", search);
  list.addEventListener("scroll", () => requestAnimationFrame(draw));
  search();
  document.body.dataset.ready = "yes";
})();
