"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);

  // Reveal and hide: one item at a time, by button, or by a click on its pictures.
  const show = (card, on) => {
    card.classList.toggle("revealed", on);
    const button = card.querySelector("button.reveal");
    button.setAttribute("aria-expanded", String(on));
    button.textContent = on ? "Hide" : "Reveal";
  };
  const hideAll = () => all(".card.revealed").forEach((card) => show(card, false));
  for (const card of all(".card")) {
    card.querySelector("button.reveal").addEventListener("click", () => show(card, !card.classList.contains("revealed")));
    const strip = card.querySelector(".strip");
    if (strip) strip.addEventListener("click", () => show(card, true));
  }
  const hideButton = byId("hide-all");
  if (hideButton) hideButton.addEventListener("click", hideAll);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "Escape" || (event.key === "h" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey)) hideAll();
  });
  const grey = byId("greyscale");
  if (grey) grey.addEventListener("click", () => {
    grey.setAttribute("aria-pressed", String(document.body.classList.toggle("greyscale")));
  });

  // Filters: an item stays when one of its answers under the chosen arm has the chosen outcome.
  const fields = all("[data-filter]");
  const text = byId("filter-text");
  const words = new Map(all(".card").map((card) => [card, card.textContent.toLowerCase()]));
  const apply = () => {
    const chosen = Object.fromEntries(fields.map((field) => [field.dataset.filter, field.value]));
    const needle = text.value.trim().toLowerCase();
    let shown = 0;
    for (const [card, content] of words) {
      const answers = all(".answer", card);
      for (const answer of answers) answer.hidden = Boolean(chosen.arm) && answer.dataset.arm !== chosen.arm;
      const fits = answers.some((answer) => !answer.hidden && (!chosen.outcome || answer.dataset.outcomes.split(" ").includes(chosen.outcome)));
      const same = ["subset", "language", "group"].every((key) => !chosen[key] || card.dataset[key] === chosen[key]);
      card.hidden = !(fits && same && content.includes(needle));
      shown += card.hidden ? 0 : 1;
    }
    byId("tally").textContent = `${shown} of ${words.size} embedded items match.`;
  };
  if (text) {
    [...fields, text].forEach((field) => field.addEventListener("input", apply));
    byId("filter-reset").addEventListener("click", () => { [...fields, text].forEach((field) => { field.value = ""; }); apply(); });
    apply();
  }

  // Charts: download with the page's colours written out, because a file has no page to take them from.
  for (const button of all("button[data-svg]")) {
    button.addEventListener("click", () => {
      const style = getComputedStyle(document.documentElement);
      const source = new XMLSerializer().serializeToString(button.closest("figure").querySelector("svg"));
      const plain = source.replace(/var\((--[a-z]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([plain], { type: "image/svg+xml" }));
      link.download = button.dataset.svg;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
})();
