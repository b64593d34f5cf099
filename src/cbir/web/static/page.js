// Enhances a form that works without this file: drop, paste, preview, progress.
(() => {
  "use strict";
  const form = document.querySelector("form.upload");
  if (!form) return;

  const input = form.querySelector("input[type=file]");
  const preview = form.querySelector(".drop-preview");
  const notice = form.querySelector(".notice-local");
  const status = form.querySelector(".drop-status");
  const limit = Number(form.dataset.maxBytes);
  const root = document.documentElement;
  root.classList.add("js");

  function refuse(message) {
    notice.textContent = message;
    notice.hidden = false;
    input.value = "";
    form.classList.remove("has-picture");
    preview.hidden = true;
  }

  function show(file) {
    if (preview.src) URL.revokeObjectURL(preview.src);
    preview.hidden = true; // stays hidden for types that this browser cannot show
    preview.onload = () => { preview.hidden = false; };
    preview.src = URL.createObjectURL(file);
    form.classList.add("has-picture");
  }

  // Submits the chosen file, unless it is too large to be accepted.
  function send() {
    const file = input.files[0];
    if (!file) return;
    if (file.size > limit) {
      refuse(`${file.name} is larger than ${Math.floor(limit / 1048576)} MB. Choose a smaller file.`);
      return;
    }
    notice.hidden = true;
    show(file);
    form.requestSubmit();
  }

  function take(files) {
    if (!files || files.length === 0) return;
    const chosen = new DataTransfer();
    chosen.items.add(files[0]);
    input.files = chosen.files;
    send();
  }

  input.addEventListener("change", send);

  form.addEventListener("submit", () => {
    form.classList.add("is-busy");
    form.setAttribute("aria-busy", "true");
    status.textContent = "Searching…";
  });

  // On back navigation, the browser may restore the page with its picture.
  addEventListener("pageshow", () => {
    if (input.files.length) show(input.files[0]);
    form.classList.remove("is-busy");
    form.removeAttribute("aria-busy");
    status.textContent = "";
  });

  const carriesFiles = (event) => event.dataTransfer && event.dataTransfer.types.includes("Files");
  let depth = 0; // dragenter and dragleave fire for every nested element
  addEventListener("dragenter", (event) => {
    if (!carriesFiles(event)) return;
    depth += 1;
    root.classList.add("is-dragging");
  });
  addEventListener("dragleave", (event) => {
    if (!carriesFiles(event)) return;
    depth -= 1;
    if (depth <= 0) root.classList.remove("is-dragging");
  });
  addEventListener("dragover", (event) => {
    if (carriesFiles(event)) event.preventDefault();
  });
  addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    depth = 0;
    root.classList.remove("is-dragging");
    take(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData && event.clipboardData.files.length) {
      event.preventDefault();
      take(event.clipboardData.files);
    }
  });
})();
