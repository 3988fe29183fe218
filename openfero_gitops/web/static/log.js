// Follows the log of a container: appends what the controller sends to the text that is shown.
"use strict";

(() => {
  const MAX_CHARACTERS = 512 * 1024; // that are kept; older ones are dropped
  const RETRY_MS = 3000;
  // The same characters that the page replaces by their code; colors of terminals are dropped.
  const COLORS = /\u001b\[[0-9;]*m/g;
  const INVISIBLE =
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

  const following = new Map(); // AbortController by the button's log

  function visible(text) {
    return text
      .replace(COLORS, "")
      .replace(/\r\n/g, "\n")
      .replace(INVISIBLE, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
  }

  function append(pre, text) {
    const atEnd = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 20;
    pre.append(visible(text));
    while (pre.textContent.length > MAX_CHARACTERS && pre.childNodes.length > 1) pre.firstChild.remove();
    if (atEnd) pre.scrollTop = pre.scrollHeight;
  }

  async function follow(log, button) {
    const stop = new AbortController();
    following.set(log, stop);
    log.dataset.keep = "";
    button.setAttribute("aria-pressed", "true");
    button.textContent = "Following";
    const pre = log.querySelector("pre");
    pre.hidden = false;
    try {
      const address = new URL(log.dataset.log, location.origin + location.pathname);
      address.searchParams.set("follow", "true");
      const response = await fetch(address, { signal: stop.signal, cache: "no-store" });
      if (!response.ok) {
        const problem = await response.json().catch(() => ({}));
        throw new Error(problem.detail ?? `HTTP ${response.status}`);
      }
      pre.textContent = "";
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        append(pre, value);
      }
      append(pre, "\n(end of the log)\n");
    } catch (error) {
      if (!stop.signal.aborted) append(pre, `\n(the log cannot be followed: ${error.message})\n`);
    } finally {
      following.delete(log);
      button.setAttribute("aria-pressed", "false");
      button.textContent = "Follow";
      setTimeout(() => {
        if (!following.has(log)) delete log.dataset.keep;
      }, RETRY_MS);
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".follow");
    if (!button) return;
    const log = button.closest("[data-log]");
    if (following.has(log)) following.get(log).abort();
    else follow(log, button);
  });

  window.addEventListener("pagehide", () => {
    for (const stop of following.values()) stop.abort();
  });

  // A page that is printed says where it is from, and when it was printed.
  function stamp() {
    const address = document.querySelector(".printed .address");
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    if (!address) return;
    address.textContent = ` Printed ${new Date().toISOString()} from ${location.href} Times are in ${zone}.`;
  }

  window.addEventListener("beforeprint", stamp);
  stamp();
})();
