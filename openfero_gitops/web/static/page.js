// The page, kept true: it is fetched again every few seconds, and what differs is changed in
// place, so that open rows, the focus, a selection and the scroll position stay. Without this
// script everything can be read all the same.
"use strict";

(() => {
  const EVERY = 5000; // milliseconds between two looks
  const PATIENCE = 8000; // for one answer
  const TYPING = 200; // until the filter follows what is typed

  const root = document.documentElement;
  const main = document.getElementById("main");
  const live = document.getElementById("live");
  const seen = document.getElementById("seen");
  const unreachable = document.getElementById("unreachable");
  const button = document.getElementById("refresh");

  const open = new Set(); // keys of rows that were opened, also of those a filter hides
  let wanted = true; // auto-refresh, as the reader chose
  let drawn = main.dataset.now; // the controller's time of what is shown
  let ahead = Date.parse(drawn) - Date.now(); // its clock against this one
  let lostSince = null;
  let timer = 0;
  let asking = null;
  let shown = location.search; // the filter of what is shown
  let marking = false; // whether what is added has come, not only been filtered in

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
    const seconds = (Date.now() + ahead - Date.parse(at)) / 1000;
    if (Number.isNaN(seconds)) return "";
    return seconds < 0 ? `in ${span(-seconds)}` : `${span(seconds)} ago`;
  }

  function write(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function tick() {
    for (const element of document.querySelectorAll(".age")) write(element, age(element.dataset.at));
    if (lostSince !== null) write(unreachable.querySelector(".lost-for"), age(lostSince));
  }

  // Drawing: make `from` equal to `to`, touching only what differs. Elements with an id are
  // found again wherever they went. What the reader opened stays open.

  function same(a, b) {
    return a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.id || "") === (b.id || "");
  }

  function morph(from, to) {
    if (from.nodeType === Node.TEXT_NODE) {
      if (from.data !== to.data) from.data = to.data;
      return;
    }
    if (from.nodeType !== Node.ELEMENT_NODE) return;
    for (const { name, value } of [...to.attributes]) {
      if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    }
    for (const { name } of [...from.attributes]) {
      if (name !== "open" && !to.hasAttribute(name)) from.removeAttribute(name);
    }
    if (to.classList.contains("age")) return; // the clock here writes these

    const stay = new Set([...to.children].map((child) => child.id).filter(Boolean));
    const known = new Map();
    for (const child of [...from.children]) {
      if (!child.id) continue;
      if (stay.has(child.id)) known.set(child.id, child);
      else child.remove();
    }
    let next = from.firstChild;
    for (const child of [...to.childNodes]) {
      const match = child.id ? known.get(child.id) : next && same(next, child) ? next : null;
      if (!match) {
        const added = document.importNode(child, true);
        if (marking) added.classList?.add("new");
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

  function draw(text) {
    const page = new DOMParser().parseFromString(text, "text/html");
    const fresh = page.getElementById("main");
    if (!fresh) throw new Error("something else answered");
    if (page.documentElement.dataset.assets !== root.dataset.assets) {
      location.reload(); // another release: its markup wants its own style and script
      return;
    }
    drawn = fresh.dataset.now;
    ahead = Date.parse(drawn) - Date.now();
    marking = shown === location.search;
    shown = location.search;
    for (const part of document.querySelectorAll("[data-live]")) {
      morph(part, page.getElementById(part.id));
    }
    document.title = page.title;
    for (const details of main.querySelectorAll("details[data-key]")) {
      if (open.has(details.dataset.key)) details.open = true;
    }
    seen.querySelector(".age").dataset.at = drawn;
    tick();
  }

  // Asking

  function state() {
    if (lostSince !== null) return "Unreachable";
    return wanted ? "Live" : "Not refreshed";
  }

  function found() {
    lostSince = null;
    unreachable.hidden = true;
    root.classList.remove("lost");
    root.classList.toggle("fresh", wanted);
    write(live, state());
  }

  function lost(why) {
    if (lostSince === null) {
      lostSince = new Date(Date.now() + ahead).toISOString();
      unreachable.replaceChildren(
        "The controller cannot be reached since ",
        Object.assign(document.createElement("span"), { className: "lost-for" }),
        ` (${why}). What is shown is as of ${drawn}; it is tried again every ${EVERY / 1000} s.`,
      );
      unreachable.hidden = false;
      document.title = `unreachable · ${document.title}`;
    }
    root.classList.remove("fresh");
    root.classList.add("lost");
    write(live, state());
    tick();
  }

  async function look() {
    clearTimeout(timer);
    asking?.abort();
    const mine = (asking = new AbortController());
    const deadline = setTimeout(() => mine.abort(), PATIENCE);
    try {
      // Not a relative address: it would carry the credentials of an address that has some.
      const answer = await fetch(location.origin + location.pathname + location.search, {
        cache: "no-store",
        signal: mine.signal,
      });
      if (!answer.ok) throw new Error(`it answered ${answer.status} ${answer.statusText}`);
      const text = await answer.text();
      if (mine !== asking) return;
      draw(text);
      found();
    } catch (error) {
      if (mine !== asking) return; // a later question took its place
      lost(mine.signal.aborted ? `no answer in ${PATIENCE / 1000} s` : error.message);
    } finally {
      clearTimeout(deadline);
      if (mine === asking) plan();
    }
  }

  function plan() {
    clearTimeout(timer);
    if (wanted && !document.hidden) timer = setTimeout(look, EVERY);
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else if (wanted) look();
  });

  button.addEventListener("click", () => {
    wanted = !wanted;
    button.setAttribute("aria-pressed", String(wanted));
    if (wanted) look();
    else {
      clearTimeout(timer);
      if (lostSince === null) found();
    }
  });

  // The filter: it lives in the address.

  function go(address, replace) {
    if (replace) history.replaceState(null, "", address);
    else history.pushState(null, "", address);
    look();
  }

  let typing = 0;
  main.addEventListener("input", (event) => {
    if (event.target.id !== "q") return;
    clearTimeout(typing);
    typing = setTimeout(() => {
      const address = new URL(location.href);
      if (event.target.value.trim()) address.searchParams.set("q", event.target.value);
      else address.searchParams.delete("q");
      go(address, true);
    }, TYPING);
  });

  window.addEventListener("popstate", () => {
    document.getElementById("q").value = new URL(location.href).searchParams.get("q") ?? "";
    look();
  });

  // Clicks: a filter's link, a copy button, a row.

  async function copy(element) {
    const text = element.dataset.copy ?? element.previousElementSibling.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // No clipboard where the page came over plain http: the old way still works there.
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
    if (link) {
      const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey;
      if (plain && link.pathname === location.pathname && !link.hash) {
        event.preventDefault();
        go(link.href, false);
        document.getElementById("q").value = new URL(link.href).searchParams.get("q") ?? "";
        if (!link.closest(".chips")) document.getElementById("remediations").scrollIntoView();
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
      const key = event.target.dataset.key;
      if (key && event.target.open) open.add(key);
      else if (key && event.target.isConnected) open.delete(key);
    },
    true,
  );

  // An address that ends in a Job's name opens its row.
  const named = document.getElementById(location.hash.slice(1));
  named?.querySelector?.("details.opener")?.setAttribute("open", "");

  root.classList.add("js");
  found();
  setInterval(tick, 1000);
  plan();
})();
