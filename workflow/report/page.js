(() => {
  "use strict";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);

  // Sort by the cells' data-v; what is missing stays last in both directions.
  const compare = (x, y, down) => {
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return down ? -order : order;
  };
  for (const head of all(".sortable th[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(head.firstChild);
    head.prepend(button);
    button.onclick = () => {
      const body = head.closest("table").tBodies[0];
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of all("th[aria-sort]", head.parentNode)) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => {
        let left = head.cellIndex;
        return [...row.cells].find((cell) => (left -= cell.colSpan) < 0).dataset.v;
      };
      body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b), down)));
    };
  }

  // Show the rows that hold the searched words and match every select.
  for (const form of all(".filters")) {
    const rows = all("tbody tr", byId(form.dataset.table));
    const search = form.querySelector("input");
    const update = () => {
      const words = search.value.toLowerCase().split(/\s+/);
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((w) => text.includes(w)) ||
          all("select", form).some((s) => s.value && !row.dataset[s.dataset.key].split(" ").includes(s.value));
      }
      const shown = rows.filter((row) => !row.hidden).length;
      form.querySelector("[role=status]").textContent = `${shown} of ${rows.length} ${form.dataset.what} shown`;
    };
    form.oninput = form.onchange = update;
    form.hidden = false;
    update();
  }

  // Download a table of the page; a text that a spreadsheet would run as a formula is quoted.
  const field = (value) => {
    const text = value === null ? "" : String(value);
    const safe = typeof value === "string" && /^[=+@\t\r-]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  for (const button of all("[data-csv]")) {
    button.hidden = false;
    button.onclick = () => {
      const { columns, rows } = JSON.parse(byId(`data-${button.dataset.csv}`).textContent);
      const csv = [columns, ...rows].map((row) => row.map(field).join(",")).join("\r\n");
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([csv], { type: "text/csv" }));
      link.download = button.dataset.file;
      link.click();
      URL.revokeObjectURL(link.href);
    };
  }

  // A link into something folded unfolds it.
  const reveal = () => {
    const target = byId(decodeURIComponent(location.hash.slice(1)));
    for (let node = target; node; node = node.parentElement) if (node.open === false) node.open = true;
    target?.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  if (location.hash) reveal();
})();
