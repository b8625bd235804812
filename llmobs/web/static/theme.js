// Runs before the first paint, so that a chosen theme doesn't flash; a module would run too late.
(() => {
  const asked = new URLSearchParams(location.search).get("theme");
  const chosen = asked === "dark" || asked === "light" ? asked : localStorage.getItem("llmobs-theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
})();
