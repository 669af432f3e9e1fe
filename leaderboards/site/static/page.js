"use strict";
// On every page: the theme, copy buttons, and how elements are made. Text goes into pages as
// text nodes alone; nothing here or elsewhere parses HTML.
window.treegrpo = {};
(() => {
  const app = window.treegrpo;
  const root = document.documentElement;
  const SVG = "http://www.w3.org/2000/svg";

  const build = (element, attributes, children) => {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (typeof value === "function") element.addEventListener(name, value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
  };
  // el("a", { href: "x", click: act }, "text", child): functions become listeners.
  app.el = (name, attributes, ...children) => build(document.createElement(name), attributes, children);
  app.svg = (name, attributes, ...children) =>
    build(document.createElementNS(SVG, name), attributes, children);

  // Storage may be closed to a page (private windows, some file: pages): then nothing is kept.
  const stored = (act) => {
    try { return act(window.localStorage); } catch { return null; }
  };
  const isDark = () => {
    const chosen = root.dataset.theme;
    return chosen ? chosen === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const known = stored((storage) => storage.getItem("theme"));
  if (known === "light" || known === "dark") root.dataset.theme = known;
  root.classList.add("js");

  const label = (button) => {
    button.textContent = isDark() ? "Switch to light" : "Switch to dark";
  };

  // The right edge of a box fades while something lies beyond it.
  const fade = (box) => {
    const look = () => box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
    box.addEventListener("scroll", look, { passive: true });
    const watcher = new ResizeObserver(look);
    watcher.observe(box);
    watcher.observe(box.firstElementChild);
  };

  // Copies a text; where the page may not, the text is shown selected, to be copied by hand.
  app.copy = async (text, button) => {
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      window.setTimeout(() => { button.textContent = before; }, 1500);
    } catch {
      const field = app.el("input", { class: "copy-field", readonly: true, value: text, "aria-label": "Copy this" });
      button.after(field);
      field.select();
      field.addEventListener("blur", () => field.remove());
    }
  };

  document.addEventListener("DOMContentLoaded", () => {
    const theme = document.getElementById("theme");
    if (theme) {
      label(theme);
      theme.addEventListener("click", () => {
        root.dataset.theme = isDark() ? "light" : "dark";
        stored((storage) => storage.setItem("theme", root.dataset.theme));
        label(theme);
      });
      window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => label(theme));
    }
    document.querySelectorAll(".scroll, .table").forEach(fade);
    for (const button of document.querySelectorAll("button[data-copy]")) {
      const source = document.getElementById(button.dataset.copy);
      button.addEventListener("click", () => app.copy(source.textContent, button));
    }
  });
})();
