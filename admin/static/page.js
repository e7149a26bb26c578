// What a page does in the browser beside htmx: times in the reader's own zone with their age, barriers that count down, whether the page is live,
// dialogs, and the chart of levels.
(() => {
  "use strict";

  // The member's clock, of which ages are told: the browser's may be wrong.
  let ahead = 0;
  const clock = (member) => { ahead = Number(member) - Date.now(); };
  const now = () => Date.now() + ahead;

  // Times -----------------------------------------------------------------------------------------------------------
  const pad = (n) => String(n).padStart(2, "0");
  const age = (ms) => {
    const s = Math.round(Math.abs(ms) / 1000);
    const text = s < 60 ? `${s} s` : s < 3600 ? `${Math.floor(s / 60)} min` : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
    return ms < -999 ? `in ${text}` : `${text} ago`;
  };
  const local = (t, exact) => {
    const today = new Date(now());
    const time = `${pad(t.getHours())}:${pad(t.getMinutes())}:${pad(t.getSeconds())}` + (exact ? `.${String(t.getMilliseconds()).padStart(3, "0")}` : "");
    return t.toDateString() === today.toDateString() ? time : `${t.getFullYear()}-${pad(t.getMonth() + 1)}-${pad(t.getDate())} ${time}`;
  };
  const tellTimes = () => {
    for (const element of document.querySelectorAll("time[datetime]")) {
      const t = new Date(element.dateTime);
      const text = local(t, "exact" in element.dataset), old = `(${age(now() - t)})`;
      if (element.textContent !== text) element.textContent = text;
      if (element.dataset.ago !== old) element.dataset.ago = old;
    }
  };

  // Drain barriers ---------------------------------------------------------------------------------------------------
  // They pass by the group's cluster time, which the strip at the top has as of the last change. It runs no faster than this clock, and while a barrier lasts
  // the leader tells it each second. So it is carried on between two words of it, and not for longer than this: without a leader it stands still.
  const faith = 2500;
  let cluster = null;
  const hearCluster = () => {
    const facts = document.querySelector("#part-0 [data-cluster]");
    if (!facts) return;
    const ms = Number(facts.dataset.cluster);
    if (cluster?.ms !== ms) cluster = { ms, at: performance.now(), shown: cluster?.shown ?? ms };
    cluster.led = facts.dataset.led === "true";
  };
  const clusterTime = () => {
    const since = performance.now() - cluster.at, runs = cluster.led && since < faith;
    const time = runs ? cluster.ms + since : cluster.ms;
    // A word that comes late is no reason to count up for a moment; time that did not pass is.
    if (!runs || time > cluster.shown || cluster.shown - time > 1000) cluster.shown = time;
    return { time: cluster.shown, runs };
  };
  const left = (ms) => {
    const s = Math.max(ms, 0) / 1000;
    return s < 120 ? `${s.toFixed(1)} s left` : s < 7200 ? `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s left` : `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min left`;
  };
  const tellBarriers = () => {
    const barriers = document.querySelectorAll("[data-end]");
    if (!barriers.length || !cluster) return;
    const { time, runs } = clusterTime();
    for (const element of barriers) {
      const begun = Number(element.dataset.begun), end = Number(element.dataset.end);
      if (element.tagName === "PROGRESS") {
        element.value = Math.min(Math.max((time - begun) / (end - begun), 0), 1);
        continue;
      }
      const text = left(end - time) + (runs ? "" : cluster.led ? ", no word of cluster time" : ", held: no leader");
      if (element.textContent !== text) element.textContent = text;
    }
  };

  // Whether the page is live ----------------------------------------------------------------------------------------
  // The stream has a sign of life every 5 s. A member that hangs keeps the connection and says nothing, and what is broken on the way may not be noticed
  // either: after this silence the page says so, and connects anew.
  const silence = 12000;
  // A page whose first connection was refused, as by a member that has enough open, tries again after this time.
  const patience = 3000;
  let heard = 0, connection = null;
  const live = document.getElementById("live");
  const say = (state, words) => {
    if (live.dataset.state === state) return;
    live.dataset.state = state;
    live.querySelector(".words").textContent = words;
  };
  const listen = () => {
    heard = performance.now();
    live.addEventListener("htmx:sse:after:connection", (event) => { connection = event.detail.connection; });
    live.addEventListener("beat", (event) => { heard = performance.now(); clock(event.detail.data); say("on", "live"); });
    live.addEventListener("reload", () => location.reload());
    live.addEventListener("htmx:sse:after:message", () => { heard = performance.now(); });
    live.addEventListener("htmx:sse:error", () => say("off", "not live: connecting again"));
    // In the background the stream is closed, and opened again with the page.
    document.addEventListener("visibilitychange", () => {
      heard = performance.now();
      say("off", "not live: connecting again");
    });
  };
  const watch = () => {
    const quiet = performance.now() - heard;
    if (!connection && quiet > patience) {
      heard = performance.now();
      live.dispatchEvent(new Event("again"));
    } else if (connection && quiet > silence && !document.hidden) {
      heard = performance.now();
      say("off", "not live: no word from this member");
      connection.reader?.cancel();
    }
  };

  // Dialogs ---------------------------------------------------------------------------------------------------------
  // showModal keeps the focus inside, makes the rest inert, and gives the focus back.
  const openDialog = (dialog) => { if (!dialog.open) dialog.showModal(); };
  document.addEventListener("htmx:after:swap", (event) => {
    const target = event.detail?.ctx?.target;
    if (target?.id === "dialog" && target.childElementCount > 0) openDialog(target);
    tellTimes();
    hearCluster();
    tellBarriers();
    drawAll();
  });
  document.addEventListener("click", (event) => {
    const close = event.target.closest("[data-close]");
    const open = close?.closest("dialog[open]");
    if (open) {
      event.preventDefault();
      open.close();
      return;
    }
    const ask = event.target.closest("[data-ask]");
    if (ask) {
      event.preventDefault();
      openDialog(document.getElementById(ask.dataset.ask));
    }
  });
  // Return in a field of the form, too, asks before it posts.
  document.addEventListener("submit", (event) => {
    const ask = event.submitter?.closest?.("[data-ask]");
    if (ask) {
      event.preventDefault();
      openDialog(document.getElementById(ask.dataset.ask));
    }
  });

  // The chart of levels ---------------------------------------------------------------------------------------------
  // Each line has a colour and a dash of its own, so that neither needs the other.
  const dashes = [[], [8, 4], [2, 3], [10, 3, 2, 3]];
  const marks = ["solid", "dashed", "dotted", "double"];
  const charts = new Map();
  // Of 24 hours, with the day where it changes: increment, template, then what is added at a new year, month, day, hour, minute, second, and how.
  const clockTimes = [
    [86400, "{YYYY}-{MM}-{DD}", null, null, null, null, null, null, 1],
    [60, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
    [1, "{HH}:{mm}:{ss}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
    [0.001, "{HH}:{mm}:{ss}.{fff}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
  ];
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // align makes one row of times of all servers' changes, each level holding until the next.
  const align = (servers) => {
    const times = [...new Set(servers.flatMap((s) => s.points.map((p) => p[0])))].sort((a, b) => a - b);
    const end = now() / 1000;
    if (times.length && end > times[times.length - 1]) times.push(end);
    return [times, ...servers.map((s) => {
      let i = 0, value = null;
      return times.map((t) => {
        while (i < s.points.length && s.points[i][0] <= t) value = s.points[i++][1];
        return value;
      });
    })];
  };

  const build = (host, servers) => {
    const text = style("--muted"), grid = style("--line");
    const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font: "12px system-ui, sans-serif" };
    const healthy = (u) => {
      const top = u.valToPos(255, "y", true), bottom = u.valToPos(200, "y", true);
      u.ctx.save();
      u.ctx.fillStyle = style("--healthy-zone");
      u.ctx.fillRect(u.bbox.left, top, u.bbox.width, bottom - top);
      u.ctx.restore();
    };
    return new uPlot({
      width: host.clientWidth, height: 260,
      scales: { x: { time: true }, y: { range: [-5, 265] } },
      axes: [{ ...axis, values: clockTimes }, { ...axis, size: 44, splits: () => [0, 50, 100, 150, 200, 255] }],
      hooks: { drawClear: [healthy] },
      legend: { live: true, markers: { dash: (u, i) => marks[(i - 1) % marks.length] } },
      series: [{ value: (u, t) => t == null ? "–" : local(new Date(t * 1000)) }, ...servers.map((s, i) => ({
        label: s.id, stroke: style(`--line-${i % 4 + 1}`), width: 2, dash: dashes[i % dashes.length],
        paths: uPlot.paths.stepped({ align: 1 }), points: { show: false }, value: (u, v) => v ?? "–",
      }))],
    }, align(servers), host);
  };

  const draw = (host) => {
    const data = document.getElementById(host.dataset.chart)?.dataset.levels;
    if (!data || typeof uPlot === "undefined") return;
    const known = charts.get(host);
    if (known?.data === data) return;
    const servers = JSON.parse(data).servers;
    const names = servers.map((s) => s.id).join("\n");
    if (known?.names === names) {
      known.data = data;
      known.servers = servers;
      known.plot.setData(align(servers));
      return;
    }
    known?.plot.destroy();
    charts.set(host, { data, names, servers, plot: build(host, servers) });
  };
  const drawAll = () => { for (const host of document.querySelectorAll("[data-chart]")) draw(host); };
  const again = () => {
    for (const [host, chart] of charts) {
      chart.plot.destroy();
      charts.delete(host);
    }
    drawAll();
  };

  // What a change has done is said once, and not again when the page is loaded anew.
  const forget = () => {
    const here = new URL(location.href);
    if (here.searchParams.has("done")) {
      here.searchParams.delete("done");
      history.replaceState(null, "", here);
    }
  };

  // Beginning -------------------------------------------------------------------------------------------------------
  clock(document.body.dataset.now);
  if (live) listen();
  tellTimes();
  hearCluster();
  tellBarriers();
  drawAll();
  forget();
  setInterval(tellBarriers, 100);
  let ticks = 0;
  setInterval(() => {
    tellTimes();
    if (live) watch();
    // The last level goes on.
    if (++ticks % 10 === 0) for (const chart of charts.values()) chart.plot.setData(align(chart.servers));
  }, 1000);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  addEventListener("resize", () => { for (const [host, chart] of charts) chart.plot.setSize({ width: host.clientWidth, height: 260 }); });
})();
