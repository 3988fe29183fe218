// Refreshes the page: fetches it when the controller says that something changed, and changes in
// place what differs, so that open rows, the focus, a selection and the scroll position stay. The
// page also works without this script.
"use strict";

(() => {
  const POLL_MS = 5000; // between refreshes without events
  const SLOW_POLL_MS = 30000; // between refreshes with events: some things change without one
  const MIN_PAUSE_MS = 1000; // between refreshes that events cause
  const PAUSE_FACTOR = 5; // a pause is so many times as long as the last answer took
  const LISTEN_AGAIN_MS = 30000; // after the event stream was refused
  const EVENT_TYPES = ["remediation", "alert", "sync", "leadership", "pause", "health", "reset"];
  const TIMEOUT_MS = 8000; // of one request
  const TYPING_DELAY_MS = 200; // before the filter applies what was typed

  const root = document.documentElement;
  const main = document.getElementById("main");
  const live = document.getElementById("live");
  const seen = document.getElementById("seen");
  const unreachable = document.getElementById("unreachable");
  const button = document.getElementById("refresh");

  const served = new Map(); // by key, whether the page of the controller has a part open
  const chosen = new Map(); // the reader's choice if it differs, also of parts that a filter hides
  const still = "still" in main.dataset; // the answer to a form, which the address does not give
  let refreshing = !still; // auto-refresh, as the reader chose
  let shownAt = main.dataset.now; // the controller's time when it rendered the page
  let clockOffset = Date.parse(shownAt) - Date.now(); // the controller's clock minus ours
  let unreachableSince = null;
  let timer = 0;
  let request = null; // the last one
  let waiting = false; // for its answer
  let changed = false; // something changed meanwhile
  let requestedAt = 0;
  let answerMs = 0; // how long it took
  let events = null; // the event stream
  let listening = false; // whether it is open
  let listenTimer = 0;
  let shownFilter = location.search;
  let highlighting = false; // whether added rows are new, and not only matched by a new filter

  // Times

  function span(seconds) {
    const s = Math.floor(seconds);
    const [m, h, d] = [Math.floor(s / 60), Math.floor(s / 3600), Math.floor(s / 86400)];
    if (m === 0) return `${s}s`;
    if (h === 0) return m < 10 ? `${m}m ${s % 60}s` : `${m}m`;
    if (d === 0) return `${h}h ${m % 60}m`;
    return `${d}d ${h % 24}h`;
  }

  function age(at) {
    const seconds = (Date.now() + clockOffset - Date.parse(at)) / 1000;
    if (Number.isNaN(seconds)) return "";
    return seconds < 0 ? `in ${span(-seconds)}` : `${span(seconds)} ago`;
  }

  function write(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  // A time in the reader's zone, in the order of the page's UTC times.
  function local(at) {
    const moment = new Date(at);
    if (Number.isNaN(moment.getTime())) return at;
    const two = (number) => String(number).padStart(2, "0");
    const day = `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())}`;
    return `${day} ${two(moment.getHours())}:${two(moment.getMinutes())}:${two(moment.getSeconds())}`;
  }

  function showLocalTimes() {
    for (const element of document.querySelectorAll("time[datetime]")) {
      write(element, local(element.dateTime));
      element.title = `${element.dateTime.replace("T", " ").replace(/Z$/, "")} UTC`;
    }
    for (const element of document.querySelectorAll("[data-clock]")) {
      write(element, local(element.dataset.clock).slice(11, 16));
    }
  }

  function tick() {
    for (const element of document.querySelectorAll(".age")) write(element, age(element.dataset.at));
    if (unreachableSince !== null) write(unreachable.querySelector(".first-failure"), age(unreachableSince));
  }

  // Makes `from` equal to `to`, changing only what differs. Elements with a key are reused even if
  // they moved. What is open is left to showOpen().

  function keyOf(node) {
    return node.id || node.dataset?.key || "";
  }

  function sameElement(a, b) {
    return a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);
  }

  function morph(from, to) {
    if (from.nodeType === Node.TEXT_NODE) {
      if (from.data !== to.data) from.data = to.data;
      return;
    }
    if (from.nodeType !== Node.ELEMENT_NODE) return;
    if ("keep" in from.dataset) return; // another script writes it
    for (const { name, value } of [...to.attributes]) {
      if (name !== "open" && from.getAttribute(name) !== value) from.setAttribute(name, value);
    }
    for (const { name } of [...from.attributes]) {
      if (name !== "open" && !to.hasAttribute(name)) from.removeAttribute(name);
    }
    // tick() and showLocalTimes() write these.
    if (to.classList.contains("age") || to.matches("time[datetime], [data-clock]")) return;

    const kept = new Set([...to.children].map(keyOf).filter(Boolean));
    const byKey = new Map();
    for (const child of [...from.children]) {
      const key = keyOf(child);
      if (!key) continue;
      if (kept.has(key) && !byKey.has(key)) byKey.set(key, child);
      else child.remove();
    }
    let next = from.firstChild;
    for (const child of [...to.childNodes]) {
      const key = keyOf(child);
      const match = key ? byKey.get(key) : next && sameElement(next, child) ? next : null;
      byKey.delete(key);
      if (!match) {
        const added = document.importNode(child, true);
        if (highlighting) added.classList?.add("new");
        from.insertBefore(added, next);
      } else {
        if (match === next) next = next.nextSibling;
        else from.insertBefore(match, next);
        morph(match, child);
      }
    }
    while (next) {
      const after = next.nextSibling;
      next.remove();
      next = after;
    }
  }

  // What is open or closed is the reader's choice, else as the controller serves it; what is open
  // already is not closed. A link that opens or closes everything (`asked`) replaces all choices.

  function openParameter(query) {
    return new URLSearchParams(query).get("open") ?? "";
  }

  function readServed(page) {
    for (const details of page.querySelectorAll("details[data-key]")) {
      served.set(details.dataset.key, details.open);
    }
  }

  function showOpen(page, asked) {
    readServed(page);
    if (asked) chosen.clear();
    for (const details of main.querySelectorAll("details[data-key]")) {
      const { key } = details.dataset;
      details.open = chosen.get(key) ?? (served.get(key) || (details.open && !asked));
    }
  }

  function update(text) {
    const page = new DOMParser().parseFromString(text, "text/html");
    const fresh = page.getElementById("main");
    if (!fresh) throw new Error("the response is not this page");
    if (page.documentElement.dataset.assets !== root.dataset.assets) {
      location.reload(); // another release, with its own style and script
      return;
    }
    shownAt = fresh.dataset.now;
    clockOffset = Date.parse(shownAt) - Date.now();
    highlighting = shownFilter === location.search;
    const asked = openParameter(shownFilter) !== openParameter(location.search);
    shownFilter = location.search;
    for (const part of document.querySelectorAll("[data-live]")) {
      morph(part, page.getElementById(part.id));
    }
    document.title = page.title;
    showOpen(fresh, asked);
    const icon = document.querySelector('link[rel="icon"]');
    const freshIcon = page.querySelector('link[rel="icon"]').getAttribute("href");
    if (icon.getAttribute("href") !== freshIcon) icon.setAttribute("href", freshIcon);
    seen.querySelector(".age").dataset.at = shownAt;
    tick();
    showLocalTimes();
  }

  // Refreshing

  function state() {
    if (unreachableSince !== null) return "Unreachable";
    return refreshing ? "Live" : "Not refreshed";
  }

  function showReachable() {
    unreachableSince = null;
    unreachable.hidden = true;
    root.classList.remove("lost");
    root.classList.toggle("fresh", refreshing);
    write(live, state());
  }

  function showUnreachable(reason) {
    if (unreachableSince === null) {
      unreachableSince = new Date(Date.now() + clockOffset).toISOString();
      unreachable.replaceChildren(
        `The controller cannot be reached (${reason}). First failure: `,
        Object.assign(document.createElement("span"), { className: "first-failure" }),
        `. This page shows the state at ${shownAt}. Retrying every ${POLL_MS / 1000} s.`,
      );
      unreachable.hidden = false;
      document.title = `unreachable · ${document.title}`;
    }
    root.classList.remove("fresh");
    root.classList.add("lost");
    write(live, state());
    tick();
  }

  async function refresh() {
    clearTimeout(timer);
    request?.abort();
    const controller = (request = new AbortController());
    const deadline = setTimeout(() => controller.abort(), TIMEOUT_MS);
    waiting = true;
    changed = false;
    requestedAt = performance.now();
    try {
      // Not a relative address: fetch() refuses one if the page has credentials in its address.
      const response = await fetch(location.origin + location.pathname + location.search, {
        cache: "no-store",
        // As the browser asked for it: /alerts answers other clients otherwise.
        headers: { Accept: "text/html" },
        signal: controller.signal,
      });
      if (!response.ok) throw new Error(`HTTP ${response.status} ${response.statusText}`);
      const text = await response.text();
      if (controller !== request) return;
      update(text);
      showReachable();
    } catch (error) {
      if (controller !== request) return; // a later request replaced this one
      showUnreachable(controller.signal.aborted ? `no response within ${TIMEOUT_MS / 1000} s` : error.message);
    } finally {
      clearTimeout(deadline);
      if (controller === request) {
        waiting = false;
        answerMs = performance.now() - requestedAt;
        if (changed) refreshSoon();
        else schedule(listening && unreachableSince === null ? SLOW_POLL_MS : POLL_MS);
      }
    }
  }

  function schedule(delay) {
    clearTimeout(timer);
    if (refreshing && !document.hidden) timer = setTimeout(refresh, delay);
  }

  // At once if the last refresh was a while ago. Where answers take long, because the page is large
  // or many people look, all of them wait longer.
  function refreshSoon() {
    changed = true;
    if (waiting) return;
    const pause = Math.min(Math.max(MIN_PAUSE_MS, PAUSE_FACTOR * answerMs), SLOW_POLL_MS);
    schedule(Math.max(0, requestedAt + pause - performance.now()));
  }

  // Events: each says that something changed. Only a visible tab listens, since a browser opens few
  // connections to one server.

  function listen() {
    clearTimeout(listenTimer);
    if (events || !refreshing || document.hidden || !window.EventSource) return;
    events = new EventSource(new URL(main.dataset.events, location.origin + location.pathname));
    for (const type of EVENT_TYPES) events.addEventListener(type, refreshSoon);
    events.addEventListener("open", () => (listening = true));
    events.addEventListener("error", () => {
      listening = false;
      if (events.readyState === EventSource.CLOSED) {
        stopListening();
        listenTimer = setTimeout(listen, LISTEN_AGAIN_MS);
      }
      refreshSoon(); // is the controller still there?
    });
  }

  function stopListening() {
    clearTimeout(listenTimer);
    events?.close();
    events = null;
    listening = false;
  }

  function start() {
    refresh();
    listen();
  }

  function stop() {
    clearTimeout(timer);
    stopListening();
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stop();
    else if (refreshing) start();
  });
  window.addEventListener("pagehide", stop);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted && refreshing) start();
  });

  button.addEventListener("click", () => {
    refreshing = !refreshing;
    button.setAttribute("aria-pressed", String(refreshing));
    if (refreshing) start();
    else {
      stop();
      if (unreachableSince === null) showReachable();
    }
  });

  // The filter is part of the address.

  function navigate(address, replace) {
    if (replace) history.replaceState(null, "", address);
    else history.pushState(null, "", address);
    refresh();
  }

  function showQuery(address) {
    const field = document.getElementById("q");
    if (field) field.value = new URL(address).searchParams.get("q") ?? "";
  }

  let typing = 0;
  main.addEventListener("input", (event) => {
    if (event.target.id !== "q") return;
    clearTimeout(typing);
    typing = setTimeout(() => {
      const address = new URL(location.href);
      for (const place of ["before", "after", "page"]) address.searchParams.delete(place);
      if (event.target.value.trim()) address.searchParams.set("q", event.target.value);
      else address.searchParams.delete("q");
      navigate(address, true);
    }, TYPING_DELAY_MS);
  });

  window.addEventListener("popstate", () => {
    showQuery(location.href);
    refresh();
  });

  // Clicks on a link of the filter, a copy button or a row.

  async function copy(element) {
    const text = element.dataset.copy ?? element.previousElementSibling.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Over plain http there is no clipboard API; the old command still works.
      const area = document.createElement("textarea");
      area.value = text;
      area.className = "visually-hidden";
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      element.focus();
    }
    element.classList.add("done");
    write(live, "Copied");
    setTimeout(() => {
      element.classList.remove("done");
      if (live.textContent === "Copied") write(live, state());
    }, 1200);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".copy");
    if (button) {
      copy(button);
      return;
    }
    const link = event.target.closest("main a");
    if (link && !still) {
      const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey;
      if (plain && link.pathname === location.pathname && !link.hash) {
        event.preventDefault();
        navigate(link.href, false);
        showQuery(link.href);
        if (!link.closest(".chips")) document.getElementById("remediations")?.scrollIntoView();
      }
      return;
    }
    const row = event.target.closest(".row");
    const busy = event.target.closest("summary, details, a, button") || !getSelection().isCollapsed;
    if (row && !busy) {
      const details = row.querySelector(".opener");
      details.open = !details.open;
    }
  });

  main.addEventListener(
    "toggle",
    (event) => {
      const { key } = event.target.dataset;
      if (!key || !event.target.isConnected) return;
      if (event.target.open === served.get(key)) chosen.delete(key);
      else chosen.set(key, event.target.open);
    },
    true,
  );

  readServed(main);

  // A fragment that names a Job opens its row.
  const linked = document.getElementById(location.hash.slice(1));
  linked?.querySelector?.("details.opener")?.setAttribute("open", "");

  // The key / leads to the search field; who speaks to the computer can switch it off.

  const SHORTCUT_KEY = "openfero-shortcut";
  const shortcut = document.getElementById("shortcut");

  function readShortcut() {
    try {
      return localStorage.getItem(SHORTCUT_KEY) !== "off";
    } catch {
      return true;
    }
  }

  let hasShortcut = readShortcut();
  shortcut.setAttribute("aria-pressed", String(hasShortcut));
  shortcut.addEventListener("click", () => {
    hasShortcut = !hasShortcut;
    shortcut.setAttribute("aria-pressed", String(hasShortcut));
    try {
      localStorage.setItem(SHORTCUT_KEY, hasShortcut ? "on" : "off");
    } catch {
      // The choice holds until the page is left.
    }
  });
  document.addEventListener("keydown", (event) => {
    const writing = event.target.closest("input, textarea, select, [contenteditable]");
    const field = document.getElementById("q");
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!hasShortcut || writing || !field) return;
    event.preventDefault();
    field.focus();
    field.select();
  });

  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  document.getElementById("zone").textContent = zone;
  document.getElementById("zone-note").hidden = /^(Etc\/)?UTC$/.test(zone);
  showLocalTimes();
  root.classList.add("js");
  showReachable();
  setInterval(tick, 1000);
  schedule(POLL_MS);
  listen();
})();
