// Applies the reader's choice of light or dark before the page is drawn, so that nothing flashes.
// Without a choice, and without JavaScript, the preference of the browser counts.
"use strict";

(() => {
  const KEY = "openfero-theme";
  const CHOICES = ["auto", "light", "dark"];
  const root = document.documentElement;

  function read() {
    try {
      const choice = localStorage.getItem(KEY);
      return CHOICES.includes(choice) ? choice : "auto";
    } catch {
      return "auto"; // storage is not allowed
    }
  }

  function apply(choice) {
    if (choice === "auto") delete root.dataset.theme;
    else root.dataset.theme = choice;
    const button = document.getElementById("theme");
    if (button) button.querySelector(".choice").textContent = choice;
  }

  apply(read());
  addEventListener("storage", (event) => {
    if (event.key === KEY) apply(read());
  });
  document.addEventListener("DOMContentLoaded", () => {
    apply(read());
    document.getElementById("theme").addEventListener("click", () => {
      const choice = CHOICES[(CHOICES.indexOf(root.dataset.theme ?? "auto") + 1) % CHOICES.length];
      try {
        localStorage.setItem(KEY, choice);
      } catch {
        // The choice holds until the page is left.
      }
      apply(choice);
    });
  });
})();
