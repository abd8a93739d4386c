"use strict";
// Theme, the walk through the pairs, and the splits shown; the map listens through `geograft.shown`.
const geograft = { hidden: new Set(), listeners: [], current: 0 };
{
  const root = document.documentElement, theme = document.getElementById("theme");
  const setTheme = (name) => { root.dataset.theme = name; theme.textContent = name === "dark" ? "Light" : "Dark"; geograft.listeners.forEach((listen) => listen()); };
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  theme.addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));

  const pairs = [...document.querySelectorAll("article.pair")], buttons = [...document.querySelectorAll(".strip button")];
  const position = document.getElementById("position"), none = document.getElementById("none-shown");
  let current = 0;
  const open = () => pairs.filter((pair) => !geograft.hidden.has(pair.dataset.split));
  geograft.show = (place, scroll) => {
    if (!pairs.length) return;
    const shown = open();
    if (shown.length && !shown.includes(pairs[place])) place = pairs.indexOf(shown.find((pair) => pairs.indexOf(pair) >= place) || shown[0]);
    current = geograft.current = place;
    geograft.opened?.(pairs[place].dataset.chip);
    pairs.forEach((pair, index) => { pair.hidden = index !== place || !shown.length; });
    buttons.forEach((button, index) => {
      button.setAttribute("aria-current", index === place);
      button.hidden = !shown.includes(pairs[index]);
      if (index === place && scroll) button.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
    none.hidden = shown.length > 0;
    position.textContent = shown.length ? `${shown.indexOf(pairs[place]) + 1} of ${shown.length} ` : "";
  };
  const step = (by) => {
    const shown = open();
    if (shown.length) geograft.show(pairs.indexOf(shown[(shown.indexOf(pairs[current]) + by + shown.length) % shown.length]), true);
  };
  buttons.forEach((button, index) => button.addEventListener("click", () => geograft.show(index, true)));
  document.getElementById("next")?.addEventListener("click", () => step(1));
  document.getElementById("previous")?.addEventListener("click", () => step(-1));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea")) return;
    if (event.key === "n") step(1);
    if (event.key === "p") step(-1);
  });

  document.querySelectorAll(".filter").forEach((button) => button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true", name = button.dataset.split;
    button.setAttribute("aria-pressed", on);
    if (on) geograft.hidden.delete(name); else geograft.hidden.add(name);
    geograft.show(current, false);
    geograft.listeners.forEach((listen) => listen());
  }));

  pairs.forEach((pair) => pair.addEventListener("pointerover", (event) => {
    const lit = event.target.closest("[data-n]")?.dataset.n;
    pair.querySelector(`svg [data-n="${Number(lit)}"]:not(.lit)`)?.parentNode.append(pair.querySelector(`svg [data-n="${Number(lit)}"]`));
    pair.querySelectorAll("[data-n]").forEach((part) => part.classList.toggle("lit", part.dataset.n === lit));
  }));
  geograft.show(0, false);
}
