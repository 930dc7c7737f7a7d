// What Django's pages lack for screen readers and keyboards: names of the fields that complete
// names and of the search field, and a way to scroll wide tables.
"use strict";
(() => {
  const nameOf = (select) => {
    const label = select.labels[0]?.textContent ?? "";
    return select.getAttribute("aria-label") || label.trim().replace(/:$/, "");
  };

  const tell = (select) => {
    const shown = select.nextElementSibling?.querySelector(".select2-selection__rendered");
    const chosen = select.selectedOptions[0]?.textContent.trim();
    shown?.setAttribute("aria-label", [nameOf(select), chosen].filter(Boolean).join(": "));
  };

  const tellAll = () => {
    for (const select of document.querySelectorAll("select.admin-autocomplete")) {
      tell(select);
      django.jQuery(select).off("change.name").on("change.name", () => tell(select));
    }
  };

  document.getElementById("searchbar")?.setAttribute("aria-label", "Search");
  for (const region of document.querySelectorAll(".results, .tabular.inline-related")) {
    if (region.scrollWidth > region.clientWidth) region.tabIndex = 0;
  }
  // Once Django has made its fields: it asked to be called earlier.
  globalThis.django?.jQuery?.(tellAll);
  // A line was added to a list of lines; Django is still making its fields.
  document.addEventListener("formset:added", () => setTimeout(tellAll));
})();
