// Buttons that copy a text; the old way too, since pages opened from a disk may lack the new one.
"use strict";
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const area = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(area.value);
    } catch {
      area.hidden = false;
      area.select();
      document.execCommand("copy");
      area.hidden = true;
    }
    button.textContent = "Copied";
  });
}
