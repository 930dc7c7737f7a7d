// Names for screen readers, where Django's fields have none: those that complete names, and search.
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
  addEventListener("load", tellAll);
  // A line was added to a list of lines; Django is still making its fields.
  document.addEventListener("formset:added", () => setTimeout(tellAll));
})();
