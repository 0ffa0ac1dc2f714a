// A picture that is clicked opens as large as the window; once more, and it is twice that.
"use strict";
(() => {
  const dialog = document.createElement("dialog");
  dialog.className = "large";
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "Close";
  const picture = document.createElement("img");
  dialog.append(close, picture);
  document.body.append(dialog);
  close.addEventListener("click", () => dialog.close());
  picture.addEventListener("click", () => picture.classList.toggle("twice"));

  for (const image of document.querySelectorAll("figure img")) {
    image.tabIndex = 0;
    image.setAttribute("role", "button");
    image.title = "Click to enlarge";
    const open = () => {
      picture.src = image.src;
      picture.alt = image.alt;
      picture.classList.remove("twice");
      dialog.showModal();
    };
    image.addEventListener("click", open);
    image.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      open();
    });
  }
})();
