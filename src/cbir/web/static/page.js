// Enhances forms that work without this file: drop, paste, preview, progress, drawing a part.
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

// A part of the query's picture is drawn on it; the field holds it as fractions.
(() => {
  "use strict";
  const mat = document.querySelector(".mat-query");
  const field = document.querySelector(".refine input[name=region]");
  if (!mat || !field) return;
  const NONE = 0.02; // a shorter side is a click, which takes the whole picture again
  const width = Number(mat.dataset.width);
  const height = Number(mat.dataset.height);
  let from = null;

  const svg = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  function draw() {
    mat.querySelector(".box")?.remove();
    const edges = field.value.split(",").map(Number);
    if (edges.length !== 4 || !edges.every((edge) => edge >= 0 && edge <= 1)) return;
    const [left, top, right, bottom] = edges;
    if (left >= right || top >= bottom) return;
    const box = svg("svg", {class: "box", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true"});
    box.append(svg("rect", {x: left * width, y: top * height,
      width: (right - left) * width, height: (bottom - top) * height}));
    mat.append(box);
  }

  // Where the pointer is in the picture, which is fitted into its mat, as fractions.
  function at(event) {
    const frame = mat.getBoundingClientRect();
    const scale = Math.min(frame.width / width, frame.height / height);
    return [
      (event.clientX - frame.left - (frame.width - width * scale) / 2) / (width * scale),
      (event.clientY - frame.top - (frame.height - height * scale) / 2) / (height * scale),
    ].map((value) => Math.min(1, Math.max(0, value)));
  }

  mat.classList.add("is-drawable");
  mat.addEventListener("dragstart", (event) => event.preventDefault());
  mat.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    from = at(event);
    mat.setPointerCapture(event.pointerId);
  });
  mat.addEventListener("pointermove", (event) => {
    if (!from) return;
    const to = at(event);
    const small = Math.min(Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1])) < NONE;
    const edges = [Math.min(from[0], to[0]), Math.min(from[1], to[1]),
      Math.max(from[0], to[0]), Math.max(from[1], to[1])];
    field.value = small ? "" : edges.map((edge) => Number(edge.toFixed(3))).join(",");
    draw();
  });
  mat.addEventListener("pointerup", (event) => {
    if (!from) return;
    const [x, y] = at(event);
    if (Math.min(Math.abs(x - from[0]), Math.abs(y - from[1])) < NONE) field.value = "";
    from = null;
    draw();
  });
  mat.addEventListener("pointercancel", () => { from = null; });
  field.addEventListener("input", draw);
  addEventListener("pageshow", draw);
})();

// The verified hits come below those by score, and hide them. If the page ends without them, because
// it was stopped or the server went away, nothing is compared any more.
document.addEventListener("readystatechange", () => {
  "use strict";
  const note = document.querySelector(".answers:last-of-type .comparing");
  if (document.readyState !== "complete" || !note) return;
  note.classList.remove("comparing");
  note.textContent = "Not compared: the page was stopped. Search again to compare the pictures.";
});
